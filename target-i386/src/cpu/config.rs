//! A CPU's values: the model's, then what properties set, then what is worked out before it runs.

use super::caches::{self, CacheSet};
use super::cpuid::{Levels, needed};
use super::features::{self, AMD_ALIASES, FeatureSet};
use super::models::{AMD, CENTAUR, Caches, Definition, INTEL, ZHAOXIN};
use super::topology::Topo;
use super::words::{ANY, Place, Reg, at};

/// A level that is not set: worked out.
pub const AUTO: u32 = u32::MAX;

/// The values.
#[derive(Clone, Debug)]
pub struct Config {
    /// Numbers, names and features; the features are what is asked for, later what is shown.
    pub def: Definition,
    /// What properties named, on or off: the model has no say in it.
    pub user: FeatureSet,
    /// What was asked for and cannot be had.
    pub filtered: FeatureSet,
    /// Highest leaves as set, [`AUTO`] for worked out, then as shown.
    pub levels: Levels,
    /// Least highest leaves.
    pub min: Levels,
    /// What the model asks for in vain without a warning.
    pub quiet: FeatureSet,
    expanded: bool,
}

impl Config {
    /// A model's values.
    pub fn new(def: Definition, quiet: FeatureSet) -> Config {
        let min = Levels { basic: def.level, func7: 0, extended: def.xlevel, centaur: def.xlevel2 };
        let func7 = if def.level_func7 != 0 { def.level_func7 } else { AUTO };
        Config {
            levels: Levels { basic: AUTO, func7, extended: AUTO, centaur: AUTO },
            min,
            def,
            user: FeatureSet::default(),
            filtered: FeatureSet::default(),
            quiet,
            expanded: false,
        }
    }
    /// A property set a feature.
    pub fn set_feature(&mut self, name: &str, on: bool) {
        self.def.features.set_name(name, on);
        self.user.set_name(name, true);
    }
    /// Completes the features: what the engine has for `max`, minus what has no ground; works out the levels. Answers
    /// warnings. The second call does nothing.
    pub fn expand(&mut self, force_1f: bool) -> Vec<String> {
        if std::mem::replace(&mut self.expanded, true) {
            return vec![];
        }
        if self.def.max {
            self.def.features = self.def.features | *features::engine() & !self.user;
        }
        let lost = features::groundless(&self.def.features);
        let asked = lost & self.user;
        self.def.features = self.def.features & !lost;
        self.filtered = self.filtered | asked;
        let warnings = features::complain("This feature depends on other features that were not requested", &asked);
        let mut need = needed(&self.def.features, self.min);
        if force_1f && need.basic > 0 {
            need.basic = need.basic.max(0x1f);
        }
        if self.def.avx10_version != 0 && self.def.features.has("avx10") {
            need.basic = need.basic.max(0x24);
        }
        let pick = |have: u32, need: u32| if have == AUTO { need } else { have };
        let l = &mut self.levels;
        l.basic = pick(l.basic, need.basic);
        l.func7 = pick(l.func7, need.func7);
        l.extended = pick(l.extended, need.extended);
        l.centaur = pick(l.centaur, need.centaur);
        warnings
    }
    /// Takes away what the engine does not implement. Answers what was asked for aloud, and everything that went.
    pub fn filter(&mut self) -> (FeatureSet, FeatureSet) {
        let (direct, all) = features::unsupported(&self.def.features);
        self.def.features = self.def.features & !all;
        self.filtered = self.filtered | direct;
        (direct & !(self.quiet & !self.user), direct)
    }
    /// What the shown features have beside the asked ones: the topology's, and AMD's repetition of leaf 1.
    pub fn finish(&mut self, topo: &Topo) {
        if topo.threads_per_socket() > 1 {
            self.def.features.set_name("ht", true);
            if ![INTEL, CENTAUR, ZHAOXIN].contains(&self.def.vendor.as_str()) {
                self.def.features.set_name("cmp-legacy", true);
            }
        }
        let (one, ext) = (Place::Cpuid(1, ANY, Reg::EDX), Place::Cpuid(0x8000_0001, ANY, Reg::EDX));
        if self.def.vendor == AMD
            && let Some(i) = at(ext)
        {
            let f = &mut self.def.features;
            f.set_at(i, f.at(i) | f.word(one) & AMD_ALIASES);
        }
    }
    /// Caches to show.
    pub fn caches(&self, legacy: bool) -> &'static CacheSet {
        match self.def.caches {
            Caches::Own(c) if !legacy => c,
            _ if self.def.vendor == AMD => &caches::LEGACY_AMD,
            _ => &caches::LEGACY,
        }
    }
    /// Bits of physical addresses where no property says it.
    pub fn default_phys_bits(&self) -> u32 {
        let f = &self.def.features;
        match (f.has("lm"), f.has("pae") || f.has("pse36")) {
            (true, _) => 40,
            (_, true) => 36,
            _ => 32,
        }
    }
    /// Microcode revision where no property says it.
    pub fn default_ucode_rev(&self) -> u64 {
        if self.def.vendor == AMD { 0x0100_0065 } else { 0x1_0000_0000 }
    }
}
