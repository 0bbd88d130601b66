//! Stream processors: external programs that turn a layer which is not understood here (encrypted, or compressed in
//! another way) into one that is, as containerd's configuration `stream_processors` names them.
//!
//! ```text
//! blob ──► program's stdin   program's stdout ──► the next program, or the layer's reader
//!          payload, a protobuf Any, at descriptor 3      stderr: kept for the error
//! ```
//!
//! A program is executed as it is, without a shell, with the daemon's environment, its own and `STREAM_PROCESSOR_MEDIATYPE`;
//! what clients have installed (`opt`) comes first on the daemon's search paths.
//! The invariants:
//!
//! - What a program wrote counts only when it has ended with success, and the whole blob could be read.
//! - Nothing here waits for ever: for the next output at most the processor's time-out, for the end a while; then the
//!   program and its process group are killed.
//! - Memory is bounded: pipes between the programs, the last [`MAX_SAID`] bytes of what each says.
//!
//! Refuses media types that lead nowhere, and chains longer than [`MAX_CHAIN`].

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::{Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use prost::Message as _;
use prost_types::Any;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    process::{Pid, Signal, kill_process_group},
};

use super::{
    apply::{Applied, Limits, Target, apply},
    compression::is_layer,
};
use crate::{
    error::{Error, Kind, Result},
    opt::Opt,
    sys,
};

/// Programs for one layer.
const MAX_CHAIN: usize = 8;
/// What is kept of what a program says.
const MAX_SAID: usize = 4 << 10;
/// How often threads that wait for a program look whether they still should.
const LOOK: Duration = Duration::from_millis(200);
/// How long a program that has written everything may take to end.
const END: Duration = Duration::from_secs(10);
/// The media type of a layer that needs no processing.
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
/// The variable that tells a program what it is given.
const MEDIA_TYPE: &str = "STREAM_PROCESSOR_MEDIATYPE";

/// A program that turns layers of some media types into another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Its name, by which callers give payloads for it.
    pub id: String,
    /// The media types that it takes.
    pub accepts: Vec<String>,
    /// What it makes of them.
    pub returns: String,
    /// The program: an absolute path, or a name to be found on `$PATH`.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// More environment for it, `KEY=VALUE`.
    pub env: Vec<String>,
    /// How long it may take to write something.
    pub timeout: Duration,
}

/// All processors, the strongest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processors(pub Vec<Processor>);

/// Payloads for processors, by their names.
pub(crate) type Payloads = BTreeMap<String, Any>;

impl Processors {
    /// The same with what clients have installed first on their search paths, unless they have their own.
    #[must_use]
    pub(crate) fn within(mut self, opt: &Opt) -> Self {
        for processor in &mut self.0 {
            let found = opt
                .variables()
                .filter_map(|(name, value)| Some(format!("{name}={}", value.to_str()?)));
            processor.env.splice(..0, found.collect::<Vec<_>>());
        }
        self
    }

    /// The programs that a layer of `media_type` needs, in order; none for one that is understood here. A processor comes
    /// before what is understood here.
    ///
    /// # Errors
    ///
    /// `Unimplemented`: it is no layer, and no processor makes one of it.
    pub(crate) fn chain(&self, media_type: &str) -> Result<Vec<&Processor>> {
        let mut chain = Vec::new();
        let mut present = media_type;
        loop {
            let taker = self
                .0
                .iter()
                .find(|processor| processor.accepts.iter().any(|accepted| accepted == present));
            match taker {
                Some(_) if chain.len() == MAX_CHAIN => {
                    return Err(Error::unimplemented(format!(
                        "media type {media_type:?} of a layer: more than {MAX_CHAIN} stream processors"
                    )));
                }
                Some(processor) => {
                    chain.push(processor);
                    present = &processor.returns;
                    if present == PLAIN {
                        return Ok(chain);
                    }
                }
                None if is_layer(present) => return Ok(chain),
                None => {
                    return Err(Error::unimplemented(format!(
                        "media type {present:?} of a layer: no processor for media-type"
                    )));
                }
            }
        }
    }

    /// Whether a layer of `media_type` can be applied.
    pub(crate) fn can_apply(&self, media_type: &str) -> bool {
        self.chain(media_type).is_ok()
    }

    /// Applies the layer in `input`, of `size` bytes, to `target`, through the programs that its media type needs. Blocks.
    ///
    /// # Errors
    ///
    /// `Unimplemented` as [`Processors::chain`]; those of [`apply`]; `Unknown` with what it said when a program fails, and
    /// `DeadlineExceeded` when it stalls. What was created until then is left for the caller to remove.
    pub(crate) fn apply(
        &self,
        media_type: &str,
        payloads: &Payloads,
        input: impl Read + Send,
        size: u64,
        target: Target,
        limits: Limits,
    ) -> Result<Applied> {
        let chain = self.chain(media_type)?;
        let Some(last) = chain.last() else {
            return apply(input, size, target, limits);
        };
        let timeout = last.timeout;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut running = Running::start(scope, &chain, media_type, payloads, input, &over)?;
            let mut output = Output {
                fd: running.output.take(),
                timeout,
                ended: false,
                stalled: false,
            };
            let applied = apply(&mut output, size, target, limits);
            let (ended, stalled) = (output.ended, output.stalled);
            drop(output);
            let finished = running.finish(ended, &over);
            match (applied, finished) {
                _ if stalled => Err(Error::new(
                    Kind::DeadlineExceeded,
                    format!("stream processor {}: no output for {timeout:?}", last.id),
                )),
                // Why the program failed tells more than what became of its output.
                (_, Err(error)) if ended => Err(error),
                (applied, _) => applied,
            }
        })
    }
}

/// Programs at work, each reading what the one before it writes.
struct Running<'scope> {
    children: Vec<(String, Child, ScopedJoinHandle<'scope, String>)>,
    feed: ScopedJoinHandle<'scope, io::Result<()>>,
    output: Option<OwnedFd>,
}

impl<'scope> Running<'scope> {
    fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        chain: &[&Processor],
        media_type: &str,
        payloads: &Payloads,
        input: impl Read + Send + 'scope,
        over: &'scope AtomicBool,
    ) -> Result<Self> {
        let mut children: Vec<(String, Child, ScopedJoinHandle<'scope, String>)> = Vec::new();
        let mut first_input = None;
        let mut previous: Option<OwnedFd> = None;
        let mut present = media_type;
        for processor in chain {
            let started = execute(processor, present, payloads.get(&processor.id), previous.take());
            let mut child = match started {
                Ok(child) => child,
                Err(error) => {
                    over.store(true, Ordering::Relaxed);
                    for (_, child, _) in &mut children {
                        kill(child);
                    }
                    return Err(error);
                }
            };
            if first_input.is_none() {
                first_input = child.stdin.take();
            }
            previous = child.stdout.take().map(OwnedFd::from);
            let errors = child.stderr.take().map(OwnedFd::from);
            let said = scope.spawn(move || listen(errors, over));
            children.push((processor.id.clone(), child, said));
            present = &processor.returns;
        }
        let feed = scope.spawn(move || feed(input, first_input, over));
        Ok(Self {
            children,
            feed,
            output: previous,
        })
    }

    /// Waits for the end of all, or without `wait` makes an end: then nobody cares how they end.
    fn finish(mut self, wait: bool, over: &AtomicBool) -> Result<()> {
        let deadline = Instant::now() + END;
        let mut outcome = Ok(());
        let mut statuses = Vec::new();
        for (id, child, _) in &mut self.children {
            let status = if wait { end(child, deadline) } else { None };
            statuses.push(status);
            if status.is_none() {
                kill(child);
                if wait && outcome.is_ok() {
                    outcome = Err(Error::new(
                        Kind::DeadlineExceeded,
                        format!("stream processor {id}: it wrote everything and did not end within {END:?}"),
                    ));
                }
            }
        }
        // Whatever else holds the pipes is not waited for.
        over.store(true, Ordering::Relaxed);
        for ((id, _, said), status) in self.children.into_iter().zip(statuses) {
            let said = said.join().unwrap_or_default();
            // The first one that failed is the cause of what became of the others.
            if let Some(status) = status.filter(|status| !status.success())
                && outcome.is_ok()
            {
                let said = said.trim();
                let colon = if said.is_empty() { "" } else { ": " };
                outcome = Err(Error::unknown(
                    format!("stream processor {id}"),
                    format!("{status}{colon}{said}"),
                ));
            }
        }
        match self.feed.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => outcome = Err(Error::io("read layer", error)),
            Err(_panic) => outcome = Err(Error::unknown("read layer", "the thread panicked")),
        }
        outcome
    }
}

fn execute(
    processor: &Processor,
    media_type: &str,
    payload: Option<&Any>,
    input: Option<OwnedFd>,
) -> Result<Child> {
    let failed = |error| {
        Error::io(
            format!("stream processor {}: run {}", processor.id, processor.path),
            error,
        )
    };
    let mut command = Command::new(&processor.path);
    let environment = processor.env.iter().filter_map(|pair| pair.split_once('='));
    command
        .args(&processor.args)
        .envs(environment)
        .env(MEDIA_TYPE, media_type)
        .stdin(input.map_or_else(Stdio::piped, Stdio::from))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(payload) = payload {
        // A file in memory: nobody has to write it while the program reads.
        let file = rustix::fs::memfd_create("payload", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        let mut writer = std::fs::File::from(file);
        writer
            .write_all(&payload.encode_to_vec())
            .and_then(|()| io::Seek::rewind(&mut writer))
            .map_err(failed)?;
        sys::pass_as_three(&mut command, writer.into()).map_err(|error| failed(error.into()))?;
    }
    command.spawn().map_err(failed)
}

/// Waits until `fd` is ready for `what`, at most for `timeout`; says whether it is.
fn ready(fd: BorrowedFd<'_>, what: PollFlags, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(&fd, what)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives all of `input` to a program. One that does not want all of it has its own reasons.
fn feed(mut input: impl Read, output: Option<ChildStdin>, over: &AtomicBool) -> io::Result<()> {
    let Some(output) = output else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    // A program that does not read must not hold this thread.
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        let mut left = &buffer[..count];
        while !left.is_empty() {
            match rustix::io::write(&output, left) {
                Ok(count) => left = &left[count..],
                Err(Errno::AGAIN) => {
                    ready(output.as_fd(), PollFlags::OUT, LOOK)?;
                    if over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Takes what a program says, to keep the end of it.
fn listen(from: Option<OwnedFd>, over: &AtomicBool) -> String {
    let mut said: Vec<u8> = Vec::new();
    let Some(from) = from else {
        return String::new();
    };
    let mut buffer = [0; MAX_SAID];
    while matches!(ready(from.as_fd(), PollFlags::IN, LOOK), Ok(true)) || !over.load(Ordering::Relaxed) {
        if !matches!(ready(from.as_fd(), PollFlags::IN, Duration::ZERO), Ok(true)) {
            continue;
        }
        match rustix::io::read(&from, &mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                said.extend_from_slice(&buffer[..count]);
                said.drain(..said.len().saturating_sub(MAX_SAID));
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Waits for the end of `child` until `deadline`.
fn end(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let pid = Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        match &pidfd {
            Some(pidfd) => drop(ready(pidfd.as_fd(), PollFlags::IN, left)),
            None => std::thread::sleep(left.min(LOOK)),
        }
    }
}

/// Kills a program with what it started, and reaps it.
fn kill(child: &mut Child) {
    if let Ok(Some(_)) = child.try_wait() {
        return;
    }
    // Not reaped yet, so the number is still its own.
    if let Err(error) = kill_process_group(Pid::from_child(child), Signal::KILL) {
        tracing::debug!(%error, "stream processor not killed");
    }
    drop(child.wait());
}

/// What the last program writes.
struct Output {
    fd: Option<OwnedFd>,
    timeout: Duration,
    ended: bool,
    stalled: bool,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(fd) = &self.fd else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if ready(fd.as_fd(), PollFlags::IN, left)? {
                match rustix::io::read(fd, &mut *buffer) {
                    Err(Errno::INTR) => continue,
                    Ok(0) if !buffer.is_empty() => {
                        self.ended = true;
                        return Ok(0);
                    }
                    count => return Ok(count?),
                }
            }
            if left.is_zero() {
                self.stalled = true;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn processor(id: &str, accepts: &str, returns: &str, script: &str) -> Processor {
        Processor {
            id: id.into(),
            accepts: vec![accepts.into()],
            returns: returns.into(),
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec!["ADDED=yes".into()],
            timeout: Duration::from_secs(20),
        }
    }

    fn tar() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        builder.append_data(&mut header, "hello", &b"world"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    fn run(
        processors: Vec<Processor>,
        media_type: &str,
        payloads: &Payloads,
        input: impl Read + Send,
        target: &Path,
    ) -> Result<Applied> {
        let target = std::fs::File::open(target).unwrap().into();
        Processors(processors).apply(
            media_type,
            payloads,
            input,
            1 << 20,
            Target::Complete(target),
            Limits::default(),
        )
    }

    #[test]
    fn a_chain_leads_to_a_layer_or_is_refused() {
        let chain = |media_type: &str| {
            let processors = Processors(vec![
                processor("lock", "a+locked", "a", ""),
                processor("squeeze", "a", PLAIN, ""),
                processor(
                    "first",
                    "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    PLAIN,
                    "",
                ),
                processor("loop", "x", "x", ""),
                processor("nowhere", "y", "z", ""),
            ]);
            let chain = processors.chain(media_type);
            chain.map(|chain| {
                chain
                    .iter()
                    .map(|processor| processor.id.clone())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(chain("a+locked").unwrap(), ["lock", "squeeze"]);
        assert_eq!(
            chain("application/vnd.docker.image.rootfs.diff.tar.gzip").unwrap(),
            ["first"]
        );
        assert!(chain(PLAIN).unwrap().is_empty());
        for refused in ["x", "y", "text/plain"] {
            assert_eq!(chain(refused).unwrap_err().kind(), Kind::Unimplemented);
        }
    }

    #[test]
    fn a_layer_goes_through_all_programs_with_their_payloads() {
        let target = tempfile::tempdir().unwrap();
        let archive = tar();
        let check = format!(
            "test \"$STREAM_PROCESSOR_MEDIATYPE$ADDED\" = byes && grep -q secret <&3 && head -c {} && cat >/dev/null",
            archive.len()
        );
        let processors = vec![
            processor("one", "a", "b", "tail -c +4"),
            processor("two", "b", PLAIN, &check),
        ];
        let payload = Any {
            type_url: "key".into(),
            value: b"secret".to_vec(),
        };
        let payloads = Payloads::from([("two".to_owned(), payload)]);
        let input = [&b"xyz"[..], &archive, &vec![7; 300_000]].concat();
        let applied = run(processors, "a", &payloads, input.as_slice(), target.path()).unwrap();
        assert_eq!(applied.size, archive.len() as u64);
        assert_eq!(std::fs::read(target.path().join("hello")).unwrap(), b"world");
    }

    #[test]
    fn output_of_a_program_that_fails_does_not_count() {
        let failing = "cat; echo the reason >&2; exit 3";
        for processors in [
            vec![processor("bad", "a", PLAIN, failing)],
            vec![
                processor("bad", "a", "b", failing),
                processor("good", "b", PLAIN, "cat"),
            ],
        ] {
            let target = tempfile::tempdir().unwrap();
            let archive = tar();
            let error = run(
                processors,
                "a",
                &Payloads::new(),
                archive.as_slice(),
                target.path(),
            );
            let error = error.map(drop).unwrap_err().to_string();
            assert!(
                error.contains("stream processor bad") && error.contains("the reason"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let target = tempfile::tempdir().unwrap();
        let mut slow = processor("slow", "a", PLAIN, "sleep 1000 & wait");
        slow.timeout = Duration::from_millis(100);
        // More than the pipe holds: whoever feeds it must be let go, too.
        let error = run(
            vec![slow],
            "a",
            &Payloads::new(),
            io::repeat(7).take(1 << 20),
            target.path(),
        );
        assert_eq!(error.map(drop).unwrap_err().kind(), Kind::DeadlineExceeded);
    }

    #[test]
    fn a_blob_that_cannot_be_read_is_no_layer() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let target = tempfile::tempdir().unwrap();
        let archive = tar();
        let input = archive.as_slice().chain(Broken);
        let processors = vec![processor("cat", "a", PLAIN, "cat")];
        let error = run(processors, "a", &Payloads::new(), input, target.path());
        let error = error.map(drop).unwrap_err().to_string();
        assert!(error.contains("the disk is gone"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let target = tempfile::tempdir().unwrap();
        let mut absent = processor("absent", "a", PLAIN, "");
        absent.path = "/nonexistent/program".into();
        let error = run(vec![absent], "a", &Payloads::new(), io::empty(), target.path());
        let error = error.map(drop).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/program"), "{error}");
    }
}
