//! What our filters decide, compared with what libseccomp's decide for the same profiles: every system call number of every
//! architecture that a kernel of ours runs, with arguments around every value of the profile.
//!
//! Both programs are executed by an interpreter; nothing here needs root. The reference is a small C program, compiled when
//! the test runs: our own binaries are static, libseccomp is not.
//!
//! Where ours differ from libseccomp's on purpose (see `compare`), that is asserted too.

mod compare;
mod generate;
mod interpreter;
mod profile;
mod reference;
