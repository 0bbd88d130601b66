//! Sparse files: which parts of a file are in the archive, and that the map is honest.
//!
//! Refuses maps whose segments overlap, run backwards, leave the file, or do not add up to the data that follows.

/// One part of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where the data belongs in the file, in bytes.
    pub(crate) offset: u64,
    /// How much data there is, in bytes.
    pub(crate) length: u64,
}

/// The most segments of one file: 4 MiB of map.
pub(super) const MAX_SEGMENTS: usize = 256 * 1024;

/// Checks a map against the file's size and the bytes that the archive holds for it, and drops empty segments.
pub(super) fn check(mut map: Vec<Segment>, real_size: u64, data: u64) -> Result<Vec<Segment>, String> {
    if map.len() > MAX_SEGMENTS {
        return Err(format!(
            "sparse map of {} segments, at most {MAX_SEGMENTS} are accepted",
            map.len()
        ));
    }
    let mut end = 0u64;
    let mut total = 0u64;
    for segment in &map {
        if segment.offset < end {
            return Err("sparse segments overlap".into());
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .ok_or("sparse segment past the end of the file")?;
        if end > real_size {
            return Err("sparse segment past the end of the file".into());
        }
        total += segment.length;
    }
    if total != data {
        return Err(format!(
            "sparse map covers {total} bytes, the archive holds {data}"
        ));
    }
    map.retain(|segment| segment.length > 0);
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_honest_maps_pass() {
        let map = |pairs: &[(u64, u64)]| -> Vec<Segment> {
            pairs
                .iter()
                .map(|&(offset, length)| Segment { offset, length })
                .collect()
        };
        assert_eq!(
            check(map(&[(0, 512), (4096, 100), (8192, 0)]), 8192, 612)
                .unwrap()
                .len(),
            2
        );
        assert!(
            check(map(&[(0, 512), (100, 512)]), 8192, 1024).is_err(),
            "overlap"
        );
        assert!(check(map(&[(8000, 512)]), 8192, 512).is_err(), "past the end");
        assert!(check(map(&[(u64::MAX, 2)]), u64::MAX, 2).is_err(), "overflow");
        assert!(check(map(&[(0, 512)]), 8192, 511).is_err(), "more than there is");
        assert!(check(map(&[(0, 1)]), 8192, 512).is_err(), "less than there is");
    }
}
