//! `-cpu model,+feature,-feature,prop=value`.

use hw_core::Machine;
use qom::{Error, Global, Rank, Ref, Registry, Result, Scope};
use std::sync::Arc;

/// What ends the type name of a CPU model.
const SUFFIX: &str = "-x86_64-cpu";

/// Names of all CPU models, sorted.
pub fn models() -> Vec<&'static str> {
    let types = Registry::global().list(Some("cpu"), false);
    types.iter().filter_map(|t| t.name().strip_suffix(SUFFIX)).collect()
}

/// Makes `text` the type of the machine's CPUs; features become defaults of that type's properties.
///
/// # Errors
/// No such model, or a feature that is not spelled `+f`, `-f` or `f=v`.
pub fn select(scope: &Arc<Scope>, machine: &Ref<Machine>, text: &str) -> Result<()> {
    let mut items = text.split(',');
    let model = items.next().unwrap_or_default();
    let type_name = format!("{model}{SUFFIX}");
    if !Registry::global().class(&type_name).is_ok_and(|c| c.is_a("cpu") && !c.is_abstract()) {
        if model == "host" {
            return Err(Error::generic("CPU model 'host' requires KVM, which is not built yet: use max"));
        }
        let near = qom::nearest(model, models());
        let hint = if near.is_empty() { String::new() } else { format!(" (did you mean '{}'?)", near.join("', '")) };
        return Err(Error::generic(format!("unable to find CPU model '{model}'{hint}")));
    }
    machine.set_cpu_type(&type_name);
    // QEMU applies `+f` after everything else and `-f` last of all.
    let (mut plain, mut plus, mut minus) = (vec![], vec![], vec![]);
    for item in items.filter(|i| !i.is_empty()) {
        match (item.strip_prefix('+'), item.strip_prefix('-'), item.split_once('=')) {
            (Some(f), _, _) => plus.push((f, "on")),
            (_, Some(f), _) => minus.push((f, "off")),
            (_, _, Some((k, v))) => plain.push((k, v)),
            _ => plain.push((item, "on")),
        }
    }
    for (key, value) in plain.into_iter().chain(plus).chain(minus) {
        // Old spellings with underscores are properties with dashes.
        let property = key.replace('_', "-");
        scope.add_global(Global::new(Rank::Sugar, type_name.as_str(), property.as_str(), value));
    }
    Ok(())
}
