//! `cargo bench-peer`: our binary and the peer run the same guests in turn, command lines equal but for the binary. [`plan`] is
//! `floors.toml`, [`image`] makes the guests, [`side`] runs workloads in them and natively, [`installed`] boots a Debian, [`report`] compares.

pub mod devices;
pub mod image;
pub mod installed;
pub mod plan;
pub mod report;
pub mod server;
pub mod side;

use crate::{
    debian,
    guest::Linux,
    network,
    packages::{self, Peer},
};
use anyhow::{Context, Result, bail, ensure};
use devices::Devices;
use plan::{Group, Machine, Measure, Plan, Work};
use report::{Report, Row, SIDES};
use side::{Booted, Native, Run, guest_args};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What `--help` says.
pub const USAGE: &str = "usage: cargo bench-peer [OPTIONS]\n\
    \x20 --runs N        runs of every workload on both sides, in turn; medians are compared (default 3)\n\
    \x20 --only PATTERN  workloads whose name contains this, or one of these (a,b,c)\n\
    \x20 --group G       workloads of this group of floors.toml\n\
    \x20 --quick         a tenth of the work: for development, not for figures\n\
    \x20 --tier T        our accelerator's tier: interp, jit or auto\n\
    \x20 --check         fails when something is below its floor (wrong results always fail)\n\
    \x20 --side S        runs only `ours` or `peer`, for profiles\n\
    \x20 --json FILE     writes all figures to a file\n\
    \x20 --list          names groups and workloads";

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    runs: usize,
    only: Option<String>,
    group: Option<String>,
    quick: bool,
    tier: Option<String>,
    check: bool,
    list: bool,
    side: Option<usize>,
    json: Option<PathBuf>,
}

impl Options {
    /// Reads arguments; `None` asks for the usage.
    ///
    /// # Errors
    /// An unknown or incomplete option.
    pub fn parse(args: &[&str]) -> Result<Option<Self>> {
        let mut o = Self { runs: 3, ..Self::default() };
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg {
                "--runs" => o.runs = value()?.parse().context("--runs")?,
                "--only" => o.only = Some(value()?.to_owned()),
                "--group" => o.group = Some(value()?.to_owned()),
                "--quick" => o.quick = true,
                "--check" => o.check = true,
                "--list" => o.list = true,
                "--json" => o.json = Some(value()?.into()),
                "--side" => {
                    let name = value()?;
                    o.side = Some(SIDES.iter().position(|s| *s == name).with_context(|| format!("no side {name}"))?);
                }
                "--tier" => {
                    let tier = value()?;
                    ensure!(["interp", "jit", "auto"].contains(&tier), "no tier {tier}");
                    o.tier = Some(tier.to_owned());
                }
                "--help" | "-h" => return Ok(None),
                _ => bail!("unknown option {arg}\n{USAGE}"),
            }
        }
        ensure!(o.runs > 0, "--runs needs at least one");
        ensure!(!o.check || o.side.is_none(), "--check needs both sides");
        Ok(Some(o))
    }

    fn wants(&self, group: &Group, work: &Work) -> bool {
        self.group.as_ref().is_none_or(|g| *g == group.name)
            && self.only.as_ref().is_none_or(|o| o.split(',').any(|p| work.name.contains(p)))
    }

    /// How often a workload repeats its work.
    fn count(&self, work: &Work) -> u64 {
        if self.quick { (work.count / 10).max(1) } else { work.count }
    }

    /// How long it may take.
    fn limit(&self) -> Duration {
        Duration::from_secs(if self.quick { 120 } else { 600 })
    }
}

/// Rows of `floors.toml` that are measured by booting.
pub const BOOTS: [&str; 2] = ["boot-user-space", "boot-power-off"];

/// Rows that are measured between two machines, each with its kind of link.
pub const LINKS: [(&str, &str); 2] = [("link-socket", "socket"), ("link-dgram", "dgram")];

/// What both sides run.
struct Bench<'a> {
    options: &'a Options,
    ours: &'a Path,
    peer: Peer,
    program: PathBuf,
    programs: PathBuf,
    small: Linux,
    full: Linux,
    with_devices: Linux,
    /// Port of the server for network workloads.
    server: u16,
    /// A Debian's disk, if one is booted.
    debian: Option<PathBuf>,
    /// Command lines that were printed already.
    shown: Vec<(usize, u32, Boots)>,
}

/// What a guest is booted from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Boots {
    /// The guest program alone.
    Small,
    /// With the packages' programs.
    Full,
    /// With drivers for disks and a network card.
    Devices,
    /// A Debian's disk.
    Debian,
    /// With a card on a link to another machine.
    Linked,
}

/// Runs the bench. False: something failed, or is below its floor and `--check` was given.
///
/// # Errors
/// Something is missing: packages, the guest program, `floors.toml`.
pub fn run(options: &Options, ours: &Path) -> Result<bool> {
    let plan = Plan::read()?;
    let known = options.group.as_ref().is_none_or(|g| plan.groups.iter().any(|p| p.name == *g));
    ensure!(known, "floors.toml has no group {}", options.group.as_deref().unwrap_or_default());
    let mut wanted: Vec<(&Group, &Work)> = plan.works().filter(|(g, w)| options.wants(g, w)).collect();
    // a gain needs what it is measured against
    for (g, w) in plan
        .works()
        .filter(|(g, w)| !options.wants(g, w) && wanted.iter().any(|(_, other)| other.alone.as_ref() == Some(&w.name)))
        .collect::<Vec<_>>()
    {
        wanted.insert(0, (g, w));
    }
    ensure!(!wanted.is_empty(), "no workload of floors.toml is meant");
    if options.list {
        wanted.iter().for_each(|(g, w)| println!("{:24} {}", g.name, w.name));
        return Ok(true);
    }
    let peer = packages::peer()?;
    let (program, programs) = (image::guest_program()?, packages::bench_programs()?);
    let small = Linux::amd64_from(image::small(&program)?)?;
    let full = Linux::amd64_from(image::full(&program, &programs)?)?;
    let version = Command::new(ours).arg("-version").output()?.stdout;
    let versions = [String::from_utf8_lossy(&version).lines().next().unwrap_or_default().to_owned(), peer.version()?];
    SIDES.iter().zip(&versions).for_each(|(side, version)| println!("{side}: {version}"));
    println!("{} runs{}", options.runs, if options.quick { ", a tenth of the work" } else { "" });
    let with_devices = Linux::amd64_from(devices::image()?)?;
    let server = server::start()?;
    let installed = wanted.iter().any(|(g, _)| g.machine == Machine::Debian);
    let debian = installed.then(debian::image).transpose()?;
    let shown = vec![];
    let mut bench = Bench { options, ours, peer, program, programs, small, full, with_devices, server, debian, shown };
    let mut rows: Vec<Row> = wanted.iter().map(|_| Row::default()).collect();
    for round in 0..options.runs {
        bench.boots(round, &wanted, &mut rows)?;
        let mut machines: Vec<(Machine, u32)> = wanted.iter().map(|(g, w)| (g.machine, w.cpus)).collect();
        machines.sort_unstable();
        machines.dedup();
        for machine in machines {
            match machine.0 {
                Machine::Debian | Machine::Pair => bench.alone(round, machine.0, &wanted, &mut rows)?,
                _ => bench.guests(round, machine, &wanted, &mut rows)?,
            }
        }
    }
    rows.iter_mut().for_each(compare);
    let report = Report::new(&plan, wanted.into_iter().zip(rows).map(|((g, w), r)| (g, w, r)).collect());
    println!("\n{}", report.text());
    let (failures, below) = (report.failures(), report.below());
    failures.iter().for_each(|f| println!("FAILED {f}"));
    if options.side.is_none() {
        below.iter().for_each(|b| println!("{b}"));
    }
    if let Some(path) = &options.json {
        let mut json = report.json();
        json["versions"] = versions.to_vec().into();
        json["runs"] = options.runs.into();
        json["quick"] = options.quick.into();
        json["tier"] = options.tier.clone().into();
        std::fs::write(path, serde_json::to_string_pretty(&json)? + "\n")?;
    }
    Ok(failures.is_empty() && (below.is_empty() || !options.check))
}

/// Notes results that differ from native's.
fn compare(row: &mut Row) {
    let Some(native) = row.native.first() else { return };
    for (side, runs) in SIDES.iter().zip(&row.guest) {
        if let Some(wrong) = runs.iter().find(|r| r.digest != native.digest) {
            row.failures.push(format!("{side} computed {}, native {}", wrong.digest, native.digest));
        }
    }
}

impl Bench<'_> {
    /// The sides to run in this round, the first one changing.
    fn sides(&self, round: usize) -> Vec<usize> {
        let order = if round.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        order.into_iter().filter(|s| self.options.side.is_none_or(|only| only == *s)).collect()
    }

    /// A side's program, and its accelerator.
    fn program(&self, side: usize) -> (Command, String) {
        let command = if side == 0 { Command::new(self.ours) } else { self.peer.command("qemu-system-x86_64") };
        let accel = match &self.options.tier {
            Some(tier) if side == 0 => format!("tcg,tier={tier}"),
            _ => "tcg".to_owned(),
        };
        (command, accel)
    }

    fn command(&mut self, side: usize, cpus: u32, linux: &Linux, boots: Boots, devices: Option<&Devices>) -> Command {
        let (mut command, accel) = self.program(side);
        let settings = devices.map(Devices::settings).unwrap_or_default();
        command.args(guest_args(linux, &settings, cpus, &accel));
        command.args(devices.map(Devices::args).unwrap_or_default());
        self.show(side, cpus, boots, command)
    }

    /// Prints a command line, once for each kind.
    fn show(&mut self, side: usize, cpus: u32, boots: Boots, command: Command) -> Command {
        if !self.shown.contains(&(side, cpus, boots)) {
            self.shown.push((side, cpus, boots));
            let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
            let quoted = words
                .iter()
                .map(|w| w.to_string_lossy())
                .map(|w| if w.contains(' ') { format!("'{w}'") } else { w.into_owned() });
            println!("{}: {}", SIDES[side], quoted.collect::<Vec<_>>().join(" "));
        }
        command
    }

    /// Boots of the small image.
    fn boots(&mut self, round: usize, wanted: &[(&Group, &Work)], rows: &mut [Row]) -> Result<()> {
        let at = BOOTS.map(|name| wanted.iter().position(|(_, w)| w.name == name));
        if at == [None, None] {
            return Ok(());
        }
        for side in self.sides(round) {
            let command = self.command(side, 1, &self.small.clone(), Boots::Small, None);
            let runs = Booted::start(command).and_then(|(booted, up)| Ok([up, booted.off()?]));
            for (i, at) in at.iter().enumerate() {
                let Some(row) = at.and_then(|at| rows.get_mut(at)) else { continue };
                match &runs {
                    Ok(runs) => {
                        progress(BOOTS[i], SIDES[side], &runs[i]);
                        row.guest[side].push(runs[i].clone());
                    }
                    Err(e) => row.failures.push(format!("{}: {e:#}", SIDES[side])),
                }
            }
        }
        Ok(())
    }

    /// Workloads that have machines of their own.
    fn alone(&mut self, round: usize, machine: Machine, wanted: &[(&Group, &Work)], rows: &mut [Row]) -> Result<()> {
        for ((_, work), row) in wanted.iter().zip(rows).filter(|((g, _), _)| g.machine == machine) {
            let link = LINKS.iter().find(|(name, _)| *name == work.name).map(|(_, transport)| *transport);
            let (image, count) = (self.debian.clone(), self.options.count(work));
            for side in self.sides(round) {
                let boots = if link.is_some() { Boots::Linked } else { Boots::Debian };
                let start = |args: &[String]| {
                    let (mut command, accel) = self.program(side);
                    command.args(args).args(["-accel", &accel]);
                    self.show(side, 1, boots, command)
                };
                let run = match (link, &image) {
                    (Some(transport), _) => network::speed(start, transport, count),
                    (None, Some(image)) if work.name == installed::NAME => installed::boot(image, start),
                    _ => bail!("nobody knows how to run {}", work.name),
                };
                match run {
                    Ok(run) => {
                        progress(&work.name, SIDES[side], &run);
                        row.guest[side].push(run);
                    }
                    Err(e) => row.failures.push(format!("{}: {e:#}", SIDES[side])),
                }
            }
        }
        Ok(())
    }

    /// One guest of each side on such a machine, up at once; each workload runs in one after the other.
    fn guests(
        &mut self,
        round: usize,
        machine: (Machine, u32),
        wanted: &[(&Group, &Work)],
        rows: &mut [Row],
    ) -> Result<()> {
        let mut booted: [Option<Booted>; 2] = [None, None];
        let mut devices: [Option<Devices>; 2] = [None, None];
        let mut native = Native::start(&self.program, Some(&self.programs), Some(self.server))?;
        let mine = wanted
            .iter()
            .zip(rows)
            .filter(|((g, w), _)| (g.machine, w.cpus) == machine && !BOOTS.contains(&w.name.as_str()));
        for (i, ((group, work), row)) in mine.enumerate() {
            let count = self.options.count(work);
            // what is elapsed time is compared with native's of the same minutes
            if round == 0 || group.measure != Measure::Cpu {
                match native.run(&work.name, count) {
                    Ok(run) => {
                        progress(&work.name, "native", &run);
                        row.native.push(run);
                    }
                    Err(e) => row.failures.push(format!("{e:#}")),
                }
            }
            for side in self.sides(round + i) {
                if booted[side].is_none() {
                    let (linux, boots) = if machine.0 == Machine::Devices {
                        devices[side] = Some(Devices::new(&self.peer, self.server)?);
                        (self.with_devices.clone(), Boots::Devices)
                    } else {
                        (self.full.clone(), Boots::Full)
                    };
                    match Booted::start(self.command(side, machine.1, &linux, boots, devices[side].as_ref())) {
                        Ok((guest, _)) => booted[side] = Some(guest),
                        Err(e) => row.failures.push(format!("{}: {e:#}", SIDES[side])),
                    }
                }
                let Some(guest) = &mut booted[side] else { continue };
                match guest.run(&work.name, count, self.options.limit()) {
                    Ok(run) => {
                        progress(&work.name, SIDES[side], &run);
                        row.guest[side].push(run);
                    }
                    Err(e) => {
                        eprintln!("{:16} {:6} FAILED: {e:#}", work.name, SIDES[side]);
                        row.failures.push(format!("{}: {e:#}", SIDES[side]));
                        // whatever state it is in, the next workload gets a new one
                        booted[side] = None;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Shows that something happens.
fn progress(name: &str, side: &str, run: &Run) {
    eprintln!("{name:16} {side:6} {:9.3} s processor time, {:9.3} s", run.cpu, run.wall);
}
