//! Drives and jobs.

use super::commands::{qmp, run};
use super::{Call, Result, x};
use crate::options::size;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// A number of bytes, of MiB without a suffix.
fn bytes(text: &str) -> std::result::Result<u64, String> {
    size::size(text, 1 << 20).ok_or_else(|| format!("'{text}' is not a size"))
}

/// A job command that takes the job alone.
pub(super) fn job(c: &mut Call<'_>, name: &str) -> Result {
    let device = c.args;
    qmp(c, name, json!({"device": device}))
}

/// `block_stream device [speed [base]]`.
pub(super) fn stream(c: &mut Call<'_>) -> Result {
    let mut words = c.args.splitn(3, ' ');
    let mut args = Map::new();
    args.insert(
        "device".into(),
        words.next().filter(|w| !w.is_empty()).ok_or("expected: device [speed [base]]")?.into(),
    );
    if let Some(speed) = words.next() {
        args.insert("speed".into(), bytes(speed)?.into());
    }
    if let Some(base) = words.next() {
        args.insert("base".into(), base.trim().into());
    }
    qmp(c, "block-stream", args.into())
}

/// `block_job_set_speed device speed`.
pub(super) fn set_speed(c: &mut Call<'_>) -> Result {
    let (device, speed) = c.args.split_once(' ').ok_or("expected: device speed")?;
    let speed = bytes(speed.trim())?;
    qmp(c, "block-job-set-speed", json!({"device": device, "speed": speed}))
}

/// `block_job_cancel [-f] device`.
pub(super) fn cancel(c: &mut Call<'_>) -> Result {
    let (force, device) = match c.args.strip_prefix("-f ") {
        Some(device) => (true, device.trim()),
        None => (false, c.args),
    };
    qmp(c, "block-job-cancel", json!({"device": device, "force": force}))
}

/// `block_set_io_throttle device bps bps_rd bps_wr iops iops_rd iops_wr`.
pub(super) fn throttle(c: &mut Call<'_>) -> Result {
    let words: Vec<&str> = c.args.split_whitespace().collect();
    let [device, numbers @ ..] = &words[..] else { return Err("expected: device and six numbers".into()) };
    let names = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"];
    if numbers.len() != names.len() {
        return Err("expected: device and six numbers".into());
    }
    let key = if c.vm.blocks.backend(device).is_some() { "device" } else { "id" };
    let mut args = Map::new();
    args.insert(key.into(), (*device).into());
    for (name, number) in names.iter().zip(numbers) {
        args.insert((*name).into(), x::number(number)?.into());
    }
    qmp(c, "block_set_io_throttle", args.into())
}

/// `info block-jobs`, in QEMU's layout.
pub(super) fn jobs(c: &mut Call<'_>) -> Result {
    let all = run(c, "query-block-jobs", json!({}))?;
    let all = all.as_array().map_or(&[][..], |l| l);
    if all.is_empty() {
        let _ = writeln!(c.out, "No active jobs");
    }
    for j in all {
        let (ty, device) = (j["type"].as_str().unwrap_or_default(), j["device"].as_str().unwrap_or_default());
        let what =
            if ty == "stream" { format!("Streaming device {device}") } else { format!("Type {ty}, device {device}") };
        let _ = writeln!(
            c.out,
            "{what}: Completed {} of {} bytes, speed limit {} bytes/s",
            j["offset"], j["len"], j["speed"]
        );
    }
    Ok(())
}

/// The limits of a drive, as `info block` shows them.
pub(super) fn limits(inserted: &Value) -> Option<String> {
    let number = |key: &str| inserted[key].as_u64().unwrap_or(0);
    let kinds = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"];
    if kinds.iter().all(|k| number(k) == 0) {
        return None;
    }
    let part = |kinds: &[&str]| {
        let plain: String = kinds.iter().map(|k| format!(" {k}={}", number(k))).collect();
        let max: String = kinds.iter().map(|k| format!(" {k}_max={}", number(&format!("{k}_max")))).collect();
        plain + &max
    };
    let all = part(kinds.get(..3)?) + &part(kinds.get(3..)?);
    let group = inserted["group"].as_str().unwrap_or_default();
    Some(format!("    I/O throttling:  {all} iops_size={} group={group}", number("iops_size")))
}
