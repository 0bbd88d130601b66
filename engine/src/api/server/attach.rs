//! `POST /containers/{id}/attach`.

use super::hijack::{Hijack, Input};
use super::query::Query;
use super::reply::Reply;
use crate::container::log;
use crate::container::store::Container;
use crate::engine::Engine;
use crate::error::Error;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

const PIECE: usize = 32 * 1024;

/// Connects the client to the stdio of a container that runs or will be started. With `logs`, what was logged so far
/// comes first.
pub async fn attach(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<String>,
    mut request: Request,
) -> Reply<Response> {
    let query = Query::of(request.uri());
    let container = engine.containers.find(&id)?;
    let hijack = Hijack::of(&mut request);
    let (terminal, open_stdin, once) = container.with_record(|record| {
        (
            record.config.tty,
            record.config.open_stdin,
            record.config.stdin_once,
        )
    });
    let stream = query.flag("stream");
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    let stdin = query.flag("stdin") && stream && open_stdin;
    hijack.check(stdin)?;
    if container.with_record(|record| record.state.phase) == crate::container::record::Phase::Paused {
        return Err(Error::conflict(format!(
            "container {} is paused, unpause the container before attach",
            container.id
        ))
        .into());
    }
    // Attached before the log is read, so that nothing falls between; what is in both is sent twice at most by a piece.
    let live = if stream {
        Some(container.stdio.attach(stdout, stderr)?)
    } else {
        None
    };
    let pieces = if query.flag("logs") {
        let logged = log::Selection {
            stdout,
            stderr,
            ..Default::default()
        };
        chain(log::read(&container, logged)?, live)
    } else {
        live.unwrap_or_else(|| mpsc::channel(1).1)
    };
    engine.publish(&container, "attach", &[]);
    Ok(hijack.stream(pieces, terminal, move |input| async move {
        if stdin {
            feed(&engine, &container, input, once && !terminal).await;
        } else {
            discard(input).await;
        }
    }))
}

fn chain<T: Send + 'static>(
    mut first: mpsc::Receiver<T>,
    second: Option<mpsc::Receiver<T>>,
) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(piece) = first.recv().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
        let Some(mut second) = second else { return };
        while let Some(piece) = second.recv().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn feed(engine: &Engine, container: &Container, mut input: Input, close: bool) {
    // Before the start, what is typed waits in the socket.
    let mut progress = container.watch();
    if progress
        .wait_for(|progress| progress.running || progress.removed)
        .await
        .is_err()
    {
        return;
    }
    let mut buffer = vec![0; PIECE];
    loop {
        let count = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        match container.stdio.write(&buffer[..count]).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(container_id = container.id, %error, "input lost");
                return;
            }
        }
    }
    if close {
        container.stdio.close_stdin();
        if let Err(error) = engine.client.close_stdin(&container.id, "").await {
            tracing::debug!(container_id = container.id, %error, "stdin not closed");
        }
    }
}

/// Reads and drops what a client sends that is attached to output only, so that its leaving is noticed.
pub async fn discard(mut input: Input) {
    let mut buffer = vec![0; 1024];
    while let Ok(1..) = input.read(&mut buffer).await {}
}
