//! Commands about objects, types and properties.

use super::{Args, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::object::object_add;
use crate::monitor::schema::{Member, Ty, Union, opt, req};
use crate::vm::Vm;
use qom::{ObjRef, PropertyInfo, Registry};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const INFO: Ty = Ty::Object(&[
    req("name", Ty::Str),
    req("type", Ty::Str),
    opt("description", Ty::Str),
    opt("default-value", Ty::Any),
]);
const VALUE: Ty = Ty::Object(&[req("name", Ty::Str), req("type", Ty::Str), opt("value", Ty::Any)]);
const VALUES: Ty = Ty::Object(&[req("properties", Ty::List(&VALUE))]);
const TYPE: Ty = Ty::Object(&[req("name", Ty::Str), opt("abstract", Ty::Bool), opt("parent", Ty::Str)]);

/// Members that all memory back ends have, before and after which come those of a type.
macro_rules! memory_backend {
    ($($more:expr),*) => {
        &[
            opt("dump", Ty::Bool),
            opt("host-nodes", Ty::List(&Ty::Int)),
            opt("merge", Ty::Bool),
            opt("policy", Ty::Enum(&["default", "preferred", "bind", "interleave"])),
            opt("prealloc", Ty::Bool),
            opt("prealloc-threads", Ty::Int),
            opt("prealloc-context", Ty::Str),
            opt("share", Ty::Bool),
            opt("reserve", Ty::Bool),
            req("size", Ty::Int),
            opt("x-use-canonical-path-for-ramblock-id", Ty::Bool),
            $($more),*
        ]
    };
}
const MEMORY_BACKEND_RAM: &[Member] = memory_backend!();
const MEMORY_BACKEND_MEMFD: &[Member] = memory_backend!(opt("seal", Ty::Bool));
const MEMORY_BACKEND_FILE: &[Member] = memory_backend!(
    opt("offset", Ty::Int),
    req("mem-path", Ty::Str),
    opt("readonly", Ty::Bool),
    opt("rom", Ty::Enum(&["auto", "on", "off"]))
);

/// Members of every filter.
macro_rules! filter {
    ($($more:expr),*) => {
        &[
            req("netdev", Ty::Str),
            opt("queue", Ty::Enum(&["all", "rx", "tx"])),
            opt("status", Ty::Str),
            opt("position", Ty::Str),
            opt("insert", Ty::Enum(&["before", "behind"])),
            $($more),*
        ]
    };
}

const fn unstable(name: &'static str) -> Member {
    Member { name, ty: Ty::Int, optional: true, features: &["unstable"] }
}

const THROTTLE_GROUP: &[Member] = &[
    opt(
        "limits",
        Ty::Object(&[
            opt("iops-total", Ty::Int),
            opt("iops-total-max", Ty::Int),
            opt("iops-total-max-length", Ty::Int),
            opt("iops-read", Ty::Int),
            opt("iops-read-max", Ty::Int),
            opt("iops-read-max-length", Ty::Int),
            opt("iops-write", Ty::Int),
            opt("iops-write-max", Ty::Int),
            opt("iops-write-max-length", Ty::Int),
            opt("bps-total", Ty::Int),
            opt("bps-total-max", Ty::Int),
            opt("bps-total-max-length", Ty::Int),
            opt("bps-read", Ty::Int),
            opt("bps-read-max", Ty::Int),
            opt("bps-read-max-length", Ty::Int),
            opt("bps-write", Ty::Int),
            opt("bps-write-max", Ty::Int),
            opt("bps-write-max-length", Ty::Int),
            opt("iops-size", Ty::Int),
        ]),
    ),
    unstable("x-iops-total"),
    unstable("x-iops-total-max"),
    unstable("x-iops-total-max-length"),
    unstable("x-iops-read"),
    unstable("x-iops-read-max"),
    unstable("x-iops-read-max-length"),
    unstable("x-iops-write"),
    unstable("x-iops-write-max"),
    unstable("x-iops-write-max-length"),
    unstable("x-bps-total"),
    unstable("x-bps-total-max"),
    unstable("x-bps-total-max-length"),
    unstable("x-bps-read"),
    unstable("x-bps-read-max"),
    unstable("x-bps-read-max-length"),
    unstable("x-bps-write"),
    unstable("x-bps-write-max"),
    unstable("x-bps-write-max-length"),
    unstable("x-iops-size"),
];

/// What `object-add` takes. Types that another crate registers have no variant: their properties check themselves.
static OBJECT_OPTIONS: Union = Union {
    base: &[req("qom-type", Ty::Words(crate::lists::user_creatable)), req("id", Ty::Str)],
    tag: "qom-type",
    variants: &[
        ("filter-buffer", filter!(req("interval", Ty::Int))),
        ("filter-dump", filter!(req("file", Ty::Str), opt("maxlen", Ty::Int))),
        (
            "iothread",
            &[
                opt("aio-max-batch", Ty::Int),
                opt("thread-pool-min", Ty::Int),
                opt("thread-pool-max", Ty::Int),
                opt("poll-max-ns", Ty::Int),
                opt("poll-grow", Ty::Int),
                opt("poll-shrink", Ty::Int),
                opt("poll-weight", Ty::Int),
            ],
        ),
        ("memory-backend-file", MEMORY_BACKEND_FILE),
        ("memory-backend-memfd", MEMORY_BACKEND_MEMFD),
        ("memory-backend-ram", MEMORY_BACKEND_RAM),
        ("monitor-hmp", &[req("chardev", Ty::Str), opt("readline", Ty::Bool)]),
        (
            "monitor-qmp",
            &[req("chardev", Ty::Str), opt("pretty", Ty::Bool), opt("close-action", Ty::Enum(&["none", "delete"]))],
        ),
        ("rng-builtin", &[opt("opened", Ty::Bool)]),
        ("throttle-group", THROTTLE_GROUP),
        ("rng-random", &[opt("opened", Ty::Bool), opt("filename", Ty::Str)]),
    ],
};

pub(super) static COMMANDS: &[Command] = &[
    command("qom-list", &[req("path", Ty::Str)], Some(Ty::List(&INFO)), |vm, args| {
        let o = resolve(vm, args.str("path"))?;
        Ok(o.properties().iter().map(|p| json!({"name": p.name, "type": p.ty})).collect())
    }),
    command("qom-list-get", &[req("paths", Ty::List(&Ty::Str))], Some(Ty::List(&VALUES)), list_get),
    command("qom-get", &[req("path", Ty::Str), req("property", Ty::Str)], Some(Ty::Any), |vm, args| {
        Ok(resolve(vm, args.str("path"))?.get(args.str("property"))?)
    }),
    command("qom-set", &[req("path", Ty::Str), req("property", Ty::Str), req("value", Ty::Any)], None, |vm, args| {
        let value = args.0.get("value").unwrap_or(&Value::Null);
        resolve(vm, args.str("path"))?.set(args.str("property"), value)?;
        Ok(json!({}))
    }),
    command(
        "qom-list-types",
        &[opt("implements", Ty::Str), opt("abstract", Ty::Bool)],
        Some(Ty::List(&TYPE)),
        list_types,
    ),
    command("qom-list-properties", &[req("typename", Ty::Str)], Some(Ty::List(&INFO)), |_, args| {
        type_properties(args.str("typename"), |_| true)
    }),
    command("device-list-properties", &[req("typename", Ty::Str)], Some(Ty::List(&INFO)), |_, args| {
        let name = args.str("typename");
        if !Registry::global().class(name).is_ok_and(|c| c.is_a("device")) {
            return Err(QmpError { class: "DeviceNotFound", desc: format!("Device '{name}' not found") });
        }
        type_properties(name, |p| is_device_property(p) || is_child(p))
    }),
    Command {
        open: true,
        union: Some(&OBJECT_OPTIONS),
        features: &["json-cli"],
        ..command("object-add", &[], None, |vm, args| {
            let mut props = args.0.clone();
            props.shift_remove("qom-type");
            props.shift_remove("id");
            object_add(vm, args.str("qom-type"), args.str("id"), &props, false)?;
            Ok(json!({}))
        })
    },
    command("object-del", &[req("id", Ty::Str)], None, |vm, args| {
        vm.scope().object_del(args.str("id"))?;
        Ok(json!({}))
    }),
];

fn resolve(vm: &Vm, path: &str) -> QmpResult<ObjRef> {
    Ok(vm.scope().resolve(path)?)
}

fn list_get(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let object = |path: &Value| -> QmpResult {
        let o = resolve(vm, path.as_str().unwrap_or_default())?;
        let property = |p: &PropertyInfo| {
            let mut v = json!({"name": p.name, "type": p.ty});
            if let (Some(map), Ok(value)) = (v.as_object_mut(), o.get(&p.name)) {
                map.insert("value".into(), value);
            }
            v
        };
        Ok(json!({"properties": o.properties().iter().map(property).collect::<Vec<_>>()}))
    };
    args.list("paths").iter().map(object).collect()
}

fn list_types(_: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let types = Registry::global().list(args.opt_str("implements"), args.bool("abstract"));
    let describe = |t: &&qom::TypeInfo| {
        let mut v = Map::new();
        v.insert("name".into(), t.name().into());
        if t.is_abstract() {
            v.insert("abstract".into(), true.into());
        }
        if let Some(parent) = t.parent_name() {
            v.insert("parent".into(), parent.into());
        }
        Value::from(v)
    };
    Ok(types.iter().map(describe).collect())
}

/// What QEMU leaves out of `device-list-properties`: what every object and every device has.
pub(crate) fn is_device_property(p: &PropertyInfo) -> bool {
    !matches!(p.name.as_str(), "type" | "realized" | "hotpluggable" | "hotplugged" | "parent_bus") && !is_child(p)
}

fn is_child(p: &PropertyInfo) -> bool {
    p.ty.starts_with("child<")
}

/// Properties of a type: of its class, and those that a fresh instance has on top.
pub(crate) fn properties_of(name: &str) -> QmpResult<Vec<PropertyInfo>> {
    let registry = Registry::global();
    let not_found = || QmpError { class: "DeviceNotFound", desc: format!("Class '{name}' not found") };
    let class = registry.class(name).map_err(|_| not_found())?;
    if class.is_abstract() {
        return Ok(class.properties().map(|p| PropertyInfo::of(p)).collect());
    }
    // A throw-away world: nothing of this machine is touched.
    let vm = hw_core::Vm::new();
    let o = vm.world().object_new(name)?;
    Ok(o.properties())
}

fn type_properties(name: &str, keep: fn(&PropertyInfo) -> bool) -> QmpResult {
    let device = Registry::global().class(name).is_ok_and(|c| c.is_a("device"));
    let describe = |p: &PropertyInfo| {
        let mut v = Map::new();
        v.insert("name".into(), p.name.as_str().into());
        v.insert("type".into(), p.ty.as_str().into());
        if let Some(d) = &p.description {
            v.insert("description".into(), d.as_str().into());
        }
        // Of other types QEMU shows none.
        if let Some(d) = p.default.as_ref().filter(|_| device) {
            v.insert("default-value".into(), d.clone());
        }
        Value::from(v)
    };
    Ok(properties_of(name)?.iter().filter(|p| keep(p)).map(describe).collect())
}
