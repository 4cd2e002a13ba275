//! IDE drives by their registers, and firmware that boots from them.

use iced_x86::{IcedError, code_asm::*};
use serde_json::json;
use std::path::{Path, PathBuf};
use tests::process::until;
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::{packages, process, rom};

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
    Qtest::start(&[&["-nodefaults", "-L", &firmware()], args].concat())
}

/// A channel of the controller.
struct Ide {
    q: Qtest,
    base: u16,
    control: u16,
    bmdma: u16,
}

const BMDMA: u16 = 0xc000;

impl Ide {
    fn new(mut q: Qtest, second: bool) -> Self {
        // The bus master registers get an address, and the function may use them.
        for (register, value) in [(0x20u32, u32::from(BMDMA) | 1), (0x04, 5)] {
            q.out(0xcf8, 4, 0x8000_0900 | register);
            q.out(0xcfc, 4, value);
        }
        let (base, control) = if second { (0x170, 0x376) } else { (0x1f0, 0x3f6) };
        Self { q, base, control, bmdma: BMDMA + if second { 8 } else { 0 } }
    }

    fn disk(path: &Path, more: &str) -> Self {
        Self::new(start(&["-drive", &format!("file={},format=raw{more}", path.display())]), false)
    }

    fn get(&mut self, register: u16) -> u8 {
        self.q.inb(self.base + register)
    }

    fn put(&mut self, register: u16, value: u8) {
        self.q.outb(self.base + register, value);
    }

    /// Waits until the drive is not busy; its status, without touching the interrupt.
    fn wait(&mut self) -> u8 {
        for _ in 0..100_000 {
            let s = self.q.inb(self.control);
            if s & 0x80 == 0 {
                return s;
            }
        }
        panic!("the drive stays busy");
    }

    /// Waits until a transfer by the bus master has ended; the status.
    fn done(&mut self) -> u8 {
        for _ in 0..100_000 {
            let s = self.q.inb(self.control);
            if s & 0x88 == 0 {
                return s;
            }
        }
        panic!("the transfer does not end");
    }

    /// Sector address and count, LBA of 28 bits.
    fn lba28(&mut self, lba: u32, count: u8) {
        let [l, m, h, t] = lba.to_le_bytes();
        for (register, value) in [(2, count), (3, l), (4, m), (5, h), (6, 0xe0 | t)] {
            self.put(register, value);
        }
    }

    fn command(&mut self, code: u8) -> u8 {
        self.put(7, code);
        self.wait()
    }

    fn words(&mut self, n: usize) -> Vec<u16> {
        (0..n).map(|_| self.q.inp(self.base, 2) as u16).collect()
    }

    /// Sends a packet; the status after it.
    fn packet(&mut self, bytes: [u8; 12]) -> u8 {
        self.put(4, 0xfe);
        self.put(5, 0xff);
        assert_eq!(self.command(0xa0) & 0x08, 0x08, "the drive waits for the packet");
        for pair in bytes.chunks_exact(2) {
            self.q.out(self.base, 2, u16::from_le_bytes([pair[0], pair[1]]).into());
        }
        self.wait()
    }

    /// Sense key and additional code of the last error.
    fn sense(&mut self) -> (u8, u8) {
        self.packet([3, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0]);
        let d: Vec<u8> = self.words(9).iter().flat_map(|w| w.to_le_bytes()).collect();
        (d[2], d[12])
    }

    /// Starts the bus master over a table at 1 MiB; `read`: into memory.
    fn dma(&mut self, pieces: &[(u32, u16)], read: bool) {
        for (n, (addr, len)) in pieces.iter().enumerate() {
            let at = 0x10_0000 + 8 * n as u64;
            self.q.store(at, 4, (*addr).into());
            let last = if n + 1 == pieces.len() { 1 << 31 } else { 0 };
            self.q.store(at + 4, 4, u64::from(*len) | last);
        }
        self.q.out(self.bmdma + 4, 4, 0x10_0000);
        self.q.outb(self.bmdma + 2, 6);
        self.q.outb(self.bmdma, if read { 9 } else { 1 });
    }
}

/// Text of IDENTIFY's words.
fn text(words: &[u16]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

#[test]
fn a_disk_says_what_it_is() {
    let (_dir, path) = image(2048);
    let mut d = Ide::disk(&path, "");
    assert_eq!((d.get(7), d.get(1), d.get(2), d.get(3), d.get(4), d.get(5)), (0x50, 0, 1, 1, 0, 0));
    assert_eq!(d.command(0xec), 0x58);
    let w = d.words(256);
    assert_eq!(
        (text(&w[10..20]), text(&w[27..47]), text(&w[23..27])),
        ("QM00001".into(), "QEMU HARDDISK".into(), "2.5+".into())
    );
    assert_eq!((w[60], w[61], w[100], w[83] & 0x400, w[49] & 0x300), (2048, 0, 2048, 0x400, 0x300));
    assert_eq!(d.get(7), 0x50);
    // A command that there is not.
    assert_eq!((d.command(0xa1), d.get(1)), (0x41, 4));
    // The other drive of the channel is not there.
    d.put(6, 0xf0);
    assert_eq!((d.get(7), d.get(2)), (0, 0));
    d.put(6, 0xe0);
    assert_eq!(d.command(0xf8), 0x50);
    assert_eq!((d.get(3), d.get(4), d.get(5)), (0xff, 7, 0));
    // SMART: enabled, no threshold exceeded.
    for (register, value) in [(1, 0xda), (4, 0x4f), (5, 0xc2)] {
        d.put(register, value);
    }
    assert_eq!((d.command(0xb0), d.get(4), d.get(5)), (0x50, 0x4f, 0xc2));
}

#[test]
fn sectors_go_through_the_data_register() {
    let (_dir, path) = image(64);
    let mut d = Ide::disk(&path, ",cache=writethrough");
    d.lba28(5, 2);
    assert_eq!(d.command(0x20), 0x58);
    assert_eq!(d.words(256), [5; 256]);
    assert_eq!(d.wait(), 0x58);
    assert_eq!(d.words(256), [6; 256]);
    assert_eq!((d.wait(), d.get(3), d.get(2)), (0x50, 7, 0));
    // READ MULTIPLE: one block of four sectors. The address of 48 bits.
    d.put(2, 4);
    assert_eq!(d.command(0xc6), 0x50);
    for (register, value) in [(2, 0), (3, 0), (4, 0), (5, 0), (2, 4), (3, 10), (4, 0), (5, 0), (6, 0xe0)] {
        d.put(register, value);
    }
    assert_eq!(d.command(0x29), 0x58);
    let want: Vec<u16> = (10..14).flat_map(|n| [n; 256]).collect();
    assert_eq!((d.words(1024), d.wait()), (want, 0x50));
    // WRITE SECTORS
    d.lba28(20, 2);
    assert_eq!(d.command(0x30), 0x58);
    for word in [[0xaaaa; 256], [0xbbbb; 256]].concat() {
        d.q.out(d.base, 2, word);
        d.wait();
    }
    assert_eq!(d.wait(), 0x50);
    assert_eq!(d.command(0xe7), 0x50);
    let file = std::fs::read(&path).unwrap();
    assert_eq!(file[20 * 512..22 * 512], [[0xaa; 512], [0xbb; 512]].concat());
    assert_eq!((file[19 * 512], file[22 * 512]), (19, 22));
    // Cylinder, head, sector: 0/0/1 is the first.
    for (register, value) in [(2, 1), (3, 2), (4, 0), (5, 0), (6, 0xa0)] {
        d.put(register, value);
    }
    assert_eq!(d.command(0x20), 0x58);
    assert_eq!(d.words(256), [1; 256]);
    // Beyond the end
    d.lba28(63, 2);
    assert_eq!(d.command(0x20), 0x58);
    d.words(256);
    assert_eq!((d.wait(), d.get(1)), (0x41, 4));
    d.lba28(64, 1);
    assert_eq!(d.command(0x30), 0x41);
    // A software reset in the middle of a transfer
    d.lba28(0, 1);
    assert_eq!(d.command(0x20), 0x58);
    d.q.outb(0x3f6, 4);
    d.q.outb(0x3f6, 0);
    assert_eq!((d.wait(), d.get(1), d.get(2)), (0x50, 1, 1));
}

#[test]
fn the_bus_master_moves_sectors() {
    let (_dir, path) = image(4096);
    let mut d = Ide::disk(&path, "");
    d.q.intercept_in("/machine/i440fx/ioapic");
    d.lba28(100, 4);
    assert_eq!(d.command(0xc8), 0x58);
    d.dma(&[(0x20_0000, 512), (0x30_0000, 1536)], true);
    assert_eq!(d.done(), 0x50);
    assert_eq!(d.q.inb(BMDMA + 2) & 7, 4, "interrupt, not active");
    assert!(d.q.irq(14));
    assert_eq!(d.get(7), 0x50);
    assert!(!d.q.irq(14), "reading the status takes it away");
    d.q.outb(BMDMA, 0);
    assert_eq!((d.q.load(0x20_0000, 2), d.q.load(0x30_0000, 2), d.q.load(0x30_05fe, 2)), (100, 101, 103));
    // More than one piece of work: 2 MiB, by 48 bits of address, the table ahead of the command
    d.dma(&[0u32, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].map(|n| (0x40_0000 + 0x1_0000 * n, 0)), true);
    for (register, value) in [(2, 0x10), (3, 0), (4, 0), (5, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0xe0)] {
        d.put(register, value);
    }
    d.put(7, 0x25);
    // The table has half of it: nobody interrupts, the bus master stops.
    assert_eq!(d.done(), 0x50);
    assert_eq!(d.q.inb(BMDMA + 2) & 7, 0);
    assert_eq!(d.q.load(0x40_0000 + 2047 * 512, 2), 2047);
    // Writing
    d.q.outb(BMDMA, 0);
    d.q.write(0x20_0000, &[0x5a; 1024]);
    d.lba28(7, 2);
    assert_eq!(d.command(0xca), 0x58);
    d.dma(&[(0x20_0000, 2048)], false);
    assert_eq!(d.done(), 0x50);
    assert_eq!(d.q.inb(BMDMA + 2) & 7, 5, "a table that is longer leaves it active");
    assert_eq!(d.command(0xea), 0x50);
    let file = std::fs::read(&path).unwrap();
    assert_eq!((&file[7 * 512..9 * 512], file[9 * 512]), (&[0x5a; 1024][..], 9));
}

#[test]
fn pieces_of_memory_may_lie_anywhere() {
    let (_dir, path) = image(64);
    let mut d = Ide::disk(&path, "");
    // Between those in memory one that nobody answers at, and one that cannot be written
    let pieces = [(0x20_0002, 510), (0xe000_0000, 512), (0xf_fe00, 512), (0x30_0000, 2), (0x20_0200, 512)];
    d.q.write(0x20_0000, &[0xee; 0x402]);
    let rom = d.q.read(0xf_fe00, 512);
    let number = |n: u16| n.to_le_bytes().repeat(256);
    d.lba28(10, 4);
    d.command(0xc8);
    d.dma(&pieces, true);
    assert_eq!(d.done(), 0x50);
    d.q.outb(BMDMA, 0);
    let (first, second) = (d.q.read(0x20_0000, 512), d.q.read(0x20_0200, 514));
    assert_eq!((&first[..2], &first[2..]), (&[0xee; 2][..], &number(10)[..510]));
    assert_eq!((&second[..512], &second[512..]), (&number(13)[..], &[0xee; 2][..]));
    assert_eq!((d.q.load(0x30_0000, 2), d.q.read(0xf_fe00, 512)), (12, rom.clone()));
    // Written: ones where nobody answers
    d.lba28(20, 4);
    d.command(0xca);
    d.dma(&pieces, false);
    assert_eq!(d.done(), 0x50);
    let want = [&number(10)[..510], &[0xff; 512], &rom, &12u16.to_le_bytes(), &number(13)].concat();
    assert_eq!(std::fs::read(&path).unwrap()[20 * 512..24 * 512], want);
}

#[test]
fn memory_is_the_guests_again_when_a_transfer_is_given_up() {
    let (_dir, path) = image(64);
    let mut d = Ide::disk(&path, ",throttling.iops-total=1");
    let (code, other) = ([0xc8, 0xca], 0x30_0000);
    // Ways to give up: the bus master stops, the channel is reset.
    for (n, (write, reset)) in [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate() {
        let sector = 8 + 4 * n as u32;
        let begin = |d: &mut Ide, write: bool, sector: u32, at: u64| {
            d.q.outb(BMDMA, 0);
            d.lba28(sector, 1);
            d.put(7, code[usize::from(write)]);
            d.dma(&[(at as u32, 512)], !write);
        };
        let slowly = |d: &mut Ide| {
            until("a transfer", || {
                d.q.clock_step(100_000_000);
                d.q.inb(d.control) & 0x88 == 0
            });
        };
        begin(&mut d, false, 1, other);
        slowly(&mut d);
        // The second of a second waits.
        d.q.write(0x20_0000, &[0x22; 512]);
        begin(&mut d, write, sector, 0x20_0000);
        assert_ne!(d.q.inb(d.control) & 0x88, 0);
        if reset {
            d.q.outb(d.control, 4);
            d.q.outb(d.control, 0);
        } else {
            d.q.outb(BMDMA, 0);
        }
        d.q.write(0x20_0000, &[0x44; 512]);
        d.q.clock_step(10_000_000_000);
        begin(&mut d, false, 2, other);
        slowly(&mut d);
        d.q.clock_step(10_000_000_000);
        assert_eq!(d.q.read(0x20_0000, 512), [0x44; 512], "{write} {reset}");
        let there = &std::fs::read(&path).unwrap()[sector as usize * 512..][..512];
        let want = if write { vec![0x22; 512] } else { (sector as u16).to_le_bytes().repeat(256) };
        assert_eq!(there, want, "{write} {reset}");
    }
}

#[test]
fn trim_reaches_the_file() {
    let (_dir, path) = image(4096);
    let mut d = Ide::disk(&path, ",discard=unmap");
    // Ranges: 128 sectors from 1024, 8 from 2048.
    d.q.write(0x20_0000, &[0; 512]);
    d.q.store(0x20_0000, 8, 128 << 48 | 1024);
    d.q.store(0x20_0008, 8, 8 << 48 | 2048);
    d.put(1, 1);
    d.lba28(0, 1);
    assert_eq!(d.command(0x06), 0x58);
    d.dma(&[(0x20_0000, 512)], false);
    assert_eq!(d.done(), 0x50);
    let file = std::fs::read(&path).unwrap();
    let zeros = |from: usize, n: usize| file[from * 512..(from + n) * 512].iter().all(|b| *b == 0);
    assert!(zeros(1024, 128) && zeros(2048, 8));
    assert_eq!((file[1023 * 512], file[1152 * 512 + 1]), (0xff, 4));
}

fn cd(path: Option<&Path>) -> Ide {
    let file = path.map_or_else(String::new, |p| format!(",file={},format=raw", p.display()));
    let monitor = "-drive";
    Ide::new(start(&[monitor, &format!("if=ide,index=2,media=cdrom{file}")]), true)
}

#[test]
fn a_cd_is_read_by_packets() {
    let (_dir, path) = image(400);
    let mut d = cd(Some(&path));
    assert_eq!((d.get(2), d.get(3), d.get(4), d.get(5)), (1, 1, 0x14, 0xeb));
    assert_eq!((d.command(0xec), d.get(1)), (0x41, 4), "it is no disk");
    assert_eq!(d.command(0xa1), 0x58);
    let w = d.words(256);
    assert_eq!((w[0], text(&w[27..47]), text(&w[10..20])), (0x85c0, "QEMU DVD-ROM".into(), "QM00003".into()));
    // INQUIRY
    assert_eq!(d.packet([0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0]), 0x58);
    assert_eq!((d.get(2) & 3, d.get(4), d.get(5)), (2, 36, 0));
    let bytes: Vec<u8> = d.words(18).iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!((bytes[0], &bytes[8..12], &bytes[16..28]), (5, &b"QEMU"[..], &b"QEMU DVD-ROM"[..]));
    assert_eq!((d.wait(), d.get(2) & 3), (0x50, 3));
    // READ CAPACITY: the last sector of 2048 bytes
    assert_eq!(d.packet([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 0x58);
    assert_eq!(d.words(4), [0, 99u16.to_be(), 0, 2048u16.to_be()]);
    // READ(10) of 40 sectors: blocks as large as the byte count allows
    assert_eq!(d.packet([0x28, 0, 0, 0, 0, 3, 0, 0, 40, 0, 0, 0]), 0x58);
    let want: Vec<u16> = (12..172).flat_map(|n| [n; 256]).collect();
    let mut got = vec![];
    while d.wait() & 8 != 0 {
        let n = usize::from(d.get(5)) << 8 | usize::from(d.get(4));
        got.extend(d.words(n / 2));
    }
    assert_eq!(got, want);
    // By the bus master
    d.put(1, 1);
    assert_eq!(d.packet([0xa8, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]), 0x58);
    d.dma(&[(0x20_0000, 4096)], true);
    assert_eq!((d.done(), d.get(2) & 3), (0x50, 3));
    assert_eq!((d.q.load(0x20_0000, 2), d.q.load(0x20_0ffe, 2)), (4, 11));
    d.put(1, 0);
    // Beyond the end; an unknown command
    assert_eq!((d.packet([0x28, 0, 0, 0, 0, 99, 0, 0, 2, 0, 0, 0]), d.get(1)), (0x41, 0x50));
    assert_eq!(d.sense(), (5, 0x21));
    assert_eq!(d.packet([0xff; 12]), 0x41);
    assert_eq!(d.sense(), (5, 0x20));
    // READ TOC: one track of data, then the lead-out
    assert_eq!(d.packet([0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0]), 0x58);
    let toc: Vec<u8> = d.words(10).iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(toc, [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x16, 0xaa, 0, 0, 0, 0, 100]);
    // GET CONFIGURATION: the current profile is CD-ROM
    d.packet([0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(d.words(4)[3], 8u16.to_be());
}

#[test]
fn the_tray_opens_unless_it_is_locked() {
    let (_dir, path) = image(400);
    let mut d = cd(Some(&path));
    let test_ready = [0; 12];
    let eject = [0x1b, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(d.packet(test_ready), 0x50);
    assert_eq!(d.packet([0x1e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), 0x50);
    assert_eq!(d.packet(eject), 0x41);
    assert_eq!(d.sense(), (2, 0x53));
    assert_eq!(d.packet([0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 0x50);
    assert_eq!(d.packet(eject), 0x50);
    assert_eq!((d.packet(test_ready), d.sense()), (0x41, (2, 0x3a)));
    // Media status: open
    d.packet([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(d.words(4)[2].to_le_bytes()[1], 1);
    assert_eq!(d.packet([0x1b, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]), 0x50);
    assert_eq!(d.packet(test_ready), 0x50);
    // Without a medium nothing is ready.
    let mut empty = cd(None);
    assert_eq!((empty.packet(test_ready), empty.sense()), (0x41, (2, 0x3a)));
}

#[test]
fn a_range_of_trim_beyond_the_end_is_the_guests_mistake() {
    let (_dir, path) = image(64);
    let mut d = Ide::disk(&path, ",discard=unmap,werror=stop");
    d.q.write(0x20_0000, &[0; 512]);
    d.q.store(0x20_0000, 8, 8 << 48);
    d.q.store(0x20_0008, 8, 8 << 48 | 60);
    d.put(1, 1);
    d.lba28(0, 1);
    assert_eq!(d.command(0x06), 0x58);
    d.dma(&[(0x20_0000, 512)], false);
    assert_eq!(d.done() & 0x01, 0x01);
    // Nothing was done of it, and the machine goes on.
    assert_eq!(std::fs::read(&path).unwrap()[512..514], [1, 0]);
    d.lba28(0, 1);
    assert_eq!(d.command(0x20) & 0x09, 0x08);
}

#[test]
fn what_the_write_cache_holds_is_stable_when_it_is_off() {
    let (_dir, path) = image(64);
    let drive = format!("file={},format=raw,id=d", path.display());
    let mut q = Qmp::start(&["-accel", "qtest", "-display", "none", "-L", &firmware(), "-drive", &drive]);
    let flushes = |q: &mut Qmp| q.run("query-blockstats", json!({}))[0]["stats"]["flush_operations"].as_u64().unwrap();
    let before = flushes(&mut q);
    for (feature, want) in [("0x82", before + 1), ("0x02", before + 1)] {
        for write in [format!("0x1f1 {feature}"), "0x1f6 0xe0".into(), "0x1f7 0xef".into()] {
            q.hmp(&format!("o /b {write}"));
        }
        while q.hmp("i /b 0x3f6").contains("= 0xd0") || q.hmp("i /b 0x3f6").contains("= 0xc0") {}
        assert_eq!(q.hmp("i /b 0x3f6"), "portb[0x03f6] = 0x50\r\n", "{feature}");
        assert_eq!(flushes(&mut q), want, "{feature}");
    }
}

#[test]
fn a_write_that_stops_the_machine_is_made_again() {
    let (_dir, path) = image(64);
    let drive = format!("file={},werror=stop", path.display());
    let mut q = Qmp::start(&["-accel", "qtest", "-display", "none", "-L", &firmware(), "-drive", &drive]);
    // The image's format was guessed: it may not become another.
    for write in ["0x1f2 1", "0x1f3 0", "0x1f4 0", "0x1f5 0", "0x1f6 0xe0", "0x1f7 0x30"] {
        q.hmp(&format!("o /b {write}"));
    }
    q.hmp("o /w 0x1f0 0x00444551");
    (0..127).for_each(|_| _ = q.hmp("o /w 0x1f0 0"));
    assert_eq!(q.event("BLOCK_IO_ERROR")["data"]["action"], "stop");
    q.event("STOP");
    assert_eq!(q.run("query-status", json!({}))["status"], "io-error");
    assert_eq!(q.run("query-block", json!({}))[0]["io-status"], "failed");
    assert_eq!(q.hmp("i /b 0x3f6"), "portb[0x03f6] = 0xd0\r\n", "the guest sees a busy drive");
    q.run("cont", json!({}));
    assert_eq!(q.event("BLOCK_IO_ERROR")["data"]["operation"], "write");
    assert_eq!(std::fs::read(&path).unwrap()[..4], [0; 4]);
}

/// Boot code: reads `sector` by the firmware's extended read and says its first byte; `copy`: writes it to that sector.
fn boot_code(sector: u32, copy: Option<u32>) -> Vec<u8> {
    let assemble = || -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(16)?;
        let mut failed = a.create_label();
        let mut end = a.create_label();
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7000)?;
        a.push(dx)?;
        rom::say(&mut a, b'B')?;
        a.pop(dx)?;
        // The packet of INT 13H, AH=42H and 43H: size, sectors, buffer, sector.
        for (at, word) in
            [(0x600u32, 0x10u32), (0x602, 1), (0x604, 0x8000), (0x606, 0), (0x60a, 0), (0x60c, 0), (0x60e, 0)]
        {
            a.mov(word_ptr(at), word)?;
        }
        for (function, sector) in [(0x4200u32, Some(sector)), (0x4300, copy)] {
            let Some(sector) = sector else { continue };
            a.mov(word_ptr(0x608), sector)?;
            a.mov(si, 0x600)?;
            a.mov(ax, function)?;
            a.int(0x13)?;
            a.jc(failed)?;
        }
        a.mov(al, byte_ptr(0x8000))?;
        a.out(0xe9, al)?;
        a.jmp(end)?;
        a.set_label(&mut failed)?;
        rom::say(&mut a, b'!')?;
        a.set_label(&mut end)?;
        rom::end(&mut a)?;
        a.assemble(0x7c00)
    };
    assemble().expect("assembles")
}

/// Boots `args`; what the boot code said.
fn boot(args: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("log");
    let debugcon = format!("file:{}", log.display());
    let own =
        ["-display", "none", "-nodefaults", "-L", &firmware(), "-debugcon", &debugcon, "-device", "isa-debug-exit"];
    let out = process::run(&[&own, args].concat(), "");
    assert_eq!(out.code, Some(1), "{}{}", out.stdout, out.stderr);
    std::fs::read(log).expect("a report")
}

#[test]
fn firmware_boots_from_a_disk() {
    let (_dir, path) = image(2048);
    let mut bytes = std::fs::read(&path).unwrap();
    let code = boot_code(77, Some(99));
    bytes[..512].fill(0);
    bytes[..code.len()].copy_from_slice(&code);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(boot(&["-drive", &format!("file={},format=raw", path.display())]), [b'B', 77]);
    // The second of two disks, because its place in the order is better.
    let second = [
        "-drive",
        &format!("file={},format=raw,if=none,id=d", path.display()),
        "-drive",
        "driver=null-co,if=none,id=n",
    ];
    let devices = [
        "-device",
        "ide-hd,drive=n,unit=0,bus=ide.0,bootindex=2",
        "-device",
        "ide-hd,drive=d,bus=ide.1,unit=1,bootindex=1",
    ];
    assert_eq!(boot(&[&second[..], &devices].concat()), [b'B', 77]);
    let twice = process::run(
        &[
            &second[..],
            &devices.map(|d| if d.ends_with('2') { "ide-hd,drive=n,bootindex=1" } else { d }),
            &["-display", "none", "-L", &firmware()],
        ]
        .concat(),
        "",
    );
    assert!(twice.stderr.contains("The bootindex 1 has already been used"), "{}", twice.stderr);
    bytes.copy_within(77 * 512..78 * 512, 99 * 512);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    // From a disk on virtio, alone and as the better of two.
    assert_eq!(boot(&["-drive", &format!("file={},format=raw,if=virtio", path.display())]), [b'B', 77]);
    let devices = ["-device", "ide-hd,drive=n,bootindex=2", "-device", "virtio-blk-pci,drive=d,bootindex=1"];
    assert_eq!(boot(&[&second[..], &devices].concat()), [b'B', 77]);
    // On SCSI, as a unit that is not the first; on NVM Express
    let scsi = "scsi-hd,drive=d,scsi-id=3,lun=1,bootindex=1";
    let devices = ["-device", "ide-hd,drive=n,bootindex=2", "-device", "virtio-scsi-pci", "-device", scsi];
    assert_eq!(boot(&[&second[..], &devices].concat()), [b'B', 77]);
    let devices = ["-device", "ide-hd,drive=n,bootindex=2", "-device", "nvme,serial=1,drive=d,bootindex=1"];
    assert_eq!(boot(&[&second[..], &devices].concat()), [b'B', 77]);
    // Behind a port of an AHCI controller, which has another disk as well
    let disks = ["-device", "ide-hd,drive=n,bus=a.0,bootindex=2", "-device", "ide-hd,drive=d,bus=a.3,bootindex=1"];
    assert_eq!(boot(&[&second[..], &["-device", "ahci,id=a"], &disks].concat()), [b'B', 77]);
}

#[test]
fn firmware_boots_from_a_cd() {
    const SECTOR: usize = 2048;
    let mut iso = vec![0; 64 * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| iso[at..at + bytes.len()].copy_from_slice(bytes);
    // ISO 9660 volume descriptors: primary, El Torito's boot record with the catalog's sector, the end
    put(16 * SECTOR, b"\x01CD001\x01");
    put(17 * SECTOR, b"\0CD001\x01EL TORITO SPECIFICATION");
    put(17 * SECTOR + 0x47, &19u32.to_le_bytes());
    put(18 * SECTOR, b"\xffCD001\x01");
    // Catalog: validation entry, whose words add up to zero, and an entry without emulation
    let mut entry = [0u8; 64];
    entry[0] = 1;
    (entry[30], entry[31]) = (0x55, 0xaa);
    let sum = entry[..32].chunks_exact(2).fold(0u16, |s, w| s.wrapping_add(u16::from_le_bytes([w[0], w[1]])));
    entry[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    entry[32] = 0x88;
    entry[38] = 4;
    entry[40] = 20;
    put(19 * SECTOR, &entry);
    put(20 * SECTOR, &boot_code(33, None));
    put(33 * SECTOR, b"C");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &iso).unwrap();
    assert_eq!(boot(&["-cdrom", file.path().to_str().unwrap(), "-boot", "order=d"]), b"BC");
    let drive = format!("file={},format=raw,media=cdrom,if=none,id=d", file.path().display());
    let scsi = ["-drive", &drive, "-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=d,bootindex=0"];
    assert_eq!(boot(&scsi), b"BC");
    let ahci = ["-drive", &drive, "-device", "ahci,id=a", "-device", "ide-cd,drive=d,bus=a.1,bootindex=0"];
    assert_eq!(boot(&ahci), b"BC");
}
