//! Caches of the models: what CPUID says of them in leaves 2, 4, 8000_0005, 8000_0006 and 8000_001D. Nothing else depends on
//! them: the engine has none. Source: Intel SDM vol. 2, CPUID; AMD64 APM vol. 3 appendix E; sizes as QEMU 11.1 reports them.

use hw_core::smp::{CacheLevels, CpuTopologyLevel};

use super::topology::{Share, Topo};

/// Leaf 4 EAX: needs no initialisation by software.
const SELF_INIT: u32 = 1 << 8;
/// Leaf 4 EDX: WBINVD does not reach the caches of other threads.
const WBINVD: u32 = 1;
/// Leaf 4 EDX: holds what lower levels hold.
const INCLUSIVE: u32 = 2;
/// Leaf 4 EDX: the set is a hash of the address.
const COMPLEX: u32 = 4;
/// Bytes of a line, of all of them.
const LINE: u32 = 64;

/// One cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1: data, 2: instructions, 3: both.
    kind: u32,
    level: u32,
    ways: u32,
    sets: u32,
    lines_per_tag: u32,
    flags: u32,
    share: Share,
    /// The user moved it to another level.
    placed: bool,
}

impl Cache {
    const fn new(kind: u32, level: u32, ways: u32, sets: u32, lines_per_tag: u32, flags: u32, share: Share) -> Cache {
        Cache { kind, level, ways, sets, lines_per_tag, flags, share, placed: false }
    }
    /// Bytes.
    pub const fn size(&self) -> u32 {
        self.ways * self.sets * LINE
    }
    /// Leaf 4.
    pub fn leaf4(&self, t: &Topo) -> [u32; 4] {
        let cores = t.ids_of(Share::Socket) / t.ids_of(Share::Core);
        let mut r = self.leaf(t, self.share);
        r[0] |= (cores - 1).min(63) << 26;
        r
    }
    /// Leaf 8000_001D.
    pub fn leaf_1d(&self, t: &Topo, l1_per_core: bool) -> [u32; 4] {
        let share = if self.level == 1 && !l1_per_core && !self.placed { Share::Thread } else { self.share };
        let mut r = self.leaf(t, share);
        r[3] &= WBINVD | INCLUSIVE;
        r
    }
    fn leaf(&self, t: &Topo, share: Share) -> [u32; 4] {
        [
            self.kind | self.level << 5 | self.flags & SELF_INIT | (t.ids_of(share) - 1).min(0xfff) << 14,
            (LINE - 1) | ((self.ways - 1) << 22),
            self.sets - 1,
            self.flags & (WBINVD | INCLUSIVE | COMPLEX),
        ]
    }
    /// Level 1 in leaf 8000_0005.
    pub fn leaf_5(&self) -> u32 {
        (self.size() >> 10) << 24 | self.ways << 16 | self.lines_per_tag << 8 | LINE
    }
    /// Level 2 in leaf 8000_0006 ECX.
    pub fn leaf_6(&self) -> u32 {
        (self.size() >> 10) << 16 | self.ways_code() << 12 | self.lines_per_tag << 8 | LINE
    }
    /// Level 3 in leaf 8000_0006 EDX.
    pub fn leaf_6_l3(&self) -> u32 {
        (self.size() >> 19) << 18 | self.ways_code() << 12 | self.lines_per_tag << 8 | LINE
    }
    /// The code of leaf 8000_0006 for the number of ways.
    fn ways_code(&self) -> u32 {
        match self.ways {
            n @ (1 | 2 | 4) => n,
            8 => 6,
            16 => 8,
            32 => 10,
            48 => 11,
            64 => 12,
            96 => 13,
            128 => 14,
            _ => 15,
        }
    }
}

/// The caches of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the levels")]
pub struct CacheSet {
    pub l1d: Cache,
    pub l1i: Cache,
    pub l2: Cache,
    pub l3: Cache,
}

impl CacheSet {
    /// What shares each cache, as `smp-cache` says it.
    pub fn levels(&self) -> CacheLevels {
        [self.l1d, self.l1i, self.l2, self.l3].map(|c| match c.share {
            Share::Thread => CpuTopologyLevel::Thread,
            Share::Core => CpuTopologyLevel::Core,
            Share::Module => CpuTopologyLevel::Module,
            Share::Die => CpuTopologyLevel::Die,
            Share::Socket => CpuTopologyLevel::Socket,
        })
    }

    /// Puts the caches at these levels.
    pub fn place(&mut self, levels: CacheLevels) {
        use CpuTopologyLevel::*;
        for (cache, level) in [&mut self.l1d, &mut self.l1i, &mut self.l2, &mut self.l3].into_iter().zip(levels) {
            let share = match level {
                Thread => Share::Thread,
                Core => Share::Core,
                Module => Share::Module,
                Die => Share::Die,
                Socket => Share::Socket,
                // Levels that no PC has: the machine refuses them.
                Cluster | Book | Drawer | Default => continue,
            };
            (cache.placed, cache.share) = (share != cache.share, share);
        }
    }
}

/// Leaf 2 where the caches are described by descriptors: level 1 of 32 KiB each (2Ch, 30h), level 2 of 2 MiB (7Dh).
pub const DESCRIPTORS: u32 = 0x002c_307d;
/// Descriptor of a level 3 of 16 MiB.
pub const DESCRIPTOR_L3: u32 = 0x4d;
/// Leaf 2 where leaf 4 says it all.
pub const SEE_LEAF_4: u32 = 0xff;
/// Leaf 8000_0005: 255 entries of one way in each TLB of level 1.
pub const L1_TLB: u32 = 0x01ff_01ff;
/// Leaf 8000_0006 EBX: 512 entries of 4 ways in each TLB of level 2.
pub const L2_TLB: u32 = 0x4200_4200;

/// Models without caches of their own, all vendors but AMD.
pub static LEGACY: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 0, SELF_INIT | WBINVD, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 0, SELF_INIT | WBINVD, Share::Core),
    l2: Cache::new(3, 2, 16, 4096, 0, SELF_INIT | WBINVD, Share::Core),
    l3: Cache::new(3, 3, 16, 16384, 1, SELF_INIT | INCLUSIVE | COMPLEX, Share::Die),
};
/// Models without caches of their own, AMD.
pub static LEGACY_AMD: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 2, 512, 1, SELF_INIT | WBINVD, Share::Core),
    l1i: Cache::new(2, 1, 2, 512, 1, SELF_INIT | WBINVD, Share::Core),
    l2: Cache::new(3, 2, 16, 512, 1, 0, Share::Core),
    l3: Cache::new(3, 3, 16, 16384, 1, SELF_INIT | INCLUSIVE | COMPLEX, Share::Die),
};
/// CLEARWATERFOREST.
pub static CLEARWATERFOREST: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 0, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 8, 128, 0, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 16, 4096, 0, SELF_INIT, Share::Module),
    l3: Cache::new(3, 3, 16, 540672, 0, SELF_INIT | COMPLEX, Share::Socket),
};
/// DHYANA.
pub static DHYANA: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT | WBINVD, Share::Core),
    l1i: Cache::new(2, 1, 4, 256, 1, SELF_INIT | WBINVD, Share::Core),
    l2: Cache::new(3, 2, 8, 1024, 1, 0, Share::Core),
    l3: Cache::new(3, 3, 16, 8192, 1, SELF_INIT | INCLUSIVE | COMPLEX, Share::Die),
};
/// EPYC-GENOA.
pub static EPYC_GENOA: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT | WBINVD, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 1, SELF_INIT | WBINVD, Share::Core),
    l2: Cache::new(3, 2, 8, 2048, 1, 0, Share::Core),
    l3: Cache::new(3, 3, 16, 32768, 1, SELF_INIT | INCLUSIVE, Share::Die),
};
/// EPYC-GENOA version 2.
pub static EPYC_GENOA_V2: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 8, 2048, 1, SELF_INIT | INCLUSIVE, Share::Core),
    l3: Cache::new(3, 3, 16, 32768, 1, SELF_INIT | WBINVD, Share::Die),
};
/// EPYC-MILAN.
pub static EPYC_MILAN: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT | WBINVD, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 1, SELF_INIT | WBINVD, Share::Core),
    l2: Cache::new(3, 2, 8, 1024, 1, 0, Share::Core),
    l3: Cache::new(3, 3, 16, 32768, 1, SELF_INIT | INCLUSIVE, Share::Die),
};
/// EPYC-MILAN version 3.
pub static EPYC_MILAN_V3: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 8, 1024, 1, SELF_INIT | INCLUSIVE, Share::Core),
    l3: Cache::new(3, 3, 16, 32768, 1, SELF_INIT | WBINVD, Share::Die),
};
/// EPYC-ROME.
pub static EPYC_ROME: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT | WBINVD, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 1, SELF_INIT | WBINVD, Share::Core),
    l2: Cache::new(3, 2, 8, 1024, 1, 0, Share::Core),
    l3: Cache::new(3, 3, 16, 16384, 1, SELF_INIT | INCLUSIVE, Share::Die),
};
/// EPYC-ROME version 5.
pub static EPYC_ROME_V5: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 8, 1024, 1, SELF_INIT | INCLUSIVE, Share::Core),
    l3: Cache::new(3, 3, 16, 16384, 1, SELF_INIT | WBINVD, Share::Die),
};
/// EPYC-TURIN.
pub static EPYC_TURIN: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 12, 64, 1, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 16, 1024, 1, SELF_INIT | INCLUSIVE, Share::Core),
    l3: Cache::new(3, 3, 16, 32768, 1, SELF_INIT | WBINVD, Share::Die),
};
/// EPYC.
pub static EPYC: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT | WBINVD, Share::Core),
    l1i: Cache::new(2, 1, 4, 256, 1, SELF_INIT | WBINVD, Share::Core),
    l2: Cache::new(3, 2, 8, 1024, 1, 0, Share::Core),
    l3: Cache::new(3, 3, 16, 8192, 1, SELF_INIT | INCLUSIVE, Share::Die),
};
/// EPYC version 5.
pub static EPYC_V5: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 4, 256, 1, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 8, 1024, 1, SELF_INIT | INCLUSIVE, Share::Core),
    l3: Cache::new(3, 3, 16, 8192, 1, SELF_INIT | WBINVD, Share::Die),
};
/// GRANITERAPIDS.
pub static GRANITERAPIDS: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 12, 64, 0, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 16, 64, 0, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 16, 2048, 0, SELF_INIT, Share::Core),
    l3: Cache::new(3, 3, 16, 294912, 0, SELF_INIT | COMPLEX, Share::Socket),
};
/// SAPPHIRERAPIDS.
pub static SAPPHIRERAPIDS: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 12, 64, 0, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 8, 64, 0, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 16, 2048, 0, SELF_INIT, Share::Core),
    l3: Cache::new(3, 3, 15, 65536, 0, SELF_INIT | COMPLEX, Share::Socket),
};
/// SIERRAFOREST.
pub static SIERRAFOREST: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 0, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 8, 128, 0, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 16, 4096, 0, SELF_INIT, Share::Module),
    l3: Cache::new(3, 3, 12, 147456, 0, SELF_INIT | COMPLEX, Share::Socket),
};
/// YONGFENG.
pub static YONGFENG: CacheSet = CacheSet {
    l1d: Cache::new(1, 1, 8, 64, 1, SELF_INIT, Share::Core),
    l1i: Cache::new(2, 1, 16, 64, 1, SELF_INIT, Share::Core),
    l2: Cache::new(3, 2, 8, 512, 0, SELF_INIT | INCLUSIVE, Share::Core),
    l3: Cache::new(3, 3, 16, 8192, 0, SELF_INIT | WBINVD | INCLUSIVE, Share::Die),
};
