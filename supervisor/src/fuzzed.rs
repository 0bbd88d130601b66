//! The checks of the fuzz targets (`fuzz/`), one for what each target reads; built for them and for tests only.
//!
//! Each takes any bytes, reads them as its part of the daemon would, and panics when a promise is broken. `cargo test` runs
//! them on the inputs that were kept.

pub use crate::{
    layer::fuzzed::{apply, compare},
    registry::fuzzed::registry,
    transfer::fuzzed::document,
};

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

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
        kept("apply").iter().for_each(|input| super::apply(input));
        kept("compare").iter().for_each(|input| super::compare(input));
        kept("registry").iter().for_each(|input| super::registry(input));
        kept("document").iter().for_each(|input| super::document(input));
    }

    proptest::proptest! {
        #[test]
        fn any_answer_of_a_registry_is_survived(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            super::registry(&data);
        }

        #[test]
        fn any_bytes_are_a_document_or_none(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            super::document(&data);
        }
    }
}
