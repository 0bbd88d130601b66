//! Names of containers: what is one, and a random one when none is given.

use crate::error::{Error, Result};

const QUALITIES: [&str; 48] = [
    "amber", "ample", "balmy", "blithe", "brisk", "calm", "candid", "cheery", "clear", "cosy", "crisp",
    "dapper", "deft", "eager", "early", "fleet", "fond", "frank", "gentle", "glad", "golden", "hale",
    "handy", "hardy", "humble", "jolly", "keen", "kind", "level", "lively", "lucid", "mellow", "merry",
    "mild", "nimble", "patient", "placid", "plucky", "quiet", "ready", "sage", "sound", "spry", "stout",
    "sunny", "tidy", "trusty", "witty",
];

const HARBOURS: [&str; 48] = [
    "aarhus",
    "aberdeen",
    "amalfi",
    "antwerp",
    "bantry",
    "batumi",
    "bergen",
    "bilbao",
    "cadiz",
    "callao",
    "cork",
    "dakar",
    "dover",
    "durban",
    "ensenada",
    "fowey",
    "galway",
    "gdansk",
    "genoa",
    "halifax",
    "hobart",
    "husum",
    "inhambane",
    "kiel",
    "kochi",
    "lagos",
    "lisbon",
    "malmo",
    "mombasa",
    "muscat",
    "napier",
    "narvik",
    "odesa",
    "oran",
    "oslo",
    "piran",
    "porto",
    "pula",
    "riga",
    "salem",
    "sitka",
    "split",
    "tallinn",
    "tema",
    "trieste",
    "tromso",
    "valletta",
    "zadar",
];

/// Checks a name that was asked for; a leading slash is taken off.
///
/// # Errors
///
/// It has other characters than letters, digits, `_`, `.` and `-`, begins with one of the latter, or is too short.
pub fn check(name: &str) -> Result<String> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut letters = bare.bytes();
    let valid = letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bare.len() >= 2
        && bare.len() <= 255
        && letters.all(|letter| letter.is_ascii_alphanumeric() || b"_.-".contains(&letter));
    if valid {
        Ok(bare.to_owned())
    } else {
        Err(Error::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )))
    }
}

/// A random name; from the second attempt on with a number.
///
/// # Errors
///
/// The kernel gives no random bytes.
pub fn random(attempt: u32) -> Result<String> {
    let bits = getrandom::u64().map_err(|error| Error::system(format!("draw a name: {error}")))?;
    let pick =
        |list: &'static [&str], bits: u64| list[usize::try_from(bits % list.len() as u64).unwrap_or(0)];
    let name = format!(
        "{}_{}",
        pick(&QUALITIES, bits >> 32),
        pick(&HARBOURS, bits & 0xffff_ffff)
    );
    Ok(if attempt == 0 {
        name
    } else {
        format!("{name}{}", bits % 1000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["ab", "/web.1", "A-b_c.d", "0x"] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in ["", "/", "a", "-a", ".a", "a/b", "a b", "ä1", "../x"] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn random_names_are_names() {
        for attempt in 0..20 {
            check(&random(attempt).unwrap()).unwrap();
        }
    }
}
