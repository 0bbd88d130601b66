//! Any bytes are a layer; applied, it touches nothing but its target.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| wharf_supervisor::fuzzed::apply(data));
