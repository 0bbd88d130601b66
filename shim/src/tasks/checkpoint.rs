//! Checkpoint: the processes of a container saved by criu, into a directory that the caller names.
//!
//! The other way, a container that is created from such a directory, is Create's: its processes are there again and
//! frozen, until Start lets them run.

use std::path::{Path, PathBuf};

use wharf_proto::any::unpack;
use wharf_proto::containerd::runc::v1::CheckpointOptions;
use wharf_proto::containerd::task::v2::CheckpointTaskRequest;

use super::{Operation, Stage};
use crate::connection::Reply;
use crate::driver::Dump;
use crate::serve::Shim;
use crate::status::{Code, Refusal};

impl Shim {
    /// Begins to save a container's processes.
    ///
    /// # Errors
    ///
    /// The container does not run, or an option is not understood.
    pub fn checkpoint(&mut self, reply: Reply, request: &CheckpointTaskRequest) -> Result<(), Refusal> {
        let stage = self.process(&request.id, "")?.1.stage;
        if stage != Stage::Running {
            return Err(Refusal::new(
                Code::Unknown,
                "cannot checkpoint a container that does not run",
            ));
        }
        let bundle = self.container(&request.id)?.bundle.clone();
        let dump = dump(request, &bundle)?;
        self.submit(&request.id, Operation::Checkpoint { reply, dump })
    }
}

/// What is asked for, checked.
fn dump(request: &CheckpointTaskRequest, bundle: &Path) -> Result<Dump, Refusal> {
    let invalid = |message: String| Refusal::new(Code::InvalidArgument, message);
    let options = match request.options.as_ref().filter(|any| !any.value.is_empty()) {
        None => CheckpointOptions::default(),
        Some(any) => unpack::<CheckpointOptions>(any)
            .map_err(|error| invalid(format!("checkpoint options: {error}")))?
            .ok_or_else(|| {
                invalid(format!(
                    "checkpoint options of type {:?} are not understood",
                    any.type_url
                ))
            })?,
    };
    let absolute = |name: &str, path: &str| {
        let path = PathBuf::from(path);
        match path.is_absolute() {
            true => Ok(path),
            false => Err(invalid(format!(
                "{name} {:?} is not an absolute path",
                path.display()
            ))),
        }
    };
    if let Some(other) = options.empty_namespaces.iter().find(|kind| *kind != "network") {
        return Err(Refusal::new(
            Code::Unimplemented,
            format!("empty namespace {other:?} of a checkpoint is not supported"),
        ));
    }
    let cgroups = options
        .cgroups_mode
        .parse()
        .map_err(|error: wharf_runtime::checkpoint::UnknownMode| invalid(error.to_string()))?;
    Ok(Dump {
        images: absolute("path", &request.path)?,
        work: match options.work_path.as_str() {
            "" => bundle.join("criu-work"),
            path => absolute("work_path", path)?,
        },
        parent: Some(options.parent_path.as_str())
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        exit: options.exit,
        open_tcp: options.open_tcp,
        external_unix_sockets: options.external_unix_sockets,
        terminal: options.terminal,
        file_locks: options.file_locks,
        cgroups_word: options.cgroups_mode,
        cgroups,
    })
}

#[cfg(test)]
mod tests {
    use wharf_proto::any::pack;

    use super::*;

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let asked = |path: &str, options: CheckpointOptions| {
            let request = CheckpointTaskRequest {
                id: "c".into(),
                path: path.into(),
                options: Some(pack(&options)),
            };
            dump(&request, Path::new("/bundle")).map_err(|refusal| (refusal.code, refusal.message))
        };
        let plain = asked("/images", CheckpointOptions::default()).unwrap();
        assert_eq!(plain.work, Path::new("/bundle/criu-work"));
        assert!(!plain.exit && plain.parent.is_none());
        let with = |change: fn(&mut CheckpointOptions)| {
            let mut options = CheckpointOptions::default();
            change(&mut options);
            asked("/images", options).unwrap_err()
        };
        assert_eq!(
            asked("images", CheckpointOptions::default()).unwrap_err().0,
            Code::InvalidArgument
        );
        assert!(
            with(|options| options.cgroups_mode = "all".into())
                .1
                .contains("cgroups")
        );
        assert!(
            with(|options| options.work_path = "w".into())
                .1
                .contains("work_path")
        );
        let (code, message) = with(|options| options.empty_namespaces = vec!["user".into()]);
        assert_eq!(code, Code::Unimplemented);
        assert!(message.contains("user"), "{message}");
    }
}
