//! `/images/…`.

use super::query::Query;
use super::reply::{Reply, json_lines};
use crate::api::refuse;
use crate::api::types::{ImageSummary, JsonError, Progress};
use crate::engine::{Engine, SNAPSHOTTER};
use crate::error::{Error, Result};
use crate::image::reference::Reference;
use crate::supervisor::RegistryAuth;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type Shared = State<Arc<Engine>>;

/// `GET /images/json`.
pub async fn list(State(engine): Shared, uri: Uri) -> Reply<Json<Vec<ImageSummary>>> {
    let query = Query::of(&uri);
    refuse::query(query.iter(), &["manifests"])?;
    let filters = query.filters(&["reference", "label", "dangling"])?;
    let mut list = engine.images.list().await?;
    list.retain(|image| {
        filters.pass("reference", |wanted| {
            image.repo_tags.iter().any(|tag| matches(tag, wanted))
        }) && filters.pass("dangling", |wanted| {
            image.repo_tags.is_empty() == matches!(wanted, "true" | "1")
        }) && filters.pass_labels(&image.labels)
    });
    Ok(Json(list))
}

// A reference filter is a name with or without tag, or a pattern with `*`.
fn matches(tag: &str, wanted: &str) -> bool {
    let name = tag.rsplit_once(':').map_or(tag, |(name, _)| name);
    glob(wanted, tag) || glob(wanted, name)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            // A star does not cross a slash.
            let reach = tail.find('/').unwrap_or(tail.len());
            (0..=reach)
                .filter(|index| tail.is_char_boundary(*index))
                .any(|index| glob(rest, &tail[index..]))
        }),
    }
}

/// `POST /images/create`: a pull.
pub async fn create(State(engine): Shared, uri: Uri, headers: HeaderMap) -> Reply<Response> {
    let query = Query::of(&uri);
    refuse::query(query.iter(), &["fromSrc", "repo", "changes"])?;
    let platform = query.get("platform");
    let own = engine.images.platform();
    if !platform.is_empty() && platform != format!("{}/{}", own.os, own.architecture) {
        return Err(Error::not_supported(format!("the platform {platform:?}")).into());
    }
    let mut reference = Reference::parse(query.get("fromImage"))?;
    if !query.get("tag").is_empty() {
        reference = reference.with(query.get("tag"))?;
    }
    let auth = registry_auth(&headers)?;
    let (lines, receiver) = mpsc::channel(64);
    // The pull goes on when the client leaves; a second one finds what the first has brought.
    tokio::spawn(async move {
        match engine.images.pull(&reference, auth, SNAPSHOTTER, &lines).await {
            Ok(()) => {
                let name = reference.familiar();
                engine
                    .events
                    .publish("image", "pull", &name, [("name".to_owned(), name.clone())].into());
            }
            Err(error) => {
                lines.send(failure(&error)).await.ok();
            }
        }
    });
    // An error before the first line is an answer of its own, as clients expect.
    let mut receiver = receiver;
    let Some(first) = receiver.recv().await else {
        return Err(Error::system("the pull ended without a word").into());
    };
    Ok(json_lines(futures_util::StreamExt::chain(
        futures_util::stream::once(async { first }),
        ReceiverStream::new(receiver),
    )))
}

fn failure(error: &Error) -> Progress {
    let message = error.to_string();
    Progress {
        error: message.clone(),
        error_detail: Some(JsonError { message }),
        ..Default::default()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthConfig {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

// `X-Registry-Auth`: JSON in base64 of the URL alphabet.
fn registry_auth(headers: &HeaderMap) -> Result<Option<RegistryAuth>> {
    let Some(header) = headers.get("X-Registry-Auth").filter(|header| !header.is_empty()) else {
        return Ok(None);
    };
    let invalid = || Error::invalid("invalid X-Registry-Auth header");
    let text = header.to_str().map_err(|_| invalid())?.trim_end_matches('=');
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .or_else(|_| base64::engine::general_purpose::STANDARD_NO_PAD.decode(text))
        .map_err(|_| invalid())?;
    let config: AuthConfig = crate::api::types::decode(&bytes).map_err(|_| invalid())?;
    if !config.registrytoken.is_empty() {
        return Err(Error::not_supported("X-Registry-Auth: registrytoken"));
    }
    if !config.identitytoken.is_empty() {
        return Ok(Some(RegistryAuth {
            username: String::new(),
            secret: config.identitytoken,
        }));
    }
    if !config.username.is_empty() {
        return Ok(Some(RegistryAuth {
            username: config.username,
            secret: config.password,
        }));
    }
    if config.auth.is_empty() {
        return Ok(None);
    }
    let pair = base64::engine::general_purpose::STANDARD
        .decode(config.auth)
        .map_err(|_| invalid())?;
    let pair = String::from_utf8(pair).map_err(|_| invalid())?;
    let (username, secret) = pair.split_once(':').ok_or_else(invalid)?;
    Ok(Some(RegistryAuth {
        username: username.to_owned(),
        secret: secret.to_owned(),
    }))
}

/// `GET /images/{name}/…`: the name may have slashes, so the last part is taken off here.
pub async fn get(State(engine): Shared, Path(path): Path<String>, uri: Uri) -> Reply<Response> {
    refuse::query(Query::of(&uri).iter(), &["manifests"])?;
    if let Some(name) = path.strip_suffix("/json") {
        return Ok(Json(engine.images.inspect(name).await?).into_response());
    }
    if path.ends_with("/history") {
        return Err(Error::not_supported("image history").into());
    }
    if path == "search" {
        return Err(Error::not_supported("searching registries").into());
    }
    if path == "get" || path.ends_with("/get") {
        return Err(Error::not_supported("saving images").into());
    }
    Err(Error::not_found("page not found").into())
}

/// `POST /images/{name}/…`.
pub async fn post(State(engine): Shared, Path(path): Path<String>, uri: Uri) -> Reply<Response> {
    let query = Query::of(&uri);
    if let Some(name) = path.strip_suffix("/tag") {
        let mut reference = Reference::parse(query.get("repo"))?;
        if !query.get("tag").is_empty() {
            reference = reference.with(query.get("tag"))?;
        }
        engine.images.tag(name, &reference).await?;
        return Ok(StatusCode::CREATED.into_response());
    }
    let what = match path.as_str() {
        "load" => "loading images over the API",
        "prune" => "pruning images",
        path if path.ends_with("/push") => "pushing images",
        _ => return Err(Error::not_found("page not found").into()),
    };
    Err(Error::not_supported(what).into())
}

/// `DELETE /images/{name}`.
pub async fn remove(State(engine): Shared, Path(name): Path<String>, uri: Uri) -> Reply<Response> {
    let query = Query::of(&uri);
    refuse::query(query.iter(), &["noprune", "platforms"])?;
    let used = |id: &str| {
        engine
            .containers
            .all()
            .iter()
            .any(|container| container.with_record(|record| record.image_id == id))
    };
    let deleted = engine.images.remove(&name, query.flag("force"), used).await?;
    Ok(Json(deleted).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_filters_fit_as_in_docker() {
        assert!(matches("alpine:3.19", "alpine"));
        assert!(matches("alpine:3.19", "alpine:3.*"));
        assert!(matches("a.example/x/y:1", "a.example/*/y"));
        assert!(!matches("a.example/x/y:1", "a.example/*"));
        assert!(!matches("alpine:3", "alp"));
    }

    #[test]
    fn credentials_are_read() {
        let header = |json: &str| {
            let mut headers = HeaderMap::new();
            let text = base64::engine::general_purpose::URL_SAFE.encode(json);
            headers.insert("X-Registry-Auth", text.parse().unwrap());
            registry_auth(&headers)
        };
        let auth = header(r#"{"username":"u","password":"p"}"#).unwrap().unwrap();
        assert_eq!((auth.username.as_str(), auth.secret.as_str()), ("u", "p"));
        let auth = header(r#"{"auth":"dTpwOnE="}"#).unwrap().unwrap();
        assert_eq!((auth.username.as_str(), auth.secret.as_str()), ("u", "p:q"));
        assert!(header("{}").unwrap().is_none());
        assert!(header("1").is_err());
    }
}
