//! Global properties: compat properties of accelerator and machine, sugar options, `-global`.

use crate::object::{Base, Object};
use crate::{Registry, Result};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Who set a global: later ones are applied later and win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Compat properties of the accelerator.
    Accel,
    /// Compat properties of the machine version.
    Machine,
    /// Options that stand for one (`-no-hpet` …).
    Sugar,
    /// `-global`.
    User,
}

/// A property value for all devices of a type and its descendants.
#[derive(Debug)]
pub struct Global {
    rank: Rank,
    driver: String,
    property: String,
    value: String,
    optional: bool,
    used: AtomicBool,
}

impl Global {
    /// `driver.property=value`.
    pub fn new(rank: Rank, driver: impl Into<String>, property: impl Into<String>, value: impl Into<String>) -> Self {
        let (driver, property, value) = (driver.into(), property.into(), value.into());
        Self { rank, driver, property, value, optional: false, used: AtomicBool::new(false) }
    }

    /// Passed over where the device has no such property.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Who set it.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Type name.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Property name.
    pub fn property(&self) -> &str {
        &self.property
    }

    /// Value, as text.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// The globals of one scope, indexed by driver.
#[derive(Default)]
pub(crate) struct Globals(RwLock<Table>);

#[derive(Default)]
struct Table {
    all: Vec<Arc<Global>>,
    by_driver: FxHashMap<u32, Vec<usize>>,
}

impl Globals {
    pub fn add(&self, g: Global) {
        let id = Registry::global().id(&g.driver);
        let mut table = self.0.write();
        let at = table.all.len();
        table.all.push(Arc::new(g));
        if let Some(id) = id {
            table.by_driver.entry(id).or_default().push(at);
        }
    }

    fn matching(&self, o: &Base) -> Vec<Arc<Global>> {
        let table = self.0.read();
        if table.by_driver.is_empty() {
            return Vec::new();
        }
        let mut at: Vec<usize> =
            o.class().ids.iter().filter_map(|id| table.by_driver.get(id)).flatten().copied().collect();
        at.sort_unstable();
        let mut found: Vec<_> = at.into_iter().filter_map(|i| table.all.get(i)).cloned().collect();
        found.sort_by_key(|g| g.rank); // stable: within a rank, the order they were added in
        found
    }

    pub fn apply(&self, o: &dyn Object) -> Result<()> {
        for g in self.matching(o) {
            g.used.store(true, Relaxed);
            if g.optional && !o.has_property(&g.property) {
                continue;
            }
            o.set_str(&g.property, &g.value)
                .map_err(|e| e.context(format!("can't apply global {}.{}={}", g.driver, g.property, g.value)))?;
        }
        Ok(())
    }

    pub fn all(&self) -> Vec<Arc<Global>> {
        self.0.read().all.clone()
    }

    /// Warnings for the user's globals that no object took.
    pub fn unused(&self) -> Vec<String> {
        let registry = Registry::global();
        let all = self.all();
        let unused = all.iter().filter(|g| g.rank == Rank::User && !g.used.load(Relaxed));
        unused
            .map(|g| {
                let what = if registry.get(&g.driver).is_some() { "not used" } else { "has invalid class name" };
                match registry.get(&g.driver) {
                    Some(_) => format!("global {}.{}={} {what}", g.driver, g.property, g.value),
                    None => format!("global {}.{} {what}", g.driver, g.property),
                }
            })
            .collect()
    }
}
