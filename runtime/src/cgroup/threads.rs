//! v2 groups below one whose threads are spread over its children ([cgroup-v2, threads]).
//!
//! A group that is made below a threaded one is of no use as it is: it has to become threaded itself, and then cannot
//! have the controllers that count by process.
//!
//! [cgroup-v2, threads]: https://docs.kernel.org/admin-guide/cgroup-v2.html#threads

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::plan::Directory;
use super::{Error, file};

const TYPE: &str = "cgroup.type";

/// What a container's group may turn out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Usable,
    /// It becomes usable when it becomes threaded.
    MakeThreaded,
    Refused(&'static str),
}

fn judge(kind: &str, needs_domain: bool) -> Answer {
    match (kind.trim(), needs_domain) {
        ("domain invalid", true) => Answer::Refused("it is in an invalid state"),
        ("domain invalid", false) => Answer::MakeThreaded,
        ("domain threaded", true) => Answer::Refused("it is in domain threaded mode"),
        ("threaded", true) => Answer::Refused("it is in threaded mode"),
        _ => Answer::Usable,
    }
}

/// Whether a limit is of a controller that counts processes, not threads, as runc sorts them.
fn needs_domain(directory: &Directory) -> bool {
    const DOMAIN: [&str; 4] = ["memory.", "io.", "cpu.", "hugetlb."];
    directory
        .writes
        .iter()
        .any(|write| DOMAIN.iter().any(|controller| write.file.starts_with(controller)))
}

/// Makes the group at `fd` one that processes can be in, or says why it cannot be.
pub(super) fn settle(directory: &Directory, fd: &OwnedFd) -> Result<(), Error> {
    let kind = file::read_if_present(fd.as_fd(), &directory.path, TYPE)?.unwrap_or_default();
    match judge(&kind, needs_domain(directory)) {
        Answer::Usable => Ok(()),
        Answer::Refused(why) => Err(refusal(&directory.path, why)),
        Answer::MakeThreaded => {
            // From above: a group can become threaded when its parent is.
            let below = directory
                .path
                .strip_prefix(&directory.mount)
                .unwrap_or(Path::new(""));
            let mut at = directory.mount.clone();
            for part in below.components() {
                at.push(part);
                let path = at.join(TYPE);
                let kind = std::fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
                if kind.trim() == "domain invalid" {
                    std::fs::write(&path, "threaded")
                        .map_err(|error| Error::io("write \"threaded\" to", &path, error))?;
                }
            }
            Ok(())
        }
    }
}

fn refusal(path: &Path, why: &str) -> Error {
    let path = path.display().to_string();
    Error::field(
        "linux.resources",
        format!("cannot enter cgroupv2 {path:?} with domain controllers -- {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_processes_need_a_domain() {
        assert_eq!(judge("domain\n", true), Answer::Usable);
        assert_eq!(judge("", true), Answer::Usable);
        assert_eq!(judge("domain invalid\n", false), Answer::MakeThreaded);
        assert_eq!(judge("threaded\n", false), Answer::Usable);
        for kind in ["domain invalid\n", "domain threaded\n", "threaded\n"] {
            assert!(matches!(judge(kind, true), Answer::Refused(_)), "{kind}");
        }
    }
}
