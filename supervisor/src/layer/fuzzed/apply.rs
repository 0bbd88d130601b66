//! Any bytes are a layer: applying it ends, within its bounds, and touches nothing but its target.

use super::{generate, host::Host};
use crate::{digest::Digest, layer::Limits};

/// Bytes that a layer may take beyond what its compressed size allows: little, as the disk of a fuzzer is memory.
const BASE_BYTES: u64 = 4 << 20;

/// Applies the layer that `data` makes to a fresh directory. Panics when something beside that directory was touched.
pub fn apply(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let host = Host::new();
    let layer = generate::archive(data, &host.outside());
    let limits = Limits {
        base_bytes: BASE_BYTES,
        entries: 10_000,
        ..Limits::default()
    };
    let applied = host.apply_within(&layer, choice & 1 != 0, limits);
    let is_plain = !layer.starts_with(&[0x1f, 0x8b]) && !layer.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    if let Ok(applied) = applied
        && is_plain
    {
        assert_eq!(applied.size, layer.len() as u64);
        assert_eq!(applied.diff_id, Digest::of(&layer));
    }
}
