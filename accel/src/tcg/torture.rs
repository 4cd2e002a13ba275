//! Torture (`x-torture=SEED` of the accelerator): what happens seldom happens all the time, from a seeded generator. The guest
//! must not notice.
//!
//! Both compilers take a block when it is first entered; a vCPU runs in turns of a few instructions, so that code is left at
//! its checks; between turns translations are forgotten, and now and then the code cache is full or decoded pages must go.

/// What a vCPU is tortured with.
pub(super) struct Torture {
    seed: u64,
    state: u64,
}
/// What comes before a turn.
#[derive(Default)]
pub(super) struct Turn {
    /// Most instructions it takes.
    pub instructions: i64,
    /// So many entries of the TLB, from an index on, are forgotten.
    pub forget: usize,
    pub from: usize,
    /// The code cache is full.
    pub full: bool,
    /// Decoded pages take too much.
    pub large: bool,
}
impl Torture {
    /// For the vCPU with this number.
    pub fn new(seed: u64, number: u32) -> Torture {
        Torture { seed, state: seed ^ u64::from(number) << 32 }
    }
    /// The same for another vCPU.
    pub fn of(&self, number: u32) -> Torture {
        Torture::new(self.seed, number)
    }
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn turn(&mut self) -> Turn {
        let longest = if self.below(4) == 0 { 32 } else { 4000 };
        Turn {
            instructions: 1 + self.below(longest) as i64,
            forget: if self.below(8) == 0 { 64 } else { 0 },
            from: self.next() as usize,
            full: self.below(4096) == 0,
            large: self.below(4096) == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_and_the_vcpu_decide() {
        let turns = |mut t: Torture| (0..100).map(|_| t.turn().instructions).collect::<Vec<_>>();
        let one = turns(Torture::new(7, 0));
        assert_eq!(one, turns(Torture::new(7, 1).of(0)));
        assert!(one != turns(Torture::new(7, 1)) && one != turns(Torture::new(8, 0)));
    }
}
