//! Layers applied to a directory: the honest ones, and a corpus of those that try to get out of it or to exhaust the host.
//!
//! Every test keeps a canary beside the target and looks at it afterwards. None needs root.

mod archive;
mod bounds;
mod copy_up;
mod generated;
mod honest;
mod host;
mod links;
mod malformed;
mod names;
mod whiteouts;
