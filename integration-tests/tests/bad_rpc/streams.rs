//! Streams whose client goes away in the middle: what they had open is let go, what they had begun can be gone on with.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use integration_tests::Scratch;
use integration_tests::containerd::Containerd;
use integration_tests::wharf::Wharfd;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use wharf_proto::any::pack;
use wharf_proto::containerd::services::content::v1::{
    AbortRequest, ReadContentRequest, StatusRequest, WriteAction, WriteContentRequest, WriteContentResponse,
    content_client::ContentClient,
};
use wharf_proto::containerd::services::events::v1::{SubscribeRequest, events_client::EventsClient};
use wharf_proto::containerd::services::streaming::v1::{StreamInit, streaming_client::StreamingClient};
use wharf_proto::containerd::services::tasks::v1::{WaitRequest, tasks_client::TasksClient};
use wharf_proto::containerd::services::transfer::v1::{TransferRequest, transfer_client::TransferClient};
use wharf_proto::containerd::types::transfer::{Data, ImageImportStream, ImageStore};

use crate::runtime;
use crate::side::{KEEP, Side};

const SOON: Duration = Duration::from_secs(20);

/// A `wharfd` that is furnished, and what it has open when nobody is connected but the test.
struct Subject {
    wharfd: Wharfd,
    side: Side,
    descriptors: Vec<String>,
    _scratch: Scratch,
}

impl Subject {
    async fn start() -> Subject {
        let scratch = Scratch::new();
        let wharfd = Wharfd::start(&scratch);
        let side = Side::furnish(&wharfd.socket(), wharfd.home(), scratch.unique()).await;
        side.holdings().await;
        let mut subject = Subject {
            wharfd,
            side,
            descriptors: Vec::new(),
            _scratch: scratch,
        };
        subject.descriptors = subject.open();
        subject
    }

    /// What the daemon has open.
    fn open(&self) -> Vec<String> {
        let pid = self.wharfd.daemon.as_ref().expect("a running daemon").pid();
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon's descriptors");
        let mut open: Vec<String> = entries
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|target| target.display().to_string())
            // Opened with the first number that is drawn, for good.
            .filter(|target| target != "/dev/urandom")
            .collect();
        open.sort();
        open
    }

    /// Waits until the daemon has no more open than `before`.
    async fn lets_go(&self, before: &[String]) {
        let start = Instant::now();
        loop {
            let now = self.open();
            if now.len() <= before.len() {
                return;
            }
            assert!(start.elapsed() < SOON, "now open: {now:#?}\nbefore: {before:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A connection of its own.
    fn channel(&self) -> Channel {
        crate::call::channel(&self.wharfd.socket())
    }
}

/// Waits for `condition`, which may ask the daemon.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < SOON, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A message of a write.
fn message(reference: &str, action: WriteAction, offset: i64, data: &'static [u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: reference.into(),
        total: 6,
        offset,
        data: data.into(),
        ..WriteContentRequest::default()
    }
}

/// Sends `first`, waits for its answer, and goes away.
async fn begin_and_vanish(side: &Side, channel: Channel, first: WriteContentRequest) {
    let (sender, receiver) = mpsc::channel(4);
    sender.send(first).await.expect("send");
    let mut answers = ContentClient::new(channel)
        .write(side.request(ReceiverStream::new(receiver)))
        .await
        .expect("write")
        .into_inner();
    let answer = answers.next().await.expect("an answer").expect("a good one");
    assert_eq!(answer.offset, 3);
}

async fn write(side: &Side, one: WriteContentRequest) -> Result<WriteContentResponse, Status> {
    let mut answers = ContentClient::new(side.channel.clone())
        .write(side.request(tokio_stream::iter([one])))
        .await?
        .into_inner();
    answers.next().await.expect("an answer")
}

async fn offset(side: &Side, reference: &str) -> Result<i64, Code> {
    let request = StatusRequest {
        r#ref: reference.into(),
    };
    let answer = ContentClient::new(side.channel.clone())
        .status(side.request(request))
        .await;
    let answer = answer.map_err(|status| status.code())?;
    Ok(answer.into_inner().status.expect("a status").offset)
}

/// What both daemons promise of an ingest whose writer is gone; to abort it is answered with `busy` while it is not known that
/// he is: containerd removes files that he still makes.
async fn an_ingest_outlives_its_writer(side: &Side, channel: impl Fn() -> Channel, busy: &[Code]) {
    begin_and_vanish(side, channel(), message("cut", WriteAction::Write, 0, b"hel")).await;
    assert_eq!(offset(side, "cut").await, Ok(3));
    // It is locked for as long as the daemon has not seen that the client is gone.
    until("another client goes on", async || {
        match write(side, message("cut", WriteAction::Commit, 3, b"lo!")).await {
            Ok(answer) => answer.offset == 6,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                false
            }
        }
    })
    .await;
    assert_eq!(offset(side, "cut").await, Err(Code::NotFound));

    begin_and_vanish(
        side,
        channel(),
        message("given-up", WriteAction::Write, 0, b"hel"),
    )
    .await;
    let abort = async || {
        let request = AbortRequest {
            r#ref: "given-up".into(),
        };
        let answer = ContentClient::new(side.channel.clone())
            .abort(side.request(request))
            .await;
        answer.map_err(|status| status.code())
    };
    until("another client gives it up", async || match abort().await {
        Ok(_) => true,
        Err(code) => {
            assert!(busy.contains(&code), "{code:?}");
            false
        }
    })
    .await;
    assert_eq!(offset(side, "given-up").await, Err(Code::NotFound));
    assert_eq!(abort().await.err(), Some(Code::NotFound));
}

#[test]
fn an_ingest_whose_writer_vanished_is_gone_on_with_or_aborted() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let containerd = Containerd::start(&scratch);
        let side = Side::furnish(containerd.socket(), &scratch.join("containerd"), scratch.unique()).await;
        an_ingest_outlives_its_writer(
            &side,
            || crate::call::channel(containerd.socket()),
            &[Code::Unknown],
        )
        .await;

        let subject = Subject::start().await;
        an_ingest_outlives_its_writer(&subject.side, || subject.channel(), &[Code::Unavailable]).await;
        subject.lets_go(&subject.descriptors).await;
    });
}

#[test]
fn readers_subscribers_and_waiters_that_vanish_leave_nothing() {
    runtime().block_on(async {
        let subject = Subject::start().await;
        let side = &subject.side;
        let large = subject.wharfd.home().join("large");
        fs::write(&large, vec![7; 24 << 20]).expect("write a file");
        side.script(&format!("{KEEP}\nkeep large {}", large.display()));
        let digest = integration_tests::run(std::process::Command::new("sha256sum").arg(&large)).ok();
        let digest = format!("sha256:{}", &digest[..64]);
        side.task("waited");
        let before = side.holdings().await;
        let descriptors = subject.open();
        for _ in 0..20 {
            let channel = subject.channel();
            let read = ReadContentRequest {
                digest: digest.clone(),
                ..ReadContentRequest::default()
            };
            let mut data = ContentClient::new(channel.clone())
                .read(side.request(read))
                .await
                .expect("read")
                .into_inner();
            data.next().await.expect("some of it").expect("a good answer");
            let mut events = EventsClient::new(channel.clone());
            let events = events.subscribe(Request::new(SubscribeRequest::default()));
            let events = events.await.expect("subscribe").into_inner();
            let wait = WaitRequest {
                container_id: "waited".into(),
                ..WaitRequest::default()
            };
            let mut tasks = TasksClient::new(channel);
            let wait = tokio::time::timeout(Duration::from_millis(50), tasks.wait(side.request(wait)));
            assert!(wait.await.is_err(), "the task has ended");
            drop((data, events));
        }
        until("the daemon has no more descriptors than before", async || {
            subject.open() <= descriptors
        })
        .await;
        assert_eq!(side.holdings().await, before);
        side.end_tasks(&["waited"]);
    });
}

#[test]
fn a_transfer_whose_client_vanished_leaves_nothing() {
    runtime().block_on(async {
        let subject = Subject::start().await;
        let side = &subject.side;
        let before = side.holdings().await;
        for number in 0..4 {
            let channel = subject.channel();
            let id = format!("import-{number}");
            let (sender, receiver) = mpsc::channel::<Any>(4);
            sender
                .send(pack(&StreamInit { id: id.clone() }))
                .await
                .expect("send");
            let mut answers = StreamingClient::new(channel.clone())
                .stream(side.request(ReceiverStream::new(receiver)))
                .await
                .expect("open a stream")
                .into_inner();
            answers
                .next()
                .await
                .expect("an acknowledgement")
                .expect("a good one");
            let transfer = TransferRequest {
                source: Some(pack(&ImageImportStream {
                    stream: id,
                    ..ImageImportStream::default()
                })),
                destination: Some(pack(&ImageStore {
                    name: "imported".into(),
                    ..ImageStore::default()
                })),
                options: None,
            };
            let request = side.request(transfer);
            let mut client = TransferClient::new(channel);
            let transfer = tokio::spawn(async move { client.transfer(request).await });
            // The head of an archive: a member that goes on.
            let mut head = tar::Header::new_ustar();
            head.set_path("blobs/sha256/5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")
                .expect("a name");
            head.set_size(1 << 20);
            head.set_mode(0o644);
            head.set_cksum();
            let data = [head.as_bytes().as_slice(), &[1; 5000]].concat();
            sender.send(pack(&Data { data })).await.expect("send");
            if number % 2 == 0 {
                // The stream alone ends: the transfer is told.
                drop((sender, answers));
                let refused = transfer.await.expect("join").expect_err("a cut archive");
                assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            } else {
                transfer.abort();
                drop((sender, answers));
            }
        }
        until("all is as before", async || side.holdings().await == before).await;
        subject.lets_go(&subject.descriptors).await;
    });
}

#[test]
fn connections_that_break_off_in_the_middle_of_a_frame_are_let_go() {
    runtime().block_on(async {
        let subject = Subject::start().await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        let beginnings: [&[u8]; 6] = [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            &preface[..10],
            preface,
            // The first bytes of headers that do not come.
            &[preface.as_slice(), b"\x00\x10\x00\x01\x04\x00\x00\x00\x01\x82"].concat(),
            // A frame that is longer than any may be.
            &[preface.as_slice(), b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"].concat(),
        ];
        for beginning in beginnings {
            for _ in 0..5 {
                let mut connection = UnixStream::connect(subject.wharfd.socket()).expect("connect");
                connection.write_all(beginning).expect("send");
            }
        }
        subject.lets_go(&subject.descriptors).await;
        let status = offset(&subject.side, "unheard-of").await;
        assert_eq!(status, Err(Code::NotFound));
    });
}
