//! CPU models as data, and what a model with its version comes to.

pub mod amd;
pub mod hygon;
pub mod intel;
pub mod qemu;
pub mod zhaoxin;

use super::caches::{self, CacheSet};
use super::features::FeatureSet;
use std::sync::LazyLock;

/// Vendor string of leaf 0.
pub const INTEL: &str = "GenuineIntel";
/// See [`INTEL`].
pub const AMD: &str = "AuthenticAMD";
/// See [`INTEL`].
pub const HYGON: &str = "HygonGenuine";
/// See [`INTEL`].
pub const CENTAUR: &str = "CentaurHauls";
/// See [`INTEL`].
pub const ZHAOXIN: &str = "  Shanghai  ";

/// Where a model's caches are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// The same for all models: property `legacy-cache`.
    Legacy,
    /// Old enough for leaf 2 alone.
    Descriptors,
    /// The real part's.
    Own(&'static CacheSet),
}

/// A model: what version 1 is, and what later ones change.
pub struct Model {
    /// Name without version.
    pub name: &'static str,
    /// 12 letters.
    pub vendor: &'static str,
    /// Family, as displayed: extended family added.
    pub family: u32,
    /// Model, extended model included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Highest basic leaf.
    pub level: u32,
    /// Highest subleaf of leaf 7.
    pub level_func7: u32,
    /// Highest extended leaf.
    pub xlevel: u32,
    /// Highest leaf of the range C000_0000.
    pub xlevel2: u32,
    /// Brand string.
    pub model_id: &'static str,
    /// Caches.
    pub caches: Caches,
    /// Names, separated by blanks. `hypervisor` is on in all of them.
    pub features: &'static str,
    /// Versions in order, from 1.
    pub versions: &'static [Version],
}

/// What a version changes, on top of those before it.
pub struct Version {
    /// 1, 2 ….
    pub number: u32,
    /// Older name of its own.
    pub alias: Option<&'static str>,
    /// `+feature -feature`.
    pub change: &'static str,
    /// Properties.
    pub set: &'static [(&'static str, &'static str)],
    /// Other caches.
    pub caches: Option<&'static CacheSet>,
}

impl Version {
    const fn new(number: u32) -> Version {
        Version { number, alias: None, change: "", set: &[], caches: None }
    }
    const fn alias(self, name: &'static str) -> Version {
        Version { alias: Some(name), ..self }
    }
    const fn change(self, change: &'static str) -> Version {
        Version { change, ..self }
    }
    const fn set(self, set: &'static [(&'static str, &'static str)]) -> Version {
        Version { set, ..self }
    }
    const fn caches(self, caches: &'static CacheSet) -> Version {
        Version { caches: Some(caches), ..self }
    }
}

/// Model `base`: nothing, for static expansions.
static BASE: Model = Model {
    name: "base",
    vendor: "",
    family: 0,
    model: 0,
    stepping: 0,
    level: 0,
    level_func7: 0,
    xlevel: 0,
    xlevel2: 0,
    model_id: "",
    caches: Caches::Legacy,
    features: "",
    versions: &[],
};

/// Model `max`: everything the engine implements.
static MAX: Model = Model {
    name: "max",
    vendor: AMD,
    family: 6,
    model: 6,
    stepping: 3,
    level: 0xd,
    level_func7: 1,
    xlevel: 0x8000_0021,
    xlevel2: 0,
    model_id: "QEMU TCG CPU version 2.5+",
    caches: Caches::Legacy,
    features: "",
    versions: &[],
};

/// All models with versions.
pub fn versioned() -> impl Iterator<Item = &'static Model> {
    qemu::MODELS.iter().chain(intel::MODELS).chain(amd::MODELS).chain(hygon::MODELS).chain(zhaoxin::MODELS)
}

/// What a type of CPU is made from: class data.
#[derive(Clone, Copy)]
pub enum Entry {
    /// The newest, or the first, version: the machine says which.
    Unversioned(&'static Model),
    /// Another name of a version.
    Alias(&'static Model, &'static Version, &'static str),
    /// A version.
    Version(&'static Model, &'static Version),
    /// `base`.
    Base,
    /// `max`.
    Max,
    /// `host`.
    Host,
}

/// Everything that has a type, unsorted.
pub fn entries() -> &'static [Entry] {
    static ALL: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        let mut all = vec![Entry::Base, Entry::Max, Entry::Host];
        for m in versioned() {
            all.push(Entry::Unversioned(m));
            for v in m.versions {
                all.push(Entry::Version(m, v));
                all.extend(v.alias.map(|a| Entry::Alias(m, v, a)));
            }
        }
        all
    });
    &ALL
}

impl Entry {
    /// Name for `-cpu`.
    pub fn name(&self) -> String {
        match self {
            Entry::Unversioned(m) => m.name.to_owned(),
            Entry::Alias(_, _, a) => (*a).to_owned(),
            Entry::Version(m, v) => format!("{}-v{}", m.name, v.number),
            Entry::Base => "base".to_owned(),
            Entry::Max => "max".to_owned(),
            Entry::Host => "host".to_owned(),
        }
    }
    /// The version that a machine gives it: the first, or the newest if `newest`. `None` for models without versions.
    pub fn resolve(&self, newest: bool) -> Option<(&'static Model, &'static Version)> {
        match self {
            Entry::Unversioned(m) => {
                let v = if newest { m.versions.last() } else { m.versions.first() };
                Some((m, v?))
            }
            Entry::Alias(m, v, _) | Entry::Version(m, v) => Some((m, v)),
            Entry::Base | Entry::Max | Entry::Host => None,
        }
    }
    /// What the CPU is before properties are set.
    pub fn definition(&self, newest: bool) -> Definition {
        match self.resolve(newest) {
            Some((m, v)) => Definition::of(m, v.number),
            None if matches!(self, Entry::Base) => Definition::start(&BASE),
            None => Definition { max: true, ..Definition::start(&MAX) },
        }
    }
}

/// A model's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Vendor; empty for `base`.
    pub vendor: String,
    /// See [`Model`].
    pub family: u32,
    /// See [`Model`].
    pub model: u32,
    /// See [`Model`].
    pub stepping: u32,
    /// See [`Model`].
    pub level: u32,
    /// See [`Model`].
    pub level_func7: u32,
    /// See [`Model`].
    pub xlevel: u32,
    /// See [`Model`].
    pub xlevel2: u32,
    /// See [`Model`].
    pub model_id: String,
    /// Caches, where they are not everybody's.
    pub caches: Caches,
    /// Features before any is taken away.
    pub features: FeatureSet,
    /// Shows leaf 1F whatever the topology.
    pub force_1f: bool,
    /// Version of AVX10.
    pub avx10_version: u8,
    /// Features come from the engine.
    pub max: bool,
}

impl Definition {
    fn start(m: &'static Model) -> Definition {
        let mut d = Definition {
            vendor: m.vendor.to_owned(),
            family: m.family,
            model: m.model,
            stepping: m.stepping,
            level: m.level,
            level_func7: m.level_func7,
            xlevel: m.xlevel,
            xlevel2: m.xlevel2,
            model_id: m.model_id.to_owned(),
            caches: m.caches,
            features: FeatureSet::parse(m.features),
            force_1f: false,
            avx10_version: 0,
            max: false,
        };
        d.features.set_name("hypervisor", !m.vendor.is_empty());
        d
    }
    /// A version of a model.
    pub fn of(m: &'static Model, number: u32) -> Definition {
        let mut d = Definition::start(m);
        for v in m.versions.iter().take_while(|v| v.number <= number) {
            for c in v.change.split_whitespace() {
                match (c.strip_prefix('+'), c.strip_prefix('-')) {
                    (Some(f), _) => d.features.set_name(f, true),
                    (_, Some(f)) => d.features.set_name(f, false),
                    _ => {}
                }
            }
            for (name, value) in v.set {
                d.set(name, value);
            }
            if let Some(c) = v.caches {
                d.caches = Caches::Own(c);
            }
        }
        d
    }
    fn set(&mut self, name: &str, value: &str) {
        let n = || match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap_or(0),
            None => value.parse().unwrap_or(0),
        };
        match name {
            "family" => self.family = n(),
            "model" => self.model = n(),
            "stepping" => self.stepping = n(),
            "level" => self.level = n(),
            "level-func7" => self.level_func7 = n(),
            "xlevel" => self.xlevel = n(),
            "xlevel2" => self.xlevel2 = n(),
            "model-id" => self.model_id = value.to_owned(),
            "x-force-cpuid-0x1f" => self.force_1f = value == "on",
            "avx10-version" => self.avx10_version = n() as u8,
            _ => debug_assert!(false, "no model sets {name}"),
        }
    }
}
