//! The contract of `tests::contract` over every device type that is linked in.

use qom::Class;
use tests::contract::check::{Effort, check_type};
use tests::contract::soak::{full_board, whole_board, within_limit};
use tests::contract::{dma, lifetime, types};

/// Calls `f` with every type; the test fails with all that fail. `CONTRACT_TYPE` in the environment repeats one of them.
fn with_all(wanted: impl Fn(&Class) -> bool, f: impl Fn(&'static Class) -> Result<(), String>) {
    let only = std::env::var("CONTRACT_TYPE").ok();
    let all = types::all().into_iter().filter(|c| wanted(c) && only.as_deref().is_none_or(|o| o == c.name()));
    let failed: Vec<String> = all.filter_map(|c| f(c).err().map(|e| format!("{}: {e}\n", c.name()))).collect();
    assert!(failed.is_empty(), "{} types fail:\n{}", failed.len(), failed.join("\n"));
}

/// The contract, with the seed of `CONTRACT_SEED` or the given one.
fn check_all(wanted: impl Fn(&Class) -> bool, effort: Effort) {
    let seed = std::env::var("CONTRACT_SEED").ok().map_or(effort.seed, |s| s.parse().expect("a number"));
    let effort = Effort { seed, ..effort };
    with_all(wanted, |c| within_limit(move || check_type(c, effort)).map_err(|e| format!("seed {seed}: {e}")));
}

const DEVICES: Effort = Effort { seed: 1, rounds: 3, steps: 500 };

#[test]
fn devices_on_pci_keep_the_contract() {
    check_all(|c| c.is_a("pci-device"), DEVICES);
}

#[test]
fn other_devices_keep_the_contract() {
    check_all(|c| !c.is_a("pci-device") && !types::is_cpu(c), DEVICES);
}

#[test]
fn cpu_models_keep_the_contract() {
    check_all(types::is_cpu, Effort { seed: 1, rounds: 1, steps: 50 });
}

#[test]
fn what_is_plugged_in_comes_out_again() {
    let plugged = std::cell::Cell::new(0);
    // CPU models share their code: one stands for all.
    let wanted = |c: &Class| !types::is_cpu(c) || c.name() == "qemu64-x86_64-cpu";
    with_all(wanted, |c| {
        plugged.set(plugged.get() + i32::from(lifetime::hotplug(c)?));
        Ok(())
    });
    assert!(plugged.get() > 0 || std::env::var("CONTRACT_TYPE").is_ok());
}

#[test]
fn what_is_unrealized_leaves_nothing() {
    with_all(|_| true, |c| lifetime::unrealize(c).map(drop));
}

#[test]
fn the_whole_board_keeps_the_contract() {
    for seed in 1..=2 {
        whole_board(seed, 2500).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn dma_is_aimed_at_registers() {
    let board = full_board().unwrap();
    dma::fw_cfg_meets_every_register(&board).unwrap();
    dma::hpet_messages_meet_every_register(&board).unwrap();
}
