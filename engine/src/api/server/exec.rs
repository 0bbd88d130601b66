//! `POST /containers/{id}/exec` and `/exec/{id}/…`.

use super::attach::discard;
use super::hijack::{Hijack, Input};
use super::query::Query;
use super::reply::{Reply, body, to_the_end};
use crate::api::refuse;
use crate::api::stdcopy::Stream;
use crate::api::types::{ExecConfig, ExecInspect, ExecProcessConfig, ExecStart, IdResponse};
use crate::container::exec::Exec;
use crate::container::stdio::Piece;
use crate::container::store::Container;
use crate::engine::Engine;
use crate::error::Error;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};

/// Prepares an exec.
pub async fn create(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<String>,
    request: Body,
) -> Reply<impl IntoResponse> {
    let config: ExecConfig = body(request).await?;
    refuse::exec(&config)?;
    let container = engine.containers.find(&id)?;
    let exec = engine.create_exec(&container, config)?;
    Ok((StatusCode::CREATED, Json(IdResponse { id: exec.id.clone() })))
}

/// Starts it, and connects the client to it unless it is detached.
pub async fn start(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<String>,
    mut request: Request,
) -> Reply<Response> {
    let hijack = Hijack::of(&mut request);
    let asked: ExecStart = body(request.into_body()).await?;
    let (container, exec) = engine.find_exec(&id)?;
    if exec.state().started {
        return Err(Error::conflict(format!("exec {id} has already run")).into());
    }
    let config = &exec.config;
    if asked.detach {
        let (engine, container, exec) = (Arc::clone(&engine), Arc::clone(&container), Arc::clone(&exec));
        to_the_end(&engine.operations.clone(), async move {
            engine.start_exec(&container, &exec, false).await
        })
        .await?;
        return Ok(StatusCode::OK.into_response());
    }
    if asked.tty != config.tty {
        return Err(Error::invalid("Tty differs from what the exec was created with").into());
    }
    hijack.check(config.attach_stdin)?;
    let output = exec.stdio.attach(config.attach_stdout, config.attach_stderr)?;
    let (terminal, stdin) = (config.tty, config.attach_stdin);
    let (begun, begins) = oneshot::channel();
    let pieces = {
        let (engine, container, exec) = (Arc::clone(&engine), Arc::clone(&container), Arc::clone(&exec));
        started(engine, container, exec, asked.console_size, output, begun)
    };
    Ok(hijack.stream(pieces, terminal, move |input| async move {
        // Before the start, what is typed waits in the socket; there is nowhere to write it yet.
        if begins.await.is_ok() && stdin {
            feed(&engine, &exec, input).await;
        } else {
            discard(input).await;
        }
    }))
}

// As dockerd, a start that fails is told in the stream: clients take any other answer than a stream for a broken daemon,
// and ask for the exit status to learn what happened.
fn started(
    engine: Arc<Engine>,
    container: Arc<Container>,
    exec: Arc<Exec>,
    console_size: Option<[u16; 2]>,
    mut output: mpsc::Receiver<Piece>,
    begun: oneshot::Sender<()>,
) -> mpsc::Receiver<Piece> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = engine.start_exec(&container, &exec, true).await {
            let line = Bytes::from(format!("{error}\r\n"));
            // The client may have left already.
            sender.send((Stream::Stdout, line)).await.ok();
            return;
        }
        // The client may have left already; then nobody waits to feed the process.
        begun.send(()).ok();
        if let (true, Some([height, width])) = (exec.config.tty, console_size) {
            let (width, height) = (u32::from(width), u32::from(height));
            // The process may have ended already.
            engine
                .client
                .resize(&container.id, &exec.id, width, height)
                .await
                .ok();
        }
        while let Some(piece) = output.recv().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn feed(engine: &Engine, exec: &Exec, mut input: Input) {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        match exec.stdio.write(&buffer[..count]).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(exec_id = exec.id, %error, "input lost");
                return;
            }
        }
    }
    exec.stdio.close_stdin();
    if let Err(error) = engine.client.close_stdin(&exec.container_id, &exec.id).await {
        tracing::debug!(exec_id = exec.id, %error, "stdin not closed");
    }
}

/// Sets the size of its terminal.
pub async fn resize(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Reply<StatusCode> {
    let (container, exec) = engine.find_exec(&id)?;
    let (width, height) = super::containers::size(&Query::of(&uri))?;
    engine
        .client
        .resize(&container.id, &exec.id, width, height)
        .await
        .map_err(Error::from)?;
    Ok(StatusCode::OK)
}

/// What it does, or how it ended.
pub async fn inspect(State(engine): State<Arc<Engine>>, Path(id): Path<String>) -> Reply<Json<ExecInspect>> {
    let (container, exec) = engine.find_exec(&id)?;
    let (state, config) = (exec.state(), &exec.config);
    let mut words = config.cmd.iter().cloned();
    Ok(Json(ExecInspect {
        id: exec.id.clone(),
        running: state.running,
        exit_code: state.exit_code,
        process_config: ExecProcessConfig {
            tty: config.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: config.privileged,
            user: config.user.clone(),
        },
        open_stdin: config.attach_stdin,
        open_stderr: config.attach_stderr,
        open_stdout: config.attach_stdout,
        can_remove: state.exit_code.is_some(),
        container_id: container.id.clone(),
        detach_keys: config.detach_keys.clone(),
        pid: state.pid,
    }))
}
