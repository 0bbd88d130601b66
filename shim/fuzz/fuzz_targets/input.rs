//! Any bytes are what the shim reads beside its socket; they are read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| wharf_shim::fuzzed::input(data));
