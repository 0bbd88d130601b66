//! Decisions taken from bytes: the same bytes make the same decisions, and any bytes make some.

/// What is left to decide with; zeros when there is nothing left.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `limit`, which is at most 65536.
    pub fn below(&mut self, limit: usize) -> usize {
        let wide = limit > 256;
        let low = usize::from(self.byte());
        let high = if wide { usize::from(self.byte()) } else { 0 };
        (high << 8 | low) % limit.max(1)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Often a number that limits meet at, else any.
    pub fn number(&mut self) -> u64 {
        const EDGES: [u64; 12] = [
            0,
            1,
            2,
            4095,
            4096,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x1_0000_0000,
            0x7fff_ffff_ffff_ffff,
            u64::MAX - 1,
            u64::MAX,
        ];
        match self.byte() {
            kind @ 0..128 => EDGES[usize::from(kind) % EDGES.len()],
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }
}
