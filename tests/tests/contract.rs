//! The contract of `tests::contract` over every device type that is linked in.

use qom::Class;
use tests::contract::check::{Effort, check_type};
use tests::contract::types;

/// Checks every type `wanted` accepts; the test fails with all that fail. `CONTRACT_TYPE` and `CONTRACT_SEED` in the environment
/// repeat one of them.
fn check_all(wanted: impl Fn(&Class) -> bool, effort: Effort) {
    let only = std::env::var("CONTRACT_TYPE").ok();
    let seed = std::env::var("CONTRACT_SEED").ok().map_or(effort.seed, |s| s.parse().expect("a number"));
    let effort = Effort { seed, ..effort };
    let mut failed = vec![];
    for class in types::all().into_iter().filter(|c| wanted(c)) {
        if only.as_deref().is_none_or(|o| o == class.name())
            && let Err(e) = check_type(class, effort)
        {
            failed.push(format!("{}: {e}\n", class.name()));
        }
    }
    assert!(failed.is_empty(), "seed {seed}: {} types fail:\n{}", failed.len(), failed.join("\n"));
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
