//! The namespace and the lease of a request: the two headers that every containerd client sends.
//!
//! Refuses a request without a namespace, and names that are not identifiers. The rows of namespaces are also here.

use wharf_proto::containerd::services::namespaces::v1::Namespace;

use crate::{
    error::{Error, Result},
    metadata::{Key, NAMESPACES, Read as _, WriteTxn},
};

/// The header that names the namespace of a call.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";
/// The header that names the lease new resources are added to.
pub const LEASE_HEADER: &str = "containerd-lease";

/// In which namespace, and under which lease, an operation acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The namespace, a valid identifier.
    pub namespace: String,
    /// The lease that new resources are added to.
    pub lease: Option<String>,
}

impl Scope {
    /// A scope without a lease.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            lease: None,
        }
    }

    /// The same namespace under `lease`.
    #[must_use]
    pub fn with_lease(mut self, lease: impl Into<String>) -> Self {
        self.lease = Some(lease.into());
        self
    }

    /// Reads the scope from the headers of a request.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` without a namespace, `InvalidArgument` when it is not an identifier.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self> {
        let header = |name| {
            request
                .metadata()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .filter(|value| !value.is_empty())
        };
        let namespace = header(NAMESPACE_HEADER)
            .ok_or_else(|| Error::precondition("namespace is required"))?
            .to_owned();
        crate::identifier::validate(&namespace).map_err(|error| error.context("namespace validation"))?;
        Ok(Self {
            namespace,
            lease: header(LEASE_HEADER).map(str::to_owned),
        })
    }
}

/// Creates the row of a namespace in which something is made for the first time.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn ensure(txn: &mut WriteTxn, namespace: &str) -> Result<()> {
    let key = Key::new(&[namespace])?;
    if txn.get(NAMESPACES, &key)?.is_none() {
        txn.put(
            NAMESPACES,
            &key,
            &Namespace {
                name: namespace.to_owned(),
                ..Namespace::default()
            },
        )?;
    }
    Ok(())
}
