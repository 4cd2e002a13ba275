//! Virtio devices by their registers and rings, and firmware that boots from them.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tests::packages;
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::virtio::{Desc, INDIRECT, NEXT, Ring, VIRTIO_PCI, Virtio, WRITE};

fn firmware() -> String {
    packages::seabios().expect("SeaBIOS can be fetched").to_str().expect("a plain path").to_owned()
}

/// A folder with an image whose sectors of 512 bytes each hold their number.
fn image(sectors: u16) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("image");
    let bytes: Vec<u8> = (0..sectors).flat_map(|n| n.to_le_bytes().repeat(256)).collect();
    std::fs::write(&path, bytes).expect("an image");
    (dir, path)
}

fn start(args: &[&str]) -> Qtest {
    Qtest::start(&[&["-nodefaults", "-m", "64", "-L", &firmware()], args].concat())
}

fn disk(path: &Path, drive: &str, device: &str) -> Virtio {
    let drive = format!("if=none,id=d,file={},format=raw{drive}", path.display());
    Virtio::new(start(&["-drive", &drive, "-device", &format!("virtio-blk-pci,drive=d,addr=4{device}")]), 4)
}

/// Where a request's header, its data and its status are.
const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const STATUS: u64 = 0x10_0100;

/// Writes a request's header and spoils its status.
fn header(v: &mut Virtio, kind: u32, sector: u64) {
    v.q.store(HEADER, 4, kind.into());
    v.q.store(HEADER + 4, 4, 0);
    v.q.store(HEADER + 8, 8, sector);
    v.q.store(STATUS, 1, 0xee);
}

/// Makes a request of one data buffer; its status.
fn ask(v: &mut Virtio, ring: &mut Ring, kind: u32, sector: u64, len: u32, into: bool) -> u64 {
    header(v, kind, sector);
    let data = [(DATA, len, if into { WRITE } else { 0 })];
    let parts = [&[(HEADER, 16, 0)][..], if len > 0 { &data } else { &[] }, &[(STATUS, 1, WRITE)]].concat();
    ring.offer(v, &parts);
    ring.wait(v);
    v.q.load(STATUS, 1)
}

#[test]
fn the_function_says_where_its_registers_are() {
    let (_dir, path) = image(64);
    let mut v = disk(&path, "", ",id=v");
    assert_eq!((v.config(0, 4), v.config(8, 4), v.config(0x2c, 4)), (0x1001_1af4, 0x0100_0000, 0x0002_1af4));
    assert_eq!(v.config(0x3d, 1), 1);
    // Capabilities: kind, register, offset, length.
    let want =
        [(1, 4, 0, 0x1000), (3, 4, 0x1000, 0x1000), (4, 4, 0x2000, 0x1000), (2, 4, 0x3000, 0x1000), (5, 0, 0, 0)];
    for (n, (at, (kind, bar, offset, len))) in [0x40, 0x50, 0x60, 0x70, 0x84].into_iter().zip(want).enumerate() {
        assert_eq!((v.config(at, 1), v.config(at + 3, 1), v.config(at + 4, 1)), (9, kind, bar), "capability {n}");
        assert_eq!((v.config(at + 8, 4), v.config(at + 12, 4)), (offset, len), "capability {n}");
    }
    assert_eq!(v.config(0x80, 4), 4, "bytes between notification registers");
    assert_eq!((v.config(0x98, 1), v.config(0x9a, 2), v.config(0x9c, 4)), (0x11, 1, 1));
    // The window in configuration space shows the same registers.
    assert_eq!(v.common(0x18, 2), 256);
    for (at, len, value) in [(0x88, 1, 4), (0x8c, 4, 0x18), (0x90, 4, 2)] {
        v.set_config(at, len, value);
    }
    assert_eq!(v.config(0x94, 2), 256);
    v.set_config(0x8c, 4, 0x14);
    v.set_config(0x90, 4, 1);
    v.set_config(0x94, 1, 3);
    assert_eq!(v.common(0x14, 1), 3);
    // Other types of the family.
    drop(v);
    let drive = format!("file={},format=raw,if=none,id=d", path.display());
    let mut v = Virtio::new(start(&["-drive", &drive, "-device", "virtio-blk-pci-non-transitional,drive=d,addr=4"]), 4);
    assert_eq!((v.config(0, 4), v.config(8, 1), v.config(0x10, 4)), (0x1042_1af4, 1, 0));
    drop(v);
    let drive = drive.replace("if=none,id=d", "if=virtio");
    let mut v = Virtio::new(start(&["-drive", &drive]), 2);
    assert_eq!(v.config(0, 4), 0x1001_1af4);
}

#[test]
fn features_status_and_configuration() {
    let (_dir, path) = image(4096);
    let mut v = disk(&path, "", ",num-queues=3,logical_block_size=1024,physical_block_size=4096,min_io_size=2048");
    let offered = v.offered();
    // SEG_MAX GEOMETRY BLK_SIZE FLUSH TOPOLOGY CONFIG_WCE MQ DISCARD WRITE_ZEROES
    assert_eq!(offered & 0xff_ffff, 0x7e54);
    assert_eq!(offered >> 24, 0x01_0130, "indirect, event index, version 1, queue reset");
    assert_eq!((v.common(0x12, 2), v.common(0x1a, 2), v.common(0x10, 2)), (3, 0xffff, 0xffff));
    assert_eq!((v.device(0, 8), v.device(12, 4), v.device(20, 4)), (4096, 254, 1024));
    assert_eq!((v.device(16, 2), v.device(18, 1), v.device(19, 1)), (4, 16, 62));
    assert_eq!((v.device(24, 1), v.device(26, 2), v.device(32, 1), v.device(34, 2)), (2, 2, 1, 3));
    assert_eq!((v.device(36, 4), v.device(40, 4), v.device(44, 4)), (0x3f_ffff, 1, 2));
    assert_eq!((v.device(48, 4), v.device(56, 1)), (0x3f_ffff, 1));
    assert_eq!((v.device(57, 1), v.device(56, 4)), (0xff, 0xffff_ffff), "beyond its end");
    // A feature that was not offered is not accepted; after FEATURES_OK nothing changes.
    v.reset();
    v.set_common(0x14, 1, 3);
    v.accept(u64::MAX);
    assert_eq!(v.accepted_by_device(), offered);
    v.set_common(0x14, 1, 11);
    v.accept(0);
    assert_eq!(v.accepted_by_device(), offered);
    assert_eq!(v.common(0x14, 1), 11);
    v.set_common(0x14, 1, 0);
    assert_eq!((v.common(0x14, 1), v.common(0x0c, 4)), (0, 0));
    // The write cache can be switched.
    v.set_device(32, 1, 0);
    assert_eq!(v.device(32, 1), 0);
    v.reset();
    assert_eq!(v.device(32, 1), 1);
    // Queues beyond the last do not exist; sizes that are none are not taken.
    v.set_common(0x16, 2, 3);
    assert_eq!((v.common(0x18, 2), v.common(0x20, 4)), (0, 0));
    v.set_common(0x18, 2, 8);
    assert_eq!(v.common(0x18, 2), 0);
    v.set_common(0x16, 2, 2);
    v.set_common(0x18, 2, 1025);
    assert_eq!(v.common(0x18, 2), 256);
    v.set_common(0x18, 2, 16);
    assert_eq!((v.common(0x18, 2), v.common(0x1e, 2)), (16, 2));
}

#[test]
fn requests_reach_the_image_by_every_kind_of_ring() {
    for (device, packed, indirect, features) in [
        (",event_idx=off", false, false, 0),
        (",event_idx=on", false, true, 1 << 29),
        (",packed=on", true, false, 1 << 34),
        (",packed=on,event_idx=on", true, true, 1 << 34 | 1 << 29),
        (",disable-modern=on", false, false, 0),
    ] {
        let (_dir, path) = image(4096);
        let mut v = disk(&path, ",discard=unmap", &format!("{device},serial=s1"));
        let legacy = device.contains("disable-modern");
        v.start(if legacy { 0x7e54 } else { features | 0x7e54 | VIRTIO_PCI });
        let mut ring = v.queue(0, packed);
        ring.indirect = indirect;
        v.driver_ok();
        for round in 0..40u64 {
            // More rounds than the ring has entries in chains: it wraps.
            assert_eq!(ask(&mut v, &mut ring, 0, 5 + round, 1024, true), 0, "{device} {round}");
            assert_eq!((v.q.load(DATA, 2), v.q.load(DATA + 1022, 2)), (5 + round, 6 + round), "{device}");
        }
        v.q.write(DATA, &[0x5a; 3072]);
        assert_eq!(ask(&mut v, &mut ring, 1, 20, 3072, false), 0);
        assert_eq!(ask(&mut v, &mut ring, 4, 0, 0, false), 0);
        let file = std::fs::read(&path).unwrap();
        assert_eq!((&file[20 * 512..26 * 512], file[26 * 512]), (&[0x5a; 3072][..], 26), "{device}");
        // Its id
        v.q.write(DATA, &[0xff; 20]);
        assert_eq!(ask(&mut v, &mut ring, 8, 0, 20, true), 0);
        assert_eq!(v.q.read(DATA, 4), b"s1\0\xff");
        // Discard and write zeroes: sector, sectors, flags.
        for (kind, sector, flags, want) in [(11, 100u64, 0, 0), (13, 200, 1, 0), (13, 300, 0, 0), (11, 400, 1, 2)] {
            v.q.store(DATA, 8, sector);
            v.q.store(DATA + 8, 8, flags << 32 | 8);
            assert_eq!(ask(&mut v, &mut ring, kind, 0, 16, false), want, "{device} {kind} {sector}");
        }
        let file = std::fs::read(&path).unwrap();
        let first = |sector: usize| (file[sector * 512], file[(sector + 7) * 512]);
        assert_eq!((first(100), first(200), first(300), first(400)), ((0, 0), (0, 0), (0, 0), (0x90, 0x97)));
        assert_eq!((file[99 * 512], file[108 * 512]), (99, 108));
        // Beyond the end; half a sector; a kind that there is not.
        assert_eq!(ask(&mut v, &mut ring, 0, 4095, 1024, true), 1);
        assert_eq!(ask(&mut v, &mut ring, 1, 0, 100, false), 1);
        assert_eq!(ask(&mut v, &mut ring, 77, 0, 512, true), 2);
        // A large one, in many pieces
        header(&mut v, 0, 0);
        let parts: Vec<Desc> = (0..64).map(|n| (DATA + n * 0x1_0000, 0x8000, WRITE)).collect();
        ring.offer(&mut v, &[&[(HEADER, 16, 0)][..], &parts, &[(STATUS, 1, WRITE)]].concat());
        ring.wait(&mut v);
        assert_eq!((v.q.load(STATUS, 1), v.q.load(DATA + 63 * 0x1_0000, 2)), (0, 63 * 64), "{device}");
    }
}

#[test]
fn interrupts_are_messages_or_the_line() {
    let (_dir, path) = image(64);
    let mut v = disk(&path, "", "");
    // Messages: vector 1 for the queue, written where it can be seen.
    v.enable_msix();
    v.set_vector(1, 0x30_0000, 0xabcd, false);
    v.start(VIRTIO_PCI);
    let mut ring = v.queue(0, false);
    v.set_common(0x1a, 2, 7);
    assert_eq!(v.common(0x1a, 2), 0xffff, "there are two vectors");
    v.set_common(0x1a, 2, 1);
    assert_eq!(v.common(0x1a, 2), 1);
    v.driver_ok();
    assert_eq!(ask(&mut v, &mut ring, 0, 1, 512, true), 0);
    v.until("the message", |v| v.q.load(0x30_0000, 4) == 0xabcd);
    // Masked: the pending bit, and the message when it is unmasked.
    v.q.store(0x30_0000, 4, 0);
    v.set_vector(1, 0x30_0000, 0xabcd, true);
    assert_eq!(ask(&mut v, &mut ring, 0, 1, 512, true), 0);
    v.until("the pending bit", |v| v.pending() == 2);
    assert_eq!(v.q.load(0x30_0000, 4), 0);
    v.set_vector(1, 0x30_0000, 0xabcd, false);
    assert_eq!((v.q.load(0x30_0000, 4), v.pending()), (0xabcd, 0));
    // The line: raised until the status is read.
    drop(v);
    let mut v = disk(&path, "", "");
    v.start(VIRTIO_PCI);
    let mut ring = v.queue(0, false);
    v.driver_ok();
    assert_eq!(v.config(6, 2) & 8, 0);
    assert_eq!(ask(&mut v, &mut ring, 0, 1, 512, true), 0);
    v.until("the line", |v| v.config(6, 2) & 8 != 0);
    assert_eq!((v.isr(), v.isr()), (1, 0));
    assert_eq!(v.config(6, 2) & 8, 0);
    // A driver that wants no interrupts gets none.
    v.q.store(ring.driver, 2, 1);
    assert_eq!(ask(&mut v, &mut ring, 0, 1, 512, true), 0);
    assert_eq!(v.isr(), 0);
}

#[test]
fn a_driver_that_errs_breaks_its_device_alone() {
    const FAR: u64 = 0x1_0000_0000;
    let broken: [(&str, &[Desc]); 7] = [
        ("a buffer beyond memory", &[(HEADER, 16, 0), (FAR, 512, WRITE), (STATUS, 1, WRITE)]),
        ("a buffer over the end of memory", &[(HEADER, 16, 0), (0x3ff_ff00, 512, WRITE), (STATUS, 1, WRITE)]),
        ("a length beyond memory", &[(HEADER, 16, 0), (DATA, u32::MAX, WRITE), (STATUS, 1, WRITE)]),
        ("an empty buffer", &[(HEADER, 16, 0), (DATA, 0, WRITE), (STATUS, 1, WRITE)]),
        ("readable after writable", &[(STATUS, 1, WRITE), (HEADER, 16, 0)]),
        ("no room for a status", &[(HEADER, 16, 0), (DATA, 512, 0)]),
        ("a short header", &[(HEADER, 8, 0), (STATUS, 1, WRITE)]),
    ];
    let (_dir, path) = image(64);
    let (_other, second) = image(64);
    let other = format!("if=none,id=e,file={},format=raw", second.display());
    let drive = format!("if=none,id=d,file={},format=raw", path.display());
    let device = ["-drive", &drive, "-drive", &other, "-device", "virtio-blk-pci,drive=d,addr=4"];
    let mut v = Virtio::new(start(&[&device[..], &["-device", "ide-hd,drive=e"]].concat()), 4);
    for (what, parts) in broken {
        v.start(VIRTIO_PCI);
        let mut ring = v.queue(0, false);
        v.driver_ok();
        header(&mut v, 0, 0);
        ring.offer(&mut v, parts);
        assert_eq!(v.common(0x14, 1), 0x4f, "{what}: the device needs a reset");
        assert_eq!(v.isr() & 2, 2, "{what}: and says so");
        header(&mut v, 0, 0);
        ring.offer(&mut v, &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
        assert_eq!(v.q.load(STATUS, 1), 0xee, "{what}: nothing happens any more");
    }
    // A loop, an index that runs backwards, and a table in a table.
    for what in ["loop", "backwards", "table", "far ring"] {
        v.start(VIRTIO_PCI);
        let mut ring = v.queue(0, false);
        if what == "far ring" {
            v.set_common(0x24, 4, 1);
        }
        v.driver_ok();
        header(&mut v, 0, 0);
        match what {
            "loop" => ring.desc(&mut v, 0, (DATA, 512, NEXT), 0),
            "table" => {
                v.q.write(DATA, &v.desc_bytes((DATA, 16, INDIRECT), 0));
                ring.desc(&mut v, 0, (DATA, 16, INDIRECT), 0);
            }
            _ => ring.desc(&mut v, 0, (DATA, 512, 0), 0),
        }
        ring.publish(&mut v, 0, if what == "backwards" { 0xfff0 } else { 1 });
        assert_eq!(v.common(0x14, 1), 0x4f, "{what}");
    }
    // After a reset it works; the other disk never stopped.
    v.start(VIRTIO_PCI);
    let mut ring = v.queue(0, false);
    v.driver_ok();
    assert_eq!(ask(&mut v, &mut ring, 0, 9, 512, true), 0);
    assert_eq!(v.q.load(DATA, 2), 9);
    assert_eq!(v.q.inb(0x1f7), 0x50);
}

#[test]
fn queues_can_be_reset_and_memory_is_reached_as_a_bus_master_only() {
    let (_dir, path) = image(64);
    let mut v = disk(&path, "", ",num-queues=2");
    v.start(VIRTIO_PCI | 1 << 40);
    let mut first = v.queue(0, false);
    let mut second = v.queue(1, false);
    v.driver_ok();
    assert_eq!(ask(&mut v, &mut first, 0, 3, 512, true), 0);
    assert_eq!(ask(&mut v, &mut second, 0, 4, 512, true), 0);
    v.set_common(0x16, 2, 1);
    assert_eq!(v.common(0x1c, 2), 1);
    v.set_common(0x3a, 2, 1);
    assert_eq!((v.common(0x1c, 2), v.common(0x3a, 2), v.common(0x20, 4)), (0, 0, 0));
    assert_eq!(ask(&mut v, &mut first, 0, 5, 512, true), 0);
    let mut second = v.queue(1, false);
    assert_eq!(ask(&mut v, &mut second, 0, 6, 512, true), 0);
    assert_eq!(v.q.load(DATA, 2), 6);
    let command = v.config(4, 2);
    v.set_config(4, 2, command & !4);
    header(&mut v, 0, 0);
    first.offer(&mut v, &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    assert_eq!((v.q.load(STATUS, 1), v.common(0x14, 1)), (0xee, 15));
    v.set_config(4, 2, command);
    first.kick(&mut v);
    first.wait(&mut v);
    assert_eq!(v.q.load(STATUS, 1), 0);
}

/// Offers requests of one sector each, from `sector` on, that are notified together: their data, and their status, `0x1000` apart.
fn offer_together(v: &mut Virtio, ring: &mut Ring, kind: u32, sector: u64, count: u64) {
    ring.quiet = true;
    for n in 0..count {
        let at = n * 0x1000;
        v.q.store(HEADER + at, 8, kind.into());
        v.q.store(HEADER + at + 8, 8, sector + n);
        v.q.store(STATUS + at, 1, 0xee);
        let into = if kind == 0 { WRITE } else { 0 };
        ring.offer(v, &[(HEADER + at, 16, 0), (DATA + at, 512, into), (STATUS + at, 1, WRITE)]);
    }
    ring.quiet = false;
    ring.kick(v);
}

fn statuses(v: &mut Virtio, count: u64) -> Vec<u64> {
    (0..count).map(|n| v.q.load(STATUS + n * 0x1000, 1)).collect()
}

/// The monitor, and a disk whose first sector may not become another format's.
fn watched(path: &Path, drive: &str, device: &str) -> (Virtio, Qmp) {
    let socket = path.with_file_name("qmp");
    let drive = format!("if=none,id=d,file={}{drive}", path.display());
    let (device, qmp) =
        (format!("virtio-blk-pci,drive=d,addr=4{device}"), format!("unix:{},server=on,wait=off", socket.display()));
    let v = Virtio::new(start(&["-drive", &drive, "-device", &device, "-qmp", &qmp]), 4);
    let mut q = Qmp::connect(&socket);
    q.run("qmp_capabilities", json!({}));
    (v, q)
}

fn counts(q: &mut Qmp, kind: &str) -> (Value, Value, Value, Value) {
    let s = q.run("query-blockstats", json!({}))[0]["stats"].clone();
    let of = |name: &str| s[name].clone();
    let failed = of(&format!("failed_{kind}_operations"));
    (of(&format!("{kind}_operations")), of(&format!("{kind}_merged")), of(&format!("{kind}_bytes")), failed)
}

#[test]
fn neighbours_become_one_request_and_fail_one_by_one() {
    let (_dir, path) = image(64);
    let (mut v, mut q) = watched(&path, "", ",werror=report");
    v.start(VIRTIO_PCI);
    let mut ring = v.queue(0, false);
    v.driver_ok();
    offer_together(&mut v, &mut ring, 0, 8, 3);
    ring.wait(&mut v);
    assert_eq!(statuses(&mut v, 3), [0, 0, 0]);
    assert_eq!([0, 1, 2].map(|n| v.q.load(DATA + n * 0x1000 + 510, 2)), [8, 9, 10]);
    assert_eq!(counts(&mut q, "rd"), (json!(3), json!(2), json!(1536), json!(0)));
    // The first may not be written, the others are no worse for that.
    v.q.write(DATA, b"QED\0");
    v.q.write(DATA + 0x1000, &[0x5a; 512]);
    v.q.write(DATA + 0x2000, &[0xa5; 512]);
    offer_together(&mut v, &mut ring, 1, 0, 3);
    ring.wait(&mut v);
    assert_eq!(statuses(&mut v, 3), [1, 0, 0]);
    let disk = std::fs::read(&path).expect("the image");
    assert_eq!(disk[..1536], [[0; 512], [0x5a; 512], [0xa5; 512]].concat());
    assert_eq!(counts(&mut q, "wr"), (json!(2), json!(0), json!(1024), json!(1)));
    // The first end of the disk that is not there fails alone, too.
    offer_together(&mut v, &mut ring, 0, 62, 3);
    ring.wait(&mut v);
    assert_eq!(statuses(&mut v, 3), [0, 0, 1]);
}

#[test]
fn a_part_of_a_merged_write_that_stops_the_machine_is_made_again() {
    let (_dir, path) = image(64);
    let (mut v, mut q) = watched(&path, "", ",werror=stop");
    v.start(VIRTIO_PCI);
    let mut ring = v.queue(0, false);
    v.driver_ok();
    v.q.write(DATA, b"QED\0");
    v.q.write(DATA + 0x1000, &[0x5a; 512]);
    offer_together(&mut v, &mut ring, 1, 0, 2);
    q.event("STOP");
    assert_eq!(q.run("query-status", json!({}))["status"], "io-error");
    v.until("the other part is written", |v| v.q.load(STATUS + 0x1000, 1) == 0);
    assert_eq!(statuses(&mut v, 2), [0xee, 0]);
    v.q.write(DATA, &[0x33; 512]);
    // What the driver does with a buffer that it has back is its own business.
    v.q.write(DATA + 0x1000, &[0x44; 512]);
    q.run("cont", json!({}));
    ring.wait(&mut v);
    assert_eq!(statuses(&mut v, 2), [0, 0]);
    assert_eq!(std::fs::read(&path).expect("the image")[..1024], [[0x33; 512], [0x5a; 512]].concat());
}

/// A driver may not notify before it has said that it is ready; one that does is served then.
#[test]
fn what_was_notified_too_early_is_served_when_the_driver_is_ready() {
    let (_dir, path) = image(64);
    let mut v = disk(&path, "", "");
    v.start(VIRTIO_PCI);
    let mut ring = v.queue(0, false);
    header(&mut v, 0, 7);
    ring.offer(&mut v, &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    assert!(!ring.is_used(&mut v));
    v.driver_ok();
    ring.wait(&mut v);
    assert_eq!((v.q.load(STATUS, 1), v.q.load(DATA, 2)), (0, 7));
}

#[test]
fn random_bytes_come_by_ration() {
    let device = "virtio-rng-pci,addr=4,max-bytes=100,period=1000";
    let mut v = Virtio::new(start(&["-object", "rng-builtin,id=r", "-device", &format!("{device},rng=r")]), 4);
    assert_eq!(
        (v.config(0, 4), v.config(0x2c, 4), v.common(0x12, 2), v.device(0, 1)),
        (0x1005_1af4, 0x0004_1af4, 1, 0xff)
    );
    v.start(VIRTIO_PCI);
    let mut ring = v.queue(0, false);
    v.driver_ok();
    v.q.write(DATA, &[0; 128]);
    ring.offer(&mut v, &[(DATA, 64, WRITE)]);
    ring.wait(&mut v);
    assert_eq!(ring.used_len(&mut v), 64);
    let bytes = v.q.read(DATA, 128);
    assert!(bytes[..64].iter().filter(|b| **b == 0).count() < 16 && bytes[64..] == [0; 64], "{bytes:?}");
    // The rest of the ration, then nothing until the next period.
    ring.offer(&mut v, &[(DATA, 64, WRITE)]);
    ring.wait(&mut v);
    assert_eq!(ring.used_len(&mut v), 36);
    ring.offer(&mut v, &[(DATA, 64, WRITE)]);
    assert!(!ring.is_used(&mut v));
    v.q.clock_step(999_000_000);
    assert!(!ring.is_used(&mut v));
    v.q.clock_step(1_000_000);
    assert!(ring.is_used(&mut v));
    assert_eq!(ring.used_len(&mut v), 64);
    drop(v);
    // A file of the host, which may have no bytes for a while.
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = format!("rng-random,id=r,filename={}", file.path().display());
    let mut v = Virtio::new(start(&["-object", &source, "-device", "virtio-rng-pci,addr=4,rng=r"]), 4);
    v.start(VIRTIO_PCI);
    let mut ring = v.queue(0, false);
    v.driver_ok();
    ring.offer(&mut v, &[(DATA, 64, WRITE)]);
    v.q.clock_step(50_000_000);
    assert!(!ring.is_used(&mut v));
    std::fs::write(file.path(), b"random").unwrap();
    v.q.clock_step(10_000_000);
    assert!(ring.is_used(&mut v));
    assert_eq!((ring.used_len(&mut v), v.q.read(DATA, 6)), (6, b"random".to_vec()));
    let bad = tests::process::run(&["-machine", "none", "-object", "rng-random,id=r,filename=/nowhere"], "");
    assert!(bad.stderr.contains("Could not open '/nowhere'"), "{}", bad.stderr);
}

/// A driver takes the device, whatever it did before: a ring of requests.
fn begin(v: &mut Virtio) -> Ring {
    v.start(VIRTIO_PCI);
    let ring = v.queue(0, false);
    v.driver_ok();
    ring
}

/// A disk that does one request a second.
fn slow_disk(path: &Path) -> (Virtio, Ring) {
    let mut v = disk(path, ",throttling.iops-total=1", "");
    let ring = begin(&mut v);
    (v, ring)
}

#[test]
fn a_reset_forgets_a_write_under_way_and_what_is_written_after_it_is_last() {
    let (_dir, path) = image(64);
    let (mut v, mut ring) = slow_disk(&path);
    v.q.write(DATA, &[0x11; 512]);
    assert_eq!(ask(&mut v, &mut ring, 1, 8, 512, false), 0);
    // The second of a second waits, and the driver gives the device up. Its status lies elsewhere.
    let other = STATUS + 0x10;
    v.q.write(DATA, &[0x22; 512]);
    header(&mut v, 1, 8);
    v.q.store(other, 1, 0xee);
    ring.offer(&mut v, &[(HEADER, 16, 0), (DATA, 512, 0), (other, 1, WRITE)]);
    let mut ring = begin(&mut v);
    v.q.write(DATA, &[0x33; 512]);
    header(&mut v, 1, 8);
    ring.offer(&mut v, &[(HEADER, 16, 0), (DATA, 512, 0), (STATUS, 1, WRITE)]);
    assert_eq!((ring.used_count(&mut v), v.q.load(STATUS, 1)), (0, 0xee), "neither is done");
    v.until("the write after the reset", |v| {
        v.q.clock_step(100_000_000);
        v.q.load(STATUS, 1) == 0
    });
    ring.wait(&mut v);
    assert_eq!((ring.used_count(&mut v), v.q.load(other, 1)), (1, 0xee), "the first one told nobody");
    // Nothing comes later.
    v.q.clock_step(10_000_000_000);
    v.q.write(DATA, &[0; 512]);
    assert_eq!(ask_slowly(&mut v, &mut ring, 8), 0);
    assert_eq!(v.q.read(DATA, 512), [0x33; 512]);
    assert_eq!((ring.used_count(&mut v), v.q.load(other, 1)), (2, 0xee));
}

#[test]
fn a_read_under_way_leaves_memory_alone_after_a_reset() {
    let (_dir, path) = image(64);
    let (mut v, mut ring) = slow_disk(&path);
    assert_eq!(ask(&mut v, &mut ring, 0, 8, 512, true), 0);
    // The next one of this second waits.
    v.q.write(DATA, &[0x22; 512]);
    header(&mut v, 0, 8);
    ring.offer(&mut v, &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    let mut ring = begin(&mut v);
    v.q.clock_step(10_000_000_000);
    // Its time has come, and that of one after it.
    let other = DATA + 0x1000;
    header(&mut v, 0, 9);
    ring.offer(&mut v, &[(HEADER, 16, 0), (other, 512, WRITE), (STATUS, 1, WRITE)]);
    v.until("a sector", |v| {
        v.q.clock_step(100_000_000);
        v.q.load(STATUS, 1) != 0xee
    });
    ring.wait(&mut v);
    assert_eq!((v.q.load(STATUS, 1), ring.used_count(&mut v)), (0, 1));
    assert_eq!(v.q.read(DATA, 512), [0x22; 512]);
}

/// Reads a sector while the clock goes on; the status.
fn ask_slowly(v: &mut Virtio, ring: &mut Ring, sector: u64) -> u64 {
    header(v, 0, sector);
    ring.offer(v, &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    v.until("a sector", |v| {
        v.q.clock_step(100_000_000);
        v.q.load(STATUS, 1) != 0xee
    });
    ring.wait(v);
    v.q.load(STATUS, 1)
}
