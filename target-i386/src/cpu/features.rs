//! Sets of features, what the engine implements, what depends on what, and what is taken away from a model.
//!
//! Not modelled: host CPU passthrough.

use super::words::{self, ANY, Bit, Place, Reg, TABLE, WORDS};
use std::fmt;
use std::ops::{BitAnd, BitOr, Not};
use std::sync::LazyLock;

/// Bits of all words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FeatureSet([u64; WORDS]);

impl Default for FeatureSet {
    fn default() -> Self {
        FeatureSet([0; WORDS])
    }
}

impl FeatureSet {
    /// The features of a list of names, separated by blanks. Names nobody knows are passed over.
    pub fn parse(names: &str) -> FeatureSet {
        let mut set = FeatureSet::default();
        names.split_whitespace().for_each(|n| set.set_name(n, true));
        set
    }
    /// One word; 0 for a place that has none.
    pub fn word(&self, place: Place) -> u64 {
        words::at(place).map_or(0, |i| self.at(i))
    }
    /// One word of a CPUID leaf.
    pub fn cpuid(&self, leaf: u32, sub: u32, reg: Reg) -> u32 {
        self.word(Place::Cpuid(leaf, sub, reg)) as u32
    }
    /// Word number `i` of the table.
    pub fn at(&self, i: usize) -> u64 {
        self.0.get(i).copied().unwrap_or(0)
    }
    /// Replaces word number `i`.
    pub fn set_at(&mut self, i: usize, v: u64) {
        if let Some(w) = self.0.get_mut(i) {
            *w = v
        }
    }
    /// Whether a bit is set.
    pub fn has_bit(&self, b: Bit) -> bool {
        self.at(b.word) >> b.bit & 1 != 0
    }
    /// Sets or clears a bit.
    pub fn set_bit(&mut self, b: Bit, on: bool) {
        if let Some(w) = self.0.get_mut(b.word) {
            *w = *w & !(1 << b.bit) | u64::from(on) << b.bit
        }
    }
    /// Whether the feature is in the set: all of its bits.
    pub fn has(&self, name: &str) -> bool {
        words::bits(name).is_some_and(|b| b.iter().all(|b| self.has_bit(*b)))
    }
    /// Adds or removes a feature.
    pub fn set_name(&mut self, name: &str, on: bool) {
        words::bits(name).unwrap_or_default().iter().for_each(|b| self.set_bit(*b, on))
    }
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }
    /// All bits, in table order.
    pub fn bits(&self) -> impl Iterator<Item = Bit> + '_ {
        self.0.iter().enumerate().flat_map(|(word, w)| {
            let w = *w;
            (0..64).filter(move |b| w >> b & 1 != 0).map(move |bit| Bit { word, bit })
        })
    }
    /// Names of all features that have one, in table order.
    pub fn names(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.bits().filter_map(words::name).collect();
        all.dedup();
        all
    }
    fn zip(self, o: FeatureSet, f: fn(u64, u64) -> u64) -> FeatureSet {
        FeatureSet(std::array::from_fn(|i| f(self.at(i), o.at(i))))
    }
}
impl BitAnd for FeatureSet {
    type Output = FeatureSet;
    fn bitand(self, o: FeatureSet) -> FeatureSet {
        self.zip(o, |a, b| a & b)
    }
}
impl BitOr for FeatureSet {
    type Output = FeatureSet;
    fn bitor(self, o: FeatureSet) -> FeatureSet {
        self.zip(o, |a, b| a | b)
    }
}
impl Not for FeatureSet {
    type Output = FeatureSet;
    fn not(self) -> FeatureSet {
        FeatureSet(self.0.map(|w| !w))
    }
}
impl fmt::Debug for FeatureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

/// What the engine implements: all that a guest can be shown, whatever the model.
///
/// `ss`, `arat`, `erms` and `fsrm` ask for nothing: caches are coherent, the APIC timer never stops, strings are moved in
/// bulk. MONITOR is there and MWAIT returns at once.
const ENGINE: &str = "\
    fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss \
    pni monitor cx16 x2apic popcnt tsc-deadline hypervisor \
    fsgsbase smep erms smap umip rdpid fsrm \
    syscall nx pdpe1gb rdtscp lm lahf-lm 3dnowprefetch arat";

/// What the engine implements.
pub fn engine() -> &'static FeatureSet {
    static SET: LazyLock<FeatureSet> = LazyLock::new(|| FeatureSet::parse(ENGINE));
    &SET
}

/// What leaf 8000_0001 EDX repeats of leaf 1 EDX on AMD's processors.
pub const AMD_ALIASES: u64 = 0x0183_f3ff;

/// From: a feature; to: words that mean nothing without it.
static DEPENDS: &[(&str, &[Place])] = &[
    ("arch-capabilities", &[Place::Msr(0x10a)]),
    ("core-capability", &[Place::Msr(0xcf)]),
    ("pdcm", &[Place::Msr(0x345)]),
    (
        "vmx",
        &[
            Place::Msr(0x480),
            Place::Msr(0x485),
            Place::Msr(0x48b),
            Place::Msr(0x48c),
            Place::Msr(0x48d),
            Place::Msr(0x48e),
            Place::Msr(0x48f),
            Place::Msr(0x490),
            Place::Msr(0x491),
        ],
    ),
    ("svm", &[Place::Cpuid(0x8000_000a, ANY, Reg::EDX)]),
    (
        "xsave",
        &[
            Place::Cpuid(0xd, 0, Reg::EAX),
            Place::Cpuid(0xd, 0, Reg::EDX),
            Place::Cpuid(0xd, 1, Reg::EAX),
            Place::Cpuid(0xd, 1, Reg::ECX),
            Place::Cpuid(0xd, 1, Reg::EDX),
        ],
    ),
    ("sgx", &[Place::Cpuid(0x12, 0, Reg::EAX), Place::Cpuid(0x12, 0, Reg::EBX), Place::Cpuid(0x12, 1, Reg::EAX)]),
    ("intel-pt", &[Place::Cpuid(0x14, 0, Reg::ECX)]),
    ("amx-tile", &[Place::Cpuid(0x1e, 1, Reg::EAX)]),
    ("avx10", &[Place::Cpuid(0x24, 0, Reg::EBX), Place::Cpuid(0x24, 1, Reg::ECX)]),
    ("apxf", &[Place::Cpuid(0x29, 0, Reg::EBX)]),
];

/// The features of `set` whose ground is missing in `set`.
pub fn groundless(set: &FeatureSet) -> FeatureSet {
    let mut lost = FeatureSet::default();
    for (_, to) in DEPENDS.iter().filter(|d| !set.has(d.0)) {
        for i in to.iter().filter_map(|p| words::at(*p)) {
            lost.set_at(i, set.at(i));
        }
    }
    lost
}

/// The features of `set` that the engine does not implement. What hangs on one of them goes with it, and is in the second
/// set only: nobody asked for it by itself.
pub fn unsupported(set: &FeatureSet) -> (FeatureSet, FeatureSet) {
    let missing = *set & !*engine();
    let left = *set & *engine();
    // Read-only MSRs exist with the CPUID bit that announces them.
    let mut direct = missing;
    for (i, w) in TABLE.iter().enumerate() {
        if matches!(w.place, Place::Msr(_)) {
            direct.set_at(i, 0);
        }
    }
    (direct, missing | groundless(&left))
}

/// One line per bit, in QEMU's words: `what: CPUID[eax=07h,ecx=00h].EBX.hle [bit 4]`.
pub fn complain(what: &str, set: &FeatureSet) -> Vec<String> {
    let line = |b: Bit| {
        let place = TABLE.get(b.word).map_or_else(String::new, |w| w.place.describe());
        let name = words::name(b).map_or_else(String::new, |n| format!(".{n}"));
        format!("{what}: {place}{name} [bit {}]", b.bit)
    };
    set.bits().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_tables_is_known() {
        for n in ENGINE.split_whitespace().chain(DEPENDS.iter().map(|d| d.0)) {
            assert!(words::bits(n).is_some(), "{n}")
        }
        for (alias, name) in words::aliases() {
            assert_eq!(words::bits(alias), words::bits(name), "{alias}");
            assert!(words::names().contains(name), "{name}");
        }
        for (_, to) in DEPENDS {
            assert!(to.iter().all(|p| words::at(*p).is_some()));
        }
    }
    #[test]
    fn words_of_a_set() {
        let s = FeatureSet::parse("fpu sse2 lm syscall rdctl-no");
        assert_eq!(s.cpuid(1, ANY, Reg::EDX), 1 | 1 << 26);
        assert_eq!(s.cpuid(0x8000_0001, ANY, Reg::EDX), 1 << 29 | 1 << 11);
        assert_eq!(s.word(Place::Msr(0x10a)), 1);
        assert_eq!(s.names(), ["fpu", "sse2", "syscall", "lm", "rdctl-no"]);
    }
    #[test]
    fn what_hangs_on_a_missing_feature_goes_silently() {
        let s = FeatureSet::parse("fpu svm npt arch-capabilities rdctl-no sse3");
        let (direct, all) = unsupported(&s);
        assert_eq!(direct.names(), ["arch-capabilities", "svm", "npt"]);
        assert_eq!(all.names(), ["arch-capabilities", "svm", "npt", "rdctl-no"]);
        assert_eq!(groundless(&FeatureSet::parse("npt")).names(), ["npt"]);
        assert_eq!(
            complain("TCG doesn't support requested feature", &FeatureSet::parse("hle svm")),
            [
                "TCG doesn't support requested feature: CPUID[eax=07h,ecx=00h].EBX.hle [bit 4]",
                "TCG doesn't support requested feature: CPUID[eax=80000001h].ECX.svm [bit 2]"
            ]
        );
    }
}
