//! The CPUID leaves of one vCPU. Source: Intel SDM vol. 2, CPUID; AMD64 APM vol. 3 appendix E. Which vendor shows what is
//! QEMU's choice, held against its leaves by a test.
//!
//! Not modelled, and so all zeros: performance monitoring (0A), XSAVE areas (0D), resource control (0F, 10), SGX (12), tracing
//! (14), frequencies (15, 16), AMX (1D, 1E), SVM (8000_000A), encryption (8000_001F). None of their features exists here.

use super::caches::{self, CacheSet};
use super::features::FeatureSet;
use super::models::{AMD, CENTAUR, Definition, HYGON, INTEL, ZHAOXIN};
use super::topology::{Share, Topo};
use super::words::{ANY, Place, Reg, TABLE};

/// What the leaves are made from.
pub struct Shape<'a> {
    /// Numbers and names.
    pub def: &'a Definition,
    /// What is shown.
    pub features: &'a FeatureSet,
    /// Highest leaves: basic, 8000_0000, C000_0000; highest subleaf of leaf 7.
    pub levels: Levels,
    /// Bits of physical addresses.
    pub phys_bits: u32,
    /// Bits of a guest's physical addresses; 0 for as many.
    pub guest_phys_bits: u32,
    /// Topology.
    pub topo: Topo,
    /// The vCPU's APIC id.
    pub apic_id: u32,
    /// Caches.
    pub caches: &'a CacheSet,
    /// What properties change.
    pub quirks: Quirks,
}

/// Highest leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Basic.
    pub basic: u32,
    /// Subleaf of leaf 7.
    pub func7: u32,
    /// 8000_0000.
    pub extended: u32,
    /// C000_0000.
    pub centaur: u32,
}

/// What properties of the same names change in the leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// `tcg-cpuid`: the hypervisor's leaves.
    pub hypervisor_leaves: bool,
    /// `cpuid-0xb`.
    pub leaf_b: bool,
    /// `x-force-cpuid-0x1f`, or a topology that leaf B cannot tell.
    pub leaf_1f: bool,
    /// `l3-cache`.
    pub l3: bool,
    /// `x-vendor-cpuid-only`: leaves 2 and 4 are not AMD's.
    pub vendor_only: bool,
    /// `x-vendor-cpuid-only-v2`: extended leaves that are not Intel's.
    pub vendor_only_v2: bool,
    /// `x-consistent-cache`: leaf 2 refers to leaf 4.
    pub consistent_cache: bool,
    /// `x-amd-topoext-features-only`: 8000_001E needs TOPOEXT.
    pub topoext_only: bool,
    /// `x-l1-cache-per-thread`: level 1 is told as the core's.
    pub l1_per_core: bool,
}

fn text(s: &str, at: usize) -> u32 {
    let b = s.as_bytes();
    u32::from_le_bytes(std::array::from_fn(|i| b.get(at + i).copied().unwrap_or(0)))
}

impl Shape<'_> {
    fn intel(&self) -> bool {
        self.def.vendor == INTEL
    }
    fn amd(&self) -> bool {
        self.def.vendor == AMD
    }
    fn zhaoxin(&self) -> bool {
        self.def.vendor == CENTAUR || self.def.vendor == ZHAOXIN
    }
    /// EAX of leaf 1.
    pub fn signature(&self) -> u32 {
        let d = self.def;
        let family = if d.family > 0xf { 0xf00 | (d.family - 0xf) << 20 } else { d.family << 8 };
        family | (d.model & 0xf) << 4 | (d.model >> 4 & 0xf) << 16 | d.stepping & 0xf
    }
    fn vendor(&self) -> [u32; 3] {
        let v = &self.def.vendor;
        [text(v, 0), text(v, 8), text(v, 4)]
    }
    fn shown(&self, leaf: u32, sub: u32, reg: Reg) -> u32 {
        self.features.cpuid(leaf, sub, reg)
    }

    /// The leaves up to the limits.
    pub fn leaves(&self) -> Vec<(u32, u32, [u32; 4])> {
        let mut all = vec![];
        self.basic(&mut all);
        self.extended(&mut all);
        self.hypervisor(&mut all);
        if self.levels.centaur >= 0xc000_0000 {
            all.push((0xc000_0000, ANY, [self.levels.centaur, 0, 0, 0]));
            all.push((0xc000_0001, ANY, [self.signature(), 0, 0, self.shown(0xc000_0001, ANY, Reg::EDX)]));
        }
        all.retain(|(leaf, _, _)| match leaf >> 16 {
            0xc000 => *leaf <= self.levels.centaur,
            0x8000 => *leaf <= self.levels.extended,
            0x4000 => true,
            _ => *leaf <= self.levels.basic,
        });
        all
    }

    fn basic(&self, all: &mut Vec<(u32, u32, [u32; 4])>) {
        use Reg::*;
        let t = &self.topo;
        let [b, c, d] = self.vendor();
        all.push((0, ANY, [self.levels.basic, b, c, d]));
        let threads = t.threads_per_socket();
        let ids = match threads {
            1 => 0,
            // Intel tells the ids a package has, the others its threads.
            _ if self.intel() || self.zhaoxin() => t.ids_of(Share::Socket),
            n => n,
        };
        // CLFLUSH lines of 8 times 8 bytes.
        let ebx = self.apic_id << 24 | ids.min(255) << 16 | 8 << 8;
        all.push((1, ANY, [self.signature(), ebx, self.shown(1, ANY, ECX), self.shown(1, ANY, EDX)]));
        let c = self.caches;
        if !(self.amd() && self.quirks.vendor_only) {
            let descriptors = self.levels.basic < 4 || !self.quirks.consistent_cache;
            let l3 = if self.quirks.l3 { caches::DESCRIPTOR_L3 } else { 0 };
            let leaf2 = if descriptors { [1, 0, l3, caches::DESCRIPTORS] } else { [1, 0, 0, caches::SEE_LEAF_4] };
            all.push((2, ANY, leaf2));
            let caches = [Some(c.l1d), Some(c.l1i), Some(c.l2), self.quirks.l3.then_some(c.l3)];
            all.extend(caches.iter().flatten().zip(0..).map(|(c, i)| (4, i, c.leaf4(t))));
        }
        // MONITOR: the extensions are told, the line sizes are not.
        all.push((5, ANY, [0, 0, 3, 0]));
        all.push((6, ANY, [self.shown(6, ANY, EAX), 0, 0, 0]));
        for sub in 0..=self.levels.func7.min(2) {
            let eax = if sub == 0 { self.levels.func7 } else { self.shown(7, sub, EAX) };
            all.push((7, sub, [eax, self.shown(7, sub, EBX), self.shown(7, sub, ECX), self.shown(7, sub, EDX)]));
        }
        if self.quirks.leaf_b {
            let (core, socket) = (t.shift(Share::Core), t.shift(Share::Socket));
            all.push((0xb, 0, [core, t.threads, 0x100, self.apic_id]));
            all.push((0xb, 1, [socket, threads, 0x201, self.apic_id]));
        }
        if self.quirks.leaf_1f {
            self.leaf_1f(all);
        }
    }
    /// Leaf 1F: the levels that there are, innermost first; the last one is the socket's.
    fn leaf_1f(&self, all: &mut Vec<(u32, u32, [u32; 4])>) {
        let t = &self.topo;
        // Type of the level, threads in it, where the next one's number begins.
        let mut levels = vec![(1, t.threads, Share::Core), (2, t.threads * t.cores, Share::Module)];
        if t.modules > 1 {
            levels.push((3, t.threads * t.cores * t.modules, Share::Die));
        }
        if t.dies > 1 {
            levels.push((5, t.threads_per_socket(), Share::Socket));
        }
        let last = levels.len() - 1;
        for (i, (kind, threads, next)) in levels.into_iter().enumerate() {
            let next = if i == last { Share::Socket } else { next };
            all.push((0x1f, i as u32, [t.shift(next), threads, i as u32 | kind << 8, self.apic_id]));
        }
    }

    fn extended(&self, all: &mut Vec<(u32, u32, [u32; 4])>) {
        use Reg::*;
        if self.levels.extended < 0x8000_0000 {
            return;
        }
        let t = &self.topo;
        let c = self.caches;
        let foreign = self.quirks.vendor_only_v2 && self.intel();
        let foreign_or_zhaoxin = self.quirks.vendor_only_v2 && (self.intel() || self.zhaoxin());
        let [vb, vc, vd] = if foreign_or_zhaoxin { [0; 3] } else { self.vendor() };
        all.push((0x8000_0000, ANY, [self.levels.extended, vb, vc, vd]));
        let (ecx, edx) = (self.shown(0x8000_0001, ANY, ECX), self.shown(0x8000_0001, ANY, EDX));
        all.push((0x8000_0001, ANY, [self.signature(), 0, ecx, edx]));
        for i in 0..3 {
            let at = |n: usize| text(&self.def.model_id, i * 16 + n * 4);
            all.push((0x8000_0002 + i as u32, ANY, [at(0), at(1), at(2), at(3)]));
        }
        if !foreign {
            all.push((0x8000_0005, ANY, [caches::L1_TLB, caches::L1_TLB, c.l1d.leaf_5(), c.l1i.leaf_5()]));
        }
        let leaf_6 = match foreign_or_zhaoxin {
            true => [0, 0, c.l2.leaf_6(), 0],
            false => [0, caches::L2_TLB, c.l2.leaf_6(), if self.quirks.l3 { c.l3.leaf_6_l3() } else { 0 }],
        };
        all.push((0x8000_0006, ANY, leaf_6));
        let seven = [0, self.shown(0x8000_0007, ANY, EBX), 0, self.shown(0x8000_0007, ANY, EDX)];
        all.push((0x8000_0007, ANY, seven));
        let mut size = self.phys_bits;
        if self.features.has("lm") {
            let linear = if self.features.has("la57") { 57 } else { 48 };
            size |= linear << 8 | self.guest_phys_bits << 16;
        }
        let threads = t.threads_per_socket();
        let count = if threads > 1 && !foreign { t.shift(Share::Socket) << 12 | (threads - 1).min(255) } else { 0 };
        all.push((0x8000_0008, ANY, [size, self.shown(0x8000_0008, ANY, EBX), count, 0]));
        if self.features.has("svm") {
            all.push((0x8000_000a, ANY, [1, 0x10, 0, self.shown(0x8000_000a, ANY, EDX)]));
        }
        if self.amd() || self.def.vendor == HYGON {
            let caches = [Some(c.l1d), Some(c.l1i), Some(c.l2), self.quirks.l3.then_some(c.l3)];
            let leaf = |c: &caches::Cache| c.leaf_1d(t, self.quirks.l1_per_core);
            all.extend(caches.iter().flatten().zip(0..).map(|(c, i)| (0x8000_001d, i, leaf(c))));
            if self.features.has("topoext") || !self.quirks.topoext_only {
                let [socket, die, module, core, _] = t.place(self.apic_id);
                let core = (die * t.modules + module) * t.cores + core;
                let nodes = t.dies - 1;
                let place =
                    [self.apic_id, (t.threads - 1) << 8 | core & 0xff, nodes << 8 | (socket * t.dies + die) & 0xff, 0];
                all.push((0x8000_001e, ANY, place));
            }
        }
        for leaf in [0x8000_0021, 0x8000_0022] {
            let r = [EAX, EBX, ECX, EDX].map(|r| self.shown(leaf, ANY, r));
            all.push((leaf, ANY, r));
        }
    }

    fn hypervisor(&self, all: &mut Vec<(u32, u32, [u32; 4])>) {
        let (top, name) = match self.quirks.hypervisor_leaves {
            true => (0x4000_0001, "TCGTCGTCGTCG"),
            false => (0, ""),
        };
        all.push((0x4000_0000, ANY, [top, text(name, 0), text(name, 4), text(name, 8)]));
        all.push((0x4000_0001, ANY, [0; 4]));
    }
}

/// Highest leaves that a set of features asks for: a leaf that shows something can be read.
pub fn needed(features: &FeatureSet, have: Levels) -> Levels {
    let mut l = have;
    for (_, w) in TABLE.iter().enumerate().filter(|(i, _)| features.at(*i) != 0) {
        if let Place::Cpuid(leaf, sub, _) = w.place {
            match leaf >> 16 {
                0xc000 => l.centaur = l.centaur.max(leaf),
                0x8000 => l.extended = l.extended.max(leaf),
                0x4000 => {}
                _ => l.basic = l.basic.max(leaf),
            }
            if leaf == 7 {
                l.func7 = l.func7.max(sub);
            }
        }
    }
    l
}
