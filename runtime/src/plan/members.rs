//! Lists of numbers (`0-3,7`) as bit masks: CPUs and NUMA nodes.

/// The highest number that a list may name; the kernel knows less.
const MAX: u32 = 64 * 1024;

/// Bit n of word n/64 for each member n. Blanks around and empty elements are allowed; an empty text is an empty mask.
pub(super) fn mask(text: &str) -> Result<Vec<u64>, String> {
    let mut mask = Vec::new();
    for range in text.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return Err(format!("invalid range: {range}"));
        }
        let words = last as usize / 64 + 1;
        if mask.len() < words {
            mask.resize(words, 0u64);
        }
        for member in first..=last {
            mask[member as usize / 64] |= 1 << (member % 64);
        }
    }
    if mask.is_empty() && !text.is_empty() {
        return Err(format!("no members found in set {text:?}"));
    }
    Ok(mask)
}

/// How many members a mask has.
pub(super) fn count(mask: &[u64]) -> u32 {
    mask.iter().map(|word| word.count_ones()).sum()
}

fn number(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(number @ ..=MAX) if digits => Ok(number),
        Ok(_) if digits => Err(format!("values larger than {MAX} are not supported")),
        _ => Err(format!("{text:?} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_masks() {
        for (text, expected) in [
            ("", vec![]),
            ("0", vec![1]),
            ("0-3,7", vec![0x8f]),
            (" 1 , ,2,", vec![6]),
            ("63-64", vec![1 << 63, 1]),
        ] {
            assert_eq!(mask(text).unwrap(), expected, "{text}");
        }
        assert_eq!(count(&mask("0-7,64").unwrap()), 9);
        for bad in ["x", "-1", "3-1", "1-", "+1", ",", "0-9876543210", "70000"] {
            assert!(mask(bad).is_err(), "{bad}");
        }
    }
}
