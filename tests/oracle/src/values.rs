//! Operand values: edges half of the time, random bits otherwise, and now and then a value seen before in the same case, so that
//! comparisons also meet equal operands.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose operands.
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }
}

/// The generator of one case: seeded, so that a failure can be repeated.
pub struct Values {
    /// Source of all randomness of the case.
    pub rng: SplitMix64,
    seen: [u64; 4],
    count: usize,
}

impl Values {
    /// A generator that depends on nothing but `seed`.
    pub fn new(seed: u64) -> Values {
        Values { rng: SplitMix64(seed), seen: [0; 4], count: 0 }
    }
    /// True with probability `percent` / 100.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.next_u32() % 100 < percent
    }
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.rng.next_u64()) * u128::from(n)) >> 64) as u64
    }
    /// One of `from`.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer of some width up to 64 bits.
    pub fn int(&mut self) -> u64 {
        let v = match self.rng.next_u32() % 16 {
            0..=5 => self.rng.next_u64(),
            6 => self.rng.next_u64() >> (self.rng.next_u32() % 64),
            7 | 8 => self.pick(&[0, 1, 2, u64::MAX, u64::MAX - 1]),
            9 => self.pick(&[
                0x80,
                0x7f,
                0x8000,
                0x7fff,
                0x8000_0000,
                0x7fff_ffff,
                1 << 63,
                u64::MAX >> 1,
                0xff,
                0xffff,
                0xffff_ffff,
                0xffff_ff80,
                0xffff_8000,
                0xffff_ffff_8000_0000,
            ]),
            10 => 1 << (self.rng.next_u32() % 64),
            11 => self.below(80),
            12 => self.below(80).wrapping_neg(),
            _ if self.count > 0 => {
                let n = self.count.min(self.seen.len()) as u64;
                let i = self.below(n) as usize;
                self.seen[i]
            }
            _ => self.rng.next_u64(),
        };
        self.seen[self.count % self.seen.len()] = v;
        self.count += 1;
        v
    }

    /// Bits of a floating-point number with `e` exponent and `m` stored fraction bits.
    fn float(&mut self, e: u32, m: u32) -> u64 {
        let (max_e, frac) = ((1 << e) - 1, (1_u64 << m) - 1);
        let sign = u64::from(self.rng.next_u32() & 1) << (e + m);
        let bias = max_e >> 1;
        let f = match self.rng.next_u32() % 6 {
            0 => 0,
            1 => frac,
            2 => 1,
            3 => frac << (self.rng.next_u32() % (m + 1)) & frac,
            _ => self.rng.next_u64() & frac,
        };
        let x: u64 = match self.rng.next_u32() % 16 {
            0 => 0,
            1 => 1,
            2 => max_e,
            3 => max_e - 1,
            4 => max_e - 2,
            5..=9 => bias + self.below(2 * u64::from(m) + 10) - (u64::from(m) + 5),
            10 => self.pick(&[bias, bias + 1, bias - 1, bias + 31, bias + 63, bias + 32, bias + 62, bias + 15]) & max_e,
            _ => self.rng.next_u64() & max_e,
        };
        sign | x << m | f
    }
    /// A single.
    pub fn f32(&mut self) -> u32 {
        self.float(8, 23) as u32
    }
    /// A double.
    pub fn f64(&mut self) -> u64 {
        self.float(11, 52)
    }
    /// A double extended, including encodings the 387 and later call invalid.
    pub fn f80(&mut self) -> u128 {
        let sign = u128::from(self.rng.next_u32() & 1) << 79;
        let m = match self.rng.next_u32() % 8 {
            0 => 1 << 63,
            1 => u64::MAX,
            2 => 1 << 63 | 1,
            3 => 3 << 62,
            4 => self.rng.next_u64() << (self.rng.next_u32() % 63) | 1 << 63,
            _ => self.rng.next_u64() | 1 << 63,
        };
        let e: u64 = match self.rng.next_u32() % 16 {
            0 => 0x7fff,
            1 => 0x7ffe,
            2 => 1,
            3 => self.below(0x8000),
            4 => 16383 + 62 + self.below(4),
            5 => 16383 - 1023 - self.below(60),
            6 => 16383 + 1023,
            _ => 16383 + 70 - self.below(140),
        };
        match self.rng.next_u32() % 16 {
            0 => sign,                                                                       // zero
            1 => sign | u128::from(m & !(1 << 63)),                                          // denormal
            2 => sign | 0x7fff << 64 | u128::from(m),                                        // infinity, NaN
            3 if self.chance(30) => sign | u128::from(m),                                    // pseudo-denormal
            4 if self.chance(30) => sign | u128::from(e) << 64 | u128::from(m & !(1 << 63)), // unnormal, pseudo-infinity, pseudo-NaN
            5 => self.integral(),
            _ => sign | u128::from(e) << 64 | u128::from(m),
        }
    }
    /// A double extended with a whole number in it.
    fn integral(&mut self) -> u128 {
        let v = self.int() as i64;
        if v == 0 {
            return 0;
        }
        let m = v.unsigned_abs();
        let shift = m.leading_zeros();
        u128::from(v < 0) << 79 | u128::from(16383 + 63 - shift) << 64 | u128::from(m << shift)
    }
    /// 16 bytes: lanes of one kind.
    pub fn vector(&mut self) -> u128 {
        match self.rng.next_u32() % 8 {
            0..=2 => (0..4).fold(0, |v, _| v << 32 | u128::from(self.f32())),
            3..=5 => u128::from(self.f64()) << 64 | u128::from(self.f64()),
            6 => u128::from(self.int()) << 64 | u128::from(self.int()),
            _ => (0..8).fold(0, |v, _| v << 16 | u128::from(self.int() as u16)),
        }
    }
}
