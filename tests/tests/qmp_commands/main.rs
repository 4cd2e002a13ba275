//! Every QMP command, every event and every command of the human monitor, each met through a real socket: a row says how, and
//! what is listed without a row (or the other way round) fails. Replies and events are checked against QEMU's schema by the client.

use serde_json::json;
use std::collections::BTreeSet;
use tests::process;
use tests::qmp::Qmp;
use tests::schema::Schema;

#[macro_use]
mod harness;
mod block;
mod commands;
mod events;
mod hmp;

use harness::*;

fn same(listed: impl IntoIterator<Item = String>, rows: &[&str]) {
    let (listed, rows): (BTreeSet<String>, BTreeSet<String>) =
        (listed.into_iter().collect(), rows.iter().map(|r| (*r).to_owned()).collect());
    let without: Vec<_> = listed.difference(&rows).collect();
    let gone: Vec<_> = rows.difference(&listed).collect();
    assert!(without.is_empty() && gone.is_empty(), "without a row: {without:?}; rows for nothing: {gone:?}");
}

#[test]
fn every_command_and_event_has_a_row() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let listed = q.run("query-commands", json!({}));
    same(names(&listed).into_iter().map(str::to_owned), &[commands::COMMANDS, block::COMMANDS].concat());
    let schema = Schema::new(&q.run("query-qmp-schema", json!({})));
    same(schema.named("event").into_iter().map(str::to_owned), &[events::EVENTS, block::EVENTS].concat());
}

#[test]
fn every_command_of_the_human_monitor_has_a_row() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let first = |text: String| -> Vec<String> {
        text.lines()
            .map(|l| l.split(' ').next().unwrap_or_default().split('|').next().unwrap_or_default().to_owned())
            .collect()
    };
    same(first(q.hmp("help")), &[hmp::HMP, block::HMP].concat());
    let items = q.hmp("help info").replace("info ", "");
    same(first(items), &[hmp::INFO, block::INFO].concat());
}

/// Where the schema differs from QEMU's for what both have, and why. Places are prefixes. It may shrink, not grow.
const DIFFERENCES: &[(&str, &str)] = &[
    ("blockdev-add.", "drivers and options that are not built"),
    ("blockdev-reopen.", "as for blockdev-add"),
    ("block-commit.backing-mask-protocol", "there are no protocols to mask"),
    ("block-commit.filter-node-name", "jobs have no filter nodes"),
    ("block-stream.backing-mask-protocol", "there are no protocols to mask"),
    ("block-stream.filter-node-name", "jobs have no filter nodes"),
    ("query-block=>", "bitmaps are not built"),
    ("query-blockstats=>", "histograms, intervals and statistics of drivers are not built"),
    ("query-named-block-nodes=>", "as for query-block"),
    ("input-send-event.events[].(key).data.key.(qcode).data: lacks word unmapped", "it is no key"),
    ("GUEST_CRASHLOADED.info: missing", "no device says more"),
    ("GUEST_PANICKED.info: missing", "as above"),
    ("NETDEV_STREAM_CONNECTED.addr", "options of sockets that are not built"),
    ("netdev_add.", "backends and options that are not built"),
    ("object-add.(memory-backend-file)", "the type has not all of its properties"),
    ("object-add.(memory-backend-memfd)", "the type has not all of its properties"),
    ("object-add.qom-type: lacks word ", "types that are not built"),
    ("query-cpus-fast=>[].target: lacks word ", "one target is built"),
    ("query-target=>.arch: lacks word ", "one target is built"),
    ("send-key.keys[].(qcode).data: lacks word unmapped", "it is no key"),
];

#[test]
fn the_schema_is_qemus_where_both_have_something() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let schema = Schema::new(&q.run("query-qmp-schema", json!({})));
    let found = schema.differences(Schema::qemu());
    let new: Vec<_> = found.iter().filter(|f| !DIFFERENCES.iter().any(|(place, _)| f.starts_with(place))).collect();
    assert!(new.is_empty(), "{new:#?}");
    let gone: Vec<_> = DIFFERENCES.iter().filter(|(place, _)| !found.iter().any(|f| f.starts_with(place))).collect();
    assert!(gone.is_empty(), "not there any more: {gone:#?}");
}

#[test]
fn the_chosen_cpu_stays_chosen_on_a_monitor() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().expect("a temporary folder");
    let socket = dir.path().join("hmp");
    let folder = firmware();
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let args = ["-smp", "2", "-accel", "qtest", "-L", &folder, "-monitor", &monitor];
    let mut child = process::start(&args, &[]);
    let mut stream = None;
    process::until("a connection", || {
        stream = std::os::unix::net::UnixStream::connect(&socket).ok();
        stream.is_some()
    });
    let mut stream = stream.expect("connected");
    stream.write_all(b"cpu 1\ninfo cpus\nquit\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("* CPU #1: thread_id="), "{text}");
    assert_eq!(process::wait(&mut child).code(), Some(0));
}
