//! Any bytes are changes to a configuration; whatever it compiles to keeps the plan's promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_runtime as runtime;

#[path = "../generate/bytes.rs"]
mod bytes;
#[path = "../generate/configuration.rs"]
mod configuration;
#[path = "../generate/filter.rs"]
mod filter;
#[path = "../generate/promises.rs"]
mod promises;

fuzz_target!(|data: &[u8]| promises::check(data));
