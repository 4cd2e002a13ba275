//! A fuzzer's bytes, taken from the front. What is missing is zero, so that every input means something.

/// Bytes that are left.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`, up to `most` bytes: what bounds the work that an input can ask for.
    pub fn new(data: &'a [u8], most: usize) -> Self {
        Self(data.get(..most).unwrap_or(data))
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `n` bytes, or what is left of them.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        now
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
    }

    /// 8 bits.
    pub fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }

    /// 16 bits.
    pub fn word(&mut self) -> u16 {
        self.number(2) as u16
    }

    /// 32 bits.
    pub fn long(&mut self) -> u32 {
        self.number(4) as u32
    }

    /// 64 bits.
    pub fn quad(&mut self) -> u64 {
        self.number(8)
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }
}
