//! Any bytes are sent to the shim's socket; the same calls come out in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| wharf_shim::fuzzed::frames(data));
