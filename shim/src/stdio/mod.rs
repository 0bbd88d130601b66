//! A process's standard streams: what the process gets, and what the shim keeps.
//!
//! [`prepare`] turns a request's URIs into descriptors for the process and the shim's own ends; it opens everything
//! before anything is created, so that a wrong URI leaves nothing behind. [`Prepared::start`] begins the copying, with
//! a terminal only once its master is there.

pub mod fifo;
pub mod json_file;
pub mod logger;
pub mod stream;
pub mod unread;
pub mod uri;

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl, open};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::reactor::Reactor;
use crate::status::{Code, Refusal};
use fifo::{Tap, Writer};
use json_file::{LogFile, LogStream};
use logger::Logger;
use stream::{Sink, Streams};
use uri::Output;

/// A request's standard streams, as its client named them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Whether the process has a terminal; stderr is then unused.
    pub terminal: bool,
    /// A FIFO's path, or nothing.
    pub stdin: String,
    /// An output URI.
    pub stdout: String,
    /// An output URI.
    pub stderr: String,
}

/// For whom streams are prepared.
pub struct Owner<'a> {
    /// The container's id.
    pub container: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Who shall own the process's ends of the pipes.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
}

/// What the process gets as its descriptors 0, 1 and 2.
#[derive(Debug)]
pub enum ChildStdio {
    /// These.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// A terminal that the runtime makes.
    Terminal,
}

/// The shim's ends of a process's streams, before copying starts.
pub struct Prepared {
    /// Copies that can start at once: source, sink, whether it is output.
    copies: Vec<(OwnedFd, Sink, bool)>,
    /// With a terminal: where its output goes.
    console_output: Option<Sink>,
    /// With a terminal: where its input comes from.
    console_input: Option<OwnedFd>,
    /// Keeps end-of-file from the process's input until `CloseIO`.
    pub input_keeper: Option<OwnedFd>,
    /// The logging program, when the output goes to one.
    pub logger: Option<Logger>,
}

/// Opens everything that `names` names.
///
/// # Errors
///
/// A URI is not understood, or something cannot be opened. Nothing is left behind, but for files that were made.
pub fn prepare(names: &Names, owner: &Owner<'_>) -> Result<(ChildStdio, Prepared), Refusal> {
    let stdout = Output::parse(&names.stdout)?;
    let stderr = if names.terminal {
        Output::Null
    } else {
        Output::parse(&names.stderr)?
    };
    let mut prepared = Prepared {
        copies: Vec::new(),
        console_output: None,
        console_input: None,
        input_keeper: None,
        logger: None,
    };
    let mut input = None;
    if !names.stdin.is_empty() {
        let path = Path::new(&names.stdin);
        let (reader, keeper) = fifo::open_input(path).map_err(|error| cannot_open(path, error))?;
        prepared.input_keeper = Some(keeper);
        input = Some(reader);
    }
    if names.terminal {
        prepared.console_input = input;
        prepared.console_output = match &stdout {
            Output::Null => None,
            Output::Binary { .. } => {
                let (reader, writer) = pipe(owner)?;
                // The program gets a stderr that has ended.
                let (silent, _) = pipe(owner)?;
                prepared.logger = Some(start_logger(&stdout, owner, reader, silent)?);
                set_nonblocking(&writer)?;
                Some(Sink::Pipe(writer))
            }
            other => Some(sink(other, "stdout", &mut None)?),
        };
        return Ok((ChildStdio::Terminal, prepared));
    }
    let stdin = match input {
        None => null()?,
        Some(reader) => {
            let (theirs, ours) = pipe(owner)?;
            set_nonblocking(&ours)?;
            prepared.copies.push((reader, Sink::Pipe(ours), false));
            theirs
        }
    };
    let (stdout, stderr) = match (&stdout, &stderr) {
        (Output::Binary { .. }, Output::Null | Output::Binary { .. }) => {
            let (out_reader, out) = pipe(owner)?;
            let (error_reader, error) = pipe(owner)?;
            prepared.logger = Some(start_logger(&stdout, owner, out_reader, error_reader)?);
            (out, error)
        }
        (Output::Binary { .. }, _) | (_, Output::Binary { .. }) => {
            let message = "stdout and stderr must name the same logging program";
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        (stdout, stderr) => {
            let mut log = None;
            let stdout = prepared.output(stdout, "stdout", owner, &mut log)?;
            let stderr = prepared.output(stderr, "stderr", owner, &mut log)?;
            (stdout, stderr)
        }
    };
    Ok((
        ChildStdio::Fds {
            stdin,
            stdout,
            stderr,
        },
        prepared,
    ))
}

type SharedLog = Option<Rc<RefCell<LogFile>>>;

impl Prepared {
    /// The process's end of one output.
    fn output(
        &mut self,
        output: &Output,
        stream: &'static str,
        owner: &Owner<'_>,
        log: &mut SharedLog,
    ) -> Result<OwnedFd, Refusal> {
        if *output == Output::Null {
            return null();
        }
        let sink = sink(output, stream, log)?;
        let (ours, theirs) = pipe(owner)?;
        set_nonblocking(&ours)?;
        self.copies.push((ours, sink, true));
        Ok(theirs)
    }

    /// Begins to copy for the process `owner`, all but a terminal.
    ///
    /// # Errors
    ///
    /// A descriptor cannot be watched.
    pub fn start(&mut self, reactor: &Reactor, streams: &mut Streams, owner: u32) -> io::Result<()> {
        for (source, sink, is_output) in self.copies.drain(..) {
            streams.start(reactor, owner, source, sink, is_output, false)?;
        }
        Ok(())
    }

    /// Begins to copy from and to the terminal `master`.
    ///
    /// # Errors
    ///
    /// A descriptor cannot be watched.
    pub fn start_console(
        &mut self,
        reactor: &Reactor,
        streams: &mut Streams,
        owner: u32,
        master: &OwnedFd,
    ) -> io::Result<()> {
        let flags = fcntl_getfl(master)?;
        fcntl_setfl(master, flags | OFlags::NONBLOCK)?;
        let output = match self.console_output.take() {
            Some(sink) => sink,
            // A terminal nobody reads would stop the process once its buffer is full.
            None => Sink::File(OpenOptions::new().write(true).open("/dev/null")?),
        };
        streams.start(reactor, owner, master.try_clone()?, output, true, true)?;
        if let Some(input) = self.console_input.take() {
            let sink = Sink::Terminal(master.try_clone()?);
            streams.start(reactor, owner, input, sink, false, false)?;
        }
        Ok(())
    }
}

fn sink(output: &Output, stream: &'static str, log: &mut SharedLog) -> Result<Sink, Refusal> {
    match output {
        Output::Path(path) => {
            let writer = Writer::open(path).map_err(|error| cannot_open(path, error))?;
            if writer.is_fifo() {
                return Ok(Sink::Fifo(writer));
            }
            Ok(Sink::File(writer.into_file()))
        }
        Output::File(path) => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|error| cannot_open(parent, error))?;
            }
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(path);
            Ok(Sink::File(file.map_err(|error| cannot_open(path, error))?))
        }
        Output::JsonFile(parameters) => {
            let file = match log {
                Some(file) if file.borrow().is_at(&parameters.path) => file.clone(),
                _ => LogFile::open(parameters).map_err(|error| cannot_open(&parameters.path, error))?,
            };
            *log = Some(file.clone());
            Ok(Sink::Log(
                LogStream::new(file, stream),
                parameters.fifo.clone().map(Tap::new),
            ))
        }
        Output::Null | Output::Binary { .. } => {
            Err(Refusal::new(Code::Unknown, "this output has no sink of its own"))
        }
    }
}

fn start_logger(
    output: &Output,
    owner: &Owner<'_>,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<Logger, Refusal> {
    let Output::Binary {
        program,
        arguments,
        must_answer,
    } = output
    else {
        return Err(Refusal::new(Code::Unknown, "this output is no logging program"));
    };
    let request = logger::Request {
        program,
        arguments,
        must_answer: *must_answer,
        container: owner.container,
        namespace: owner.namespace,
    };
    logger::start(&request, stdout, stderr)
}

/// A pipe whose inode belongs to the container's user: reading end, writing end.
fn pipe(owner: &Owner<'_>) -> Result<(OwnedFd, OwnedFd), Refusal> {
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| Refusal::system("make a pipe", error))?;
    if owner.uid != 0 || owner.gid != 0 {
        // Both ends are one inode.
        fchown(
            &reader,
            Some(Uid::from_raw(owner.uid)),
            Some(Gid::from_raw(owner.gid)),
        )
        .map_err(|error| Refusal::system("give a pipe to its user", error))?;
    }
    Ok((reader, writer))
}

fn set_nonblocking(fd: &OwnedFd) -> Result<(), Refusal> {
    fcntl_getfl(fd)
        .and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK))
        .map_err(|error| Refusal::system("make a pipe non-blocking", error))
}

fn null() -> Result<OwnedFd, Refusal> {
    open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Refusal::system("open /dev/null", error))
}

fn cannot_open(path: &Path, error: io::Error) -> Refusal {
    let code = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => Code::InvalidArgument,
        _ => Code::Unknown,
    };
    Refusal::new(code, format!("open {} for stdio: {error}", path.display()))
}
