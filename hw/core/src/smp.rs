//! CPU topology: the structure behind `-smp`, and how missing parts are filled in; where the caches sit (`smp-cache`).

use qom::{Error, Input, PropEnum, PropStruct, PropType, Reject, Result};
use serde_json::Value;

use crate::machine::MachineClass;

/// Structure of the property `smp`. 0 is refused; what is absent is worked out.
#[derive(Clone, Debug, Default, PartialEq, PropStruct)]
#[qom(name = "SMPConfiguration")]
#[expect(missing_docs, reason = "the levels of -smp, outermost first")]
pub struct SmpConfig {
    pub cpus: Option<u64>,
    pub drawers: Option<u64>,
    pub books: Option<u64>,
    pub sockets: Option<u64>,
    pub dies: Option<u64>,
    pub clusters: Option<u64>,
    pub modules: Option<u64>,
    pub cores: Option<u64>,
    pub threads: Option<u64>,
    pub maxcpus: Option<u64>,
}

/// Which levels a machine has beside sockets, cores and threads.
#[derive(Clone, Debug, Default)]
pub struct SmpRules {
    /// Prefer sockets to cores when neither is given (machines before 6.2).
    pub prefer_sockets: bool,
    /// Has dies.
    pub dies: bool,
    /// Has modules.
    pub modules: bool,
    /// Has clusters.
    pub clusters: bool,
    /// Has books.
    pub books: bool,
    /// Has drawers.
    pub drawers: bool,
    /// `smp-cache` can place caches.
    pub caches: bool,
}

/// A complete topology: the product of the levels is `max_cpus`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the levels of -smp, outermost first")]
pub struct Topology {
    pub cpus: u32,
    pub drawers: u32,
    pub books: u32,
    pub sockets: u32,
    pub dies: u32,
    pub clusters: u32,
    pub modules: u32,
    pub cores: u32,
    pub threads: u32,
    pub max_cpus: u32,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            cpus: 1,
            drawers: 1,
            books: 1,
            sockets: 1,
            dies: 1,
            clusters: 1,
            modules: 1,
            cores: 1,
            threads: 1,
            max_cpus: 1,
        }
    }
}

impl Topology {
    /// Fills in what `c` leaves out and checks the whole.
    ///
    /// # Errors
    /// Zero, a level the machine has not, a product that is not the number of CPUs, too many or too few CPUs.
    pub fn parse(class: &MachineClass, c: &SmpConfig) -> Result<Self> {
        let rules = &class.smp;
        let levels = [
            ("drawers", c.drawers, rules.drawers),
            ("books", c.books, rules.books),
            ("dies", c.dies, rules.dies),
            ("clusters", c.clusters, rules.clusters),
            ("modules", c.modules, rules.modules),
        ];
        let all = [
            ("cpus", c.cpus),
            ("sockets", c.sockets),
            ("cores", c.cores),
            ("threads", c.threads),
            ("maxcpus", c.maxcpus),
        ];
        let zero = |(name, v): &(&str, Option<u64>)| (*v == Some(0)).then(|| name.to_string());
        if let Some(name) = all.iter().find_map(zero).or_else(|| levels.iter().find_map(|l| zero(&(l.0, l.1)))) {
            return Err(Error::generic(format!(
                "Invalid CPU topology: CPU topology parameters must be greater than zero ('{name}' is 0)"
            )));
        }
        for (name, v, has) in levels {
            if v.is_some_and(|v| v > 1) && !has {
                return Err(Error::generic(format!("{name} > 1 not supported by this machine's CPU topology")));
            }
        }
        let level = |v: Option<u64>| v.unwrap_or(1);
        let (drawers, books, dies) = (level(c.drawers), level(c.books), level(c.dies));
        let (clusters, modules) = (level(c.clusters), level(c.modules));
        let over = || Error::generic("Invalid CPU topology: numbers too large");
        let product = |f: &[u64]| f.iter().try_fold(1u64, |a, b| a.checked_mul(*b)).ok_or_else(over);
        let outer = product(&[drawers, books, dies, clusters, modules])?;
        let (mut cpus, mut max) = (c.cpus.unwrap_or(0), c.maxcpus.unwrap_or(0));
        let (mut sockets, mut cores, mut threads) =
            (c.sockets.unwrap_or(0), c.cores.unwrap_or(0), c.threads.unwrap_or(0));
        if cpus == 0 && max == 0 {
            (sockets, cores, threads) = (sockets.max(1), cores.max(1), threads.max(1));
        } else {
            if max == 0 {
                max = cpus;
            }
            let share = |parts: &[u64]| Ok::<u64, Error>(max / product(parts)?.max(1));
            if rules.prefer_sockets {
                if sockets == 0 {
                    (cores, threads) = (cores.max(1), threads.max(1));
                    sockets = share(&[outer, cores, threads])?;
                } else if cores == 0 {
                    threads = threads.max(1);
                    cores = share(&[outer, sockets, threads])?;
                }
            } else if cores == 0 {
                (sockets, threads) = (sockets.max(1), threads.max(1));
                cores = share(&[outer, sockets, threads])?;
            } else if sockets == 0 {
                threads = threads.max(1);
                sockets = share(&[outer, cores, threads])?;
            }
            if threads == 0 {
                threads = share(&[outer, sockets, cores])?;
            }
        }
        let total = product(&[outer, sockets, cores, threads])?;
        max = if max == 0 { total } else { max };
        cpus = if cpus == 0 { max } else { cpus };
        let shape = format!(
            "sockets ({sockets}) * dies ({dies}) * modules ({modules}) * cores ({cores}) * threads ({threads})"
        );
        if total != max {
            return Err(Error::generic(format!(
                "Invalid CPU topology: product of the hierarchy must match maxcpus: {shape} != maxcpus ({max})"
            )));
        }
        if max < cpus {
            return Err(Error::generic(format!(
                "Invalid CPU topology: maxcpus must be equal to or greater than smp: {shape} == maxcpus ({max}) < smp_cpus ({cpus})"
            )));
        }
        let (least, most) = (u64::from(class.min_cpus.max(1)), u64::from(class.max_cpus.max(1)));
        if cpus < least {
            return Err(Error::generic(format!(
                "Invalid SMP CPUs {cpus}. The min CPUs supported by machine '{}' is {least}",
                class.name
            )));
        }
        if max > most {
            return Err(Error::generic(format!(
                "Invalid SMP CPUs {max}. The max CPUs supported by machine '{}' is {most}",
                class.name
            )));
        }
        let n = |v: u64| u32::try_from(v).map_err(|_| over());
        Ok(Self {
            cpus: n(cpus)?,
            drawers: n(drawers)?,
            books: n(books)?,
            sockets: n(sockets)?,
            dies: n(dies)?,
            clusters: n(clusters)?,
            modules: n(modules)?,
            cores: n(cores)?,
            threads: n(threads)?,
            max_cpus: n(max)?,
        })
    }

    /// As the property shows it.
    pub fn to_config(&self) -> SmpConfig {
        let n = |v: u32| Some(v.into());
        SmpConfig {
            cpus: n(self.cpus),
            drawers: n(self.drawers),
            books: n(self.books),
            sockets: n(self.sockets),
            dies: n(self.dies),
            clusters: n(self.clusters),
            modules: n(self.modules),
            cores: n(self.cores),
            threads: n(self.threads),
            maxcpus: n(self.max_cpus),
        }
    }
}

/// What shares a cache, innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, PropEnum)]
#[qom(name = "CpuTopologyLevel")]
#[expect(missing_docs, reason = "the levels of -smp")]
pub enum CpuTopologyLevel {
    Thread,
    Core,
    Module,
    Cluster,
    Die,
    Socket,
    Book,
    Drawer,
    /// The CPU model's choice.
    Default,
}

/// A cache that `smp-cache` can place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PropEnum)]
#[qom(name = "CacheLevelAndType")]
pub enum CacheKind {
    /// Level 1, data.
    #[qom(name = "l1d")]
    L1d,
    /// Level 1, instructions.
    #[qom(name = "l1i")]
    L1i,
    /// Level 2.
    #[qom(name = "l2")]
    L2,
    /// Level 3.
    #[qom(name = "l3")]
    L3,
}

/// Element of the property `smp-cache`.
#[derive(Clone, Debug, PartialEq, PropStruct)]
#[qom(name = "SmpCacheProperties")]
pub struct SmpCacheProperties {
    /// Which cache.
    pub cache: CacheKind,
    /// What shares it.
    pub topology: CpuTopologyLevel,
}

/// Value of the property `smp-cache`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SmpCacheList(Vec<SmpCacheProperties>);

impl PropType for SmpCacheList {
    type Cell = parking_lot::RwLock<Self>;
    const TYPE: &'static str = "SmpCachePropertiesWrapper";

    fn to_json(&self) -> Value {
        self.0.to_json()
    }

    fn take(input: Input<'_>) -> Result<Self, Reject> {
        let each = |(i, e): (usize, Input<'_>)| SmpCacheProperties::take(e).map_err(|r| r.at(&i.to_string()));
        input.elements()?.into_iter().enumerate().map(each).collect::<Result<_, _>>().map(Self)
    }
}

/// Levels of [`CacheKind::VALUES`](qom::PropEnum::VALUES), in that order.
pub type CacheLevels = [CpuTopologyLevel; 4];

/// Where a machine's caches sit.
#[derive(Clone, Debug)]
pub(crate) struct SmpCaches {
    levels: CacheLevels,
    /// The user placed some.
    given: bool,
}

impl Default for SmpCaches {
    fn default() -> Self {
        Self { levels: [CpuTopologyLevel::Default; 4], given: false }
    }
}

impl SmpCaches {
    /// What the user asks for, checked against what the machine has.
    ///
    /// # Errors
    /// A cache twice, a machine without such caches, a level it has not.
    pub fn parse(rules: &SmpRules, list: &SmpCacheList) -> Result<Self> {
        let mut all = Self { given: true, ..Self::default() };
        for (kind, level) in CacheKind::VALUES.iter().zip(&mut all.levels) {
            let mut named = list.0.iter().filter(|p| p.cache == *kind);
            *level = named.next().map_or(CpuTopologyLevel::Default, |p| p.topology);
            if named.next().is_some() {
                return Err(Error::generic(format!(
                    "Invalid cache properties: {}. The cache properties are duplicated",
                    kind.as_str()
                )));
            }
        }
        for (kind, level) in CacheKind::VALUES.iter().zip(all.levels) {
            let has = match level {
                CpuTopologyLevel::Default => continue,
                _ if !rules.caches => {
                    let what = format!("{} cache topology not supported by this machine", kind.as_str());
                    return Err(Error::generic(what));
                }
                CpuTopologyLevel::Thread => {
                    let what = format!("{} level cache not supported by this machine", level.as_str());
                    return Err(Error::generic(what));
                }
                CpuTopologyLevel::Core | CpuTopologyLevel::Socket => true,
                CpuTopologyLevel::Module => rules.modules,
                CpuTopologyLevel::Cluster => rules.clusters,
                CpuTopologyLevel::Die => rules.dies,
                CpuTopologyLevel::Book => rules.books,
                CpuTopologyLevel::Drawer => rules.drawers,
            };
            if !has {
                return Err(Error::generic(format!(
                    "Invalid topology level: {}. The topology level is not supported by this machine",
                    level.as_str()
                )));
            }
        }
        Ok(all)
    }

    /// As the property shows it.
    pub fn to_list(&self) -> SmpCacheList {
        let each = |(cache, topology): (&CacheKind, _)| SmpCacheProperties { cache: *cache, topology };
        SmpCacheList(CacheKind::VALUES.iter().zip(self.levels).map(each).collect())
    }

    /// Fills in the CPU model's levels; `None` if the user placed nothing.
    ///
    /// # Errors
    /// A cache would be shared by fewer threads than one below it.
    pub fn complete(&mut self, model: CacheLevels) -> Result<Option<CacheLevels>> {
        if !self.given {
            return Ok(None);
        }
        for (level, model) in self.levels.iter_mut().zip(model) {
            if *level == CpuTopologyLevel::Default {
                *level = model;
            }
        }
        let [l1d, l1i, l2, l3] = self.levels;
        for (upper, lower, names) in [(l2, l1d.max(l1i), ("L2", "L1")), (l3, l2, ("L3", "L2"))] {
            if upper < lower {
                return Err(Error::generic(format!(
                    "Invalid smp cache topology. {} cache topology level shouldn't be lower than {} cache",
                    names.0, names.1
                )));
            }
        }
        Ok(Some(self.levels))
    }
}
