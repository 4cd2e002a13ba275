//! `info block` and `info blockstats`, in QEMU's layout.

use super::commands::run;
use super::{Call, Result, blocks};
use serde_json::{Value, json};
use std::fmt::Write;

fn list(v: &Value) -> &[Value] {
    v.as_array().map_or(&[], |l| l)
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

/// `info block [-n] [-v] [device]`: `-n`: nodes, `-v`: with what their images say.
pub(super) fn block(c: &mut Call<'_>) -> Result {
    let (mut nodes, mut verbose, mut device) = (false, false, None);
    for word in c.args.split_whitespace() {
        match word.strip_prefix('-') {
            Some(flags) if !flags.is_empty() && flags.chars().all(|f| "nv".contains(f)) => {
                nodes |= flags.contains('n');
                verbose |= flags.contains('v');
            }
            Some(_) => return Err(format!("unsupported option '{word}'")),
            None if device.is_none() => device = Some(word),
            None => return Err("expected: [-n] [-v] [device]".into()),
        }
    }
    let mut shown = vec![];
    if !nodes {
        let all = run(c, "query-block", json!({}))?;
        let wanted = list(&all).iter().filter(|d| device.is_none_or(|name| text(d, "device") == name));
        shown.extend(wanted.map(|d| one(Some(d), &d["inserted"], verbose)));
    }
    if nodes || device.is_some() {
        let all = run(c, "query-named-block-nodes", json!({}))?;
        let wanted = list(&all).iter().filter(|n| device.is_none_or(|name| text(n, "node-name") == name));
        shown.extend(wanted.map(|n| one(None, n, verbose)));
    }
    c.out.push_str(&shown.join("\n"));
    Ok(())
}

/// A drive with what is in it, or a node alone.
fn one(drive: Option<&Value>, inserted: &Value, verbose: bool) -> String {
    let mut out = String::new();
    let (name, node) = (drive.map_or("", |d| text(d, "device")), text(inserted, "node-name"));
    let _ = match (name, node) {
        ("", "") => write!(out, "{}", drive.map_or("<anonymous>", |d| text(d, "qdev"))),
        ("", node) => write!(out, "{node}"),
        (name, "") => write!(out, "{name}"),
        (name, node) => write!(out, "{name} ({node})"),
    };
    let _ = if inserted.is_object() {
        let ro = if inserted["ro"] == true { ", read-only" } else { "" };
        writeln!(out, ": {} ({}{ro})", text(inserted, "file"), text(inserted, "drv"))
    } else {
        writeln!(out, ": [not inserted]")
    };
    if let Some(d) = drive {
        if d["qdev"].is_string() {
            let _ = writeln!(out, "    Attached to:      {}", text(d, "qdev"));
        }
        if let Some(status) = d["io-status"].as_str().filter(|s| *s != "ok") {
            let _ = writeln!(out, "    I/O status:       {status}");
        }
        if d["removable"] == true {
            let locked = if d["locked"] == true { "" } else { "not " };
            let tray = if d["tray_open"] == true { "open" } else { "closed" };
            let _ = writeln!(out, "    Removable device: {locked}locked, tray {tray}");
        }
    }
    if !inserted.is_object() {
        return out;
    }
    let cache = &inserted["cache"];
    let flag = |key: &str, word: &'static str| if cache[key] == true { word } else { "" };
    let mode = if cache["writeback"] == true { "writeback" } else { "writethrough" };
    let (direct, unsafe_) = (flag("direct", ", direct"), flag("no-flush", ", ignore flushes"));
    let _ = writeln!(out, "    Cache mode:       {mode}{direct}{unsafe_}");
    if let Some(file) = inserted["backing_file"].as_str() {
        let _ = writeln!(out, "    Backing file:     {file} (chain depth: {})", inserted["backing_file_depth"]);
    }
    if text(inserted, "detect_zeroes") != "off" {
        let _ = writeln!(out, "    Detect zeroes:    {}", text(inserted, "detect_zeroes"));
    }
    if let Some(limits) = blocks::limits(inserted) {
        let _ = writeln!(out, "{limits}");
    }
    if verbose {
        out.push_str("\nImages:\n");
        let mut image = &inserted["image"];
        while image.is_object() {
            out.push_str(&describe(image));
            image = &image["backing-image"];
        }
    }
    out
}

/// What an image says of itself.
fn describe(image: &Value) -> String {
    let mut out = String::new();
    let number = |key: &str| image[key].as_u64();
    let _ = writeln!(out, "image: {}\nfile format: {}", text(image, "filename"), text(image, "format"));
    if let Some(size) = number("virtual-size") {
        let _ = writeln!(out, "virtual size: {} ({size} bytes)", qom::size_text(size));
    }
    let actual = number("actual-size").map_or_else(|| "unavailable".into(), qom::size_text);
    let _ = writeln!(out, "disk size: {actual}");
    if image["dirty-flag"] == true {
        out.push_str("cleanly shut down: no\n");
    }
    if let Some(size) = number("cluster-size") {
        let _ = writeln!(out, "cluster_size: {size}");
    }
    if let Some(file) = image["backing-filename"].as_str() {
        let full = text(image, "full-backing-filename");
        let actual = if full.is_empty() || full == file { String::new() } else { format!(" (actual path: {full})") };
        let _ = writeln!(out, "backing file: {file}{actual}");
    }
    if let Some(format) = image["backing-filename-format"].as_str() {
        let _ = writeln!(out, "backing file format: {format}");
    }
    let snapshots = list(&image["snapshots"]);
    if !snapshots.is_empty() {
        out.push_str("Snapshot list:\n");
        out.push_str(&row("ID", "TAG", ["VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"]));
    }
    for s in snapshots {
        let (date, part) = (s["date-sec"].as_i64().unwrap_or(0), s["vm-clock-nsec"].as_u64().unwrap_or(0));
        let clock = s["vm-clock-sec"].as_u64().unwrap_or(0);
        let clock = format!("{:04}:{:02}:{:02}.{:03}", clock / 3600, clock / 60 % 60, clock % 60, part / 1_000_000);
        let icount = s["icount"].as_i64().map_or_else(|| "--".into(), |n| n.to_string());
        let state = qom::size_text(s["vm-state-size"].as_u64().unwrap_or(0));
        let parts = [&*state, &*crate::date::local(date), &*clock, &*icount];
        out.push_str(&row(text(s, "id"), text(s, "name"), parts));
    }
    if let Some(data) = image["format-specific"].get("data").and_then(Value::as_object) {
        out.push_str("Format specific information:\n");
        for (key, value) in data {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(out, "    {}: {value}", key.replace('-', " "));
        }
    }
    out
}

/// A line of the table of snapshots.
fn row(id: &str, tag: &str, [size, date, clock, icount]: [&str; 4]) -> String {
    format!("{id:<7} {tag:<16} {size:>8} {date:>19} {clock:>15} {icount:>10}\n")
}

/// `info blockstats`.
pub(super) fn stats(c: &mut Call<'_>) -> Result {
    let all = run(c, "query-blockstats", json!({}))?;
    for drive in list(&all) {
        let s = &drive["stats"];
        let number = |key: &str| s[key].as_u64().unwrap_or(0);
        let _ = writeln!(c.out, "{}: idle_time_ns={}", text(drive, "device"), number("idle_time_ns"));
        let mut line = |name: &str, [bytes, operations, time, merged]: [&str; 4]| {
            let line = format!("{name:<10} {bytes:>20} {operations:>16} {time:>24} {merged:>10}");
            let _ = writeln!(c.out, "{}", line.trim_end());
        };
        line("", ["bytes", "operations", "total_time_ns", "merged"]);
        for (name, kind, moves) in [("Read:", "rd", true), ("Write:", "wr", true), ("Flush:", "flush", false)] {
            let value = |what: &str, there: bool| {
                if there { number(&format!("{kind}_{what}")).to_string() } else { String::new() }
            };
            let [bytes, merged] = ["bytes", "merged"].map(|what| value(what, moves));
            let [operations, time] = ["operations", "total_time_ns"].map(|what| value(what, true));
            line(name, [&bytes, &operations, &time, &merged]);
        }
        c.out.push('\n');
    }
    Ok(())
}
