//! `/containers/…`, but for streams.

use super::query::Query;
use super::reply::{Reply, body, json_lines, to_the_end};
use super::view;
use crate::api::refuse;
use crate::api::types::{
    ContainerInspect, ContainerSummary, CreateRequest, CreateResponse, TopResponse, WaitResponse,
};
use crate::container::config::signal;
use crate::container::create::Request as NewContainer;
use crate::container::stop::{self, Condition};
use crate::engine::Engine;
use crate::error::{Error, Result};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<Engine>>;

/// `GET /containers/json`.
pub async fn list(State(engine): Shared, uri: Uri) -> Reply<Json<Vec<ContainerSummary>>> {
    let query = Query::of(&uri);
    refuse::query(query.iter(), &["size"])?;
    let filters = query.filters(&[
        "id", "name", "status", "label", "ancestor", "exited", "before", "since",
    ])?;
    for name in ["before", "since"] {
        if filters.has(name) {
            return Err(Error::not_supported(format!("the filter {name}")).into());
        }
    }
    let limit = query
        .number("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let all = query.flag("all") || limit.is_some() || filters.has("status") || filters.has("exited");
    let mut list = Vec::new();
    for container in engine.containers.all() {
        let record = container.record();
        let state = view::status_word(&record);
        let name = format!("/{}", record.name);
        let passes = (all || container.is_running())
            && filters.pass("id", |id| record.id.starts_with(id))
            && filters.pass("name", |wanted| {
                name.contains(wanted) || name.trim_start_matches('/') == wanted
            })
            && filters.pass("status", |wanted| state == wanted)
            && filters.pass("ancestor", |wanted| {
                record.config.image == wanted
                    || record
                        .image_id
                        .trim_start_matches("sha256:")
                        .starts_with(wanted.trim_start_matches("sha256:"))
            })
            && filters.pass("exited", |wanted| {
                state == "exited" && record.state.exit_code.to_string() == wanted
            })
            && filters.pass_labels(&record.config.labels);
        if passes {
            list.push(view::summary(&record));
        }
    }
    list.truncate(limit.unwrap_or(usize::MAX));
    Ok(Json(list))
}

/// `POST /containers/create`.
pub async fn create(State(engine): Shared, uri: Uri, request: Body) -> Reply<impl IntoResponse> {
    let query = Query::of(&uri);
    let platform = query.get("platform");
    let own = engine.images.platform();
    if !platform.is_empty() && platform != format!("{}/{}", own.os, own.architecture) && platform != own.os {
        return Err(Error::not_supported(format!("the platform {platform:?}")).into());
    }
    let mut request: CreateRequest = body(request).await?;
    refuse::create(&mut request)?;
    let name = Some(query.get("name"))
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    let wanted = NewContainer {
        name,
        config: request.config,
        host: request.host_config,
    };
    let container = to_the_end(&engine.operations.clone(), async move {
        engine.create_container(wanted).await
    })
    .await?;
    let created = CreateResponse {
        id: container.id.clone(),
        warnings: Vec::new(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// `GET /containers/{id}/json`.
pub async fn inspect(
    State(engine): Shared,
    Path(id): Path<String>,
    uri: Uri,
) -> Reply<Json<ContainerInspect>> {
    refuse::query(Query::of(&uri).iter(), &["size"])?;
    let container = engine.containers.find(&id)?;
    Ok(Json(view::inspect(&container)?))
}

/// `POST /containers/{id}/start`.
pub async fn start(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<StatusCode> {
    refuse::query(Query::of(&uri).iter(), &["checkpoint", "checkpoint-dir"])?;
    let container = engine.containers.find(&id)?;
    to_the_end(&engine.operations.clone(), async move {
        engine.start_container(&container).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn signal_of(query: &Query) -> Result<Option<u32>> {
    match query.get("signal") {
        "" => Ok(None),
        text => signal::parse(text).map(Some),
    }
}

/// `POST /containers/{id}/stop`.
pub async fn stop(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<StatusCode> {
    let query = Query::of(&uri);
    let (signal, timeout) = (signal_of(&query)?, query.number("t")?);
    let container = engine.containers.find(&id)?;
    to_the_end(&engine.operations.clone(), async move {
        engine.stop_container(&container, signal, timeout).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/restart`.
pub async fn restart(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<StatusCode> {
    let query = Query::of(&uri);
    let (signal, timeout) = (signal_of(&query)?, query.number("t")?);
    let container = engine.containers.find(&id)?;
    to_the_end(&engine.operations.clone(), async move {
        engine.restart_container(&container, signal, timeout).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/kill`.
pub async fn kill(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<StatusCode> {
    let number = signal_of(&Query::of(&uri))?.unwrap_or(signal::KILL);
    let container = engine.containers.find(&id)?;
    to_the_end(&engine.operations.clone(), async move {
        engine.kill_container(&container, number).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/pause`.
pub async fn pause(State(engine): Shared, Path(id): Path<String>) -> Reply<StatusCode> {
    let container = engine.containers.find(&id)?;
    to_the_end(&engine.operations.clone(), async move {
        engine.pause_container(&container).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/unpause`.
pub async fn unpause(State(engine): Shared, Path(id): Path<String>) -> Reply<StatusCode> {
    let container = engine.containers.find(&id)?;
    to_the_end(&engine.operations.clone(), async move {
        engine.unpause_container(&container).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/rename`.
pub async fn rename(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<StatusCode> {
    let name = crate::container::name::check(Query::of(&uri).get("name"))?;
    let container = engine.containers.find(&id)?;
    let _lifecycle = container.lifecycle.lock().await;
    engine.containers.rename(&container, &name)?;
    engine.publish(&container, "rename", &[]);
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /containers/{id}`.
pub async fn remove(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<StatusCode> {
    let query = Query::of(&uri);
    // `v` removes anonymous volumes; a container has none.
    refuse::query(query.iter(), &["link"])?;
    let force = query.flag("force");
    let container = engine.containers.find(&id)?;
    to_the_end(&engine.operations.clone(), async move {
        engine.remove_container(&container, force).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/prune`.
pub async fn prune(State(engine): Shared, uri: Uri) -> Reply<Json<Value>> {
    let filters = Query::of(&uri).filters(&["label"])?;
    let mut deleted = Vec::new();
    for container in engine.containers.all() {
        if container.is_running()
            || !filters.pass_labels(&container.with_record(|record| record.config.labels.clone()))
        {
            continue;
        }
        let (engine, going) = (Arc::clone(&engine), Arc::clone(&container));
        match to_the_end(&engine.operations.clone(), async move {
            engine.remove_container(&going, false).await
        })
        .await
        {
            Ok(()) => deleted.push(container.id.clone()),
            Err(error) => tracing::warn!(container_id = container.id, %error, "container not pruned"),
        }
    }
    Ok(Json(json!({ "ContainersDeleted": deleted, "SpaceReclaimed": 0 })))
}

/// The `w` and `h` of a resize.
///
/// # Errors
///
/// They are no sizes.
pub fn size(query: &Query) -> Result<(u32, u32)> {
    let read = |name| {
        let number = query.number(name)?.unwrap_or(0);
        u16::try_from(number)
            .map(u32::from)
            .map_err(|_| Error::invalid(format!("invalid {name}: {number}")))
    };
    Ok((read("w")?, read("h")?))
}

/// `POST /containers/{id}/resize`.
pub async fn resize(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<StatusCode> {
    let (width, height) = size(&Query::of(&uri))?;
    let container = engine.containers.find(&id)?;
    if !container.is_running() {
        return Err(container.not_running().into());
    }
    engine
        .client
        .resize(&container.id, "", width, height)
        .await
        .map_err(Error::from)?;
    Ok(StatusCode::OK)
}

/// `POST /containers/{id}/wait`: the head of the answer is sent at once, so that a client knows that it is waited for
/// before it starts the container.
pub async fn wait(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<Response> {
    let condition = match Query::of(&uri).get("condition") {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Error::invalid(format!("invalid condition: {other:?}")).into()),
    };
    let container = engine.containers.find(&id)?;
    let exit = stop::wait(&container, condition);
    // The container must not be kept alive by those who wait for its end.
    drop(container);
    Ok(json_lines(stream::once(async move {
        WaitResponse {
            status_code: exit.await,
            error: None,
        }
    })))
}

/// `GET /containers/{id}/top`: the processes as the host sees them.
pub async fn top(State(engine): Shared, Path(id): Path<String>, uri: Uri) -> Reply<Json<TopResponse>> {
    let query = Query::of(&uri);
    if !matches!(query.get("ps_args"), "" | "-ef") {
        return Err(Error::not_supported("the parameter ps_args").into());
    }
    let container = engine.containers.find(&id)?;
    if !container.is_running() {
        return Err(container.not_running().into());
    }
    let pids = engine.client.pids(&container.id).await.map_err(Error::from)?;
    Ok(Json(TopResponse {
        titles: ["UID", "PID", "PPID", "CMD"].map(str::to_owned).to_vec(),
        processes: pids.into_iter().filter_map(view::process).collect(),
    }))
}
