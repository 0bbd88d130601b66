//! The output and input of a process, between the shim's FIFOs and any number of clients.
//!
//! The shim writes to a FIFO only while somebody has it open for reading, so it is opened when the first client attaches
//! and closed when the last one has left. Clients that attach before the start are there from the first byte. A client
//! that does not read slows the process down, as a pipe would. Refuses to keep anything: the log is the shim's.

use crate::api::stdcopy::Stream;
use crate::error::{Error, Result};
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PIECE: usize = 32 * 1024;
const QUEUE: usize = 16;

// How long output is awaited from processes that outlive the one that ended: they keep the FIFO open.
const LINGER: Duration = Duration::from_secs(2);

/// A piece of output.
pub type Piece = (Stream, Bytes);

/// The stdio of a container or an exec, over any number of runs.
#[derive(Debug, Default)]
pub struct Stdio {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    clients: Vec<Client>,
    run: Option<Run>,
}

#[derive(Debug)]
struct Client {
    stdout: bool,
    stderr: bool,
    sender: mpsc::Sender<Piece>,
}

#[derive(Debug)]
struct Run {
    directory: PathBuf,
    terminal: bool,
    drain: bool,
    stdin: Option<Arc<AsyncFd<OwnedFd>>>,
    ended: CancellationToken,
    pumps: Vec<JoinHandle<()>>,
}

/// The paths of the FIFOs of one run; an empty path is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fifos {
    /// Of stdin.
    pub stdin: Option<PathBuf>,
    /// Of stdout, and of the terminal.
    pub stdout: PathBuf,
    /// Of stderr; none with a terminal.
    pub stderr: Option<PathBuf>,
}

impl Stdio {
    /// Makes the FIFOs of a new run in `directory`, which exists, and opens those that clients wait for. With `drain`,
    /// output is read and dropped when there is no client: for shims that would make the process wait for one.
    ///
    /// # Errors
    ///
    /// They cannot be made or opened.
    pub fn begin(&self, directory: &Path, terminal: bool, stdin: bool, drain: bool) -> Result<Fifos> {
        let make = |name: &str| {
            let path = directory.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("remove", &path, error))
                }
                _ => rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &path,
                    rustix::fs::FileType::Fifo,
                    Mode::RUSR | Mode::WUSR,
                    0,
                )
                .map_err(|error| Error::io("mkfifo", &path, error))
                .map(|()| path),
            }
        };
        let fifos = Fifos {
            stdin: if stdin { Some(make("stdin")?) } else { None },
            stdout: make("stdout")?,
            stderr: if terminal { None } else { Some(make("stderr")?) },
        };
        let stdin = match &fifos.stdin {
            // Open for reading as well, so that it can be opened before the shim has it.
            Some(path) => Some(Arc::new(open(path, OFlags::RDWR, Interest::WRITABLE)?)),
            None => None,
        };
        let mut inner = lock(&self.inner);
        inner.run = Some(Run {
            directory: directory.to_owned(),
            terminal,
            drain,
            stdin,
            ended: CancellationToken::new(),
            pumps: Vec::new(),
        });
        if drain || !inner.clients.is_empty() {
            inner.pump(&self.inner)?;
        }
        Ok(fifos)
    }

    /// Takes up a run that was begun by an earlier daemon: the FIFOs are there, unless the host was restarted.
    ///
    /// # Errors
    ///
    /// A FIFO cannot be opened.
    pub fn resume(&self, directory: &Path, terminal: bool, stdin: bool) -> Result<()> {
        let stdin = match directory.join("stdin") {
            path if stdin && path.exists() => Some(Arc::new(open(&path, OFlags::RDWR, Interest::WRITABLE)?)),
            _ => None,
        };
        lock(&self.inner).run = Some(Run {
            directory: directory.to_owned(),
            terminal,
            drain: false,
            stdin,
            ended: CancellationToken::new(),
            pumps: Vec::new(),
        });
        Ok(())
    }

    /// Adds a client. It gets everything from now on, and the end when the run it sees, or the next one, has ended.
    ///
    /// # Errors
    ///
    /// A FIFO cannot be opened.
    pub fn attach(&self, stdout: bool, stderr: bool) -> Result<mpsc::Receiver<Piece>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inner = lock(&self.inner);
        inner.clients.push(Client {
            stdout,
            stderr,
            sender,
        });
        inner.pump(&self.inner)?;
        Ok(receiver)
    }

    /// Writes to stdin, waiting for the process to read. Returns `false` when there is no stdin to write to, or the run
    /// ended meanwhile.
    ///
    /// # Errors
    ///
    /// The FIFO is broken.
    pub async fn write(&self, mut bytes: &[u8]) -> Result<bool> {
        let (fd, ended) = match &lock(&self.inner).run {
            Some(Run {
                stdin: Some(fd),
                ended,
                ..
            }) => (Arc::clone(fd), ended.clone()),
            _ => return Ok(false),
        };
        while !bytes.is_empty() {
            let mut ready = tokio::select! {
                ready = fd.writable() => ready.map_err(|error| Error::system(format!("write stdin: {error}")))?,
                () = ended.cancelled() => return Ok(false),
            };
            let wrote =
                ready.try_io(|fd| rustix::io::write(fd.get_ref(), bytes).map_err(std::io::Error::from));
            match wrote {
                Ok(Ok(count)) => bytes = &bytes[count..],
                Ok(Err(error)) => return Err(Error::system(format!("write stdin: {error}"))),
                Err(_would_block) => {}
            }
        }
        Ok(true)
    }

    /// Closes our end of stdin; the shim is told separately to close its own.
    pub fn close_stdin(&self) {
        if let Some(run) = &mut lock(&self.inner).run {
            run.stdin = None;
        }
    }

    /// Ends the run: what is still in the FIFOs goes to the clients, then they get the end.
    pub async fn finish(&self) {
        let Some(run) = lock(&self.inner).run.take() else {
            lock(&self.inner).clients.clear();
            return;
        };
        run.ended.cancel();
        for pump in run.pumps {
            if let Err(error) = pump.await {
                tracing::error!(%error, "output not delivered to its end");
            }
        }
        lock(&self.inner).clients.clear();
        for name in ["stdin", "stdout", "stderr"] {
            let path = run.directory.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "fifo not removed");
                }
                _ => {}
            }
        }
    }
}

impl Inner {
    // Starts the pumps of a run that has none going.
    fn pump(&mut self, shared: &Arc<Mutex<Inner>>) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if run.pumps.iter().any(|pump| !pump.is_finished()) {
            return Ok(());
        }
        run.pumps.clear();
        let streams: &[(&str, Stream)] = if run.terminal {
            &[("stdout", Stream::Stdout)]
        } else {
            &[("stdout", Stream::Stdout), ("stderr", Stream::Stderr)]
        };
        for (name, stream) in streams {
            let fifo = open(&run.directory.join(name), OFlags::RDONLY, Interest::READABLE)?;
            let pump = pump(fifo, *stream, Arc::clone(shared), run.ended.clone(), run.drain);
            run.pumps.push(tokio::spawn(pump));
        }
        Ok(())
    }
}

fn lock(inner: &Mutex<Inner>) -> std::sync::MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path, access: OFlags, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Error::io("open", path, error))?;
    crate::readiness::watch(fd, interest).map_err(|error| Error::io("watch", path, error))
}

enum Read {
    Some(Bytes),
    // Nobody has it open for writing: not yet, or no more.
    NoWriter,
    Nothing,
}

fn read(fifo: &OwnedFd, buffer: &mut [u8]) -> Read {
    match rustix::io::read(fifo, &mut *buffer) {
        Ok(0) => Read::NoWriter,
        Ok(count) => Read::Some(Bytes::copy_from_slice(&buffer[..count])),
        Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
        Err(error) => {
            tracing::error!(%error, "fifo cannot be read");
            Read::NoWriter
        }
    }
}

async fn pump(
    fifo: AsyncFd<OwnedFd>,
    stream: Stream,
    shared: Arc<Mutex<Inner>>,
    ended: CancellationToken,
    drain: bool,
) {
    let mut buffer = vec![0; PIECE];
    let mut patience = None;
    let mut hung_up = false;
    loop {
        let has_writer = match read(fifo.get_ref(), &mut buffer) {
            Read::Some(bytes) => {
                if !deliver(&shared, stream, bytes).await && !drain {
                    return;
                }
                continue;
            }
            Read::NoWriter if ended.is_cancelled() => return,
            Read::NoWriter => false,
            Read::Nothing => true,
        };
        if let Some(patience) = patience {
            tokio::select! {
                () = readable(&fifo, has_writer, &mut hung_up) => {}
                () = tokio::time::sleep_until(patience) => return,
            }
        } else {
            tokio::select! {
                () = readable(&fifo, has_writer, &mut hung_up) => {}
                () = ended.cancelled() => patience = Some(tokio::time::Instant::now() + LINGER),
            }
        }
    }
}

/// Waits until there may be something to read. `hung_up` remembers that the writers were told to have gone.
async fn readable(fifo: &AsyncFd<OwnedFd>, has_writer: bool, hung_up: &mut bool) {
    match fifo.readable().await {
        Ok(mut ready) => {
            // The hang-up of a FIFO whose writers have gone stays, and would be reported for ever. The first time it may have come
            // with their last words.
            if ready.ready().is_read_closed() && !has_writer && std::mem::replace(hung_up, true) {
                std::future::pending::<()>().await;
            }
            ready.clear_ready();
        }
        Err(_) => std::future::pending().await,
    }
}

// Whether somebody is left to read.
async fn deliver(shared: &Mutex<Inner>, stream: Stream, bytes: Bytes) -> bool {
    let senders: Vec<_> = {
        let mut inner = lock(shared);
        inner.clients.retain(|client| !client.sender.is_closed());
        let wants = |client: &&Client| match stream {
            Stream::Stderr => client.stderr,
            _ => client.stdout,
        };
        if inner.clients.is_empty() {
            return false;
        }
        inner
            .clients
            .iter()
            .filter(wants)
            .map(|client| client.sender.clone())
            .collect()
    };
    for sender in senders {
        // One that has left meanwhile is taken out the next time.
        sender.send((stream, bytes.clone())).await.ok();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn writer(fifos: &Fifos) -> std::fs::File {
        std::fs::OpenOptions::new()
            .write(true)
            .open(&fifos.stdout)
            .unwrap()
    }

    async fn collect(mut receiver: mpsc::Receiver<Piece>) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((_, bytes)) = receiver.recv().await {
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[tokio::test]
    async fn an_early_client_gets_everything() {
        let directory = tempfile::tempdir().unwrap();
        let stdio = Stdio::default();
        let receiver = stdio.attach(true, true).unwrap();
        let fifos = stdio.begin(directory.path(), false, false, false).unwrap();
        let mut writer = writer(&fifos);
        writer.write_all(b"first ").unwrap();
        let reader = tokio::spawn(collect(receiver));
        tokio::task::yield_now().await;
        writer.write_all(b"last").unwrap();
        drop(writer);
        stdio.finish().await;
        assert_eq!(reader.await.unwrap(), b"first last");
        assert!(!fifos.stdout.exists());
    }

    #[tokio::test]
    async fn output_that_comes_with_its_end_is_read_before_the_process_is_known_to_have_ended() {
        let directory = tempfile::tempdir().unwrap();
        let stdio = Stdio::default();
        let mut receiver = stdio.attach(true, true).unwrap();
        let fifos = stdio.begin(directory.path(), false, false, false).unwrap();
        // The pumps have looked, and found nobody.
        tokio::task::yield_now().await;
        writer(&fifos).write_all(b"all").unwrap();
        let piece = tokio::time::timeout(LINGER, receiver.recv()).await;
        assert_eq!(piece.unwrap().unwrap().1.as_ref(), b"all");
        stdio.finish().await;
    }

    #[tokio::test]
    async fn without_output_the_end_comes_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let stdio = Stdio::default();
        let receiver = stdio.attach(true, true).unwrap();
        stdio.begin(directory.path(), false, true, false).unwrap();
        let begun = std::time::Instant::now();
        stdio.finish().await;
        assert_eq!(collect(receiver).await, b"");
        assert!(begun.elapsed() < LINGER);
    }

    #[tokio::test]
    async fn input_reaches_the_reader_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        let stdio = Stdio::default();
        let fifos = stdio.begin(directory.path(), true, true, false).unwrap();
        assert!(stdio.write(b"typed").await.unwrap());
        let path = fifos.stdin.unwrap();
        let mut reader = std::fs::OpenOptions::new().read(true).open(path).unwrap();
        stdio.close_stdin();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "typed");
        assert!(!stdio.write(b"more").await.unwrap());
    }

    #[tokio::test]
    async fn a_failed_start_ends_the_clients() {
        let stdio = Stdio::default();
        let receiver = stdio.attach(true, false).unwrap();
        stdio.finish().await;
        assert_eq!(collect(receiver).await, b"");
    }
}
