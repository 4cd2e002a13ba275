//! The floppy controller with drives: transfers by its registers, media that change, firmware and Linux that use them.

use serde_json::json;
use std::path::{Path, PathBuf};
use tests::guest::Linux;
use tests::modules::{self, value};
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::{packages, process};

fn firmware() -> String {
    packages::seabios().expect("SeaBIOS can be fetched").to_str().expect("a plain path").to_owned()
}

/// Sectors of a 1.44 MB disk.
const SECTORS: u16 = 2880;
/// Where guest memory takes transfers.
const BUFFER: u64 = 0x2_0000;

/// A folder with a disk whose sectors each hold their number.
fn image(sectors: u16) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("disk");
    let bytes: Vec<u8> = (0..sectors).flat_map(|n| n.to_le_bytes().repeat(256)).collect();
    std::fs::write(&path, bytes).expect("an image");
    (dir, path)
}

struct Fdc(Qtest);

impl Fdc {
    /// A machine with these arguments; its controller is out of reset, at a data rate.
    fn new(args: &[&str], rate: u8) -> Self {
        let mut q = Qtest::start(&[&["-nodefaults", "-m", "16", "-L", &firmware()], args].concat());
        q.outb(0x3f2, 0x00);
        q.outb(0x3f2, 0x1c);
        q.outb(0x3f7, rate);
        let mut f = Self(q);
        for drive in 0..4 {
            assert_eq!(f.command(&[0x08]), [0xc0 | drive, 0]);
        }
        f
    }

    fn send(&mut self, bytes: &[u8]) {
        for b in bytes {
            assert_eq!(self.0.inb(0x3f4) & 0xc0, 0x80, "it takes a byte");
            self.0.outb(0x3f5, *b);
        }
    }

    /// Waits for the result phase, and reads it.
    fn result(&mut self) -> Vec<u8> {
        let mut out = vec![];
        for _ in 0..100_000 {
            match self.0.inb(0x3f4) & 0xf0 {
                0xd0 => out.push(self.0.inb(0x3f5)),
                0x80 => return out,
                _ => {}
            }
        }
        panic!("the command does not end");
    }

    fn command(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.result()
    }

    /// Programs channel 2 of the DMA controller: towards memory or away from it.
    fn dma(&mut self, to_memory: bool, len: u16) {
        let count = len - 1;
        for (port, val) in [
            (0x0a, 6),
            (0x0c, 0),
            (0x0b, if to_memory { 0x46 } else { 0x4a }),
            (0x04, BUFFER as u8),
            (0x04, (BUFFER >> 8) as u8),
            (0x81, (BUFFER >> 16) as u8),
            (0x05, count as u8),
            (0x05, (count >> 8) as u8),
            (0x0a, 2),
        ] {
            self.0.outb(port, val);
        }
    }

    /// A byte in a transfer without DMA.
    fn ready(&mut self) -> u8 {
        for _ in 0..100_000 {
            let s = self.0.inb(0x3f4);
            if s & 0x80 != 0 {
                return s;
            }
        }
        panic!("the controller stays busy");
    }

    fn words(&mut self, sectors: usize) -> Vec<u16> {
        let bytes = self.0.read(BUFFER, sectors * 512);
        bytes.chunks_exact(512).map(|s| u16::from_le_bytes([s[0], s[1]])).collect()
    }
}

fn drive(path: &Path) -> String {
    format!("if=floppy,format=raw,file={}", path.display())
}

#[test]
fn tracks_are_read_and_written_by_dma() {
    let (_dir, path) = image(SECTORS);
    let mut f = Fdc::new(&["-drive", &drive(&path)], 0);
    assert_eq!(f.0.inb(0x3f7), 0x80, "the disk was just put in");
    assert!(f.command(&[0x0f, 0, 5]).is_empty());
    assert_eq!(f.command(&[0x08]), [0x20, 5]);
    assert_eq!(f.0.inb(0x3f7), 0);
    // Both sides of track 5: 36 sectors.
    f.dma(true, 36 * 512);
    assert_eq!(f.command(&[0xe6, 0, 5, 0, 1, 2, 18, 0x1b, 0xff]), [4, 0, 0, 6, 0, 1, 2]);
    let first = 5 * 36;
    assert_eq!(f.words(36), (first..first + 36).collect::<Vec<u16>>());
    // Two sectors across the sides, of which the host takes one and a half.
    f.dma(true, 768);
    assert_eq!(f.command(&[0xe6, 0, 5, 0, 18, 2, 18, 0x1b, 0xff]), [4, 0, 0, 5, 1, 1, 2]);
    // Writing.
    f.0.write(BUFFER, &[0xa5; 1024]);
    f.dma(false, 1024);
    assert_eq!(f.command(&[0xc5, 4, 79, 1, 17, 2, 18, 0x1b, 0xff]), [0x24, 0, 0, 80, 0, 1, 2]);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[2878 * 512..], [0xa5; 1024]);
    // FORMAT TRACK with a filler, and what is beside it stays.
    let ids: Vec<u8> = (1..=18).flat_map(|r| [0, 0, r, 2]).collect();
    assert!(f.command(&[0x07, 0]).is_empty());
    assert_eq!(f.command(&[0x08]), [0x20, 0]);
    f.0.write(BUFFER, &ids);
    f.dma(false, 72);
    assert_eq!(f.command(&[0x4d, 0, 2, 18, 0x54, 0xf6])[..3], [0, 0, 0]);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((bytes[..18 * 512].iter().all(|b| *b == 0xf6), bytes[18 * 512]), (true, 18));
    // The wrong data rate finds nothing.
    f.0.outb(0x3f7, 2);
    assert_eq!(f.command(&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2], [0x40, 1]);
    f.send(&[0x4a, 0]);
    f.0.clock_step(20_000_000);
    assert_eq!(f.result()[..2], [0x40, 1]);
}

#[test]
fn bytes_move_without_dma_and_the_image_may_be_short_or_read_only() {
    let (_dir, path) = image(3);
    // Of no known size, so it is taken for the largest disk: 36 sectors at 1 Mbit/s.
    let mut f = Fdc::new(&["-drive", &format!("{},read-only=on", drive(&path))], 3);
    f.0.outb(0x3f2, 0x14); // no DMA
    f.send(&[0x46, 0, 0, 0, 3, 2, 4, 0x1b, 0xff]);
    let mut words = vec![];
    for n in 0..1024 {
        assert_eq!(f.ready() & 0xf0, 0xf0);
        let byte = f.0.inb(0x3f5);
        if n % 512 == 0 {
            words.push(byte);
        }
    }
    assert_eq!(words, [2, 0], "beyond the image are zeros");
    assert_eq!(f.result(), [0, 0, 0, 1, 0, 1, 2]);
    assert_eq!(f.command(&[0x45, 0, 0, 0, 1, 2, 1, 0x1b, 0xff])[..2], [0x40, 2]);
    assert_eq!(f.command(&[0x04, 0]), [0x78]);
    // A reset in the middle of a transfer: nothing of it is left.
    f.send(&[0x46, 0, 0, 0, 1, 2, 4, 0x1b, 0xff]);
    f.ready();
    f.0.outb(0x3f4, 0x80);
    assert_eq!(f.0.inb(0x3f4), 0x80);
    assert_eq!(f.command(&[0x08]), [0xc0, 0]);
}

#[test]
fn disks_are_taken_out_and_put_in() {
    let (_dir, path) = image(SECTORS);
    let bios = firmware();
    let mut q = Qmp::start(&["-accel", "qtest", "-display", "none", "-L", &bios, "-fda", path.to_str().unwrap()]);
    let inserted = |q: &mut Qmp| {
        let all = q.run("query-block", json!({}));
        let d = all.as_array().unwrap().iter().find(|d| d["device"] == "floppy0").expect("the drive").clone();
        assert!(d.get("tray_open").is_none() && d["removable"] == true, "{d}");
        d.get("inserted").is_some()
    };
    assert!(inserted(&mut q));
    assert_eq!(q.hmp("i /b 0x3f7"), "portb[0x03f7] = 0x80\r\n");
    // Seek to track 1 and back.
    let seek = |q: &mut Qmp, track: u8| {
        for byte in [0x0f, 0, track] {
            q.hmp(&format!("o /b 0x3f5 {byte}"));
        }
    };
    seek(&mut q, 1);
    assert_eq!(q.hmp("i /b 0x3f7"), "portb[0x03f7] = 0x0\r\n");
    q.run("eject", json!({"device": "floppy0"}));
    assert!(!inserted(&mut q));
    assert_eq!(q.hmp("i /b 0x3f7"), "portb[0x03f7] = 0x80\r\n");
    seek(&mut q, 0);
    assert_eq!(q.hmp("i /b 0x3f7"), "portb[0x03f7] = 0x80\r\n", "without a disk the line stays");
    let args = json!({"device": "floppy0", "filename": path, "format": "raw", "read-only-mode": "read-only"});
    q.run("blockdev-change-medium", args);
    assert!(inserted(&mut q));
    seek(&mut q, 2);
    assert_eq!(q.hmp("i /b 0x3f7"), "portb[0x03f7] = 0x0\r\n");
    let (_, text) = q.error("blockdev-open-tray", json!({"device": "floppy0"}));
    assert_eq!(text, "Device 'floppy0' does not have a tray");
}

#[test]
fn drives_are_what_users_say() {
    let (_dir, path) = image(SECTORS);
    let bios = firmware();
    let start = |args: &[&str]| {
        let own = ["-accel", "qtest", "-display", "none", "-nodefaults", "-L", &bios];
        Qmp::start(&[&own[..], args].concat())
    };
    let node = format!("raw,node-name=n,file.driver=file,file.filename={}", path.display());
    let mut q =
        start(&["-blockdev", &node, "-device", "floppy,drive=n,id=x,unit=1", "-device", "floppy,id=y,drive-type=120"]);
    let kind = |q: &mut Qmp, id: &str| q.run("qom-get", json!({"path": id, "property": "drive-type"}));
    assert_eq!((kind(&mut q, "x"), kind(&mut q, "y")), (json!("144"), json!("120")));
    // CMOS: 1.2 MB, 1.44 MB.
    q.hmp("o /b 0x70 0x10");
    assert_eq!(q.hmp("i /b 0x71"), "portb[0x0071] = 0x24\r\n");
    for (args, message) in [
        (&["-device", "floppy,unit=2"][..], "Can't create floppy unit 2, bus supports only 2 units"),
        (&["-fda", "/nowhere/x"], "Could not open '/nowhere/x'"),
        (&["-device", "floppy,unit=0", "-device", "floppy,unit=0"], "Floppy unit 0 is in use"),
        (&["-device", "floppy,logical_block_size=1024"], "logical_block_size > physical_block_size not supported"),
        (&["-device", "floppy,physical_block_size=1024"], "Physical and logical block size must be 512 for floppy"),
        (&["-drive", "if=floppy,werror=stop"], "werror is not supported by this bus type"),
        (&["-global", "isa-fdc.bootindexA=1", "-device", "e1000,bootindex=1"], "The bootindex 1 has already been used"),
    ] {
        let own = ["-accel", "qtest", "-display", "none", "-nodefaults", "-L", &bios];
        let out = process::run(&[&own[..], args].concat(), "");
        assert!(out.stderr.contains(message) && out.code == Some(1), "{args:?}: {out:?}");
    }
}

/// Code of a boot sector: reads cylinder 3, head 1, sector 2 and says its first byte on port E9H, then ends the machine.
const BOOT: [u8; 36] = [
    0x31, 0xc0, 0x8e, 0xc0, // xor ax, ax; mov es, ax
    0xb0, b'B', 0xe6, 0xe9, // mov al, 'B'; out 0e9h, al
    0xb8, 0x01, 0x02, // mov ax, 0201h
    0xbb, 0x00, 0x80, // mov bx, 8000h
    0xb9, 0x02, 0x03, // mov cx, 0302h
    0xb6, 0x01, // mov dh, 1
    0xcd, 0x13, // int 13h
    0x72, 0x05, // jc +5
    0xa0, 0x00, 0x80, // mov al, [8000h]
    0xe6, 0xe9, // out 0e9h, al
    0xba, 0x01, 0x05, // mov dx, 0501h
    0xb0, 0x00, 0xee, // mov al, 0; out dx, al
    0xf4, 0x90, // hlt; nop
];

#[test]
fn firmware_boots_from_a_floppy() {
    let (dir, path) = image(SECTORS);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..512].fill(0);
    bytes[..BOOT.len()].copy_from_slice(&BOOT);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&path, &bytes).unwrap();
    let log = dir.path().join("log");
    let debugcon = format!("file:{}", log.display());
    let bios = firmware();
    for args in [&["-boot", "a"][..], &["-global", "isa-fdc.bootindexA=0", "-boot", "menu=off"]] {
        let own = ["-display", "none", "-nodefaults", "-L", &bios, "-debugcon", &debugcon, "-device", "isa-debug-exit"];
        let drive = drive(&path);
        let out = process::run(&[&own[..], &["-drive", &drive], args].concat(), "");
        assert_eq!(out.code, Some(1), "{}{}", out.stdout, out.stderr);
        // Cylinder 3, head 1, sector 2: 3 × 36 + 18 + 1.
        assert_eq!(std::fs::read(&log).unwrap(), [b'B', 127]);
    }
}

#[test]
fn linux_keeps_files_on_a_floppy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    modules::empty(&path, u64::from(SECTORS) * 512);
    let needed = modules::with_needs_686(&["floppy", "crc32c_generic", "ext4"]).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let guest = |name: &str, script: &str| {
        let wait = "for i in $(seq 100); do [ -b /dev/fd0 ] && break; sleep 0.1; done";
        let script = format!("{}\n{wait}\n{script}\n", modules::commands(&needed));
        Linux::i686_with(name, &script, &files).expect("the packages")
    };
    let write = guest(
        "floppy-write.cpio",
        "mke2fs /dev/fd0 >/dev/null\nmount -t ext4 /dev/fd0 /tmp || echo NO mount\n\
         dd if=/dev/urandom of=/tmp/data bs=1k count=900 2>/dev/null\necho SUM $(md5sum < /tmp/data)\numount /tmp; sync",
    );
    let read = guest(
        "floppy-read.cpio",
        "mount -t ext4 /dev/fd0 /tmp || echo NO mount\necho SUM $(md5sum < /tmp/data)\numount /tmp",
    );
    let drive = drive(&path);
    let first = modules::run(&write, &["-drive", &drive]);
    let second = modules::run(&read, &["-drive", &drive]);
    assert_eq!(value(&first, "SUM").len(), 34, "{first}");
    assert_eq!(value(&first, "SUM"), value(&second, "SUM"));
}
