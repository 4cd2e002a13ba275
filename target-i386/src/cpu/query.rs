//! `query-cpu-definitions` and `query-cpu-model-expansion` as data.

use super::models::{Entry, entries};
use super::object::{SUFFIX, X86Cpu};
use super::option::class_of;
use super::{features, words};
use qom::{Error, Input, Ref, Result, Scope};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The models, by name, as QMP's `CpuDefinitionInfo`. `newest`: what `MachineClass::newest_cpu_versions` of the machine says.
pub fn definitions(newest: bool) -> Vec<Value> {
    let mut all: Vec<&Entry> = entries().iter().collect();
    all.sort_by_key(|e| e.name());
    all.into_iter().map(|e| definition(e, newest)).collect()
}

fn definition(e: &Entry, newest: bool) -> Value {
    let name = e.name();
    let unavailable: Vec<&str> = match e {
        // It cannot be had at all.
        Entry::Host => vec!["kvm"],
        _ => features::unsupported(&e.definition(newest).features).0.names(),
    };
    let mut v = json!({
        "name": name,
        "typename": format!("{name}{SUFFIX}"),
        "unavailable-features": unavailable,
        "static": matches!(e, Entry::Base),
        "migration-safe": !matches!(e, Entry::Max | Entry::Host),
        "deprecated": false,
    });
    if let (Some(o), Entry::Unversioned(..) | Entry::Alias(..), Some((m, version))) =
        (v.as_object_mut(), e, e.resolve(newest))
    {
        o.insert("alias-of".to_owned(), format!("{}-v{}", m.name, version.number).into());
    }
    v
}

/// How far a model is expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// In terms of `base`, for any version of the program.
    Static,
    /// Every property.
    Full,
}

/// Properties of a static expansion beside the features.
const STATIC: [&str; 8] =
    ["min-level", "min-xlevel", "min-xlevel2", "family", "model", "stepping", "model-id", "vendor"];

/// A model with properties, expanded: name and properties. Features are those asked for, whether they can be had or not.
///
/// # Errors
/// No such model or property, or a value that a property does not take.
pub fn expand_model(
    scope: &Arc<Scope>,
    how: Expansion,
    model: &str,
    props: &Map<String, Value>,
) -> Result<(String, Map<String, Value>)> {
    let class = class_of(model)?;
    let cpu: Ref<X86Cpu> = scope.object_new_as(class.name())?;
    for (name, v) in props {
        cpu.set_input(name, Input::Json(v))?;
    }
    cpu.expand();
    let o = Ref::object(&cpu);
    let mut all = Map::new();
    match how {
        Expansion::Static => {
            let names = STATIC.iter().chain(words::names());
            for name in names {
                all.insert((*name).to_owned(), o.get(name)?);
            }
            Ok(("base".to_owned(), all))
        }
        Expansion::Full => {
            // What cannot be set belongs to the object, not to the model.
            let class_props = class.properties().filter(|p| p.is_readable() && p.is_writable() && !p.is_live());
            for p in class_props.filter(|p| !p.type_name().starts_with("link<")) {
                all.insert(p.name().to_owned(), o.get(p.name())?);
            }
            Ok((class.name().strip_suffix(SUFFIX).unwrap_or(class.name()).to_owned(), all))
        }
    }
}

impl Expansion {
    /// From QMP's `CpuModelExpansionType`.
    ///
    /// # Errors
    /// Another word.
    pub fn parse(text: &str) -> Result<Expansion> {
        match text {
            "static" => Ok(Expansion::Static),
            "full" => Ok(Expansion::Full),
            _ => Err(Error::generic("Parameter 'type' does not accept value (accepted: static, full)")),
        }
    }
}
