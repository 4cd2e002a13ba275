//! Commands about block nodes, drives and their media.

use super::{Args, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::schema::{Member, Ty, Union, opt, req};
use crate::vm::Vm;
use block::{Backend, Opts};
use serde_json::{Value, json};
use std::sync::Arc;

const CHILD: Ty = Ty::Object(&[req("child", Ty::Str), req("node-name", Ty::Str)]);
const ZEROES: Ty = Ty::Enum(&["off", "on", "unmap"]);
const IMAGE: Ty = Ty::Object(&[
    req("filename", Ty::Str),
    req("format", Ty::Str),
    opt("dirty-flag", Ty::Bool),
    opt("actual-size", Ty::Int),
    req("virtual-size", Ty::Int),
    opt("cluster-size", Ty::Int),
    opt("backing-filename", Ty::Str),
    opt("full-backing-filename", Ty::Str),
    opt("backing-filename-format", Ty::Str),
    opt("snapshots", Ty::List(&SNAPSHOT)),
    // Another of these: descriptions of types are finite.
    opt("backing-image", Ty::Any),
    opt("format-specific", SPECIFIC),
]);
const SNAPSHOT: Ty = Ty::Object(&[
    req("id", Ty::Str),
    req("name", Ty::Str),
    req("vm-state-size", Ty::Int),
    req("date-sec", Ty::Int),
    req("date-nsec", Ty::Int),
    req("vm-clock-sec", Ty::Int),
    req("vm-clock-nsec", Ty::Int),
    opt("icount", Ty::Int),
]);
const QCOW2: Ty = Ty::Object(&[
    req("compat", Ty::Str),
    opt("data-file", Ty::Str),
    opt("data-file-raw", Ty::Bool),
    opt("extended-l2", Ty::Bool),
    opt("lazy-refcounts", Ty::Bool),
    opt("corrupt", Ty::Bool),
    req("refcount-bits", Ty::Int),
    req("compression-type", Ty::Enum(&["zlib", "zstd"])),
]);
const SPECIFIC: Ty = Ty::Union(&Union {
    base: &[req("type", Ty::Enum(&["qcow2"]))],
    tag: "type",
    variants: &[("qcow2", &[req("data", QCOW2)])],
});
const CACHE: Ty = Ty::Object(&[req("writeback", Ty::Bool), req("direct", Ty::Bool), req("no-flush", Ty::Bool)]);
const NODE: Ty = Ty::Object(&[
    req("file", Ty::Str),
    req("node-name", Ty::Str),
    req("ro", Ty::Bool),
    req("drv", Ty::Str),
    opt("backing_file", Ty::Str),
    req("backing_file_depth", Ty::Int),
    req("children", Ty::List(&CHILD)),
    req("active", Ty::Bool),
    req("encrypted", Ty::Bool),
    req("detect_zeroes", ZEROES),
    req("bps", Ty::Int),
    req("bps_rd", Ty::Int),
    req("bps_wr", Ty::Int),
    req("iops", Ty::Int),
    req("iops_rd", Ty::Int),
    req("iops_wr", Ty::Int),
    req("image", IMAGE),
    opt("bps_max", Ty::Int),
    opt("bps_rd_max", Ty::Int),
    opt("bps_wr_max", Ty::Int),
    opt("iops_max", Ty::Int),
    opt("iops_rd_max", Ty::Int),
    opt("iops_wr_max", Ty::Int),
    opt("bps_max_length", Ty::Int),
    opt("bps_rd_max_length", Ty::Int),
    opt("bps_wr_max_length", Ty::Int),
    opt("iops_max_length", Ty::Int),
    opt("iops_rd_max_length", Ty::Int),
    opt("iops_wr_max_length", Ty::Int),
    opt("iops_size", Ty::Int),
    opt("group", Ty::Str),
    req("cache", CACHE),
    req("write_threshold", Ty::Int),
]);
const DRIVE: Ty = Ty::Object(&[
    req("device", Ty::Str),
    opt("qdev", Ty::Str),
    req("type", Ty::Str),
    req("removable", Ty::Bool),
    req("locked", Ty::Bool),
    opt("inserted", NODE),
    opt("tray_open", Ty::Bool),
    opt("io-status", Ty::Enum(&["ok", "failed", "nospace"])),
]);
const STATS: Ty = Ty::Object(&[
    req("rd_bytes", Ty::Int),
    req("wr_bytes", Ty::Int),
    req("zone_append_bytes", Ty::Int),
    req("unmap_bytes", Ty::Int),
    req("rd_operations", Ty::Int),
    req("wr_operations", Ty::Int),
    req("zone_append_operations", Ty::Int),
    req("flush_operations", Ty::Int),
    req("unmap_operations", Ty::Int),
    req("rd_total_time_ns", Ty::Int),
    req("wr_total_time_ns", Ty::Int),
    req("zone_append_total_time_ns", Ty::Int),
    req("flush_total_time_ns", Ty::Int),
    req("unmap_total_time_ns", Ty::Int),
    req("wr_highest_offset", Ty::Int),
    req("rd_merged", Ty::Int),
    req("wr_merged", Ty::Int),
    req("zone_append_merged", Ty::Int),
    req("unmap_merged", Ty::Int),
    opt("idle_time_ns", Ty::Int),
    req("failed_rd_operations", Ty::Int),
    req("failed_wr_operations", Ty::Int),
    req("failed_zone_append_operations", Ty::Int),
    req("failed_flush_operations", Ty::Int),
    req("failed_unmap_operations", Ty::Int),
    req("invalid_rd_operations", Ty::Int),
    req("invalid_wr_operations", Ty::Int),
    req("invalid_zone_append_operations", Ty::Int),
    req("invalid_flush_operations", Ty::Int),
    req("invalid_unmap_operations", Ty::Int),
    req("account_invalid", Ty::Bool),
    req("account_failed", Ty::Bool),
]);
const DRIVE_STATS: Ty =
    Ty::Object(&[opt("device", Ty::Str), opt("qdev", Ty::Str), opt("node-name", Ty::Str), req("stats", STATS)]);
const AIO: Ty = Ty::Enum(&["threads", "native", "io_uring"]);
const FILE: &[Member] = &[req("filename", Ty::Str), opt("locking", Ty::Enum(&["auto", "off", "on"])), opt("aio", AIO)];
const CACHE_OPTIONS: Ty = Ty::Object(&[opt("direct", Ty::Bool), opt("no-flush", Ty::Bool)]);

/// Names of the drivers.
fn drivers() -> Vec<&'static str> {
    block::driver::all().iter().map(|d| d.name).collect()
}

static ADD: Union = Union {
    base: &[
        req("driver", Ty::Words(drivers)),
        opt("node-name", Ty::Str),
        opt("discard", Ty::Enum(&["ignore", "unmap"])),
        opt("cache", CACHE_OPTIONS),
        opt("read-only", Ty::Bool),
        opt("auto-read-only", Ty::Bool),
        opt("force-share", Ty::Bool),
        opt("detect-zeroes", ZEROES),
    ],
    tag: "driver",
    variants: &[
        ("copy-on-read", &[req("file", Ty::Any), opt("bottom", Ty::Str)]),
        ("file", FILE),
        ("host_device", FILE),
        ("null-co", &[opt("size", Ty::Int), opt("latency-ns", Ty::Int), opt("read-zeroes", Ty::Bool)]),
        (
            "qcow2",
            &[
                req("file", Ty::Any),
                opt("backing", Ty::Any),
                opt("data-file", Ty::Any),
                opt("l2-cache-size", Ty::Int),
                opt("pass-discard-request", Ty::Bool),
            ],
        ),
        ("throttle", &[req("throttle-group", Ty::Str), req("file", Ty::Any)]),
        ("vdi", &[req("file", Ty::Any)]),
        ("vhdx", &[req("file", Ty::Any)]),
        ("vmdk", &[req("file", Ty::Any)]),
        ("vpc", &[req("file", Ty::Any)]),
        ("raw", &[req("file", Ty::Any), opt("offset", Ty::Int), opt("size", Ty::Int)]),
    ],
};

const BY_NAME: &[Member] = &[opt("device", Ty::Str), opt("id", Ty::Str)];

pub(super) static COMMANDS: &[Command] = &[
    command("query-block", &[opt("flat", Ty::Bool)], Some(Ty::List(&DRIVE)), |vm, args| {
        Ok(vm.blocks.query_block(args.bool("flat")))
    }),
    command("query-named-block-nodes", &[opt("flat", Ty::Bool)], Some(Ty::List(&NODE)), |vm, args| {
        Ok(vm.blocks.query_nodes(args.bool("flat")))
    }),
    command("query-blockstats", &[opt("query-nodes", Ty::Bool)], Some(Ty::List(&DRIVE_STATS)), |vm, args| {
        Ok(vm.blocks.query_stats(args.bool("query-nodes")))
    }),
    Command {
        name: "blockdev-add",
        args: &[],
        union: Some(&ADD),
        open: false,
        ret: None,
        features: &[],
        run: |vm, args| {
            vm.blocks.blockdev_add(Opts::json(args.0.clone()))?;
            Ok(json!({}))
        },
    },
    command(
        "block_resize",
        &[opt("device", Ty::Str), opt("node-name", Ty::Str), req("size", Ty::Int)],
        None,
        |vm, args| {
            let (drive, node) = root(vm, args)?;
            let size = args.0.get("size").and_then(Value::as_u64);
            let size = size.ok_or_else(|| QmpError::generic("Parameter 'size' expects a >0 size"))?;
            vm.parked(|| vm.blocks.resize(&node, size))?;
            if let Some(media) = drive.and_then(|d| d.media()) {
                media.resized();
            }
            Ok(json!({}))
        },
    ),
    command(
        "blockdev-snapshot-sync",
        &[
            opt("device", Ty::Str),
            opt("node-name", Ty::Str),
            req("snapshot-file", Ty::Str),
            opt("snapshot-node-name", Ty::Str),
            opt("format", Ty::Str),
            opt("mode", Ty::Enum(&["existing", "absolute-paths"])),
        ],
        None,
        |vm, args| {
            let (drive, node) = root(vm, args)?;
            let none = || QmpError::generic(format!("Node '{}' is not the medium of a device", node.name()));
            let drive = drive.ok_or_else(none)?;
            match args.opt_str("format") {
                None | Some("qcow2") => {}
                Some(f) => {
                    return Err(QmpError::generic(format!("format '{f}' cannot be used here (accepted: qcow2)")));
                }
            }
            let exists = args.opt_str("mode") == Some("existing");
            let (file, name) = (args.str("snapshot-file"), args.opt_str("snapshot-node-name"));
            // (Nothing may be on its way to the old medium when the new one is there.)
            vm.parked(|| vm.blocks.snapshot(&drive, file, name, exists))?;
            Ok(json!({}))
        },
    ),
    command("blockdev-reopen", &[req("options", Ty::List(&Ty::Union(&ADD)))], None, |vm, args| {
        let one = |v: &Value| v.as_object().cloned().map(Opts::json).unwrap_or_default();
        let all = args.list("options").iter().map(one).collect();
        vm.parked(|| vm.blocks.reopen(all))?;
        Ok(json!({}))
    }),
    command("blockdev-del", &[req("node-name", Ty::Str)], None, |vm, args| {
        vm.blocks.blockdev_del(args.str("node-name"))?;
        Ok(json!({}))
    }),
    command("eject", &[opt("device", Ty::Str), opt("id", Ty::Str), opt("force", Ty::Bool)], None, |vm, args| {
        let drive = removable(vm, args)?;
        open_tray(&drive, args.bool("force"))?;
        remove(vm, &drive)?;
        Ok(json!({}))
    }),
    command(
        "blockdev-open-tray",
        &[opt("device", Ty::Str), opt("id", Ty::Str), opt("force", Ty::Bool)],
        None,
        |vm, args| {
            let drive = removable(vm, args)?;
            if drive.tray().is_none() {
                return Err(QmpError::generic(format!("Device '{}' does not have a tray", drive.label())));
            }
            match drive.tray() {
                Some((false, true)) if !args.bool("force") => {
                    // The guest decides.
                    if let Some(media) = drive.media() {
                        media.request_eject(false);
                    }
                }
                _ => open_tray(&drive, true)?,
            }
            Ok(json!({}))
        },
    ),
    command("blockdev-close-tray", BY_NAME, None, |vm, args| {
        let drive = removable(vm, args)?;
        if let Some(media) = drive.media() {
            media.move_tray(false);
        }
        Ok(json!({}))
    }),
    command("blockdev-remove-medium", &[req("id", Ty::Str)], None, |vm, args| {
        let drive = removable(vm, args)?;
        remove(vm, &drive)?;
        Ok(json!({}))
    }),
    command("blockdev-insert-medium", &[req("id", Ty::Str), req("node-name", Ty::Str)], None, |vm, args| {
        let drive = removable(vm, args)?;
        let name = args.str("node-name");
        let node = vm.blocks.find_node(name).ok_or_else(|| QmpError::generic(format!("Node '{name}' not found")))?;
        if drive.root().is_some() {
            return Err(QmpError::generic(format!("There already is a medium in device '{}'", drive.label())));
        }
        insert(vm, &drive, &node)?;
        Ok(json!({}))
    }),
    command(
        "blockdev-change-medium",
        &[
            opt("device", Ty::Str),
            opt("id", Ty::Str),
            req("filename", Ty::Str),
            opt("format", Ty::Str),
            opt("force", Ty::Bool),
            opt("read-only-mode", Ty::Enum(&["read-only", "read-write", "retain"])),
        ],
        None,
        change_medium,
    ),
];

/// The drive that `device` (its name) or `id` (the device's) says.
pub(super) fn find(vm: &Vm, args: Args<'_>) -> QmpResult<Arc<Backend>> {
    let none = |name: &str| QmpError { class: "DeviceNotFound", desc: format!("Device '{name}' not found") };
    match (args.opt_str("device"), args.opt_str("id")) {
        (Some(name), None) => vm.blocks.backend(name).ok_or_else(|| none(name)),
        (None, Some(id)) => vm.blocks.backend_of_device(id).ok_or_else(|| none(id)),
        _ => Err(QmpError::generic("Need exactly one of 'device' and 'id'")),
    }
}

/// The node that `device` (a drive's) or `node-name` says, and the drive whose medium it is.
fn root(vm: &Vm, args: Args<'_>) -> QmpResult<(Option<Arc<Backend>>, Arc<block::Node>)> {
    match (args.opt_str("device"), args.opt_str("node-name")) {
        (Some(name), None) => {
            let none = || QmpError::generic(format!("Cannot find device='{name}' nor node-name=''"));
            let drive = vm.blocks.backend(name).ok_or_else(none)?;
            let no_medium = || QmpError::generic(format!("Device '{name}' has no medium"));
            let node = drive.root().ok_or_else(no_medium)?;
            Ok((Some(drive), node))
        }
        (None, Some(name)) => {
            let none = || QmpError::generic(format!("Cannot find device='' nor node-name='{name}'"));
            let node = vm.blocks.find_node(name).ok_or_else(none)?;
            let over = |b: &Arc<Backend>| b.root().is_some_and(|n| Arc::ptr_eq(&n, &node));
            Ok((vm.blocks.backends().into_iter().find(over), node))
        }
        _ => Err(QmpError::generic("Need exactly one of 'device' and 'node-name'")),
    }
}

fn removable(vm: &Vm, args: Args<'_>) -> QmpResult<Arc<Backend>> {
    let drive = find(vm, args)?;
    if drive.is_removable() {
        return Ok(drive);
    }
    let said = args.opt_str("device").or(args.opt_str("id")).unwrap_or_default();
    Err(QmpError::generic(format!("Device '{said}' is not removable")))
}

/// Opens the tray, unless the guest has locked it.
fn open_tray(drive: &Backend, force: bool) -> QmpResult<()> {
    let Some(media) = drive.media() else { return Ok(()) };
    match drive.tray() {
        Some((false, true)) if !force => {
            media.request_eject(false);
            let text = format!(
                "Device '{}' is locked and force was not specified, wait for tray to open and try again",
                drive.label()
            );
            Err(QmpError::generic(text))
        }
        Some((true, _)) => Ok(()),
        _ => {
            media.request_eject(true);
            Ok(())
        }
    }
}

fn remove(vm: &Vm, drive: &Backend) -> QmpResult<()> {
    if drive.is_attached() && drive.tray().is_some_and(|t| !t.0) {
        return Err(QmpError::generic(format!("Tray of device '{}' is not open", drive.label())));
    }
    let Some(root) = drive.root() else { return Ok(()) };
    root.not_busy()?;
    vm.parked(|| {
        vm.blocks.drain();
        // What a format keeps in memory must be in the image, or the user hears that it is not.
        if let Some(Err(e)) = drive.root().map(|n| n.flush()) {
            return Err(qom::Error::generic(format!("Could not flush the medium of '{}': {e}", drive.label())));
        }
        drive.set_root(None)
    })?;
    if let Some(media) = drive.media() {
        media.changed();
    }
    Ok(())
}

fn insert(vm: &Vm, drive: &Backend, node: &Arc<block::Node>) -> QmpResult<()> {
    if drive.is_attached() && drive.tray().is_some_and(|t| !t.0) {
        return Err(QmpError::generic(format!("Tray of device '{}' is not open", drive.label())));
    }
    vm.parked(|| {
        vm.blocks.drain();
        drive.set_root(Some(node))
    })?;
    if let Some(media) = drive.media() {
        media.changed();
    }
    Ok(())
}

fn change_medium(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let drive = removable(vm, args)?;
    let read_only = match args.opt_str("read-only-mode") {
        Some("read-only") => true,
        Some("read-write") => false,
        _ => drive.is_read_only(),
    };
    let mut opts = Opts::default();
    if let Some(format) = args.opt_str("format") {
        opts.or_insert("driver", format);
    }
    let node = vm.blocks.open_image(Some(args.str("filename")), opts, read_only, false)?;
    open_tray(&drive, args.bool("force"))?;
    remove(vm, &drive)?;
    insert(vm, &drive, &node)?;
    if let Some(media) = drive.media() {
        media.move_tray(false);
    }
    Ok(json!({}))
}
