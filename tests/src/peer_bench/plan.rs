//! What is measured and what must come out: `floors.toml`.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// How a workload's figures are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Peer's processor time by ours.
    Cpu,
    /// Peer's elapsed time by ours: where the host does the work on threads of its own.
    Wall,
    /// Our gain from several CPUs by native's; single workloads: peer's wall time by ours.
    Share,
}

/// What the guest of a workload has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// Programs, no device.
    Plain,
    /// Disks and a network card: [`super::devices`].
    Devices,
    /// A Debian on its disk: [`super::installed`].
    Debian,
    /// Two machines whose cards are joined: [`crate::network::speed`].
    Pair,
}

/// One workload: a line of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Its name in the guest program, or `boot-…`.
    pub name: String,
    /// How often its piece of work is repeated.
    pub count: u64,
    /// Processors of the guest.
    pub cpus: u32,
    /// The same work on one processor, for its gain.
    pub alone: Option<String>,
}

/// A group of workloads and its floor.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name for `--group`.
    pub name: String,
    /// What it is called in the report.
    pub title: String,
    /// How its figure is made.
    pub measure: Measure,
    /// Where its workloads run.
    pub machine: Machine,
    /// Most percent of a host core that ours may use meanwhile.
    pub most: Option<f64>,
    /// Below this is a failure.
    pub floor: f64,
    /// What is aimed at.
    pub goal: f64,
    /// The workloads.
    pub works: Vec<Work>,
}

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Floor of every single workload.
    pub any: f64,
    /// The groups, as they stand in the file.
    pub groups: Vec<Group>,
}

/// Where the file is.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../floors.toml")
}

impl Plan {
    /// Reads `floors.toml`.
    ///
    /// # Errors
    /// It is missing or not what it should be.
    pub fn read() -> Result<Plan> {
        let text = std::fs::read_to_string(path()).context("floors.toml")?;
        Plan::parse(&text).context("floors.toml")
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// It is not TOML, a key is missing, of the wrong type or unknown, or a workload stands there twice.
    pub fn parse(text: &str) -> Result<Plan> {
        let mut file: Table = text.parse()?;
        let mut any = table(&mut file, "any")?;
        let list = table(&mut file, "group")?;
        let groups = list.into_iter().map(|(name, v)| group(name, v)).collect::<Result<_>>()?;
        let plan = Plan { any: number(&mut any, "floor")?, groups };
        nothing_left("the file", &file)?;
        nothing_left("any", &any)?;
        let mut names: Vec<&str> = plan.works().map(|(_, w)| w.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            bail!("{} stands there twice", twice[0]);
        }
        for (_, w) in plan.works() {
            let Some(alone) = &w.alone else { continue };
            let other = plan
                .works()
                .find(|(_, o)| o.name == *alone)
                .with_context(|| format!("{}: no workload {alone}", w.name))?;
            let same = (other.1.count, other.1.cpus) == (w.count, w.cpus);
            ensure!(same, "{} and {alone} must have the same count and cpus", w.name);
        }
        Ok(plan)
    }

    /// Every workload with its group.
    pub fn works(&self) -> impl Iterator<Item = (&Group, &Work)> {
        self.groups.iter().flat_map(|g| g.works.iter().map(move |w| (g, w)))
    }
}

fn group(name: String, value: Value) -> Result<Group> {
    let Value::Table(mut t) = value else { bail!("group.{name} is not a table") };
    let measure = match t.remove("measure") {
        None => Measure::Cpu,
        Some(Value::String(s)) if s == "share" => Measure::Share,
        Some(Value::String(s)) if s == "wall" => Measure::Wall,
        Some(other) => bail!("group.{name}: measure = {other:?}"),
    };
    let machine = match t.remove("machine") {
        None => Machine::Plain,
        Some(Value::String(s)) if s == "devices" => Machine::Devices,
        Some(Value::String(s)) if s == "debian" => Machine::Debian,
        Some(Value::String(s)) if s == "pair" => Machine::Pair,
        Some(other) => bail!("group.{name}: machine = {other:?}"),
    };
    let most = if t.contains_key("most") { Some(number(&mut t, "most")?) } else { None };
    let title = match t.remove("title") {
        Some(Value::String(s)) => s,
        _ => bail!("group.{name}: title"),
    };
    let works = table(&mut t, "work")?.into_iter().map(|(w, v)| work(w, v)).collect::<Result<Vec<_>>>()?;
    ensure!(!works.is_empty(), "group.{name} is empty");
    let (floor, goal) = (number(&mut t, "floor")?, number(&mut t, "goal")?);
    let group = Group { name, title, measure, machine, most, floor, goal, works };
    nothing_left(&group.name, &t)?;
    Ok(group)
}

fn work(name: String, value: Value) -> Result<Work> {
    let whole = |v: Value| match v {
        Value::Integer(i) if i > 0 => Ok(i as u64),
        other => bail!("{other:?} is not a count"),
    };
    match value {
        Value::Table(mut t) => {
            let count = whole(t.remove("count").with_context(|| format!("{name}: count"))?)?;
            let cpus = t.remove("cpus").map_or(Ok(1), whole)?.try_into()?;
            let alone = match t.remove("alone") {
                None => None,
                Some(Value::String(s)) => Some(s),
                Some(other) => bail!("{name}: alone = {other:?}"),
            };
            nothing_left(&name, &t)?;
            Ok(Work { name, count, cpus, alone })
        }
        count => Ok(Work { count: whole(count).with_context(|| name.clone())?, cpus: 1, alone: None, name }),
    }
}

fn table(from: &mut Table, key: &str) -> Result<Table> {
    match from.remove(key) {
        Some(Value::Table(t)) => Ok(t),
        _ => bail!("no table {key}"),
    }
}

fn number(from: &mut Table, key: &str) -> Result<f64> {
    match from.remove(key) {
        Some(Value::Integer(i)) => Ok(i as f64),
        Some(Value::Float(f)) => Ok(f),
        _ => bail!("no number {key}"),
    }
}

fn nothing_left(place: &str, table: &Table) -> Result<()> {
    match table.keys().next() {
        None => Ok(()),
        Some(key) => bail!("{place}: unknown key {key}"),
    }
}
