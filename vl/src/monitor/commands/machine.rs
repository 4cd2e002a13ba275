//! Commands about machine types, CPU models and vCPUs.

use super::{Args, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::events::OST;
use crate::monitor::schema::{Ty, opt, req};
use crate::vm::Vm;
use hw::acpi::AcpiDevice;
use hw_core::MachineClass;
use qom::Class;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use target_i386::cpu::query::{Expansion, definitions, expand_model};

const MACHINE: Ty = Ty::Object(&[
    req("name", Ty::Str),
    opt("alias", Ty::Str),
    opt("is-default", Ty::Bool),
    req("cpu-max", Ty::Int),
    req("hotpluggable-cpus", Ty::Bool),
    req("numa-mem-supported", Ty::Bool),
    req("deprecated", Ty::Bool),
    opt("default-cpu-type", Ty::Str),
    opt("default-ram-id", Ty::Str),
    req("acpi", Ty::Bool),
    opt("compat-props", Ty::List(&COMPAT)),
]);
const COMPAT: Ty = Ty::Object(&[req("qom-type", Ty::Str), req("property", Ty::Str), req("value", Ty::Str)]);
const CPU_DEFINITION: Ty = Ty::Object(&[
    req("name", Ty::Str),
    opt("migration-safe", Ty::Bool),
    req("static", Ty::Bool),
    opt("unavailable-features", Ty::List(&Ty::Str)),
    req("typename", Ty::Str),
    opt("alias-of", Ty::Str),
    req("deprecated", Ty::Bool),
]);
const CPU_MODEL: Ty = Ty::Object(&[req("name", Ty::Str), opt("props", Ty::Any)]);
const PLACE: Ty = Ty::Object(&[
    opt("node-id", Ty::Int),
    opt("drawer-id", Ty::Int),
    opt("book-id", Ty::Int),
    opt("socket-id", Ty::Int),
    opt("die-id", Ty::Int),
    opt("cluster-id", Ty::Int),
    opt("module-id", Ty::Int),
    opt("core-id", Ty::Int),
    opt("thread-id", Ty::Int),
]);
const CPU: Ty = Ty::Object(&[
    req("cpu-index", Ty::Int),
    req("qom-type", Ty::Str),
    req("qom-path", Ty::Str),
    req("thread-id", Ty::Int),
    opt("props", PLACE),
    req("target", Ty::Enum(&["x86_64"])),
]);
const SLOT: Ty =
    Ty::Object(&[req("type", Ty::Str), req("vcpus-count", Ty::Int), req("props", PLACE), opt("qom-path", Ty::Str)]);

pub(super) static COMMANDS: &[Command] = &[
    command("query-machines", &[opt("compat-props", Ty::Bool)], Some(Ty::List(&MACHINE)), |_, args| {
        let with_compat = args.bool("compat-props");
        Ok(hw_core::machine::machines().into_iter().filter_map(|c| machine(c, with_compat)).collect())
    }),
    command("query-cpu-definitions", &[], Some(Ty::List(&CPU_DEFINITION)), |vm, _| {
        Ok(definitions(vm.machine().is_some_and(|m| m.class_of().newest_cpu_versions)).into())
    }),
    command(
        "query-cpu-model-expansion",
        &[req("type", Ty::Enum(&["static", "full"])), req("model", CPU_MODEL)],
        Some(Ty::Object(&[req("model", CPU_MODEL), opt("deprecated-props", Ty::List(&Ty::Str))])),
        expansion,
    ),
    command("query-cpus-fast", &[], Some(Ty::List(&CPU)), |vm, _| Ok(cpus(vm))),
    command("query-acpi-ospm-status", &[], Some(Ty::List(&Ty::Object(OST))), ospm_status),
    command("query-hotpluggable-cpus", &[], Some(Ty::List(&SLOT)), hotpluggable),
];

fn ospm_status(vm: &Arc<Vm>, _: Args<'_>) -> QmpResult {
    let mut found = None;
    vm.scope().root().walk(&mut |o| {
        if o.interface::<dyn AcpiDevice>().is_some() {
            found = Some(o.clone());
        }
    });
    let device = found.as_ref().and_then(|o| o.interface::<dyn AcpiDevice>());
    let device = device.ok_or_else(|| QmpError::generic("command is not supported, missing ACPI device"))?;
    Ok(device.ospm_status(&mut vm.core().lock()).into())
}

fn machine(class: &Class, with_compat: bool) -> Option<Value> {
    let c = class.get::<MachineClass>()?;
    let mut v = Map::new();
    v.insert("name".into(), c.name.as_str().into());
    if let Some(alias) = c.alias {
        v.insert("alias".into(), alias.into());
    }
    if c.is_default {
        v.insert("is-default".into(), true.into());
    }
    v.insert("cpu-max".into(), c.max_cpus.max(1).into());
    v.insert("hotpluggable-cpus".into(), c.has_hotpluggable_cpus.into());
    v.insert("numa-mem-supported".into(), c.numa_mem_supported.into());
    v.insert("deprecated".into(), c.deprecation_reason.is_some().into());
    if let Some(t) = c.default_cpu_type {
        v.insert("default-cpu-type".into(), t.into());
    }
    if let Some(id) = c.default_ram_id {
        v.insert("default-ram-id".into(), id.into());
    }
    v.insert("acpi".into(), class.find_property("acpi").is_some().into());
    if with_compat {
        let compat = c.compat_props.iter();
        let list: Vec<Value> =
            compat.map(|p| json!({"qom-type": p.driver, "property": p.property, "value": p.value})).collect();
        v.insert("compat-props".into(), list.into());
    }
    Some(v.into())
}

fn expansion(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let model = args.0.get("model").and_then(Value::as_object);
    let name = model.and_then(|m| m.get("name")).and_then(Value::as_str).unwrap_or_default();
    let none = Map::new();
    let props = match model.and_then(|m| m.get("props")) {
        None => &none,
        Some(Value::Object(props)) => props,
        Some(_) => return Err(QmpError::generic("Invalid parameter type for 'model.props', expected: dict")),
    };
    let (name, props) = expand_model(vm.scope(), Expansion::parse(args.str("type"))?, name, props)?;
    Ok(json!({"model": {"name": name, "props": props}}))
}

fn cpus(vm: &Vm) -> Value {
    let slots = vm.machine().map(|m| m.possible_cpus()).unwrap_or_default();
    let describe = |c: qom::Ref<hw_core::Cpu>| {
        let object = qom::Ref::object(&c);
        let path = object.path();
        let slot = slots.iter().find(|s| s.cpu.as_ref().is_some_and(|o| o.path() == path));
        json!({
            "thread-id": c.thread_id(),
            "qom-type": object.type_name(),
            "props": slot.map(place).unwrap_or_default(),
            "qom-path": path,
            "target": "x86_64",
            "cpu-index": c.index().unwrap_or(0),
        })
    };
    vm.core().cpus.list().into_iter().map(describe).collect()
}

fn place(slot: &hw_core::machine::CpuSlot) -> Value {
    slot.props.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect::<Map<_, _>>().into()
}

fn hotpluggable(vm: &Arc<Vm>, _: Args<'_>) -> QmpResult {
    let machine = vm.machine().ok_or_else(|| QmpError::generic("there is no machine"))?;
    if !machine.class_of().has_hotpluggable_cpus {
        return Err(QmpError::generic("machine does not support hot-plugging CPUs"));
    }
    let describe = |s: &hw_core::machine::CpuSlot| {
        let mut v = json!({"type": s.type_name, "vcpus-count": s.vcpus, "props": place(s)});
        if let (Some(map), Some(cpu)) = (v.as_object_mut(), &s.cpu) {
            map.insert("qom-path".into(), cpu.path().into());
        }
        v
    };
    Ok(machine.possible_cpus().iter().map(describe).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_empty_machine_is_listed() {
        let class = qom::Registry::global().class("none-machine").unwrap();
        let v = super::machine(class, true).unwrap();
        assert_eq!(
            (v["name"].as_str(), v["cpu-max"].as_u64(), v["acpi"].as_bool()),
            (Some("none"), Some(1), Some(false))
        );
    }
}
