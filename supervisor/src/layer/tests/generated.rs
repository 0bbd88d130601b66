//! Archives that chance puts together from hostile parts: none leads out, and a second parser reads the same from them.

use std::path::Path;

use proptest::{collection::vec, prelude::*};

use crate::layer::fuzzed::{self, generate};

/// The way of making an archive that takes members from lists.
const MEMBERS: u8 = 2;

proptest! {
    #[test]
    fn no_archive_leads_out(members in vec(any::<u8>(), 0..300), upper in any::<bool>()) {
        fuzzed::apply(&[&[u8::from(upper), MEMBERS][..], &members].concat());
    }

    #[test]
    fn two_parsers_read_the_same(
        members in vec(any::<u8>(), 0..300),
        damage in vec((any::<usize>(), any::<u8>()), 0..3),
        mend in any::<bool>(),
    ) {
        let mut archive = generate::archive(&[&[MEMBERS][..], &members].concat(), Path::new("/outside"));
        for (position, byte) in damage {
            let position = position % archive.len();
            archive[position] = byte;
        }
        let how = u8::from(mend);
        fuzzed::compare(&[&[how][..], &archive].concat());
    }
}
