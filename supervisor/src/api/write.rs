//! The Write call of the Content service: a conversation about one ingest.
//!
//! The first request names the ingest and locks it until the stream ends. Each request (STAT, WRITE or COMMIT) is answered
//! by one response with the offset after it; COMMIT ends the conversation. An offset is checked against the ingest's;
//! offset 0 begins anew.

use std::sync::Arc;

use futures_util::stream;
use tonic::{Status, Streaming};
use wharf_proto::containerd::services::content::v1::{
    WriteAction, WriteContentRequest, WriteContentResponse,
};

use super::{Stream, content::length};
use crate::{
    content::Writer,
    daemon::Daemon,
    digest::Digest,
    error::{Error, Kind, Result},
    namespace::Scope,
};

/// Answers the requests of one stream.
pub fn serve(
    daemon: Arc<Daemon>,
    scope: Scope,
    requests: Streaming<WriteContentRequest>,
) -> Stream<WriteContentResponse> {
    let session = Session {
        scope,
        writer: None,
        total: 0,
        expected: None,
        done: false,
    };
    Box::pin(stream::try_unfold(
        (session, requests, None),
        move |(session, mut requests, ahead)| {
            let daemon = Arc::clone(&daemon);
            async move {
                if session.done {
                    return Ok(None);
                }
                let request = match ahead {
                    Some(request) => request,
                    None => requests.message().await,
                };
                let Some(request) = request? else {
                    return Ok(None);
                };
                // The next request is received while this one is carried out, but not waited for: a client may send it when it
                // has the answer.
                let answer = daemon.blocking(move |daemon| session.answer(daemon, request));
                tokio::pin!(answer);
                let mut ahead = None;
                let answer = loop {
                    tokio::select! {
                        biased;
                        answer = &mut answer => break answer,
                        next = requests.message(), if ahead.is_none() => ahead = Some(next),
                    }
                };
                let (response, session) = answer.map_err(Status::from)?;
                Ok(Some((response, (session, requests, ahead))))
            }
        },
    ))
}

struct Session {
    scope: Scope,
    /// `None` before the first request, and after the commit.
    writer: Option<Writer>,
    total: u64,
    expected: Option<Digest>,
    done: bool,
}

impl Session {
    fn answer(
        mut self,
        daemon: &Daemon,
        request: WriteContentRequest,
    ) -> Result<(WriteContentResponse, Self)> {
        // All that can be wrong with the request alone is told before an ingest is begun for it.
        let total = unsigned(request.total, "total")?;
        unsigned(request.offset, "offset")?;
        let action = WriteAction::try_from(request.action)
            .map_err(|_| Error::invalid(format!("unknown write action {}", request.action)))?;
        let expected = match request.expected.as_str() {
            "" => None,
            text => Some(text.parse::<Digest>()?),
        };
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None if request.r#ref.is_empty() => {
                return Err(Error::invalid("first message must have a reference"));
            }
            None => daemon
                .content
                .writer(&self.scope, &request.r#ref, total, expected.as_ref())?,
        };
        if total > 0 {
            self.total = total;
        }
        if let Some(expected) = expected {
            if daemon.content.info(&self.scope, &expected).is_ok() {
                let reference = writer.status().reference.clone();
                drop(writer);
                daemon.content.abort(&self.scope, &reference)?;
                return Err(Error::already_exists(format!(
                    "blob with expected digest {expected} exists"
                )));
            }
            self.expected = Some(expected);
        }
        let mut response = WriteContentResponse {
            action: action.into(),
            ..WriteContentResponse::default()
        };
        match action {
            WriteAction::Stat => {
                describe(&mut response, &writer);
                response.started_at = Some(writer.status().started_at);
                response.updated_at = Some(writer.status().updated_at);
                response.total = length(self.total);
                self.writer = Some(writer);
            }
            WriteAction::Write => {
                let writer = append(writer, &request)?;
                describe(&mut response, &writer);
                self.writer = Some(writer);
            }
            WriteAction::Commit => {
                let writer = append(writer, &request)?;
                response.offset = length(writer.status().offset);
                let size = (self.total > 0).then_some(self.total);
                let digest = writer.commit(size, self.expected.as_ref(), request.labels)?;
                response.digest = digest.to_string();
                self.done = true;
            }
        }
        Ok((response, self))
    }
}

/// Puts the request's data at the request's offset.
fn append(mut writer: Writer, request: &WriteContentRequest) -> Result<Writer> {
    let offset = unsigned(request.offset, "offset")?;
    let present = writer.status().offset;
    if offset == 0 {
        writer.truncate(0)?;
    } else if offset != present {
        let text = format!("write @{offset} must occur at current offset {present}");
        return Err(Error::new(Kind::OutOfRange, text));
    }
    if !request.data.is_empty() {
        writer.append(&request.data)?;
    }
    Ok(writer)
}

fn describe(response: &mut WriteContentResponse, writer: &Writer) {
    response.offset = length(writer.status().offset);
    response.digest = writer.digest().to_string();
}

fn unsigned(value: i64, name: &str) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::invalid(format!("{name} must not be negative")))
}
