//! Commands about jobs and about limits of drives.

use super::{Args, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::schema::{Member, Ty, opt, req};
use crate::vm::Vm;
use block::throttle::Limits;
use block::{JobOptions, OnError, Verb};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) const JOB_TYPE: Ty = Ty::Enum(&[
    "commit",
    "stream",
    "mirror",
    "backup",
    "create",
    "amend",
    "snapshot-load",
    "snapshot-save",
    "snapshot-delete",
]);

pub(crate) const JOB_STATUS: Ty = Ty::Enum(&[
    "undefined",
    "created",
    "running",
    "paused",
    "ready",
    "standby",
    "waiting",
    "pending",
    "aborting",
    "concluded",
    "null",
]);

const JOB: Ty = Ty::Object(&[
    req("id", Ty::Str),
    req("type", JOB_TYPE),
    req("status", JOB_STATUS),
    req("current-progress", Ty::Int),
    req("total-progress", Ty::Int),
    opt("error", Ty::Str),
]);

const BLOCK_JOB: Ty = Ty::Object(&[
    req("type", JOB_TYPE),
    req("device", Ty::Str),
    req("len", Ty::Int),
    req("offset", Ty::Int),
    req("busy", Ty::Bool),
    req("paused", Ty::Bool),
    req("speed", Ty::Int),
    req("io-status", Ty::Enum(&["ok", "failed", "nospace"])),
    req("ready", Ty::Bool),
    req("status", JOB_STATUS),
    req("auto-finalize", Ty::Bool),
    req("auto-dismiss", Ty::Bool),
    opt("error", Ty::Str),
]);

const ON_ERROR: Ty = Ty::Enum(&["report", "ignore", "enospc", "stop", "auto"]);
const ID: &[Member] = &[req("id", Ty::Str)];
const DEVICE: &[Member] = &[req("device", Ty::Str)];
const OLD: &[&str] = &["deprecated"];

const fn old(name: &'static str, ty: Ty) -> Member {
    Member { name, ty, optional: true, features: OLD }
}

/// A command on a job by its `id`.
const fn on_job(name: &'static str, run: super::Run) -> Command {
    command(name, ID, None, run)
}

/// A command that QAPI calls deprecated, on a block job.
const fn on_block_job(name: &'static str, args: &'static [Member], run: super::Run) -> Command {
    Command { features: OLD, ..command(name, args, None, run) }
}

pub(super) static COMMANDS: &[Command] = &[
    command("query-jobs", &[], Some(Ty::List(&JOB)), |vm, _| Ok(vm.blocks.query_jobs())),
    on_job("job-pause", |vm, a| job(vm, a, Verb::Pause)),
    on_job("job-resume", |vm, a| job(vm, a, Verb::Resume)),
    on_job("job-cancel", |vm, a| job(vm, a, Verb::Cancel { force: true })),
    on_job("job-complete", |vm, a| job(vm, a, Verb::Complete)),
    on_job("job-dismiss", |vm, a| job(vm, a, Verb::Dismiss)),
    on_job("job-finalize", |vm, a| job(vm, a, Verb::Finalize)),
    command("query-block-jobs", &[], Some(Ty::List(&BLOCK_JOB)), |vm, _| Ok(vm.blocks.query_block_jobs())),
    command("block-job-set-speed", &[req("device", Ty::Str), req("speed", Ty::Int)], None, |vm, a| {
        block_job(vm, a, "device", Verb::SetSpeed(speed(a)?))
    }),
    command("block-job-cancel", &[req("device", Ty::Str), opt("force", Ty::Bool)], None, |vm, a| {
        let (id, force) = (a.str("device"), a.bool("force"));
        if !force && vm.blocks.job_is_paused(id) {
            return Err(QmpError::generic(format!("The block job for device '{id}' is currently paused")));
        }
        block_job(vm, a, "device", Verb::Cancel { force })
    }),
    on_block_job("block-job-pause", DEVICE, |vm, a| block_job(vm, a, "device", Verb::Pause)),
    on_block_job("block-job-resume", DEVICE, |vm, a| block_job(vm, a, "device", Verb::Resume)),
    on_block_job("block-job-complete", DEVICE, |vm, a| block_job(vm, a, "device", Verb::Complete)),
    on_block_job("block-job-dismiss", ID, |vm, a| block_job(vm, a, "id", Verb::Dismiss)),
    on_block_job("block-job-finalize", ID, |vm, a| block_job(vm, a, "id", Verb::Finalize)),
    command(
        "block-stream",
        &[
            opt("job-id", Ty::Str),
            req("device", Ty::Str),
            opt("base", Ty::Str),
            opt("base-node", Ty::Str),
            opt("backing-file", Ty::Str),
            opt("bottom", Ty::Str),
            opt("speed", Ty::Int),
            opt("on-error", ON_ERROR),
            opt("auto-finalize", Ty::Bool),
            opt("auto-dismiss", Ty::Bool),
        ],
        None,
        |vm, args| {
            vm.blocks.block_stream(&options(args)?)?;
            Ok(json!({}))
        },
    ),
    command(
        "block-commit",
        &[
            opt("job-id", Ty::Str),
            req("device", Ty::Str),
            opt("base-node", Ty::Str),
            old("base", Ty::Str),
            opt("top-node", Ty::Str),
            old("top", Ty::Str),
            opt("backing-file", Ty::Str),
            opt("speed", Ty::Int),
            opt("on-error", ON_ERROR),
            opt("auto-finalize", Ty::Bool),
            opt("auto-dismiss", Ty::Bool),
        ],
        None,
        |vm, args| {
            vm.blocks.block_commit(&options(args)?)?;
            Ok(json!({}))
        },
    ),
    command(
        "block_set_io_throttle",
        &[
            old("device", Ty::Str),
            opt("id", Ty::Str),
            req("bps", Ty::Int),
            req("bps_rd", Ty::Int),
            req("bps_wr", Ty::Int),
            req("iops", Ty::Int),
            req("iops_rd", Ty::Int),
            req("iops_wr", Ty::Int),
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
        ],
        None,
        set_throttle,
    ),
];

fn job(vm: &Vm, args: Args<'_>, verb: Verb) -> QmpResult {
    vm.blocks.job(args.str("id"), verb)?;
    Ok(json!({}))
}

/// The same by the commands that came first, whose error is another if there is no job.
fn block_job(vm: &Vm, args: Args<'_>, key: &str, verb: Verb) -> QmpResult {
    let id = args.str(key);
    if !vm.blocks.has_job(id) {
        return Err(QmpError { class: "DeviceNotActive", desc: format!("Block job '{id}' not found") });
    }
    vm.blocks.job(id, verb)?;
    Ok(json!({}))
}

fn speed(args: Args<'_>) -> QmpResult<u64> {
    match args.0.get("speed").map(Value::as_u64) {
        None => Ok(0),
        Some(Some(n)) => Ok(n),
        Some(None) => Err(QmpError::generic("Parameter 'speed' expects a non-negative value")),
    }
}

fn options(args: Args<'_>) -> QmpResult<JobOptions> {
    let text = |key: &str| args.opt_str(key).map(str::to_owned);
    let on = |key: &str| args.0.get(key).and_then(Value::as_bool).unwrap_or(true);
    Ok(JobOptions {
        job_id: text("job-id"),
        device: args.str("device").to_owned(),
        base: text("base"),
        base_node: text("base-node"),
        bottom: text("bottom"),
        top: text("top"),
        top_node: text("top-node"),
        backing_file: text("backing-file"),
        speed: speed(args)?,
        on_error: match args.opt_str("on-error") {
            Some("ignore") => OnError::Ignore,
            Some("enospc") => OnError::Enospc,
            Some("stop") => OnError::Stop,
            Some("auto") => OnError::Auto,
            _ => OnError::Report,
        },
        auto_finalize: on("auto-finalize"),
        auto_dismiss: on("auto-dismiss"),
    })
}

/// The keys of `block_set_io_throttle` and what they are about, in the order of [`Limits`].
const NAMES: [&str; 6] = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"];

fn set_throttle(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let drive = super::blocks::find(vm, args)?;
    let number = |key: &str| match args.0.get(key) {
        None => Ok(None),
        Some(v) => v
            .as_u64()
            .map(Some)
            .ok_or_else(|| QmpError::generic("bps/iops/max values must be within [0, 1000000000000000]")),
    };
    let mut limits = Limits::default();
    for (name, limit) in NAMES.iter().zip(&mut limits.all) {
        limit.avg = number(name)?.unwrap_or(0);
        limit.max = number(&format!("{name}_max"))?.unwrap_or(0);
        limit.length = number(&format!("{name}_max_length"))?.unwrap_or(1);
    }
    limits.iops_size = number("iops_size")?.unwrap_or(0);
    vm.blocks.set_throttle(&drive, limits, args.opt_str("group"))?;
    Ok(json!({}))
}
