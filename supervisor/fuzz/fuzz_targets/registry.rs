//! Any bytes are what a registry answers; it is read or refused, and leads nowhere else.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| wharf_supervisor::fuzzed::registry(data));
