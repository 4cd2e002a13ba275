//! `-cpu model,+feature,-feature,prop=value`.

use crate::vm::Vm;
use hw_core::Machine;
use qom::{Global, Rank, Ref, Result};
use target_i386::cpu::{CpuOption, parse_cpu_option};

/// Makes `text` the type of the machine's CPUs; features and properties become globals of that type, after the user's.
///
/// # Errors
/// No such model, no such property.
pub fn select(vm: &Vm, machine: &Ref<Machine>, text: &str) -> Result<()> {
    let CpuOption { type_name, properties, warnings } = parse_cpu_option(text)?;
    warnings.iter().for_each(|w| vm.warn(w));
    machine.set_cpu_type(&type_name);
    for (property, value) in properties {
        vm.scope().add_global(Global::new(Rank::User, type_name.as_str(), property, value));
    }
    Ok(())
}
