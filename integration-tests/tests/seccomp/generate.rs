//! Profiles by number: the same number makes the same profile.

use std::collections::BTreeSet;

use super::profile::{Action, Condition, Profile, Rule};
use super::reference;

/// Calls that rules meet often: their numbers differ, some are multiplexed on i386, some are missing on one architecture.
const CROWDED: [&str; 12] = [
    "read",
    "clone",
    "personality",
    "socket",
    "connect",
    "semctl",
    "ioctl",
    "openat",
    "arch_prctl",
    "waitpid",
    "prctl",
    "mmap",
];

/// Values in both halves that meet one another.
const VALUES: [u64; 16] = [
    0,
    1,
    2,
    5,
    38,
    39,
    40,
    0xff,
    0x7fff_ffff,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0005,
    0x7e02_0000,
    0x5_0000_0000,
    u64::MAX,
];

/// A small generator (xorshift64*), so that a failure can be made again by its number.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Names that libseccomp knows on some architecture of the machine; newer ones it cannot compare.
pub fn known_names(native: &str) -> Vec<String> {
    let archs: &[&str] = match native {
        "x86_64" => &["x86_64", "x86", "x32"],
        _ => &["aarch64", "arm"],
    };
    let names: BTreeSet<String> = archs
        .iter()
        .flat_map(|arch| reference::names(arch).into_keys())
        .collect();
    names.into_iter().collect()
}

pub fn profile(seed: u64, native: &'static str, names: &[String]) -> Profile {
    let mut random = Random::new(seed);
    let actions: [Action; 10] = [
        ("ALLOW", None),
        ("ALLOW", None),
        ("ERRNO", None),
        ("ERRNO", Some(13)),
        ("ERRNO", Some(38)),
        ("TRAP", None),
        ("LOG", None),
        ("TRACE", Some(7)),
        ("NOTIFY", None),
        ("KILL_PROCESS", None),
    ];
    let defaults: [Action; 8] = [
        ("ERRNO", None),
        ("ERRNO", Some(38)),
        ("ALLOW", None),
        ("ALLOW", None),
        ("KILL", None),
        ("KILL_PROCESS", None),
        ("LOG", None),
        ("TRAP", None),
    ];
    let others: &[&str] = match native {
        "x86_64" => &["x86", "x32"],
        _ => &["arm"],
    };
    // Most profiles grant or forbid in one way only; a third mixes answers.
    let usual = random.pick(&actions);
    let mixed = random.below(3) == 0;
    let rules = (0..1 + random.below(12)).map(|_| {
        let conditions = conditions(&mut random);
        let action = if mixed || random.below(8) == 0 {
            random.pick(&actions)
        } else {
            usual
        };
        let count = if conditions.is_empty() {
            1 + random.below(40)
        } else {
            1 + random.below(3)
        };
        let mut chosen: Vec<String> = (0..count)
            .map(|_| match conditions.is_empty() {
                true => names[random.below(names.len())].clone(),
                false => random.pick(&CROWDED).to_owned(),
            })
            .collect();
        chosen.retain(|name| names.contains(name) && (action.0 != "NOTIFY" || name != "write"));
        Rule {
            action,
            names: chosen,
            conditions,
        }
    });
    let rules = rules.collect();
    Profile {
        native,
        others: others.iter().copied().filter(|_| random.below(4) != 0).collect(),
        default: random.pick(&defaults),
        rules,
    }
}

fn conditions(random: &mut Random) -> Vec<Condition> {
    let operators = ["NE", "LT", "LE", "EQ", "EQ", "GE", "GT", "MASKED_EQ"];
    let count = [0, 0, 1, 1, 1, 2, 3][random.below(7)];
    (0..count)
        .map(|_| {
            (
                random.below(3),
                random.pick(&operators),
                random.pick(&VALUES),
                random.pick(&VALUES),
            )
        })
        .collect()
}
