//! Commands about the monitor and the program itself.

use super::{Args, CAPABILITIES, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::schema::{Ty, Union, introspect, opt, req};
use crate::monitor::{events, hmp, qmp};
use crate::options::desc;
use crate::vm::Vm;
use qom::PropertyInfo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const VERSION: Ty = Ty::Object(&[
    req("qemu", Ty::Object(&[req("major", Ty::Int), req("minor", Ty::Int), req("micro", Ty::Int)])),
    req("package", Ty::Str),
]);
const PARAMETER: Ty = Ty::Object(&[
    req("name", Ty::Str),
    req("type", Ty::Enum(&["string", "boolean", "number", "size"])),
    opt("help", Ty::Str),
    opt("default", Ty::Str),
]);
const OPTION: Ty = Ty::Object(&[req("option", Ty::Str), req("parameters", Ty::List(&PARAMETER))]);
const KVM: Ty = Ty::Object(&[req("enabled", Ty::Bool), req("present", Ty::Bool)]);
const ACCELERATOR: Ty = Ty::Enum(&["hvf", "kvm", "mshv", "nvmm", "qtest", "tcg", "whpx", "xen"]);
const NAMES: Ty = Ty::List(&Ty::Str);
const ENUM_MEMBER: Ty = Ty::Object(&[req("name", Ty::Str), opt("features", NAMES)]);
const OBJECT_MEMBER: Ty =
    Ty::Object(&[req("name", Ty::Str), req("type", Ty::Str), opt("default", Ty::Any), opt("features", NAMES)]);
const VARIANT: Ty = Ty::Object(&[req("case", Ty::Str), req("type", Ty::Str)]);
const ALTERNATIVE: Ty = Ty::Object(&[req("type", Ty::Str)]);
const JSON_TYPE: Ty = Ty::Enum(&["string", "number", "int", "boolean", "null", "object", "array", "value"]);
const META_TYPE: Ty = Ty::Enum(&["builtin", "enum", "array", "object", "alternate", "command", "event"]);
const SCHEMA_INFO: Ty = Ty::Union(&Union {
    base: &[req("name", Ty::Str), req("meta-type", META_TYPE), opt("features", NAMES)],
    tag: "meta-type",
    variants: &[
        ("builtin", &[req("json-type", JSON_TYPE)]),
        ("enum", &[req("members", Ty::List(&ENUM_MEMBER)), req("values", NAMES)]),
        ("array", &[req("element-type", Ty::Str)]),
        (
            "object",
            &[req("members", Ty::List(&OBJECT_MEMBER)), opt("tag", Ty::Str), opt("variants", Ty::List(&VARIANT))],
        ),
        ("alternate", &[req("members", Ty::List(&ALTERNATIVE))]),
        ("command", &[req("arg-type", Ty::Str), req("ret-type", Ty::Str), opt("allow-oob", Ty::Bool)]),
        ("event", &[req("arg-type", Ty::Str)]),
    ],
});

pub(super) static COMMANDS: &[Command] = &[
    command("qmp_capabilities", CAPABILITIES, None, |_, _| {
        Err(QmpError::not_found("Capabilities negotiation is already complete, command ignored"))
    }),
    command("query-version", &[], Some(VERSION), |_, _| Ok(qmp::version())),
    command("query-commands", &[], Some(Ty::List(&Ty::Object(&[req("name", Ty::Str)]))), |_, _| {
        Ok(super::all().map(|c| json!({"name": c.name})).collect())
    }),
    command("query-qmp-schema", &[], Some(Ty::List(&SCHEMA_INFO)), |_, _| {
        Ok(introspect(super::entities().chain(events::entities())))
    }),
    command("query-command-line-options", &[opt("option", Ty::Str)], Some(Ty::List(&OPTION)), command_line_options),
    command("query-target", &[], Some(Ty::Object(&[req("arch", Ty::Enum(&["x86_64"]))])), |_, _| {
        Ok(json!({"arch": "x86_64"}))
    }),
    command("query-kvm", &[], Some(KVM), |_, _| Ok(json!({"enabled": false, "present": false}))),
    command("query-accelerators", &[], Some(ACCELERATORS), accelerators),
    command(
        "human-monitor-command",
        &[req("command-line", Ty::Str), opt("cpu-index", Ty::Int)],
        Some(Ty::Str),
        human_monitor_command,
    ),
];

const ACCELERATORS: Ty = Ty::Object(&[req("enabled", ACCELERATOR), req("present", Ty::List(&ACCELERATOR))]);

fn accelerators(vm: &Arc<Vm>, _: Args<'_>) -> QmpResult {
    let enabled = vm.core().accel().map(|a| a.type_name().trim_end_matches("-accel").to_owned());
    Ok(json!({"enabled": enabled.unwrap_or_default(), "present": hw_core::accel::names()}))
}

fn command_line_options(_: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let wanted = args.opt_str("option");
    let describe = |d: &&desc::Desc| {
        let fixed = d.built().map(|p| json!({"name": p.name, "type": p.kind.qapi()}));
        let parameters: Vec<Value> = if d.name == "machine" { machine_parameters() } else { fixed.collect() };
        json!({"option": d.name, "parameters": parameters})
    };
    let found: Vec<Value> = desc::ALL.iter().filter(|d| wanted.is_none_or(|w| w == d.name)).map(describe).collect();
    match wanted {
        Some(w) if found.is_empty() => Err(QmpError::generic(format!("invalid option name: {w}"))),
        _ => Ok(found.into()),
    }
}

/// The properties of all machine types: what `-machine` takes besides the type and the accelerator.
fn machine_parameters() -> Vec<Value> {
    let mut all = BTreeMap::from([("type".to_owned(), "string")]);
    for property in hw_core::machine::machines().iter().flat_map(|c| c.properties()) {
        let info = PropertyInfo::of(property);
        let kind = match info.ty.as_str() {
            "bool" | "OnOffAuto" => "boolean",
            "size" => "size",
            "int" => "number",
            _ => "string",
        };
        if info.writable {
            all.insert(info.name, kind);
        }
    }
    all.into_iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect()
}

fn human_monitor_command(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let cpu = match args.0.get("cpu-index") {
        Some(_) => Some(u32::try_from(args.uint("cpu-index")?).unwrap_or(u32::MAX)),
        None => None,
    };
    if let Some(index) = cpu.filter(|i| vm.core().cpus.get(*i).is_none()) {
        let text = format!("Parameter 'cpu-index' expects a CPU number, there is no CPU {index}");
        return Err(QmpError::generic(text));
    }
    Ok(hmp::run_line(vm, args.str("command-line"), cpu).replace('\n', "\r\n").into())
}
