//! `cargo xtask peer-bench`: our release binary and the peer in turn, same arguments, in one run; medians and ratios.

use anyhow::{Context, Result};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tests::{
    guest::{Guest, Linux},
    packages,
};

const LIMIT: Duration = Duration::from_secs(120);
/// Guest RAM in bytes.
const RAM: u64 = 512 << 20;
/// How long a guest is watched that sleeps.
const IDLE: Duration = Duration::from_secs(10);

/// What is measured, in this order: name and unit.
const ROWS: [(&str, &str); 7] = [
    ("exec to QMP greeting", "ms"),
    ("resident at -machine none -S", "MiB"),
    ("exec to user space", "s"),
    ("processor time to user space", "s"),
    ("resident beside guest RAM, booted", "MiB"),
    ("processor share of an idle guest", "%"),
    ("exec to exit", "s"),
];

/// `rounds` measurements of each side.
pub fn run(rounds: usize) -> Result<()> {
    let (ours, peer) = (crate::release_binary()?, packages::peer()?);
    let linux = Linux::amd64("bench.cpio", &format!("echo USERSPACE UP; sleep {}", IDLE.as_secs() + 2))?;
    println!("ours: {}; peer: {}; medians of {rounds}", env!("CARGO_PKG_VERSION"), peer.version()?);
    let mut results = [(); 2].map(|()| vec![Vec::new(); ROWS.len()]);
    for _ in 0..rounds {
        for (side, columns) in results.iter_mut().enumerate() {
            let command = || if side == 0 { Command::new(&ours) } else { peer.command("qemu-system-x86_64") };
            let values = [greeting(command())?, boot(command(), &linux)?].concat();
            columns.iter_mut().zip(values).for_each(|(c, v)| c.push(v));
        }
    }
    println!("{:36} {:>9} {:>9} {:>11}", "", "ours", "peer", "ours/peer");
    for (i, (name, unit)) in ROWS.iter().enumerate() {
        let [a, b] = [0, 1].map(|side| median(&results[side][i]));
        println!("{:36} {a:9.2} {b:9.2} {:11.2}", format!("{name} [{unit}]"), a / b);
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Time to the greeting, resident memory then.
fn greeting(mut command: Command) -> Result<Vec<f64>> {
    command.args(["-machine", "none", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio"]);
    let started = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib = rss.trim().trim_end_matches(" kB").parse()?;
    child.kill()?;
    child.wait()?;
    Ok(vec![took, mib(kib)])
}

/// A guest from exec to exit.
fn boot(mut command: Command, linux: &Linux) -> Result<Vec<f64>> {
    command.args(linux.args("")).args(["-no-reboot", "-accel", "tcg", "-m", &(RAM >> 20).to_string()]);
    let mut guest = Guest::start(command)?;
    let started = guest.started;
    let (up, _) = guest.line("USERSPACE UP", LIMIT);
    let busy = guest.cpu_time()?;
    std::thread::sleep(Duration::from_secs(1));
    let (from, at) = (guest.cpu_time()?, Instant::now());
    std::thread::sleep(IDLE);
    let idle = (guest.cpu_time()? - from).as_secs_f64() / at.elapsed().as_secs_f64() * 100.0;
    let overhead = guest.overhead_kib(RAM)?;
    guest.finish(LIMIT);
    let total = started.elapsed() - IDLE - Duration::from_secs(2);
    Ok(vec![(up - started).as_secs_f64(), busy.as_secs_f64(), mib(overhead), idle, total.as_secs_f64()])
}
