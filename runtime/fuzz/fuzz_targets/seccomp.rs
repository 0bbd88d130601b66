//! Any bytes are a profile; whatever it compiles to, the kernel takes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_runtime as runtime;

#[path = "../generate/bytes.rs"]
mod bytes;
#[path = "../generate/filter.rs"]
mod filter;
#[path = "../generate/profile.rs"]
mod profile;

fuzz_target!(|data: &[u8]| profile::check(data));
