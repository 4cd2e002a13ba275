//! The contract: what holds for a device of any type.

use super::board::{Board, Snapshot, differences};
use super::rng::Rng;
use super::traffic::{Event, Target, Traffic};
use super::types;
use hw_core::Device;
use hw_core::qdev::reset_object;
use qom::{Class, Ref};
use serde_json::Value;

/// How much is done, and how it is repeated.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Decides everything random.
    pub seed: u64,
    /// How often the state is saved and restored.
    pub rounds: usize,
    /// Steps of each of the three runs of traffic in a round.
    pub steps: usize,
}

/// Creates a device of the type, checks it, and ends its machine.
///
/// # Errors
/// What the contract finds wrong, as text.
pub fn check_type(class: &'static Class, effort: Effort) -> Result<(), String> {
    let (board, devices) = match types::create(class) {
        Err(e) if types::is_refused(class, &e) => return Ok(()),
        created => created?,
    };
    let target = Target::Devices(devices);
    check(&board, &target, effort)?;
    drop(target);
    ends(board)
}

/// Ends a machine of which nothing may be left.
///
/// # Errors
/// The objects that outlive it.
pub fn ends(board: Board) -> Result<(), String> {
    match board.end() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("outlive the machine: {}", left.join(", "))),
    }
}

/// Checks `target` on `board`, a machine just built.
///
/// # Errors
/// What the contract finds wrong, as text.
pub fn check(board: &Board, target: &Target, effort: Effort) -> Result<(), String> {
    let rng = Rng::new(effort.seed);
    let (created, started) = (board.state()?, board.core().clocks.now());
    resets_change_nothing(board, target, "after creation")?;
    same_state(&created, &board.state()?, "two resets after creation change the state")?;

    types::map_functions(board, target);
    let traffic = Traffic::new(board, target, rng.fork("memory"));
    if traffic.reach() == 0 && !types::has_no_registers(target) {
        return Err("it has no registers to access".into());
    }
    traffic.fill_memory();
    for n in 0..effort.rounds {
        round(board, target, &rng.fork(&format!("round {n}")), effort.steps).map_err(|e| format!("round {n}: {e}"))?;
    }

    resets_change_nothing(board, target, "after accesses")?;
    board.locked(|m| m.clock.restore(started));
    board.reset();
    let mut reset = board.state()?;
    types::keep_what_survives(board, &created, &mut reset);
    same_state(&created, &reset, "after accesses and a system reset, the state is not the one after creation")
}

/// Save, disturb, restore: equal as data, and equal in what the same accesses see afterwards.
fn round(board: &Board, target: &Target, rng: &Rng, steps: usize) -> Result<(), String> {
    let run = |name: &str, look: bool| {
        let mut traffic = Traffic::new(board, target, rng.fork(name));
        if look {
            traffic.sweep();
        }
        traffic.run(steps).map_err(|e| format!("{name}: {e}"))
    };
    run("before", false)?;
    let saved = board.snapshot()?;
    let first = run("compared", true)?;
    let end = board.snapshot()?;
    run("disturbance", false)?;

    board.restore(&saved).map_err(|e| format!("the state it saved itself is refused: {e}"))?;
    no_difference(&saved, &board.snapshot()?, "saved, disturbed, restored and saved again, the state differs")?;
    let again = run("compared", true)?;
    same_events(&first, &again)?;
    no_difference(&end, &board.snapshot()?, "after the same accesses from the same state, the state differs")
}

fn no_difference(old: &Snapshot, new: &Snapshot, what: &str) -> Result<(), String> {
    report(&old.differences(new), what)
}

fn same_state(old: &Value, new: &Value, what: &str) -> Result<(), String> {
    report(&differences(old, new), what)
}

/// An error that shows the first of what was found.
fn report(found: &[String], what: &str) -> Result<(), String> {
    if found.is_empty() {
        return Ok(());
    }
    Err(format!("{what}, {} places:\n  {}", found.len(), found[..found.len().min(12)].join("\n  ")))
}

fn same_events(first: &[Event], again: &[Event]) -> Result<(), String> {
    let Some(at) = first.iter().zip(again).position(|(a, b)| a != b) else {
        return if first.len() == again.len() { Ok(()) } else { Err("the second run saw more or less".into()) };
    };
    let before = &first[at.saturating_sub(8)..at];
    Err(format!(
        "restored, event {at} of the same accesses differs: first {:x?}, now {:x?}\n  after {before:x?}",
        first[at], again[at]
    ))
}

/// The second of two resets leaves everything as it is: those of the devices alone, and the system's.
fn resets_change_nothing(board: &Board, target: &Target, when: &str) -> Result<(), String> {
    let alone = || {
        if let Target::Devices(devices) = target {
            board.locked(|m| devices.iter().for_each(|d: &Ref<Device>| reset_object(&d.object(), m)));
        }
    };
    let resets: [(&str, &dyn Fn()); 2] = [("device", &alone), ("system", &|| board.reset())];
    for (name, reset) in resets {
        reset();
        let once = board.state()?;
        reset();
        same_state(&once, &board.state()?, &format!("{when}, the second {name} reset changes the state"))?;
    }
    Ok(())
}
