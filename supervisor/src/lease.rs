//! Leases: they keep resources while an operation is under way.
//!
//! A resource is a blob (`content`), a snapshot (`snapshots/<snapshotter>`), an ingest (`ingests`) or an image
//! (`images`). Whatever a store makes under a scope with a lease is added to it in the same transaction.

use std::time::Duration;

pub use wharf_proto::containerd::services::leases::v1::{Lease, Resource};

use crate::{
    daemon::Daemon,
    digest::Digest,
    error::{Error, Result},
    identifier::{self, Labels},
    metadata::{Commit, Key, LEASE_RESOURCES, LEASES, Read, Store, WriteTxn},
    namespace::Scope,
    time,
};

/// The longest id, in bytes.
const MAX_ID: usize = 1024;

/// The resource type of blobs.
pub const CONTENT: &str = "content";
/// The resource type of ingests.
pub const INGESTS: &str = "ingests";
/// The resource type of images.
pub const IMAGES: &str = "images";
/// The label that says when a lease ends by itself, in RFC 3339.
pub const EXPIRE: &str = "containerd.io/gc.expire";

/// The resource type of the snapshots of `snapshotter`.
pub fn snapshots(snapshotter: &str) -> String {
    format!("snapshots/{snapshotter}")
}

/// Adds a resource to the scope's lease, if it has one.
///
/// # Errors
///
/// `NotFound` when the lease is gone.
pub fn hold(txn: &mut WriteTxn, scope: &Scope, kind: &str, id: &str) -> Result<()> {
    match &scope.lease {
        Some(lease) => put_resource(txn, &scope.namespace, lease, kind, id),
        None => Ok(()),
    }
}

/// Takes a resource out of the scope's lease, if it has one.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn drop_hold(txn: &mut WriteTxn, scope: &Scope, kind: &str, id: &str) -> Result<()> {
    if let Some(lease) = &scope.lease {
        txn.delete(LEASE_RESOURCES, &Key::new(&[&scope.namespace, lease, kind, id])?)?;
    }
    Ok(())
}

fn put_resource(txn: &mut WriteTxn, namespace: &str, lease: &str, kind: &str, id: &str) -> Result<()> {
    require(txn, namespace, lease)?;
    txn.put(LEASE_RESOURCES, &Key::new(&[namespace, lease, kind, id])?, &())
}

fn require(txn: &impl Read, namespace: &str, lease: &str) -> Result<()> {
    match txn.get(LEASES, &Key::new(&[namespace, lease])?)? {
        Some(_) => Ok(()),
        None => Err(Error::not_found(format!("lease {lease:?}"))),
    }
}

/// Creates a lease; an empty `id` is replaced by a fresh one. Durable.
///
/// # Errors
///
/// `AlreadyExists`; `InvalidArgument` for a bad id or label.
pub fn create(store: &Store, scope: &Scope, id: &str, mut labels: Labels) -> Result<Lease> {
    let id = if id.is_empty() { fresh_id()? } else { id.to_owned() };
    // Not an identifier: clients use image names and paths.
    if id.len() > MAX_ID {
        return Err(Error::invalid(format!("lease id is longer than {MAX_ID} bytes")));
    }
    identifier::validate_labels(&labels)?;
    identifier::drop_empty(&mut labels);
    if let Some(expire) = labels.get(EXPIRE) {
        parse_expire(expire)?;
    }
    let lease = Lease {
        id,
        created_at: Some(time::now()),
        labels,
    };
    let key = Key::new(&[&scope.namespace, &lease.id])?;
    store.write(Commit::Durable, |txn| {
        if txn.get(LEASES, &key)?.is_some() {
            return Err(Error::already_exists(format!("lease {:?}", lease.id)));
        }
        crate::namespace::ensure(txn, &scope.namespace)?;
        txn.put(LEASES, &key, &lease)
    })?;
    Ok(lease)
}

/// Deletes a lease; what only it kept is garbage now. Durable.
///
/// # Errors
///
/// `NotFound`.
pub fn delete(store: &Store, scope: &Scope, id: &str) -> Result<()> {
    let key = Key::new(&[&scope.namespace, id])?;
    let resources = Key::prefix(&[&scope.namespace, id])?;
    store.write(Commit::Durable, |txn| {
        if !txn.delete(LEASES, &key)? {
            return Err(Error::not_found(format!("lease {id:?}")));
        }
        txn.delete_all(LEASE_RESOURCES, &resources)
    })
}

/// All leases of the namespace.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn list(store: &Store, scope: &Scope) -> Result<Vec<Lease>> {
    let prefix = Key::prefix(&[&scope.namespace])?;
    Ok(store
        .read(|txn| txn.scan(LEASES, &prefix))?
        .into_iter()
        .map(|(_, lease)| lease)
        .collect())
}

/// Adds `resource`, which need not exist, to the lease. Durable.
///
/// # Errors
///
/// `NotFound` for the lease; `InvalidArgument` or `Unimplemented` for the resource's type.
pub fn add_resource(store: &Store, scope: &Scope, lease: &str, resource: &Resource) -> Result<()> {
    check(resource)?;
    store.write(Commit::Durable, |txn| {
        put_resource(txn, &scope.namespace, lease, &resource.r#type, &resource.id)
    })
}

/// Takes `resource` out of the lease; one that is not in it is no error. Durable.
///
/// # Errors
///
/// As [`add_resource`].
pub fn delete_resource(store: &Store, scope: &Scope, lease: &str, resource: &Resource) -> Result<()> {
    check(resource)?;
    store.write(Commit::Durable, |txn| {
        require(txn, &scope.namespace, lease)?;
        txn.delete(
            LEASE_RESOURCES,
            &Key::new(&[&scope.namespace, lease, &resource.r#type, &resource.id])?,
        )?;
        Ok(())
    })
}

/// What the lease keeps, by type and id.
///
/// # Errors
///
/// `NotFound`.
pub fn resources(store: &Store, scope: &Scope, lease: &str) -> Result<Vec<Resource>> {
    let rows = store.read(|txn| {
        require(txn, &scope.namespace, lease)?;
        txn.scan(LEASE_RESOURCES, &Key::prefix(&[&scope.namespace, lease])?)
    })?;
    rows.iter()
        .map(|(key, ())| match key.parts()?[..] {
            [_, _, kind, id] => Ok(Resource {
                id: id.to_owned(),
                r#type: kind.to_owned(),
            }),
            _ => Err(Error::new(
                crate::Kind::Unknown,
                "malformed key of a lease resource",
            )),
        })
        .collect()
}

fn check(resource: &Resource) -> Result<()> {
    if resource.id.is_empty() {
        return Err(Error::invalid("resource id must not be empty"));
    }
    match resource.r#type.split('/').collect::<Vec<_>>()[..] {
        [CONTENT] => resource
            .id
            .parse::<Digest>()
            .map(drop)
            .map_err(|error| error.context(format!("invalid content resource id {}", resource.id))),
        [INGESTS | IMAGES] => Ok(()),
        ["snapshots", snapshotter] if !snapshotter.is_empty() => Ok(()),
        [CONTENT | INGESTS | IMAGES | "snapshots", ..] => Err(Error::invalid(format!(
            "invalid resource type {}",
            resource.r#type
        ))),
        _ => Err(Error::unimplemented(format!("resource type {}", resource.r#type))),
    }
}

/// The instant of a `gc.expire` label.
///
/// # Errors
///
/// `InvalidArgument` when it is not RFC 3339.
pub fn parse_expire(text: &str) -> Result<jiff::Timestamp> {
    text.parse()
        .map_err(|error: jiff::Error| Error::invalid(format!("label {EXPIRE}={text}")).caused_by(error))
}

/// `<seconds><nanoseconds>-<random>`, unique and a valid identifier.
fn fresh_id() -> Result<String> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|error| Error::unknown("read random bytes", error))?;
    Ok(format!(
        "{}-{}",
        jiff::Timestamp::now().as_nanosecond(),
        crate::digest::hex(&random)
    ))
}

/// A lease as an operation of ours holds it: deleted by [`Held::release`]; forgotten by a crash, it expires.
pub struct Held {
    /// The scope under the lease: what is made in it is kept.
    pub scope: Scope,
}

/// How long an operation's own lease lasts when a crash forgets it.
const OPERATION: Duration = Duration::from_secs(24 * 3600);

impl Held {
    /// Creates a lease with a fresh id that expires a day from now. Blocks, durable.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn new(daemon: &Daemon, scope: &Scope, mut labels: Labels) -> Result<Self> {
        let expire = jiff::Timestamp::now()
            .checked_add(OPERATION)
            .map_err(|error| Error::unknown("compute the end of a lease", error))?;
        labels.insert(EXPIRE.to_owned(), expire.to_string());
        let id = fresh_id()?;
        if let Err(error) = create(&daemon.metadata, scope, &id, labels) {
            // A flush that failed may have written it all the same.
            daemon.end_lease_later(scope, id);
            return Err(error);
        }
        Ok(Self {
            scope: scope.clone().with_lease(id),
        })
    }

    /// Deletes the lease; what only it kept is garbage now. On a disk that is full, say, the next collections try it again.
    /// Blocks.
    pub fn release(self, daemon: &Daemon) {
        let mut scope = self.scope;
        let id = scope.lease.take().unwrap_or_default();
        match delete(&daemon.metadata, &scope, &id) {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(lease = id, %error, "delete the lease of an operation that ended");
                daemon.end_lease_later(&scope, id);
            }
            _ => {}
        }
    }
}
