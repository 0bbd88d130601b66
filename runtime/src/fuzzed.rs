//! The generators and checks of the fuzz targets (`fuzz/`), run on a few random inputs and on the kept ones.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate as runtime;

#[path = "../fuzz/generate/bytes.rs"]
mod bytes;
#[path = "../fuzz/generate/configuration.rs"]
mod configuration;
#[path = "../fuzz/generate/filter.rs"]
mod filter;
#[path = "../fuzz/generate/profile.rs"]
mod profile;
#[path = "../fuzz/generate/promises.rs"]
mod promises;

/// What a fuzz target has once found, or learned to be worth a look.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let entries = fs::read_dir(&directory).unwrap();
    let inputs: Vec<_> = entries
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(!inputs.is_empty(), "{}", directory.display());
    inputs
}

#[test]
fn kept_inputs_pass() {
    kept("seccomp").iter().for_each(|input| profile::check(input));
    kept("plan").iter().for_each(|input| promises::check(input));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_profile_compiles_to_what_the_kernel_takes(data in prop::collection::vec(any::<u8>(), 0..600)) {
        profile::check(&data);
    }

    #[test]
    fn any_configuration_compiles_to_a_plan_that_keeps_its_promises(data in prop::collection::vec(any::<u8>(), 0..300)) {
        promises::check(&data);
    }
}
