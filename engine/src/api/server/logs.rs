//! `GET /containers/{id}/logs`.

use super::hijack::encode;
use super::query::Query;
use super::reply::Reply;
use crate::container::log::{self, Selection};
use crate::engine::Engine;
use crate::error::{Error, Result};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use std::convert::Infallible;
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;

/// Sends the log, raw with a terminal, framed without.
pub async fn logs(State(engine): State<Arc<Engine>>, Path(id): Path<String>, uri: Uri) -> Reply<Response> {
    let query = Query::of(&uri);
    let selection = select(&query)?;
    let container = engine.containers.find(&id)?;
    let terminal = container.with_record(|record| record.config.tty);
    let pieces = log::read(&container, selection)?;
    let chunks = ReceiverStream::new(pieces)
        .map(move |(stream, bytes)| Ok::<_, Infallible>(encode(stream, bytes, terminal)));
    let mut response = Body::from_stream(chunks).into_response();
    let content = if terminal {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    Ok(response)
}

fn select(query: &Query) -> Result<Selection> {
    super::super::refuse::query(query.iter(), &["details"])?;
    let selection = Selection {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tail: match query.get("tail") {
            "" | "all" => None,
            // As dockerd: what is no number, or negative, is everything.
            text => text.parse().ok(),
        },
        since: time(query, "since")?,
        until: time(query, "until")?,
        timestamps: query.flag("timestamps"),
        follow: query.flag("follow"),
    };
    if !(selection.stdout || selection.stderr) {
        return Err(Error::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    Ok(selection)
}

// Seconds since 1970 with an optional fraction; 0 is no limit.
fn time(query: &Query, name: &str) -> Result<Option<jiff::Timestamp>> {
    let text = query.get(name);
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    let invalid = || Error::invalid(format!("invalid value for {name:?}: {text:?}"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| invalid())?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
    jiff::Timestamp::new(seconds, nanos)
        .map(Some)
        .map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_checked() {
        let read = |uri: &'static str| select(&Query::of(&Uri::from_static(uri)));
        let selection = read("/x?stdout=1&tail=5&since=1700000000.25&follow=true").unwrap();
        assert_eq!(
            (selection.tail, selection.follow, selection.stderr),
            (Some(5), true, false)
        );
        assert_eq!(selection.since.unwrap().to_string(), "2023-11-14T22:13:20.25Z");
        assert_eq!(read("/x?stderr=1&tail=all&since=0").unwrap().tail, None);
        assert!(read("/x?tail=5").is_err());
        assert!(read("/x?stdout=1&since=soon").is_err());
        assert!(read("/x?stdout=1&details=1").is_err());
    }
}
