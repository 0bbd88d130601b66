//! Mounts that the daemon itself makes and keeps, by name: a set of them is an *activation*.
//!
//! Some mounts of a snapshot are not for a container's runtime to make: loop devices, and templates that name the place of
//! an earlier one. Whoever has them activates them; what is left for the runtime, in plain mounts, is told back. A
//! *temporary* activation makes all of them, for somebody who only wants to look.
//!
//! ```text
//! plan (what is made here?) ──► row `pending` ──► transform, attach, … ──► row `active` ──► row `ending` ──► (no row)
//!                                                  <state>/mounts/<number>/<place>
//! ```
//!
//! A directory without a row, and a row that a daemon left pending or ending, are taken down at the start and by every
//! collection of garbage; so is an activation that no lease and no label holds. Rows are lazy commits: they, like the
//! mounts, end with the boot, and those of another boot are forgotten.
//!
//! Refuses mounts below a mount (`target`), mapped ids, and more than 255 mounts. Update is not done, as containerd does not.

mod attach;
mod format;
mod plan;
mod prepare;
mod rootfs;
mod store;

pub use plan::Plan;
pub use rootfs::{activate, deactivate};
pub use store::Mounts;
pub use wharf_proto::containerd::types::{ActivationInfo, ActiveMount, Mount};
