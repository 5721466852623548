//! Numbers without a pattern, the same in every run.

/// xorshift64 (Marsaglia, 2003).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed, of which neighbours begin far apart.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | (seed == 0) as u64)
    }

    /// A number less than `limit`, which is not 0.
    ///
    /// # Panics
    /// When it is.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("less than a usize")
    }
}
