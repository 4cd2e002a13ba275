//! CPUID: the table a CPU model fills, what of it depends on the running state, and the features that system code asks
//! for. Source: Intel SDM vol. 2, CPUID; AMD64 APM vol. 3 appendix E.
use super::cr::{self, cr4};
use super::msr::efer;
use super::prelude::*;
use std::collections::BTreeMap;

/// Stands for every subleaf.
pub const ANY: u32 = u32::MAX;

/// The leaves of one vCPU. Model code builds it once, before the CPU runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuidTable {
    leaves: BTreeMap<(u32, u32), [u32; 4]>,
    /// The same, unpacked.
    pub features: Features,
}
/// No leaves: nothing is reported.
impl Default for CpuidTable {
    fn default() -> CpuidTable {
        CpuidTable::new([])
    }
}
impl CpuidTable {
    /// A table of leaves: number, subleaf ([`ANY`] if the leaf does not look at ECX), EAX EBX ECX EDX. Subleaves that are
    /// not given read as zeros.
    pub fn new(leaves: impl IntoIterator<Item = (u32, u32, [u32; 4])>) -> CpuidTable {
        let leaves = leaves.into_iter().map(|(leaf, sub, regs)| ((leaf, sub), regs)).collect();
        let mut t = CpuidTable { leaves, features: Features::default() };
        t.features = Features::new(&t);
        t
    }
    /// Exactly this leaf and subleaf: zeros if it is not set.
    pub fn get(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.leaves.get(&(leaf, ANY)).or_else(|| self.leaves.get(&(leaf, subleaf))).copied().unwrap_or_default()
    }
    /// The leaf that CPUID reports when asked for this one: beyond the highest of its range the highest basic leaf
    /// answers, as on Intel's processors.
    pub fn clamp(&self, leaf: u32) -> u32 {
        let top = |first: u32| self.get(first, 0)[0];
        let limit = match leaf >> 16 {
            0xc000 => top(0xc000_0000),
            0x8000 => top(0x8000_0000),
            0x4000 => top(0x4000_0000),
            _ => top(0),
        };
        if leaf > limit { top(0) } else { leaf }
    }
    fn bit(&self, leaf: u32, subleaf: u32, reg: usize, bit: u32) -> bool {
        leaf <= self.get(leaf & 0xffff_0000, 0)[0] && self.get(leaf, subleaf)[reg] >> bit & 1 != 0
    }
}

/// Who made the processor, as far as instructions differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD or HygonGenuine.
    Amd,
    /// Anyone else.
    #[default]
    Other,
}

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident: $leaf:literal, $sub:literal, $reg:ident, $bit:literal;)*) => {
        /// What CPUID reports, unpacked for quick questions.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Features {
            $($(#[$doc])* pub $name: bool,)*
            /// Maker.
            pub vendor: Vendor,
            /// Ones where a physical address may have bits.
            pub phys_mask: u64,
            /// CR4 bits that can be set.
            pub cr4_allowed: u64,
            /// EFER bits that can be set.
            pub efer_allowed: u64,
            /// XCR0 bits that can be set.
            pub xcr0_allowed: u64,
            /// Family, model and stepping: EAX of leaf 1, EDX after reset.
            pub signature: u32,
        }
        fn bits(t: &CpuidTable) -> Features {
            Features { $($name: t.bit($leaf, $sub, $reg, $bit),)* ..Features::default() }
        }
    };
}
const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;
#[rustfmt::skip]
features! {
    /// x87.
    fpu: 1, 0, EDX, 0;
    /// Virtual-8086 extensions.
    vme: 1, 0, EDX, 1;
    /// Debugging extensions.
    de: 1, 0, EDX, 2;
    /// 4 MiB pages.
    pse: 1, 0, EDX, 3;
    /// RDTSC.
    tsc: 1, 0, EDX, 4;
    /// RDMSR and WRMSR.
    msr: 1, 0, EDX, 5;
    /// Physical address extension.
    pae: 1, 0, EDX, 6;
    /// Machine-check exception.
    mce: 1, 0, EDX, 7;
    /// Local APIC.
    apic: 1, 0, EDX, 9;
    /// SYSENTER.
    sep: 1, 0, EDX, 11;
    /// Memory type ranges.
    mtrr: 1, 0, EDX, 12;
    /// Global pages.
    pge: 1, 0, EDX, 13;
    /// Machine-check architecture.
    mca: 1, 0, EDX, 14;
    /// Page attribute table.
    pat: 1, 0, EDX, 16;
    /// FXSAVE.
    fxsr: 1, 0, EDX, 24;
    /// SSE.
    sse: 1, 0, EDX, 25;
    /// MONITOR and MWAIT.
    monitor: 1, 0, ECX, 3;
    /// x2APIC.
    x2apic: 1, 0, ECX, 21;
    /// TSC-deadline timer.
    tsc_deadline: 1, 0, ECX, 24;
    /// XSAVE.
    xsave: 1, 0, ECX, 26;
    /// RDFSBASE and friends.
    fsgsbase: 7, 0, EBX, 0;
    /// Supervisor-mode execution prevention.
    smep: 7, 0, EBX, 7;
    /// Supervisor-mode access prevention.
    smap: 7, 0, EBX, 20;
    /// User-mode instruction prevention.
    umip: 7, 0, ECX, 2;
    /// RDPID.
    rdpid: 7, 0, ECX, 22;
    /// IA32_ARCH_CAPABILITIES.
    arch_capabilities: 7, 0, EDX, 29;
    /// XGETBV with ECX = 1.
    xgetbv1: 13, 1, EAX, 2;
    /// SYSCALL (in legacy mode too on AMD's).
    syscall: 0x8000_0001, 0, EDX, 11;
    /// Execute-disable.
    nx: 0x8000_0001, 0, EDX, 20;
    /// Fast FXSAVE.
    ffxsr: 0x8000_0001, 0, EDX, 25;
    /// 1 GiB pages.
    page1g: 0x8000_0001, 0, EDX, 26;
    /// RDTSCP.
    rdtscp: 0x8000_0001, 0, EDX, 27;
    /// Long mode.
    lm: 0x8000_0001, 0, EDX, 29;
}
impl Features {
    /// Unpacks a table.
    pub fn new(t: &CpuidTable) -> Features {
        let mut f = bits(t);
        let [_, b, c, d] = t.get(0, 0);
        f.vendor = match (b, d, c) {
            (0x756e_6547, 0x4965_6e69, 0x6c65_746e) => Vendor::Intel,
            (0x6874_7541, 0x6974_6e65, 0x444d_4163) | (0x6f67_7948, 0x6e65_476e, 0x656e_6975) => Vendor::Amd,
            _ => Vendor::Other,
        };
        // Without leaf 80000008: 36 bits with PSE-36 or PAE, else 32.
        let address = if t.get(0x8000_0000, 0)[0] >= 0x8000_0008 { t.get(0x8000_0008, 0)[0] & 0xff } else { 0 };
        let wide = f.pae || t.bit(1, 0, EDX, 17);
        let bits = match address {
            0 if wide => 36,
            0 => 32,
            n => n.clamp(32, 52),
        };
        f.phys_mask = (1 << bits) - 1;
        f.cr4_allowed = cr::cr4_allowed(&f);
        f.efer_allowed = efer::allowed(&f);
        f.xcr0_allowed = if f.xsave { u64::from(t.get(13, 0)[EAX]) | u64::from(t.get(13, 0)[EDX]) << 32 } else { 0 };
        f.signature = t.get(1, 0)[EAX];
        f
    }
}

/// CPUID.
pub fn cpuid(c: &mut X86Cpu<'_>) -> Rare {
    let (leaf, sub) = (c.gpr(RAX) as u32, c.gpr(RCX) as u32);
    let s = &*c.state;
    let leaf = s.cpuid.clamp(leaf);
    let mut r = s.cpuid.get(leaf, sub);
    match leaf {
        1 => {
            if s.cpuid.features.xsave && s.cr4 & cr4::OSXSAVE != 0 {
                r[ECX] |= 1 << 27;
            }
            // A disabled APIC does not show (SDM vol. 3A §10.4.3).
            if s.interrupts.as_ref().is_some_and(|i| i.base() & 1 << 11 == 0) {
                r[EDX] &= !(1 << 9);
            }
        }
        // Subleaves beyond the topology's levels answer with their number and the APIC id.
        11 | 31 if r == [0; 4] && s.cpuid.get(leaf, 0) != [0; 4] => {
            r = [0, 0, sub & 0xff, s.cpuid.get(leaf, 0)[EDX]];
        }
        // Intel's processors show SYSCALL in 64-bit mode only.
        0x8000_0001 if s.cpuid.features.vendor == Vendor::Intel && !s.code64() => r[EDX] &= !(1 << 11),
        13 if sub == 0 => r[EBX] = xsave_size(&s.cpuid, s.xcr0),
        13 if sub == 1 && r[EAX] & 2 != 0 => r[EBX] = xsave_size(&s.cpuid, s.xcr0),
        _ => {}
    }
    for (reg, v) in [RAX, RBX, RCX, RDX].into_iter().zip(r) {
        c.set_gpr(reg, v.into());
    }
    Rare::Next
}
/// Bytes of the XSAVE area for the components of `xcr0`, uncompacted.
fn xsave_size(t: &CpuidTable, xcr0: u64) -> u32 {
    let ends = (2..63).filter(|i| xcr0 >> i & 1 != 0).map(|i| {
        let [size, offset, ..] = t.get(13, i);
        size.saturating_add(offset)
    });
    if t.get(13, 0) == [0; 4] { 0 } else { ends.fold(0x240, u32::max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(level: u32) -> CpuidTable {
        CpuidTable::new([
            (0, ANY, [level, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            (1, ANY, [0x60fb1, 0x800, 0x8000_2001, 0x078b_fbfd]),
            (7, 0, [0, 1 << 7, 0, 0]),
            (0x8000_0000, ANY, [0x8000_0008, 0, 0, 0]),
            (0x8000_0001, ANY, [0, 0, 5, 0x2193_fbfd]),
            (0x8000_0008, ANY, [0x3028, 0, 0, 0]),
        ])
    }
    #[test]
    fn features_follow_the_table() {
        let f = table(7).features;
        assert!(f.fpu && f.lm && f.nx && f.syscall && f.smep && !f.smap && !f.page1g && !f.xsave);
        assert_eq!((f.vendor, f.phys_mask, f.signature), (Vendor::Amd, (1 << 40) - 1, 0x60fb1));
        assert_eq!(f.efer_allowed, efer::SCE | efer::LME | efer::NXE);
    }
    #[test]
    fn leaves_beyond_the_limit() {
        let t = table(7);
        assert_eq!(t.clamp(0x20), 7);
        assert_eq!(t.clamp(0x8000_0009), 7);
        assert_eq!(t.clamp(0x8000_0008), 0x8000_0008);
        assert_eq!(t.get(7, 1), [0; 4]);
        // A bit of a leaf beyond the limit is not there.
        assert!(!table(6).features.smep);
    }
}
