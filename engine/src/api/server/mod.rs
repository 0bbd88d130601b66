//! The server of the REST API.
//!
//! Owns paths, the version prefix, query parameters, status codes and bodies. Everything that changes a container runs in
//! a task of its own, so that a client that goes away in the middle leaves nothing half-done. Refuses unknown paths with
//! 404 and Docker's features that are not there by name with 501.

mod attach;
mod containers;
mod exec;
mod hijack;
mod images;
mod logs;
mod query;
mod reply;
mod system;
mod view;

use super::types::{API_VERSION, MIN_API_VERSION};
use crate::engine::Engine;
use crate::error::{Error, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use reply::Failure;
use std::sync::Arc;
use tower::ServiceExt;

/// The largest body that is read into memory.
const MAX_BODY: usize = 4 << 20;

/// The whole API.
pub fn router(engine: Arc<Engine>) -> Router {
    let versioned = routes().with_state(engine);
    Router::new().fallback(move |request: Request| dispatch(versioned.clone(), request))
}

fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(system::events))
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/images/json", get(images::list))
        .route("/images/create", post(images::create))
        .route(
            "/images/{*name}",
            get(images::get).post(images::post).delete(images::remove),
        )
        .route("/auth", any(|| not_there("POST /auth")))
        .route("/build", any(|| not_there("building images")))
        .route("/session", any(|| not_there("build sessions")))
        .route("/commit", any(|| not_there("committing containers")))
        .route("/networks", any(|| not_there("networks")))
        .route("/networks/{*rest}", any(|| not_there("networks")))
        .route("/volumes", any(|| not_there("volumes")))
        .route("/volumes/{*rest}", any(|| not_there("volumes")))
        .route("/plugins", any(|| not_there("plugins")))
        .route("/plugins/{*rest}", any(|| not_there("plugins")))
        .route("/swarm", any(|| not_there("swarm mode")))
        .route("/system/df", any(|| not_there("disk usage")))
        .route("/containers/{id}/archive", any(|| not_there("copying files")))
        .route(
            "/containers/{id}/attach/ws",
            any(|| not_there("attaching by WebSocket")),
        )
        .route("/containers/{id}/changes", any(|| not_there("listing changes")))
        .route(
            "/containers/{id}/export",
            any(|| not_there("exporting containers")),
        )
        .route("/containers/{id}/stats", any(|| not_there("statistics")))
        .route("/containers/{id}/update", any(|| not_there("updating limits")))
        .fallback(|| async { Failure::from(Error::not_found("page not found")) })
}

async fn not_there(what: &'static str) -> Failure {
    Error::not_supported(what).into()
}

async fn dispatch(routes: Router, mut request: Request) -> Response {
    let mut response = match strip_version(request.uri()) {
        Ok(None) => call(routes, request).await,
        Ok(Some(uri)) => {
            *request.uri_mut() = uri;
            call(routes, request).await
        }
        Err(error) => Failure::from(error).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static(API_VERSION));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert(
        "Server",
        HeaderValue::from_static(concat!("Wharf/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    response
}

async fn call(routes: Router, request: Request<Body>) -> Response {
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

// The path without its `/v1.NN`; `None` when it has none.
fn strip_version(uri: &Uri) -> Result<Option<Uri>> {
    let path = uri.path();
    let Some((version, rest)) = path.strip_prefix("/v").and_then(|tail| tail.split_once('/')) else {
        return Ok(None);
    };
    let Some(asked) = parse_version(version) else {
        return Ok(None);
    };
    if parse_version(MIN_API_VERSION).is_some_and(|oldest| asked < oldest) {
        let message = format!(
            "client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
        );
        return Err(Error::invalid(message));
    }
    if parse_version(API_VERSION).is_some_and(|newest| asked > newest) {
        let message =
            format!("client version {version} is too new. Maximum supported API version is {API_VERSION}");
        return Err(Error::invalid(message));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let stripped = format!("/{rest}{query}").parse();
    stripped
        .map(Some)
        .map_err(|error| Error::invalid(format!("invalid path: {error}")))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_off() {
        let strip = |uri: &'static str| {
            strip_version(&Uri::from_static(uri)).map(|uri| uri.map(|uri| uri.to_string()))
        };
        assert_eq!(strip("/v1.44/info").unwrap().as_deref(), Some("/info"));
        assert_eq!(
            strip("/v1.24/a/b?c=d%20e").unwrap().as_deref(),
            Some("/a/b?c=d%20e")
        );
        assert_eq!(strip("/version").unwrap(), None);
        assert_eq!(strip("/volumes/x").unwrap(), None);
        assert!(strip("/v1.45/info").is_err());
        assert!(strip("/v1.9/info").is_err());
    }
}
