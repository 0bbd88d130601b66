//! Any bytes are an index, a manifest or a config; it has one reading or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| wharf_supervisor::fuzzed::document(data));
