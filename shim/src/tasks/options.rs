//! The runtime options of a creation.
//!
//! Clients send `containerd.runc.v1.Options`. Those of containerd 1 send it only to runtimes of the name
//! `io.containerd.runc`, and the options of their first runtime to all others: both are understood, all else is refused.

use wharf_proto::any::unpack;
use wharf_proto::containerd::runc::v1::Options;
use wharf_proto::containerd::task::v2::CreateTaskRequest;

use crate::status::{Code, Refusal};

/// `containerd.linux.runc.CreateOptions`, without what is about checkpoints or said elsewhere.
#[derive(Clone, PartialEq, prost::Message)]
struct CreateOptions {
    #[prost(bool, tag = "1")]
    no_pivot_root: bool,
    #[prost(bool, tag = "8")]
    no_new_keyring: bool,
    #[prost(string, tag = "9")]
    shim_cgroup: String,
    #[prost(uint32, tag = "10")]
    io_uid: u32,
    #[prost(uint32, tag = "11")]
    io_gid: u32,
    #[prost(string, tag = "12")]
    criu_work_path: String,
    #[prost(string, tag = "13")]
    criu_image_path: String,
}

impl prost::Name for CreateOptions {
    const NAME: &'static str = "CreateOptions";
    const PACKAGE: &'static str = "containerd.linux.runc";
}

impl From<CreateOptions> for Options {
    fn from(options: CreateOptions) -> Options {
        Options {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            criu_work_path: options.criu_work_path,
            criu_image_path: options.criu_image_path,
            ..Options::default()
        }
    }
}

/// The request's options, when they are for us.
///
/// # Errors
///
/// They are of another type, or are no encoding of their own.
pub fn options(request: &CreateTaskRequest) -> Result<Options, Refusal> {
    let Some(any) = request.options.as_ref().filter(|any| !any.value.is_empty()) else {
        return Ok(Options::default());
    };
    let invalid = |message: String| Refusal::new(Code::InvalidArgument, message);
    let damaged = |error| invalid(format!("runtime options: {error}"));
    if let Some(options) = unpack::<Options>(any).map_err(damaged)? {
        return Ok(options);
    }
    let older = unpack::<CreateOptions>(any).map_err(damaged)?;
    older.map(Options::from).ok_or_else(|| {
        invalid(format!(
            "runtime options of type {:?} are not understood",
            any.type_url
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_proto::any::pack;

    fn of(any: prost_types::Any) -> Result<Options, Refusal> {
        options(&CreateTaskRequest {
            options: Some(any),
            ..CreateTaskRequest::default()
        })
    }

    #[test]
    fn both_forms_are_understood_and_no_other() {
        let expected = Options {
            no_pivot_root: true,
            io_uid: 7,
            io_gid: 8,
            ..Options::default()
        };
        assert_eq!(of(pack(&expected)).unwrap(), expected);
        let older = CreateOptions {
            no_pivot_root: true,
            io_uid: 7,
            io_gid: 8,
            ..CreateOptions::default()
        };
        assert_eq!(of(pack(&older)).unwrap(), expected);
        let other = prost_types::Any {
            type_url: "other.Options".to_owned(),
            value: vec![8, 1],
        };
        assert!(of(other).unwrap_err().to_string().contains("other.Options"));
        assert_eq!(
            options(&CreateTaskRequest::default()).unwrap(),
            Options::default()
        );
    }
}
