//! criu as a process: found, executed as `criu swrk 3`, asked and heard over a packet socket.
//!
//! One process answers one request. It is a child of the caller's, and ends with the value that stands for it here, whatever
//! happens: nothing of criu's is left running. What it says is bounded: a packet that is longer than a page or two is no answer.

use std::ffi::{CString, OsStr};
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown,
    SocketFlags, SocketType, recvmsg, send, shutdown, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Error as Refused;
use super::images::Directory;
use super::message::{self, Answer, Feature, Kind};
use super::wire::Message;
use crate::init::{Service, Trouble, become_criu};
use crate::sys::process::{Child, Ended, Notice, clone_child, clone_child_old, pidfd_signal, wait};
use crate::sys::socket::receive_fd;
use crate::sys::strings::Strings;
use crate::sys::{Errno, Fd, fd};
use crate::trace::trace;
use crate::{Error, hook, kernel, search_path};

/// The longest packet. criu's own limit is the same order.
const MAX_PACKET_BYTES: usize = 64 << 10;
/// Above what criu gets as its own descriptors: it needs none of these numbers itself before it is executed.
const HIGH: i32 = 64;
/// How many descriptors it gets besides: a container has fewer namespaces.
const MAX_MORE: usize = 16;

/// An installed criu.
#[derive(Debug)]
pub(super) struct Criu {
    program: CString,
    /// 3.17.1 is 31701.
    version: i32,
}

impl Criu {
    /// Looks for the program, and asks it how old it is.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Error> {
        let mut criu = Self {
            program: locate(named.unwrap_or(Path::new("criu")))?,
            version: 0,
        };
        let failed = |problem: String| Error::from(Refused::Version(problem));
        let answer = criu
            .ask(&message::request(Kind::Version, None))
            .map_err(|error| failed(error.to_string()))?;
        criu.version = match answer.version.filter(|_| answer.success) {
            Some(version) => version,
            None => return Err(failed("it does not tell its version".into())),
        };
        trace!("Using CRIU {}", criu.version);
        Ok(criu)
    }

    pub(super) fn is_at_least(&self, version: i32) -> bool {
        self.version >= version
    }

    /// Refuses one that is older.
    pub(super) fn need(&self, version: i32) -> Result<(), Error> {
        match self.is_at_least(version) {
            true => Ok(()),
            false => Err(Refused::TooOld {
                found: self.version,
                needed: version,
            }
            .into()),
        }
    }

    /// Refuses to go on where it or the kernel lacks something.
    pub(super) fn need_feature(&self, feature: Feature) -> Result<(), Error> {
        let failed = |problem: String| Error::from(Refused::FeatureCheck(problem));
        let answer = self
            .ask(&message::feature_check(feature))
            .map_err(|error| failed(error.to_string()))?;
        if !answer.success {
            return Err(failed(format!(
                "criu failed: type {} errno {}",
                Kind::FeatureCheck.name(),
                answer.errno
            )));
        }
        let has = match feature {
            Feature::MemTrack => answer.mem_track,
            Feature::LazyPages => answer.lazy_pages,
        };
        // One that says nothing about it is too old to be asked.
        match has {
            Some(false) => Err(Refused::MissingFeature(feature.name()).into()),
            _ => Ok(()),
        }
    }

    fn ask(&self, question: &Message) -> Result<Answer, Error> {
        let running = self.start(&Circumstances::default())?;
        running.send(question)?;
        let (answer, _) = running
            .hear()
            .map_err(|Unheard(problem)| Error::Invalid(format!("criu {problem}")))?;
        Ok(answer)
    }

    /// Starts a process that waits for its request.
    pub(super) fn start(&self, circumstances: &Circumstances<'_>) -> Result<Running, Error> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, starter) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|errno| Error::io("make a socket pair", errno))?;
        let starter = high(starter.as_fd())?;
        let descriptors = circumstances.descriptors()?;
        let numbers: Vec<Fd> = descriptors.iter().map(Fd::of).collect();
        let directories = circumstances.directories.iter().map(|directory| directory.path());
        let directories: Vec<CString> = directories.collect::<Result<_, _>>()?;
        let (heard, report) = report_pipe()?;
        let proc = kernel::is_old().then(kernel::open_proc).transpose()?;
        let arguments = [c"criu", c"swrk", c"3"].map(ToOwned::to_owned);
        let service = Service {
            program: &self.program,
            arguments: &Strings::new(arguments.to_vec()),
            environment: &Strings::new(hook::environment_of_this_process()),
            descriptors: &numbers,
            directories: &directories,
            root: circumstances.root,
            proc: proc.as_ref().map(Fd::of),
            starter: Fd::of(&starter),
            reporter: Fd::of(&report),
        };
        let namespaces = match circumstances.root {
            Some(_) => libc::CLONE_NEWNS as u64,
            None => 0,
        };
        let child = clone(namespaces, Notice::Child, || become_criu(&service))?;
        drop((report, starter, descriptors));
        // Without one it has something else to say.
        let socket = receive_fd(Fd::of(&ours)).map(fd::own);
        let trouble = read_trouble(heard);
        let running = Running {
            child: Some(child),
            socket: socket.unwrap_or(ours),
        };
        match trouble? {
            None => Ok(running),
            Some(trouble) => Err(Error::io(
                format!("execute {}", self.program.to_string_lossy()),
                trouble.errno,
            )),
        }
    }
}

/// A pipe for a child half that has nothing to say unless it fails.
pub(super) fn report_pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    let failed = |errno: rustix::io::Errno| Error::io("make a pipe", errno);
    let (heard, report) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    Ok((heard, high(report.as_fd())?))
}

/// A copy with a number that is out of the way.
fn high(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, HIGH)
        .map_err(|errno| Error::io("duplicate a descriptor", errno))
}

/// Waits until a child half has succeeded, or says why not.
pub(super) fn read_trouble(heard: OwnedFd) -> Result<Option<Trouble>, Error> {
    let mut bytes = Vec::new();
    let read = std::fs::File::from(heard)
        .take(Trouble::BYTES as u64)
        .read_to_end(&mut bytes);
    read.map_err(|error| Error::io("hear a process", error))?;
    match bytes.is_empty() {
        true => Ok(None),
        false => Trouble::decode(&bytes)
            .map(Some)
            .ok_or(Error::Ended("being executed")),
    }
}

/// Makes a child that runs `body`, one of [`crate::init`]'s.
pub(super) fn clone(
    namespaces: u64,
    notice: Notice,
    body: impl FnOnce() -> std::convert::Infallible,
) -> Result<Child, Error> {
    let old = kernel::is_old();
    // SAFETY: the bodies of `init` allocate nothing, lock nothing, do not unwind and never return.
    #[allow(unsafe_code)]
    let child = unsafe {
        match old {
            false => clone_child(namespaces, None, notice, body),
            true => clone_child_old(namespaces, notice, body),
        }
    };
    child.map_err(Error::Clone)
}

/// The file of the program.
fn locate(named: &Path) -> Result<CString, Error> {
    let missing =
        |problem: &str| Refused::Version(format!("exec: {:?}: {problem}", named.display().to_string()));
    let found: PathBuf = match named.components().count() > 1 || named.is_absolute() {
        true if search_path::is_program(named) => named.to_owned(),
        true => return Err(missing("no such program").into()),
        false => search_path::find(named).ok_or_else(|| missing("executable file not found in $PATH"))?,
    };
    CString::new(found.into_os_string().as_bytes()).map_err(|_| missing("contains a zero byte").into())
}

/// What one process of criu's finds.
#[derive(Debug, Default)]
pub(super) struct Circumstances<'a> {
    /// Its streams; the null device where there are none.
    pub(super) streams: Option<[OwnedFd; 3]>,
    /// What it finds from [`FIRST`] on.
    pub(super) directories: Vec<&'a Directory>,
    /// What it finds after them.
    pub(super) more: Vec<BorrowedFd<'a>>,
    /// A directory, and where it becomes a mount of its own, in a mount namespace of its own.
    pub(super) root: Option<(&'a std::ffi::CStr, &'a std::ffi::CStr)>,
}

/// The number of the first descriptor besides the streams and the socket.
pub(super) const FIRST: i32 = Service::FIRST;

impl Circumstances<'_> {
    /// All but the socket, with numbers that are out of the way.
    fn descriptors(&self) -> Result<Vec<OwnedFd>, Error> {
        if self.more.len() > MAX_MORE {
            return Err(Error::Invalid("criu is to get too many descriptors".into()));
        }
        let null;
        let streams = match &self.streams {
            Some([stdin, stdout, stderr]) => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            None => {
                let opened = std::fs::File::options().read(true).write(true).open("/dev/null");
                null = opened.map_err(|error| Error::io("open /dev/null", error))?;
                [null.as_fd(); 3]
            }
        };
        let directories = self.directories.iter().map(|directory| directory.fd.as_fd());
        let all = streams
            .into_iter()
            .chain(directories)
            .chain(self.more.iter().copied());
        all.map(high).collect()
    }
}

/// criu did not say what could be understood.
#[derive(Debug)]
pub(super) struct Unheard(pub(super) String);

/// A process of criu's. It is killed and reaped when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Option<Child>,
    socket: OwnedFd,
}

impl Running {
    pub(super) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }

    pub(super) fn send(&self, message: &Message) -> Result<(), Error> {
        send(&self.socket, message.encoded(), SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|errno| Error::io("talk to criu", errno))
    }

    /// Waits for the next answer, and takes the descriptor beside it if there is one.
    pub(super) fn hear(&self) -> Result<(Answer, Option<OwnedFd>), Unheard> {
        let failed = |errno: rustix::io::Errno| Unheard(format!("cannot be heard: {}", Errno::from(errno)));
        self.wait().map_err(failed)?;
        let mut packet = vec![0; MAX_PACKET_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut was_reset = false;
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut packet)];
            match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                // It ended without having read everything. What it had said before is still to be heard.
                Err(rustix::io::Errno::CONNRESET) if !was_reset => was_reset = true,
                Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::AGAIN) => {
                    return Err(Unheard("ended without an answer".into()));
                }
                answer => break answer.map_err(failed)?,
            }
        };
        if received.bytes == 0 {
            return Err(Unheard("ended without an answer".into()));
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(Unheard("says more than an answer has room for".into()));
        }
        let passed = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let answer = message::answer(packet.get(..received.bytes).unwrap_or_default())
            .map_err(|_| Unheard("says what is no answer".into()))?;
        Ok((answer, passed))
    }

    /// Its end ends the conversation, even if another process happens to hold a copy of its socket.
    fn wait(&self) -> rustix::io::Result<()> {
        loop {
            let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
            fds.extend(
                self.child
                    .as_ref()
                    .map(|child| PollFd::new(&child.pidfd, PollFlags::IN)),
            );
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno),
                // At its end there is what it has said before, or nothing.
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Nothing more is asked: waits for its end; how it ended. Nothing: it was reaped by somebody else.
    pub(super) fn finish(mut self) -> Result<Option<Ended>, Error> {
        match shutdown(&self.socket, Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => {}
            Err(errno) => return Err(Error::io("talk to criu", errno)),
        }
        let Some(child) = self.child.take() else {
            return Ok(None);
        };
        match wait(Fd::of(&child.pidfd)) {
            Ok(ended) => Ok(Some(ended)),
            Err(errno) if errno.number() == libc::ECHILD => Ok(None),
            Err(errno) => Err(Error::io("wait for criu", errno)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let pidfd = Fd::of(&child.pidfd);
            // It may have ended; then there is nothing to kill, and only to reap.
            let killed = pidfd_signal(pidfd, libc::SIGKILL);
            if killed.is_ok() || killed.is_err_and(|errno| errno.number() == libc::ESRCH) {
                let reaped = wait(pidfd);
                debug_assert!(reaped.is_ok() || reaped.is_err_and(|errno| errno.number() == libc::ECHILD));
            }
        }
    }
}

/// A path as a C string.
pub(super) fn c_path(path: &Path) -> Result<CString, Error> {
    let bytes: &OsStr = path.as_os_str();
    CString::new(bytes.as_bytes()).map_err(|_| Error::Invalid(format!("{} has a zero byte", path.display())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::ErrorKind;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("criu");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (home, path)
    }

    #[test]
    fn a_criu_that_is_not_there_is_told_as_runc_tells_it() {
        let error = Criu::find(Some(Path::new("no-such-criu"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "CRIU version check failed: exec: \"no-such-criu\": executable file not found in $PATH"
        );
        assert!(Criu::find(Some(Path::new("/no/such/criu"))).is_err());
    }

    #[test]
    fn a_criu_that_does_not_answer_is_no_criu() {
        for text in [
            "#!/bin/sh\nexit 3\n",
            "#!/bin/sh\nexec sleep 0\n",
            "#!/nonexistent\n",
        ] {
            let (_home, path) = script(text);
            let error = Criu::find(Some(&path)).unwrap_err().to_string();
            assert!(error.starts_with("CRIU version check failed: "), "{error}");
        }
    }

    /// An answer as a shell can write it, to descriptor 3.
    fn answering(bytes: &str) -> Result<Criu, Error> {
        let (_home, path) = script(&format!(
            "#!/bin/sh\nhead -c 1 <&3 >/dev/null\ntest \"$*\" = 'swrk 3' && printf '{bytes}' >&3\n"
        ));
        Criu::find(Some(&path))
    }

    #[test]
    fn the_version_decides_what_can_be_asked_for() {
        let criu = answering(r"\010\012\020\001\122\006\010\003\020\021\040\001").unwrap();
        assert!(criu.is_at_least(31_701) && !criu.is_at_least(31_702));
        criu.need(30_000).unwrap();
        let error = criu.need(40_000).unwrap_err();
        assert_eq!(error.to_string(), "CRIU version 31701 must be 40000 or higher");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        // Without success, without a version, and what is no message.
        for bytes in [
            r"\010\012\020\000\122\004\010\003\020\021",
            r"\010\012\020\001",
            r"\377",
        ] {
            answering(bytes).unwrap_err();
        }
    }

    #[test]
    fn an_answer_has_an_end() {
        let (_home, path) = script(
            "#!/bin/sh\nhead -c 1 <&3 >/dev/null\nexec dd if=/dev/zero bs=100000 count=1 >&3 2>/dev/null\n",
        );
        let error = Criu::find(Some(&path)).unwrap_err().to_string();
        assert!(
            error.ends_with("says more than an answer has room for"),
            "{error}"
        );
    }

    #[test]
    fn a_feature_that_is_missing_is_named() {
        // It answers the version first, and the second time about the feature.
        let answer = |features: &str| {
            let (home, path) = script("");
            let text = format!(
                "#!/bin/sh\nhead -c 1 <&3 >/dev/null\nif mkdir {}/asked 2>/dev/null; then \
                 printf '\\010\\012\\020\\001\\122\\004\\010\\003\\020\\021' >&3; else printf '{features}' >&3; fi\n",
                home.path().display()
            );
            fs::write(&path, text).unwrap();
            Criu::find(Some(&path)).unwrap().need_feature(Feature::LazyPages)
        };
        answer(r"\010\011\020\001\102\002\020\001").unwrap();
        answer(r"\010\011\020\001\102\000").unwrap();
        let error = answer(r"\010\011\020\001\102\002\020\000").unwrap_err();
        assert_eq!(error.to_string(), "criu is missing features: [LazyPages]");
        let error = answer(r"\010\011\020\000").unwrap_err().to_string();
        assert_eq!(
            error,
            "CRIU feature check failed: criu failed: type FEATURE_CHECK errno 0"
        );
    }

    #[test]
    fn criu_gets_its_descriptors_in_order_and_no_others() {
        let (home, path) = script("");
        let out = home.path().join("out");
        let text = format!(
            "#!/bin/sh\nls /proc/$$/fd > {}; readlink /proc/$$/fd/4 >> {}\n",
            out.display(),
            out.display()
        );
        fs::write(&path, text).unwrap();
        let criu = Criu {
            program: c_path(&path).unwrap(),
            version: 0,
        };
        let given = fs::File::open("/proc/self/status").unwrap();
        let stray = rustix::io::fcntl_dupfd_cloexec(&given, 700).unwrap();
        rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
        let running = criu
            .start(&Circumstances {
                more: vec![given.as_fd()],
                ..Circumstances::default()
            })
            .unwrap();
        assert_eq!(running.finish().unwrap(), Some(Ended::Exited(0)));
        let out = fs::read_to_string(&out).unwrap();
        let mut lines = out.lines();
        // The script itself is open too, with some number of the shell's own.
        for expected in ["0", "1", "2", "3", "4"] {
            assert!(lines.clone().any(|line| line == expected), "{out}");
        }
        assert!(lines.next_back().unwrap().ends_with("/status"), "{out}");
        let stray = Fd::of(&stray).number().to_string();
        assert!(!out.lines().any(|line| line == stray), "{out}");
    }

    #[test]
    fn what_is_dropped_does_not_run_on() {
        let (_home, path) = script("#!/bin/sh\nexec sleep 1000\n");
        let criu = Criu {
            program: c_path(&path).unwrap(),
            version: 0,
        };
        let running = criu.start(&Circumstances::default()).unwrap();
        let pid = running.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
