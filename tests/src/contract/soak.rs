//! The whole board at once under random accesses: all ports, all memory-mapped registers, all configuration spaces, keys, mouse and
//! clock. `cargo test` runs a few seeds, `cargo xtask soak accesses` as many as there is time for.

use super::board::Board;
use super::check::{Effort, check, check_type, ends};
use super::traffic::Target;
use super::types;
use hw_core::DeviceClass;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest time one check may take before it counts as hanging; generous, for busy machines.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs `f` in a thread of its own.
///
/// # Errors
/// What `f` says, or that it does not end.
pub fn within_limit(f: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(tell.send(f())));
    match told.recv_timeout(LIMIT) {
        Ok(result) => {
            drop(thread.join());
            result
        }
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("no end within {LIMIT:?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the check panicked".into()),
    }
}

/// A `pc` with everything on it that a user can plug into its PCI bus and its ports.
///
/// # Errors
/// As start-up.
pub fn full_board() -> Result<Board, String> {
    let mut args: Vec<String> = ["-serial", "null", "-parallel", "null", "-debugcon", "null"]
        .into_iter()
        // Little video memory, because every snapshot copies it.
        .chain(["-device", "isa-debug-exit", "-device", "VGA,vgamem_mb=1"])
        // What the guest ejects would be missing afterwards; the registers for that are among those of the plain board.
        .chain(["-global", "PIIX4_PM.acpi-root-pci-hotplug=off"])
        .map(str::to_owned)
        .collect();
    let plain = Board::pc(&[])?;
    let extra = types::all().into_iter().filter(|c| {
        let creatable = c.get::<DeviceClass>().is_some_and(|d| d.user_creatable);
        // A bus has not places for all: virtio types that differ in the registers they show are checked alone.
        let once = c.name() != "VGA" && !c.name().ends_with("-transitional");
        creatable && c.is_a("pci-device") && once && plain.devices_of(c.name()).is_empty()
    });
    for (n, class) in extra.enumerate() {
        // Each with things of its own: what one calls `x` is `xN` here.
        let (needed, props) = types::needs(class.name());
        let own = |text: &str| if text == "x" { format!("x{n}") } else { text.replace("id=x", &format!("id=x{n}")) };
        args.extend(needed.iter().map(|a| own(a)));
        let props: String = props.iter().map(|(k, v)| format!(",{k}={}", own(v))).collect();
        args.extend(["-device".to_owned(), format!("{}{props}", class.name())]);
    }
    Board::pc(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The contract for the whole board, with one seed.
///
/// # Errors
/// What is wrong; the seed is named.
pub fn whole_board(seed: u64, steps: usize) -> Result<(), String> {
    let checked = within_limit(move || {
        let board = full_board()?;
        check(&board, &Target::Everything, Effort { seed, rounds: 1, steps })?;
        ends(board)
    });
    checked.map_err(|e| format!("seed {seed}: {e}"))
}

/// [`whole_board`] for `time`, then every type, with one seed after another from `seed` on; `progress` is told each.
///
/// # Errors
/// The first seed that fails.
pub fn soak(seed: u64, time: Duration, mut progress: impl FnMut(u64)) -> Result<(), String> {
    let start = Instant::now();
    for seed in seed.. {
        progress(seed);
        whole_board(seed, 20_000)?;
        for class in types::all().into_iter().filter(|c| !types::is_cpu(c)) {
            let effort = Effort { seed, rounds: 3, steps: 2000 };
            within_limit(move || check_type(class, effort))
                .map_err(|e| format!("seed {seed}: {}: {e}", class.name()))?;
            if start.elapsed() >= time {
                return Ok(());
            }
        }
    }
    Ok(())
}
