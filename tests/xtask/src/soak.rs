//! `cargo xtask soak`: runs too long for `cargo test`, which has a short form of each. A run that fails panics with what it saw.

use anyhow::{Context, Error, Result, bail, ensure};
use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tests::{
    debian::{self, BUSES, Bus},
    guest::{Guest, Linux},
    images::{kill, kill_job},
    reset_guest::{self, RESETS},
};

/// Longest wait for a guest.
const LIMIT: Duration = Duration::from_secs(120);
/// Resets in a row.
const ROUNDS: usize = 50;
/// What the process may grow by over them, in KiB: 20 a reset.
const GROWTH: u64 = 1024;

/// Formats of disks.
const FORMATS: [&str; 2] = ["raw", "qcow2"];

/// Kills: a multiple of the six ways to write.
const KILLS: u64 = 204;
/// Kills in the midst of a job: a multiple of the three jobs and three sizes of clusters.
const JOB_KILLS: u64 = 90;
/// Sequences on images.
const SEQUENCES: u64 = 500;

/// `--seed=N` and `--seconds=N`, for runs that are random; `--bus=NAME`, `--format=NAME` and `--data=MEBIBYTES`, for those with disks.
struct Options {
    seed: u64,
    time: Duration,
    bus: Option<Bus>,
    format: Option<String>,
    data: u32,
}

/// Name, what it shows, how.
type Run = (&'static str, &'static str, fn(&Options) -> Result<()>);
/// All runs.
const RUNS: [Run; 12] = [
    ("resets", "every way to reset comes back, 50 times in a row, without growth", resets),
    ("sleep", "`sleep 10` in the guest lasts 10 s within 1 % while both host cores are busy", sleep),
    ("tiers", "every tier boots with 1, 2 and 4 CPUs; two runs by -icount are the same", tiers),
    ("torture", "the oracle's cases and sequences under torture, all and more of them (--seed=N)", torture),
    ("images", "500 random sequences on qcow2 images agree with the peer's tools (--seed=N)", images),
    ("kills", "204 times kill -9 while raw and qcow2 images are written: nothing flushed is lost (--seed=N)", kills),
    ("jobs", "90 times kill -9 while a chain is streamed or committed: nothing flushed is lost (--seed=N)", jobs),
    ("crashes", "1000 crashes of the host, 5000 spoiled images (--seed=N)", crashes),
    (
        "debian",
        "a Debian with 1 GiB of data lives on every kind of disk, raw and qcow2 (--bus=NAME, --format=NAME, --data=MEBIBYTES)",
        debian_lives,
    ),
    ("update", "an installed Debian reads its package lists from the mirror, over the user-mode network", update),
    ("network", "10,000 connections each way, 1 GiB each way, services, two machines on each kind of link", network),
    ("accesses", "random accesses to every register, seed after seed (--seed=N, --seconds=N)", accesses),
];

/// Runs those named, or all.
pub fn run(args: &[&str]) -> Result<()> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mut options =
        Options { seed: clock.as_secs(), time: Duration::from_secs(60), bus: None, format: None, data: 1024 };
    let mut names = vec![];
    for arg in args {
        match arg.strip_prefix("--").and_then(|a| a.split_once('=')) {
            Some(("seed", n)) => options.seed = n.parse().context("--seed=NUMBER")?,
            Some(("seconds", n)) => options.time = Duration::from_secs(n.parse().context("--seconds=NUMBER")?),
            Some(("bus", name)) => options.bus = Some(Bus::named(name).context("--bus=NAME of a kind of disk")?),
            Some(("format", name)) => {
                ensure!(FORMATS.contains(&name), "--format={name}, where there are {}", FORMATS.join(", "));
                options.format = Some(name.to_owned());
            }
            Some(("data", n)) => options.data = n.parse().context("--data=MEBIBYTES")?,
            _ => names.push(*arg),
        }
    }
    if let Some(unknown) = names.iter().find(|n| RUNS.iter().all(|r| r.0 != **n)) {
        let known: Vec<&str> = RUNS.iter().map(|r| r.0).collect();
        bail!("no soak run '{unknown}'; there are {}", known.join(", "));
    }
    for (name, what, run) in RUNS {
        if names.is_empty() || names.contains(&name) {
            println!("{name}: {what}");
            run(&options)?;
        }
    }
    Ok(())
}

fn images(o: &Options) -> Result<()> {
    let peer = tests::packages::peer()?;
    println!("  seeds from {}", o.seed);
    for n in 0..SEQUENCES {
        tests::images::sequence(&peer, o.seed + n)?;
    }
    println!("  {SEQUENCES} sequences agree");
    Ok(())
}

/// The program that is killed.
fn image_writer() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "-p", "tests", "--bin", "image-writer"]).status()?;
    ensure!(status.success(), "building image-writer failed");
    Ok(tests::packages::target_dir().join("debug/image-writer"))
}

fn jobs(o: &Options) -> Result<()> {
    let (peer, program) = (tests::packages::peer()?, image_writer()?);
    println!("  seeds from {}", o.seed);
    let mut at_work = 0;
    for n in 0..JOB_KILLS {
        let (job, seed) = (kill_job::JOBS[(n / 3 % 3) as usize], o.seed + n);
        let one = kill_job::kill_once(&peer, &program, job, seed);
        at_work += u64::from(one.with_context(|| format!("{job}, seed {seed}"))?);
    }
    println!("  {JOB_KILLS} kills, {at_work} of them while the job was at work, nothing lost");
    Ok(())
}

fn kills(o: &Options) -> Result<()> {
    let (peer, program) = (tests::packages::peer()?, image_writer()?);
    let ways = tests::images::ways()?;
    println!("  seeds from {}, aio={}", o.seed, ways.join(" and "));
    let mut writes = 0;
    for n in 0..KILLS {
        let format = if n % 2 == 0 { "raw" } else { "qcow2" };
        let cache = kill::CACHES[(n / 2 % 3) as usize];
        let aio = ways[(n / 6) as usize % ways.len()];
        let one = kill::kill_once(&peer, &program, format, cache, aio, o.seed + n);
        writes += one.with_context(|| format!("{format}, cache={cache}, aio={aio}, seed {}", o.seed + n))?;
    }
    println!("  {KILLS} kills, {writes} writes acknowledged as stable, none lost");
    Ok(())
}

fn crashes(o: &Options) -> Result<()> {
    let peer = tests::packages::peer()?;
    println!("  seeds from {}", o.seed);
    for n in 0..50 {
        tests::images::crash::run(&peer, o.seed + n, 20)?;
    }
    tests::images::hostile::run(&peer, o.seed, 5000)?;
    println!("  1000 crashes left every flushed byte and no corruption, 5000 spoiled images an answer");
    Ok(())
}

fn resets(_: &Options) -> Result<()> {
    let mut guest = reset_guest::boot(Command::new(crate::release_binary()?), LIMIT)?;
    let mut seen = vec![];
    for (i, how) in RESETS.iter().cycle().take(ROUNDS).enumerate() {
        reset_guest::reset(&mut guest, how, LIMIT);
        let now = guest.overhead_kib(512 << 20)?;
        println!("  {:2} {how:7} {now} KiB beside the guest's RAM", i + 1);
        seen.push(now)
    }
    // The compiler is at work at some of these moments: what counts is the least of ten. (In the first ten our code is paged in.)
    let least: Vec<u64> = seen.chunks(2 * RESETS.len()).filter_map(|ten| ten.iter().min().copied()).collect();
    let Some((settled, later)) = least.get(1..).and_then(<[u64]>::split_first) else { bail!("too few rounds") };
    for now in later {
        assert!(*now < settled + GROWTH, "grew from {settled} to {now} KiB: {least:?}");
    }
    Ok(())
}

fn sleep(_: &Options) -> Result<()> {
    let linux = Linux::amd64("sleep.cpio", "for i in 1 2 3; do echo SLEEP; sleep 10; echo AWAKE; done")?;
    let mut command = Command::new(crate::release_binary()?);
    command.args(linux.args("")).args(["-m", "512"]);
    let done = Arc::new(AtomicBool::new(false));
    let load = || {
        let done = done.clone();
        std::thread::spawn(move || while !done.load(Relaxed) {})
    };
    let busy: Vec<_> = (0..std::thread::available_parallelism()?.get()).map(|_| load()).collect();
    let mut guest = Guest::start(command)?;
    for _ in 0..3 {
        let (from, _) = guest.line("SLEEP", LIMIT);
        let (to, _) = guest.line("AWAKE", LIMIT);
        let seconds = (to - from).as_secs_f64();
        println!("  {seconds:.3} s");
        assert!((seconds - 10.0).abs() <= 0.1, "{seconds} s");
    }
    done.store(true, Relaxed);
    busy.into_iter().for_each(|t| t.join().expect("a spinning thread"));
    Ok(())
}

/// Boots a guest, which says how many CPUs it has; what it said.
fn boot(linux: &Linux, cpus: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(crate::release_binary()?);
    command.args(linux.args("")).args(["-m", "512", "-no-reboot", "-smp", cpus]).args(args);
    let mut guest = Guest::start(command)?;
    guest.line(&format!("CPUS {cpus}"), LIMIT);
    let (code, console) = guest.finish(LIMIT);
    assert_eq!(code, Some(0), "{console}");
    Ok(console)
}

fn tiers(_: &Options) -> Result<()> {
    let linux = Linux::amd64("tiers.cpio", "echo CPUS $(nproc)")?;
    for accel in ["tier=interp", "tier=jit", "tier=auto"] {
        for threads in ["multi", "single"] {
            for cpus in ["1", "2", "4"] {
                let accel = format!("tcg,{accel},thread={threads}");
                let started = Instant::now();
                boot(&linux, cpus, &["-accel", &accel])?;
                println!("  {accel}, {cpus} CPUs: {:.1} s", started.elapsed().as_secs_f64());
            }
        }
    }
    // (The kernel's time stamps are part of what is compared.)
    for cpus in ["1", "2", "4"] {
        let mut said = vec![];
        for tier in ["auto", "auto", "interp", "jit"] {
            let accel = format!("tcg,tier={tier}");
            let icount = ["-accel", &accel, "-icount", "shift=3,sleep=off", "-rtc", "clock=vm,base=2026-01-01"];
            said.push((tier, boot(&linux, cpus, &icount)?));
            println!("  icount, {tier}, {cpus} CPUs: {} lines", said[said.len() - 1].1.lines().count());
        }
        let (_, first) = &said[0];
        for (tier, other) in &said[1..] {
            let differs = first.lines().zip(other.lines()).find(|(a, b)| a != b);
            assert!(first == other, "{cpus} CPUs, {tier}: {differs:?}");
        }
    }
    Ok(())
}

fn torture(options: &Options) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "-p", "oracle", "--test", "interpreter", "torture", "--", "--nocapture"]);
    command.env("ORACLE_SEED", options.seed.to_string()).env("ORACLE_TIMES", "10");
    ensure!(command.status()?.success(), "seed {}", options.seed);
    Ok(())
}

fn accesses(options: &Options) -> Result<()> {
    tests::contract::soak::soak(options.seed, options.time, |seed| println!("  seed {seed}")).map_err(Error::msg)
}

fn debian_lives(options: &Options) -> Result<()> {
    let qomet = crate::release_binary()?;
    for bus in BUSES.into_iter().filter(|b| options.bus.is_none_or(|o| o.name == b.name)) {
        for format in FORMATS.into_iter().filter(|f| options.format.as_ref().is_none_or(|o| o == f)) {
            let started = Instant::now();
            let [first, second] = debian::cycle(&qomet, bus, format, options.data, Duration::from_secs(900))?;
            println!(
                "  {} on {}: login after {:.1} s, after the reboot {:.1} s; all of it {:.0} s",
                format,
                bus.name,
                first.as_secs_f64(),
                second.as_secs_f64(),
                started.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}

fn update(_: &Options) -> Result<()> {
    println!("  {}", debian::update(&crate::release_binary()?, Duration::from_secs(900))?);
    Ok(())
}

fn network(_: &Options) -> Result<()> {
    let (qomet, load) = (crate::release_binary()?, &tests::network::SOAK);
    let say = |text: &str| println!("  {text}");
    tests::network::connections(&qomet, load, say)?;
    tests::network::services(&qomet, 256, say)?;
    for transport in tests::network::TRANSPORTS {
        let started = Instant::now();
        tests::network::two_machines(&qomet, transport, load.mebibytes)?;
        println!("  {} MiB each way by {transport}: {:.0} s", load.mebibytes, started.elapsed().as_secs_f64());
    }
    Ok(())
}
