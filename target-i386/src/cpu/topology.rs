//! Where a vCPU sits, and the APIC ids that follow: each level has as many bits as its largest number needs.
//! Source: Intel SDM vol. 3A §9.9.1; AMD64 APM vol. 3 appendix E, leaf 8000_0008.

/// What shares a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the levels of -smp")]
pub enum Share {
    Thread,
    Core,
    Module,
    Die,
    Socket,
}

/// Numbers per next higher level; each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the levels of -smp")]
pub struct Topo {
    pub dies: u32,
    pub modules: u32,
    pub cores: u32,
    pub threads: u32,
}

impl Default for Topo {
    fn default() -> Self {
        Topo { dies: 1, modules: 1, cores: 1, threads: 1 }
    }
}

/// Bits for numbers below `count`.
fn width(count: u32) -> u32 {
    32 - count.saturating_sub(1).leading_zeros()
}

impl Topo {
    /// Threads of a socket.
    pub fn threads_per_socket(&self) -> u32 {
        self.dies.saturating_mul(self.modules).saturating_mul(self.cores).saturating_mul(self.threads)
    }
    /// Bits of the APIC id below the level: a shift.
    pub fn shift(&self, level: Share) -> u32 {
        let widths = [
            (Share::Core, self.threads),
            (Share::Module, self.cores),
            (Share::Die, self.modules),
            (Share::Socket, self.dies),
        ];
        let bits: u32 = widths.iter().filter(|w| w.0 <= level).map(|w| width(w.1)).sum();
        bits.min(31)
    }
    /// APIC ids that one of the level takes.
    pub fn ids_of(&self, level: Share) -> u32 {
        1 << self.shift(level)
    }
    /// Levels above the core for leaf 1F: die or module, if the socket has several.
    pub fn is_deep(&self) -> bool {
        self.dies > 1 || self.modules > 1
    }
    /// Numbers of an APIC id: socket, die, module, core, thread, each within the next.
    pub fn place(&self, apic_id: u32) -> [u32; 5] {
        let field = |low: Share, high: Share| {
            let id =
                if high == Share::Socket && low == Share::Socket { apic_id } else { apic_id & (self.ids_of(high) - 1) };
            id >> self.shift(low)
        };
        [
            apic_id >> self.shift(Share::Socket),
            field(Share::Die, Share::Socket),
            field(Share::Module, Share::Die),
            field(Share::Core, Share::Module),
            field(Share::Thread, Share::Core),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_as_many_bits_as_each_level_needs() {
        let t = Topo { dies: 2, modules: 1, cores: 3, threads: 2 };
        assert_eq!(
            [Share::Thread, Share::Core, Share::Module, Share::Die, Share::Socket].map(|l| t.shift(l)),
            [0, 1, 3, 3, 4]
        );
        assert_eq!(t.threads_per_socket(), 12);
        assert_eq!(t.place(0b1_1101), [1, 1, 0, 2, 1]);
        assert_eq!(Topo::default().ids_of(Share::Socket), 1);
    }
}
