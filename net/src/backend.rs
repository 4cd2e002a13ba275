//! What a kind of backend is, and the registry of kinds.

use crate::client::{Client, End};
use crate::nets::Nets;
use hw_core::opts::Opts;
use qom::Result;
use std::sync::Arc;

/// Makes the owner of `client` from its options, which it takes out of the rest.
pub type Open = fn(&Arc<Nets>, &Arc<Client>, &mut Opts) -> Result<Arc<dyn End>>;

/// A kind of backend.
pub struct BackendDef {
    /// QAPI's name.
    pub name: &'static str,
    /// Makes one.
    pub open: Open,
}

inventory::collect!(BackendDef);

/// All kinds, by name.
pub fn all() -> Vec<&'static BackendDef> {
    let mut all: Vec<_> = inventory::iter::<BackendDef>().collect();
    all.sort_by_key(|d| d.name);
    all
}

/// The kind called `name`.
pub fn find(name: &str) -> Option<&'static BackendDef> {
    inventory::iter::<BackendDef>().find(|d| d.name == name)
}
