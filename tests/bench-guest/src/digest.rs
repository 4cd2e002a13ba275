//! Digests of results and the source of the workloads' data.

/// FNV-1a over bytes, with the words of numbers fed in little-endian order.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Digest {
    /// The empty digest.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        }
        self
    }

    /// Adds a number.
    pub fn word(&mut self, word: u64) -> &mut Self {
        self.bytes(&word.to_le_bytes())
    }

    /// Adds a floating-point number, bit by bit.
    pub fn float(&mut self, value: f64) -> &mut Self {
        self.word(value.to_bits())
    }

    /// The digest.
    pub fn end(&self) -> u64 {
        self.0
    }
}

/// The digest of numbers.
pub fn of_words(words: impl IntoIterator<Item = u64>) -> u64 {
    let mut d = Digest::new();
    for w in words {
        d.word(w);
    }
    d.end()
}

/// The digest of floating-point numbers.
pub fn of_floats<'a>(values: impl IntoIterator<Item = &'a f64>) -> u64 {
    of_words(values.into_iter().map(|v| v.to_bits()))
}

/// SplitMix64: data that is the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.word() % limit
    }

    /// A number in [-1, 1).
    pub fn float(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(len + 8);
        while all.len() < len {
            all.extend(self.word().to_le_bytes());
        }
        all.truncate(len);
        all
    }
}
