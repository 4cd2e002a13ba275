//! The contract can fail: devices with one deliberate fault each, and what the check says of them. They live in this binary only,
//! so that no list of types contains them elsewhere.

use hw_core::{DeviceClass, DeviceImpl, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes};
use parking_lot::Mutex;
use qom::{Class, ObjRef, Object, Registry, Result, TypeInfo};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use tests::contract::check::{Effort, check_type};

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// Its second register is not in the saved state.
    Forgets,
    /// A loaded state does not reach the memory map.
    Unmapped,
    /// Each reset counts.
    Counts,
    /// A rare value is too much for it.
    Panics,
    /// It holds on to itself.
    Leaks,
}

const TYPES: [(&str, Fault); 6] = [
    ("faulty-not", Fault::None),
    ("faulty-forgets", Fault::Forgets),
    ("faulty-unmapped", Fault::Unmapped),
    ("faulty-counts", Fault::Counts),
    ("faulty-panics", Fault::Panics),
    ("faulty-leaks", Fault::Leaks),
];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Regs {
    first: u8,
    second: u8,
    resets: u32,
}

/// Two registers at 0x2f0, a window at 0x2f8 that bit 0 of the first opens.
#[derive(Object)]
#[qom(name = "faulty-device", parent = IsaDevice, abstract, methods(DeviceClass))]
struct Faulty {
    parent: IsaDevice,
    #[state]
    regs: MachineCell<Regs>,
    outside: Mutex<u8>,
    itself: Mutex<Option<ObjRef>>,
    window: OnceLock<MemoryRegion>,
}

qom::register!(|r| {
    for (name, fault) in TYPES {
        r.add(TypeInfo::of::<Faulty>(name).class_data(fault));
    }
});

impl Faulty {
    fn fault(&self) -> Fault {
        self.class().data::<Fault>().map_or(Fault::None, |f| *f)
    }

    fn read(&self, m: &mut Locked, off: u64, _: u32) -> u64 {
        match (off, self.fault()) {
            (0, _) => self.regs.ro(m).first.into(),
            (_, Fault::Forgets) => (*self.outside.lock()).into(),
            _ => self.regs.ro(m).second.into(),
        }
    }

    fn write(&self, m: &mut Locked, off: u64, _: u32, val: u64) {
        match (off, self.fault()) {
            (0, Fault::Panics) => assert_ne!(val, 0xff, "a deliberate fault"),
            (0, _) => {
                self.regs.rw(m).first = val as u8;
                self.map(m);
            }
            (_, Fault::Forgets) => *self.outside.lock() = val as u8,
            _ => self.regs.rw(m).second = val as u8,
        }
    }

    fn map(&self, m: &mut Locked) {
        let on = self.regs.ro(m).first & 1 != 0;
        if let Some(w) = self.window.get() {
            w.set_enabled(m, on);
        }
    }
}

impl DeviceImpl for Faulty {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let ops = || Ops { read: Self::read, write: Self::write, imp: Sizes::new(1, 1), ..Ops::default() };
        self.map_io(m, 0x2f0, &MemoryRegion::io(self, "faulty", 2, ops()))?;
        let window = MemoryRegion::io(self, "faulty-window", 2, ops());
        window.set_enabled(m, false);
        self.map_io(m, 0x2f8, &window)?;
        _ = self.window.set(window);
        if self.fault() == Fault::Leaks {
            *self.itself.lock() = Some(self.object());
        }
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            let resets = self.regs.ro(m).resets + u32::from(self.fault() == Fault::Counts);
            *self.regs.rw(m) = Regs { resets, ..Regs::default() };
            *self.outside.lock() = 0;
            self.map(m);
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.fault() != Fault::Unmapped {
            self.map(m);
        }
        Ok(())
    }
}

fn verdict(name: &str) -> Result<(), String> {
    let class: &'static Class = Registry::global().class(name).unwrap();
    check_type(class, Effort { seed: 1, rounds: 4, steps: 200 })
}

#[track_caller]
fn fails(name: &str, because: &str) {
    let said = verdict(name).unwrap_err();
    assert!(said.contains(because), "{said}");
}

#[test]
fn a_device_without_fault_passes() {
    assert_eq!(verdict("faulty-not"), Ok(()));
}

#[test]
fn state_missing_from_the_saved_struct_is_found() {
    fails("faulty-forgets", "of the same accesses differs");
}

#[test]
fn a_mapping_that_does_not_follow_the_state_is_found() {
    fails("faulty-unmapped", "mapping");
}

#[test]
fn a_reset_that_counts_is_found() {
    fails("faulty-counts", "reset changes the state");
}

#[test]
fn a_panic_is_found_and_named() {
    fails("faulty-panics", "a deliberate fault");
}

#[test]
fn a_device_that_never_dies_is_found() {
    fails("faulty-leaks", "outlive the machine");
}
