//! Any bytes are an archive; two readers read the same from it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| wharf_supervisor::fuzzed::compare(data));
