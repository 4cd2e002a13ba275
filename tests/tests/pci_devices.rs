//! The PCI devices for tests and teaching, through configuration space and BARs, as a driver finds them.

use serde_json::json;
use tests::{builtin_guest, qmp::Qmp, qtest::Qtest};

/// Configuration space of function 0 in `slot` of bus 0.
fn config(slot: u32, at: u32) -> u32 {
    0x8000_0000 | slot << 11 | at
}
fn config_read(q: &mut Qtest, slot: u32, at: u32) -> u32 {
    q.out(0xcf8, 4, config(slot, at));
    q.inp(0xcfc, 4)
}
fn config_write(q: &mut Qtest, slot: u32, at: u32, val: u32) {
    q.out(0xcf8, 4, config(slot, at));
    q.out(0xcfc, 4, val);
}

/// A `pc` with a device at slot 5; it needs some firmware, which never runs.
fn pc(device: &str) -> (Qtest, tempfile::TempDir) {
    let (dir, bios) = firmware();
    let q = Qtest::start(&["-nodefaults", "-m", "64", "-bios", &bios, "-device", &format!("{device},addr=5")]);
    (q, dir)
}
fn firmware() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rom");
    std::fs::write(&path, builtin_guest::rom().expect("assembles")).expect("write");
    let path = path.to_str().expect("UTF-8").to_owned();
    (dir, path)
}

const BAR: u64 = 0xfea0_0000;
const PORTS: u16 = 0xc000;

/// Memory, ports and bus mastering on, with BAR 0 at `BAR` and BAR 1 at `PORTS`.
fn enable(q: &mut Qtest) {
    config_write(q, 5, 0x10, BAR as u32);
    config_write(q, 5, 0x14, PORTS.into());
    config_write(q, 5, 0x04, 7);
}

#[test]
fn edu_is_identified_and_computes() {
    let (mut q, _dir) = pc("edu");
    assert_eq!(config_read(&mut q, 5, 0), 0x11e8_1234);
    assert_eq!(config_read(&mut q, 5, 8), 0x00ff_0010);
    assert_eq!(config_read(&mut q, 5, 0x2c), 0x1100_1af4);
    assert_eq!(config_read(&mut q, 5, 0x3c) >> 8 & 0xff, 1);
    config_write(&mut q, 5, 0x10, u32::MAX);
    assert_eq!(config_read(&mut q, 5, 0x10), 0xfff0_0000);
    enable(&mut q);
    assert_eq!(q.load(BAR, 4), 0x0100_00ed);
    q.store(BAR + 4, 4, 0x0123_4567);
    assert_eq!(q.load(BAR + 4, 4), 0xfedc_ba98);
    q.store(BAR + 8, 4, 10);
    assert_eq!(q.load(BAR + 0x20, 4) & 1, 1, "computing");
    q.clock_step(1_000_000);
    assert_eq!((q.load(BAR + 8, 4), q.load(BAR + 0x20, 4), q.load(BAR + 0x24, 4)), (3_628_800, 0, 0));
}

#[test]
fn edu_interrupts_by_line() {
    let (mut q, _dir) = pc("edu");
    enable(&mut q);
    // Slot 5, pin A: PIRQA, led to IRQ 10 here.
    config_write(&mut q, 1, 0x60, 0x8080_800a);
    q.intercept_in("ioapic");
    q.store(BAR + 0x20, 4, 0x80);
    q.store(BAR + 8, 4, 3);
    q.clock_step(1_000_000);
    assert_eq!(q.load(BAR + 0x24, 4), 1);
    assert!(q.irq(10));
    q.store(BAR + 0x60, 4, 0x100);
    q.store(BAR + 0x64, 4, 1);
    assert_eq!(q.load(BAR + 0x24, 4), 0x100);
    assert!(q.irq(10), "another reason is left");
    q.store(BAR + 0x64, 4, 0x100);
    assert_eq!(q.load(BAR + 0x24, 4), 0);
    assert!(!q.irq(10));
    // With interrupts disabled in the command register the status still tells.
    config_write(&mut q, 5, 0x04, 0x407);
    q.store(BAR + 0x60, 4, 2);
    assert!(!q.irq(10));
    assert_ne!(config_read(&mut q, 5, 4) & 0x0008_0000, 0);
}

#[test]
fn edu_moves_memory_under_its_mask() {
    let (mut q, _dir) = pc("edu,dma_mask=0xffffff");
    enable(&mut q);
    let start = |q: &mut Qtest, src: u64, dst: u64, cnt: u64, cmd: u32| {
        for (at, v) in [(0x80, src), (0x88, dst), (0x90, cnt)] {
            q.store(BAR + at, 8, v);
        }
        q.store(BAR + 0x98, 4, cmd.into());
    };
    q.write(0x1000, b"a hundred bytes, or fewer");
    start(&mut q, 0x1000, 0x4_0010, 25, 1);
    assert_eq!(q.load(BAR + 0x98, 4), 1);
    q.clock_step(99_000_000);
    assert_eq!(q.load(BAR + 0x98, 4), 1, "it takes a tenth of a second");
    q.clock_step(2_000_000);
    assert_eq!(q.load(BAR + 0x98, 4), 0);
    // Back, to an address of which the mask lets 24 bits through; by message this time.
    let capability = 0x40;
    assert_eq!(config_read(&mut q, 5, 0x34), capability);
    assert_eq!(config_read(&mut q, 5, capability) & 0xffff, 5);
    config_write(&mut q, 5, capability + 4, 0x2000);
    config_write(&mut q, 5, capability + 8, 0);
    config_write(&mut q, 5, capability + 12, 0x4321);
    config_write(&mut q, 5, capability, 0x0001_0000);
    start(&mut q, 0x4_0010, 0x7700_3000, 25, 7);
    q.clock_step(100_000_000);
    assert_eq!(q.read(0x3000, 25), b"a hundred bytes, or fewer");
    assert_eq!(q.load(BAR + 0x24, 4), 0x100);
    assert_eq!(q.load(0x2000, 4), 0x4321, "the message");
    // Out of the buffer: nothing moves, the engine is idle again.
    start(&mut q, 0x4_0ff0, 0x3000, 0x11, 3);
    q.clock_step(100_000_000);
    assert_eq!(q.read(0x3000, 25), b"a hundred bytes, or fewer");
    assert_eq!(q.load(BAR + 0x98, 4), 2);
}

#[test]
fn the_test_device_counts_writes() {
    let (mut q, _dir) = pc("pci-testdev");
    assert_eq!(config_read(&mut q, 5, 0), 0x0005_1b36);
    enable(&mut q);
    assert_eq!(q.load(BAR, 1), 0);
    q.store(BAR, 1, 0);
    assert_eq!(q.read(BAR, 28), b"\0\x01\0\0\0\x08\0\0\xfa\0\0\0\0\0\0\0mmio-no-even");
    let offset = q.load(BAR + 4, 4);
    for _ in 0..3 {
        q.store(BAR + offset, 1, 0xfa);
    }
    q.store(BAR + offset, 1, 0xfb);
    assert_eq!(q.load(BAR + 12, 4), 3);
    // In ports; a doorbell swallows what it matches.
    q.outb(PORTS, 2);
    assert_eq!(q.inp(PORTS + 4, 4), 0x85);
    q.outb(PORTS + 0x85, 0xfa);
    q.outb(PORTS + 0x85, 0xce);
    assert_eq!(q.inp(PORTS + 12, 4), 0);
    q.outb(PORTS, 1);
    q.out(PORTS + 0x84, 1, 1);
    assert_eq!(q.inp(PORTS + 12, 4), 0);
    q.outb(PORTS, 3);
    assert_eq!(q.inb(PORTS + 16), 0, "no such test");
}

#[test]
fn the_test_device_has_a_memory_bar_on_request() {
    let (mut q, _dir) = pc("pci-testdev,membar=1M,membar-backed=on");
    config_write(&mut q, 5, 0x18, u32::MAX);
    config_write(&mut q, 5, 0x1c, u32::MAX);
    assert_eq!((config_read(&mut q, 5, 0x18), config_read(&mut q, 5, 0x1c)), (0xfff0_000c, u32::MAX));
    config_write(&mut q, 5, 0x18, 0xe000_0000);
    config_write(&mut q, 5, 0x1c, 0);
    enable(&mut q);
    q.store(0xe000_0008, 8, 0x0102_0304_0506_0708);
    assert_eq!(q.load(0xe000_0008, 8), 0x0102_0304_0506_0708);
}

/// A number of an answer of the monitor's command `i`.
fn port(q: &mut Qmp, at: u16) -> u32 {
    let text = q.hmp(&format!("i /w {at:#x}"));
    let (_, value) = text.trim_end().rsplit_once("0x").expect("a value");
    u32::from_str_radix(value, 16).expect("hexadecimal")
}

#[test]
fn cards_are_plugged_and_unplugged_through_the_guest() {
    let (_dir, bios) = firmware();
    let args = ["-accel", "qtest", "-nodefaults", "-display", "none", "-m", "64", "-bios", &bios];
    let mut q = Qmp::start(&args);
    for _ in 0..2 {
        q.run("device_add", json!({"driver": "edu", "id": "e0", "addr": "7"}));
        // The guest is told of it once.
        assert_eq!((port(&mut q, 0xae00), port(&mut q, 0xae00)), (1 << 7, 0));
        assert!(q.hmp("info pci").contains("1234:11e8"));
        q.run("device_del", json!({"id": "e0"}));
        assert_eq!(port(&mut q, 0xae04), 1 << 7, "asked to let it go");
        assert!(q.hmp("info pci").contains("1234:11e8"), "still there");
        assert!(q.events().iter().all(|e| e != "DEVICE_DELETED"));
        q.hmp(&format!("o /w 0xae08 {:#x}", 1 << 7));
        let gone = q.event("DEVICE_DELETED");
        assert_eq!(gone["data"], json!({"device": "e0", "path": "/machine/peripheral/e0"}));
        assert_eq!(port(&mut q, 0xae04), 0);
        assert!(!q.hmp("info pci").contains("1234:11e8"));
        assert_eq!(q.error("device_del", json!({"id": "e0"})).0, "DeviceNotFound");
    }
}
