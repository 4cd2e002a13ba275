//! CPU topology: the structure behind `-smp`, and how missing parts are filled in.

use qom::{Error, Input, PropStruct, PropType, Reject, Result};
use serde_json::{Value, json};

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
    /// Which caches of `smp-cache` can be placed.
    pub caches: &'static [&'static str],
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

/// Value of the property `smp-cache`: where each cache sits; none can be moved on this machine's CPUs yet.
#[derive(Clone, Debug, PartialEq)]
pub struct SmpCaches(Vec<(String, String)>);

const CACHES: [&str; 4] = ["l1d", "l1i", "l2", "l3"];
const LEVELS: [&str; 11] =
    ["invalid", "thread", "core", "module", "cluster", "die", "socket", "book", "drawer", "default", "max"];

impl Default for SmpCaches {
    fn default() -> Self {
        Self(CACHES.map(|c| (c.to_owned(), "default".to_owned())).to_vec())
    }
}

impl SmpCaches {
    /// Level at which a cache (`l1d`, `l1i`, `l2`, `l3`) is shared; `default`: the CPU model's choice.
    pub fn level(&self, cache: &str) -> &str {
        self.0.iter().find(|c| c.0 == cache).map_or("default", |c| &c.1)
    }
}

impl PropType for SmpCaches {
    type Cell = parking_lot::RwLock<Self>;
    const TYPE: &'static str = "SmpCachePropertiesWrapper";

    fn to_json(&self) -> Value {
        self.0.iter().map(|(cache, topology)| json!({ "cache": cache, "topology": topology })).collect()
    }

    fn take(input: Input<'_>) -> Result<Self, Reject> {
        let mut all = Self::default();
        for e in input.elements()? {
            let (mut cache, mut level) = (None, None);
            for (key, v) in e.members()? {
                match key {
                    "cache" => cache = Some(v.string()?.to_owned()),
                    "topology" => level = Some(v.string()?.to_owned()),
                    _ => return Err(Reject::expects("members 'cache' and 'topology'")),
                }
            }
            let (Some(cache), Some(level)) = (cache, level) else {
                return Err(Reject::expects("members 'cache' and 'topology'"));
            };
            if !LEVELS.contains(&level.as_str()) {
                return Err(Reject::expects("a level such as 'core', 'socket' or 'default'"));
            }
            match all.0.iter_mut().find(|c| c.0 == cache) {
                Some(c) => c.1 = level,
                None => return Err(Reject::expects("one of 'l1d', 'l1i', 'l2', 'l3'")),
            }
        }
        Ok(all)
    }
}
