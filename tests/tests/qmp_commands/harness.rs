//! Machines for the rows, and what rows are.

use serde_json::{Value, json};
use tests::packages;
use tests::qmp::Qmp;

/// `-L` with SeaBIOS, which the board loads even if nothing runs it.
pub(super) fn firmware() -> String {
    let bios = packages::seabios().expect("SeaBIOS can be fetched");
    let folder = if bios.is_dir() { bios.as_path() } else { bios.parent().expect("a folder") };
    folder.to_str().expect("a plain path").to_owned()
}

/// The default machine with its firmware, but no guest code runs.
pub(super) fn pc(args: &[&str]) -> Qmp {
    let folder = firmware();
    let own = ["-accel", "qtest", "-display", "none", "-L", folder.as_str()];
    Qmp::start(&[args, &own].concat())
}

pub(super) fn path(q: &Qmp, name: &str) -> String {
    q.dir().join(name).to_str().expect("a plain path").to_owned()
}

pub(super) fn names(v: &Value) -> Vec<&str> {
    v.as_array().expect("a list").iter().map(|e| e["name"].as_str().expect("a name")).collect()
}

pub(super) fn find<'a>(v: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = v.as_array().expect("a list").iter().find(|e| e[key] == value);
    found.unwrap_or_else(|| panic!("no {key} {value} in {v}"))
}

/// Writes a byte or word of the PCI configuration space of 00:01.3, the power management function.
pub(super) fn pm_config(q: &mut Qmp, register: u32, format: &str, value: u32) {
    q.hmp(&format!("o /w 0xcf8 {:#x}", 0x8000_0b00 | (register & !3)));
    q.hmp(&format!("o /{format} {:#x} {value:#x}", 0xcfc + (register & 3)));
}

/// Sends the machine to sleep as an operating system does: SLP_TYP 1 (S3) and SLP_EN in PM1a_CNT.
pub(super) fn suspend(q: &mut Qmp) {
    pm_config(q, 0x40, "w", 0x601); // PMBA
    pm_config(q, 0x80, "b", 1); // PMREGMISC.PMIOSE
    q.hmp("o /h 0x604 0x2400");
    q.event("SUSPEND");
}

/// Has the PS/2 mouse report.
pub(super) fn mouse_on(q: &mut Qmp) {
    q.hmp("o /b 0x64 0xd4");
    q.hmp("o /b 0x60 0xf4");
    assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0xfa\r\n");
}

/// A CPU to plug, with id `c1`, into `-smp 1,maxcpus=2`.
pub(super) fn second_cpu() -> Value {
    json!({"driver": "qemu64-x86_64-cpu", "id": "c1", "socket-id": 0, "core-id": 1, "thread-id": 0})
}

/// The same in the human monitor.
pub(super) const PLUG: &str = "device_add qemu64-x86_64-cpu,id=c1,socket-id=0,core-id=1,thread-id=0";

macro_rules! rows {
    ($names:ident, $q:ident, $machine:expr, $done:expr; $($test:ident = $name:literal: $run:block)*) => {
        pub(super) const $names: &[&str] = &[$($name),*];
        $(#[test]
        fn $test() {
            let mut machine = $machine;
            let $q = &mut machine;
            $run
            assert!($done($q, $name), "{} was never seen to work", $name);
        })*
    };
}

/// Whether the human monitor's command was run without an error: the rows check what it printed.
pub(super) fn printed(_: &mut Qmp, _: &str) -> bool {
    true
}
