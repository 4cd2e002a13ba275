//! One script of device accesses on our binary and on the peer, every answer compared.
//!
//! Scripts are `tests/qtest/NAME.qts` ([`script`] says what they are written in). `tests/golden/qtest-differences.txt`
//! names the answers that may differ ([`golden`]); a difference that it does not name, and a line of it that no longer
//! happens, are failures.

pub mod golden;
pub mod script;

use crate::packages::{self, Peer};
use crate::process;
use crate::qtest::Qtest;
use anyhow::{Context, Result, bail, ensure};
use golden::Allowed;
use script::{Script, Step};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The machine of every script, on both sides; `#!` lines add to it.
const MACHINE: [&str; 7] =
    ["-machine", "pc-i440fx-11.1", "-nodefaults", "-m", "128", "-rtc", "base=2020-01-01T00:00:00,clock=vm"];
/// What a script must at least read and write.
const MIN_ACCESSES: usize = 200;

/// Where scripts and golden files are.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// One script's outcome.
struct Outcome {
    accesses: usize,
    /// Differences nobody allowed, and lines that both sides refuse.
    faults: Vec<String>,
    /// Indices of the golden lines that were met.
    used: HashSet<usize>,
}

/// Runs the scripts named (all, if none are) on both sides; prints a line for each.
///
/// # Errors
/// A script or the golden file is wrong, the peer cannot be fetched, or the two sides differ: all differences are listed.
pub fn run(names: &[&str]) -> Result<()> {
    let peer = packages::peer()?;
    let allowed = golden::load(&folder("golden/qtest-differences.txt"))?;
    let all = scripts()?;
    for a in &allowed {
        ensure!(all.contains(&a.script), "qtest-differences.txt names script '{}', which does not exist", a.script);
    }
    let chosen: Vec<String> = if names.is_empty() { all } else { names.iter().map(ToString::to_string).collect() };
    let mut faults = String::new();
    for name in &chosen {
        let path = folder("qtest").join(name).with_extension("qts");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let script = script::parse(&text).with_context(|| format!("script {name}"))?;
        let outcome = compare(name, &script, &peer, &allowed);
        println!("{name}: {} accesses, {} faults", outcome.accesses, outcome.faults.len());
        let mut fault = |text: &str| {
            let _ = writeln!(faults, "{name}:{text}");
        };
        outcome.faults.iter().for_each(|f| fault(f));
        if outcome.accesses < MIN_ACCESSES {
            fault(&format!(" only {} accesses of {MIN_ACCESSES}", outcome.accesses));
        }
        for (_, a) in allowed.iter().enumerate().filter(|(i, a)| a.script == *name && !outcome.used.contains(i)) {
            fault(&format!(" '{}' no longer differs as qtest-differences.txt says: delete the line", a.command));
        }
    }
    if !faults.is_empty() {
        bail!("the two sides differ:\n{faults}");
    }
    println!("{} scripts, {} differences allowed of {}", chosen.len(), allowed.len(), golden::MAX);
    Ok(())
}

fn scripts() -> Result<Vec<String>> {
    let entries = fs::read_dir(folder("qtest"))?.filter_map(|e| Some(e.ok()?.path()));
    let scripts = entries.filter(|p| p.extension().is_some_and(|e| e == "qts"));
    let mut names: Vec<String> = scripts.filter_map(|p| Some(p.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

fn compare(name: &str, script: &Script, peer: &Peer, allowed: &[Allowed]) -> Outcome {
    let start = |mut command: Command| {
        // QEMU would write the conversation to its standard error, which nobody reads.
        command.args(["-qtest-log", "none"]).args(MACHINE);
        Qtest::start_command(command, &script.args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut own = Command::new(process::binary());
    // The same firmware images: scripts read them.
    peer.data_folders().iter().for_each(|f| _ = own.arg("-L").arg(f));
    let (mut own, mut peer) = (start(own), start(peer.command("qemu-system-x86_64")));
    let mut outcome = Outcome { accesses: 0, faults: vec![], used: HashSet::new() };
    for Step { line, command } in &script.steps {
        outcome.accesses += usize::from(is_access(command));
        let (ours, theirs) = (answer(&mut own, command), answer(&mut peer, command));
        if ours == theirs {
            if ours.contains("FAIL") {
                outcome.faults.push(format!("{line}: {command}: {ours}"));
            }
        } else if let Some(i) = allowed.iter().position(|a| a.matches(name, command, &ours, &theirs)) {
            outcome.used.insert(i);
        } else {
            outcome.faults.push(format!("{line}: {command} | ours {ours} | peer {theirs}"));
        }
    }
    outcome
}

/// Everything that a command makes the machine say: interrupt reports, then the answer.
fn answer(machine: &mut Qtest, command: &str) -> String {
    let answer = machine.raw(command);
    let mut text = String::new();
    for (line, level) in machine.take_changes() {
        let _ = write!(text, "IRQ {} {line}, ", if level { "raise" } else { "lower" });
    }
    text + &answer
}

fn is_access(command: &str) -> bool {
    let word = command.split(' ').next().unwrap_or_default();
    ["in", "out", "read", "write"].iter().any(|verb| {
        let width = word.strip_prefix(verb);
        width.is_some_and(|w| w.is_empty() || matches!(w, "b" | "w" | "l" | "q"))
    })
}
