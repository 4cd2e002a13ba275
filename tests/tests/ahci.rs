//! An AHCI controller by its registers, command lists and FISes.

use hw_core::{Core, Locked};
use std::path::{Path, PathBuf};
use tests::contract::board::Board;
use tests::packages;
use tests::process::until;
use tests::qmp::Qmp;
use tests::qtest::Qtest;

const BAR: u64 = 0xfea0_0000;
const IDP: u16 = 0xc000;
/// In memory: command list, received FISes, command tables (each 4 KiB), data.
const LIST: u64 = 0x10_0000;
const FIS: u64 = 0x10_1000;
const TABLES: u64 = 0x11_0000;
const DATA: u64 = 0x20_0000;
/// Where there is nothing.
const NOWHERE: u64 = 0x8000_0000;

/// Registers of a port.
const IS: u64 = 0x10;
const IE: u64 = 0x14;
const CMD: u64 = 0x18;
const TFD: u64 = 0x20;
const SIG: u64 = 0x24;
const SSTS: u64 = 0x28;
const SCTL: u64 = 0x2c;
const SERR: u64 = 0x30;
const SACT: u64 = 0x34;
const CI: u64 = 0x38;

/// Port interrupts.
const DHRS: u64 = 1;
const PSS: u64 = 2;
const SDBS: u64 = 8;
const DPS: u64 = 0x20;
const OFS: u64 = 1 << 24;
const IFS: u64 = 1 << 27;
const HBDS: u64 = 1 << 28;
const HBFS: u64 = 1 << 29;
const TFES: u64 = 1 << 30;

/// A folder with an image whose sectors of 512 bytes each hold their number.
fn image(sectors: u16) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("image");
    let bytes: Vec<u8> = (0..sectors).flat_map(|n| n.to_le_bytes().repeat(256)).collect();
    std::fs::write(&path, bytes).expect("an image");
    (dir, path)
}

fn firmware() -> String {
    packages::seabios().expect("SeaBIOS can be fetched").to_str().expect("a plain path").to_owned()
}

/// What is on the machine: the image as `kind` behind port 1.
fn devices(path: &Path, kind: &str, more: &str) -> Vec<String> {
    let drive = format!("if=none,id=d,file={}{more}", path.display());
    let device = format!("{kind},drive=d,bus=a.1");
    ["-drive", &drive, "-device", "ahci,id=a,addr=4", "-device", &device].map(str::to_owned).to_vec()
}

/// A register FIS that carries a command.
fn command(code: u8, lba: u64, count: u16, features: u16) -> [u8; 20] {
    let [l0, l1, l2, l3, l4, l5, ..] = lba.to_le_bytes();
    let ([c0, c1], [f0, f1]) = (count.to_le_bytes(), features.to_le_bytes());
    [0x27, 0x80, code, f0, l0, l1, l2, 0x40, l3, l4, l5, f1, c0, c1, 0, 0, 0, 0, 0, 0]
}

/// A register FIS that carries device control.
fn control(value: u8) -> [u8; 20] {
    let mut fis = [0; 20];
    (fis[0], fis[15]) = (0x27, value);
    fis
}

/// Header and table of a command, as they lie in memory: where, bytes.
fn laid_out(slot: u64, fis: &[u8], pieces: &[(u64, u32)]) -> [(u64, Vec<u8>); 2] {
    let at = TABLES + 0x1000 * slot;
    let mut table = fis.to_vec();
    table.resize(0x80, 0);
    for (addr, len) in pieces {
        let interrupt = len & (1 << 31);
        table.extend(addr.to_le_bytes());
        table.extend([0; 4]);
        table.extend((((len & 0x7fff_ffff) - 1) | interrupt).to_le_bytes());
    }
    let mut header = vec![5, 0];
    header.extend((pieces.len() as u16).to_le_bytes());
    header.extend([0; 4]);
    header.extend(at.to_le_bytes());
    [(LIST + 32 * slot, header), (at, table)]
}

struct Ahci {
    q: Qtest,
    port: u64,
}

impl Ahci {
    fn new(args: &[String]) -> Self {
        let firmware = firmware();
        let fixed = ["-nodefaults", "-m", "64", "-L", &firmware];
        let mut q = Qtest::start(&[&fixed[..], &args.iter().map(String::as_str).collect::<Vec<_>>()].concat());
        for (at, v) in [(0x20, IDP.into()), (0x24, BAR as u32), (0x04, 7)] {
            q.out(0xcf8, 4, 0x8000_2000 | at);
            q.out(0xcfc, 4, v);
        }
        Self { q, port: BAR + 0x180 }
    }

    fn disk(path: &Path) -> Self {
        let mut a = Self::new(&devices(path, "ide-hd", ",format=raw"));
        a.start();
        a
    }

    fn get(&mut self, register: u64) -> u64 {
        self.q.load(self.port + register, 4)
    }

    fn put(&mut self, register: u64, value: u64) {
        self.q.store(self.port + register, 4, value);
    }

    /// Lists, FISes, interrupts, then the engine.
    fn start(&mut self) {
        for (register, v) in [(0, LIST), (4, 0), (8, FIS), (12, 0), (IE, 0xffff_ffff), (CMD, 0x16), (CMD, 0x17)] {
            self.put(register, v);
        }
        self.q.store(BAR + 4, 4, 1 << 31 | 2);
    }

    /// The engine stops and starts: what a driver does after an error.
    fn again(&mut self) {
        self.put(CMD, 0x16);
        self.put(SERR, 0xffff_ffff);
        self.put(IS, 0xffff_ffff);
        self.q.store(BAR + 8, 4, 0x3f);
        self.put(CMD, 0x17);
    }

    fn lay_out(&mut self, slot: u64, fis: &[u8], pieces: &[(u64, u32)]) {
        for (at, bytes) in laid_out(slot, fis, pieces) {
            bytes.chunks(4096).enumerate().for_each(|(n, part)| self.q.write(at + 4096 * n as u64, part));
        }
    }

    /// Waits until all that was issued has ended, or something has gone wrong; what the port's interrupts are then.
    fn interrupt(&mut self) -> u64 {
        const FATAL: u64 = IFS | HBDS | HBFS | TFES;
        until("the commands' end", || self.get(CI) | self.get(SACT) == 0 || self.get(IS) & FATAL != 0);
        let is = self.get(IS);
        self.put(IS, is);
        self.q.store(BAR + 8, 4, 0x3f);
        is
    }

    /// A command in slot 0, from its issue to its interrupt.
    fn ask(&mut self, fis: &[u8], pieces: &[(u64, u32)]) -> u64 {
        self.lay_out(0, fis, pieces);
        self.put(CI, 1);
        self.interrupt()
    }

    /// Bytes that a command says it has moved.
    fn moved(&mut self) -> u64 {
        self.q.load(LIST + 4, 4)
    }

    fn word(&mut self, at: u64) -> u64 {
        self.q.load(at, 2)
    }
}

#[test]
fn a_disk_is_found_behind_its_port() {
    let (_dir, path) = image(2048);
    let mut a = Ahci::new(&devices(&path, "ide-hd", ",format=raw"));
    assert_eq!((a.q.load(BAR, 4), a.q.load(BAR + 4, 4), a.q.load(BAR + 12, 4)), (0xc014_1f05, 1 << 31, 0x3f));
    // By the index and data pair as well
    a.q.out(IDP + 0x10, 4, 0x1a8);
    assert_eq!((a.q.inp(IDP + 0x10, 4), a.q.inp(IDP + 0x14, 4)), (0x1a8, 0x113));
    // Nothing behind port 0
    assert_eq!((a.q.load(BAR + 0x128, 4), a.q.load(BAR + 0x120, 4), a.q.load(BAR + 0x124, 4)), (0, 0x7f, 0xffff_ffff));
    // The signature is heard of when FISes are received.
    assert_eq!((a.get(TFD), a.get(SIG)), (0x7f, 0xffff_ffff));
    a.start();
    assert_eq!((a.get(TFD), a.get(SIG), a.get(SSTS), a.get(CMD)), (0x150, 0x101, 0x113, 0xc017));
    assert_eq!(a.q.read(FIS + 0x40, 20), [0x34, 0, 0x50, 1, 1, 0, 0, 0xa0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // IDENTIFY DEVICE
    assert_eq!(a.ask(&command(0xec, 0, 0, 0), &[(DATA, 512)]), DHRS | PSS);
    assert_eq!((a.get(CI), a.get(TFD), a.moved()), (0, 0x50, 512));
    assert_eq!(a.q.read(FIS + 0x20, 20)[..4], [0x5f, 0x60, 0x58, 0]);
    assert_eq!(a.q.read(FIS + 0x20, 20)[15..18], [0x50, 0, 2]);
    // 32 queued commands; the number of the drive's place in its serial number
    assert_eq!((a.word(DATA + 150), a.word(DATA + 152), a.word(DATA + 120)), (31, 0x100, 2048));
    assert_eq!(a.q.read(DATA + 20, 8), b"MQ0000 7");
    // What the drive does not know
    assert_eq!((a.ask(&command(0xa1, 0, 0, 0), &[(DATA, 512)]), a.get(TFD), a.get(CI)), (DHRS | TFES, 0x441, 1));
}

#[test]
fn commands_move_sectors() {
    let (_dir, path) = image(8192);
    let mut a = Ahci::disk(&path);
    // READ DMA EXT over two pieces, the first of which is told of
    let pieces = [(DATA, 1 << 31 | 512), (DATA + 0x1_0000, 1536)];
    assert_eq!((a.ask(&command(0x25, 100, 4, 0), &pieces), a.moved()), (DHRS | DPS, 2048));
    assert_eq!((a.word(DATA), a.word(DATA + 0x1_0000), a.word(DATA + 0x1_05fe)), (100, 101, 103));
    // 3 MiB: more than one piece of work
    assert_eq!((a.ask(&command(0x25, 0, 6144, 0), &[(DATA, 3 << 20)]), a.moved()), (DHRS, 3 << 20));
    assert_eq!((a.word(DATA + 512), a.word(DATA + (3 << 20) - 2)), (1, 6143));
    // READ SECTORS EXT and READ MULTIPLE EXT: by the data register on the drive's side
    assert_eq!((a.ask(&command(0x24, 200, 3, 0), &[(DATA, 1536)]), a.moved()), (DHRS | PSS, 1536));
    assert_eq!((a.word(DATA), a.word(DATA + 1534)), (200, 202));
    assert_eq!((a.ask(&command(0x29, 300, 40, 0), &[(DATA, 40 * 512)]), a.word(DATA + 39 * 512)), (DHRS | PSS, 339));
    // Written, either way
    let sectors = |n: u8| [n; 1024];
    a.q.write(DATA, &sectors(0xaa));
    assert_eq!((a.ask(&command(0x34, 7, 2, 0), &[(DATA, 1000), (DATA + 1000, 24)]), a.moved()), (DHRS, 1024));
    a.q.write(DATA, &sectors(0xbb));
    assert_eq!((a.ask(&command(0x35, 9, 2, 0), &[(DATA, 1024)]), a.moved()), (DHRS, 1024));
    assert_eq!((a.ask(&command(0xea, 0, 0, 0), &[]), a.moved()), (DHRS, 0));
    let file = std::fs::read(&path).unwrap();
    assert_eq!(file[7 * 512..11 * 512], [sectors(0xaa), sectors(0xbb)].concat());
    assert_eq!((file[6 * 512], file[11 * 512]), (6, 11));
    // Beyond the end: nothing more is done until the engine was stopped.
    assert_eq!((a.ask(&command(0x25, 8191, 2, 0), &[(DATA, 1024)]), a.get(TFD), a.get(CI)), (DHRS | TFES, 0x441, 1));
    a.put(CI, 2);
    assert_eq!((a.get(CI), a.get(IS)), (3, 0));
    a.again();
    assert_eq!((a.get(CI), a.ask(&command(0x25, 8190, 2, 0), &[(DATA, 1024)])), (0, DHRS));
    // Two slots, one after the other
    a.lay_out(4, &command(0x25, 50, 1, 0), &[(DATA, 512)]);
    a.lay_out(9, &command(0x25, 60, 1, 0), &[(DATA + 512, 512)]);
    a.put(CI, 1 << 4 | 1 << 9);
    until("both commands", || a.get(CI) == 0);
    assert_eq!((a.word(DATA), a.word(DATA + 512), a.get(CMD) >> 8 & 0x1f), (50, 60, 9));
}

#[test]
fn queued_commands_end_in_any_order() {
    let (_dir, path) = image(4096);
    let mut a = Ahci::disk(&path);
    let at = |tag: u64| DATA + 0x2000 * tag;
    for tag in 0..32 {
        a.lay_out(tag, &command(0x60, 100 * tag, (tag as u16) << 3, 4), &[(at(tag), 2048)]);
    }
    a.put(SACT, 0xffff_ffff);
    a.put(CI, 0xffff_ffff);
    assert_eq!(a.get(CI), 0, "the drive has them all");
    until("all ended", || a.get(SACT) == 0);
    assert_eq!((a.interrupt(), a.get(TFD)), (SDBS, 0x50));
    for tag in 0..32 {
        assert_eq!((a.word(at(tag)), a.word(at(tag) + 2046)), (100 * tag, 100 * tag + 3));
    }
    // Written, and stable at once
    a.q.write(DATA, &[0x5a; 1024]);
    let mut fis = command(0x61, 20, 5 << 3, 2);
    fis[7] |= 0x80;
    a.lay_out(5, &fis, &[(DATA, 1024)]);
    a.put(SACT, 1 << 5);
    a.put(CI, 1 << 5);
    assert_eq!((a.interrupt(), a.q.read(FIS + 0x58, 8)), (SDBS, vec![0xa1, 0x40, 0x50, 0, 0x20, 0, 0, 0]));
    assert_eq!(std::fs::read(&path).unwrap()[20 * 512..22 * 512], [0x5a; 1024]);
    // Two pieces, one of which is told of, and pieces that are not all memory
    a.lay_out(6, &command(0x60, 30, 6 << 3, 2), &[(DATA + 2, 1 << 31 | 510), (DATA + 0x1000, 514)]);
    a.put(SACT, 1 << 6);
    a.put(CI, 1 << 6);
    assert_eq!((a.interrupt(), a.word(DATA + 2), a.word(DATA + 0x1200)), (SDBS | DPS, 30, 31));
    a.lay_out(7, &command(0x61, 40, 7 << 3, 2), &[(DATA + 2, 510), (0xf_fe00, 1 << 31 | 514)]);
    let rom = a.q.read(0xf_fe00, 512);
    a.put(SACT, 1 << 7);
    a.put(CI, 1 << 7);
    assert_eq!(a.interrupt(), SDBS | DPS);
    let written = std::fs::read(&path).unwrap();
    assert_eq!((written[40 * 512], &written[40 * 512 + 510..41 * 512 + 510]), (30, &rom[..]));
    // One that fails: the log says which. It is forgotten when it was read.
    a.lay_out(3, &command(0x60, 4095, 3 << 3, 2), &[(DATA, 1024)]);
    a.put(SACT, 1 << 3);
    a.put(CI, 1 << 3);
    assert_eq!((a.interrupt(), a.get(TFD), a.get(SACT), a.get(CI)), (TFES, 0x441, 8, 0));
    a.again();
    assert_eq!(a.get(SACT), 0);
    let log = [3, 0, 0x41, 4, 0xff, 0x0f, 0, 0x40, 0, 0, 0, 0, 2, 0];
    assert_eq!((a.ask(&command(0x2f, 0x10, 1, 0), &[(DATA, 512)]), a.q.read(DATA, 14)), (DHRS | PSS, log.to_vec()));
    assert_eq!(a.q.read(DATA, 512).iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
    assert_eq!((a.ask(&command(0x2f, 0x10, 1, 0), &[(DATA, 512)]), a.word(DATA)), (DHRS | PSS, 0x80));
    assert_eq!(a.ask(&command(0x2f, 0x11, 1, 0), &[(DATA, 512)]), DHRS | TFES);
    a.again();
    // A tag that is not the slot's
    a.lay_out(2, &command(0x60, 0, 3 << 3, 1), &[(DATA, 512)]);
    a.put(SACT, 1 << 2 | 1 << 3);
    a.put(CI, 1 << 2);
    assert_eq!((a.interrupt(), a.get(TFD), a.get(CI)), (DHRS | TFES, 0x441, 4));
}

#[test]
fn what_lies_wrong_in_memory_is_an_error() {
    let (_dir, path) = image(4096);
    let original = std::fs::read(&path).unwrap();
    let mut a = Ahci::disk(&path);
    // No command list, no command table
    a.put(0, NOWHERE);
    a.put(CI, 1);
    assert_eq!((a.interrupt(), a.get(CI)), (HBFS, 1));
    a.put(0, LIST);
    a.again();
    a.q.store(LIST, 8, 5);
    a.q.store(LIST + 8, 8, NOWHERE);
    a.put(CI, 1);
    assert_eq!(a.interrupt(), HBFS);
    a.again();
    // No command, and one that is too short
    assert_eq!(a.ask(&[0x34; 20], &[]), IFS);
    a.again();
    a.lay_out(0, &command(0xec, 0, 0, 0), &[]);
    a.q.store(LIST, 1, 4);
    a.put(CI, 1);
    assert_eq!(a.interrupt(), IFS);
    a.again();
    // A table that is too short; one without bytes
    assert_eq!((a.ask(&command(0x25, 5, 4, 0), &[(DATA, 1024)]), a.moved()), (DHRS | OFS, 1024));
    assert_eq!((a.ask(&command(0x25, 5, 4, 0), &[]), a.moved()), (DHRS | OFS, 0));
    assert_eq!((a.ask(&command(0x24, 5, 1, 0), &[(DATA, 100)]), a.moved()), (DHRS | PSS | OFS, 100));
    assert_eq!(a.ask(&command(0x34, 5, 1, 0), &[(DATA, 100)]), DHRS | TFES | OFS);
    a.again();
    // Data for nobody and from nobody: nothing is written.
    assert_eq!(a.ask(&command(0x25, 5, 1, 0), &[(NOWHERE, 512)]) & (HBDS | DHRS), HBDS);
    a.again();
    for code in [0x34, 0x35] {
        assert_eq!(a.ask(&command(code, 5, 2, 0), &[(DATA, 512), (NOWHERE, 512)]), DHRS | HBDS | TFES, "{code:#x}");
        a.again();
    }
    a.lay_out(1, &command(0x61, 5, 1 << 3, 1), &[(0xffff_ffff_ffff_ff00, 512)]);
    a.put(SACT, 2);
    a.put(CI, 2);
    assert_eq!(a.interrupt(), HBDS | TFES);
    a.again();
    assert!(std::fs::read(&path).unwrap() == original);
    // FISes for nobody
    a.put(8, NOWHERE);
    assert_eq!(a.ask(&command(0xe7, 0, 0, 0), &[]) & HBFS, HBFS);
    a.put(8, FIS);
    a.again();
    // The longest table there is: pieces of two bytes, 128 KiB in all
    let data = DATA + 0x20_0000;
    let pieces: Vec<_> = (0..65535).map(|n| (data + 2 * n, 2)).collect();
    assert_eq!((a.ask(&command(0x25, 64, 255, 0), &pieces), a.moved()), (DHRS, 255 * 512));
    assert_eq!(a.word(data + 254 * 512), 318);
    assert_eq!((a.ask(&command(0x25, 64, 1024, 0), &pieces), a.moved()), (DHRS | OFS, 255 * 512));
    // The controller does not reach its own registers: a command does not issue itself.
    assert_eq!(a.ask(&command(0x24, 1, 1, 0), &[(BAR + 0x180 + CI, 512)]) & HBDS, 0);
    assert_eq!((a.get(CI), a.get(CMD)), (0, 0xc017));
    assert_eq!(a.ask(&command(0x25, 1, 1, 0), &[(BAR + 0x180 + CI, 512)]) & HBDS, 0);
    assert_eq!((a.get(CI), a.get(CMD)), (0, 0xc017));
}

#[test]
fn resets_bring_the_signature_back() {
    let (_dir, path) = image(4096);
    let mut a = Ahci::disk(&path);
    assert_eq!(a.ask(&command(0x25, 4095, 9, 0), &[(DATA, 512)]), DHRS | TFES);
    a.again();
    // Software reset: two FISes
    a.q.write(FIS, &[0; 256]);
    for value in [4, 0] {
        a.lay_out(0, &control(value), &[]);
        a.put(CI, 1);
        assert_eq!((a.get(CI), a.get(IS)), (0, 0));
    }
    assert_eq!((a.get(TFD), a.q.read(FIS + 0x40, 4)), (0x150, vec![0x34, 0, 0x50, 1]));
    // COMRESET
    a.put(CMD, 0x16);
    a.put(SCTL, 0x301);
    assert_eq!((a.get(SSTS), a.get(TFD), a.get(SIG)), (0, 0x7f, 0xffff_ffff));
    a.put(SCTL, 0x300);
    assert_eq!((a.get(SSTS), a.get(TFD), a.get(SIG)), (0x113, 0x150, 0x101));
    assert_eq!((a.get(SERR), a.get(IS)), (0x0401_0000, 1 << 22 | 1 << 6));
    a.put(SERR, 0xffff_ffff);
    assert_eq!((a.get(SERR), a.get(IS)), (0, 0));
    // A link that is switched off
    a.put(SCTL, 4);
    assert_eq!(a.get(SSTS), 4);
    a.put(SCTL, 0);
    assert_eq!(a.get(SSTS), 0x113);
    a.again();
    // Reset of the controller, with a command that nobody answers (a port of a multiplier)
    let mut fis = command(0xec, 0, 0, 0);
    fis[1] |= 1;
    a.lay_out(0, &fis, &[]);
    a.put(CI, 1);
    assert_eq!((a.get(CI), a.get(TFD)), (1, 0x1d0));
    a.put(IE, 1);
    a.q.store(BAR + 4, 4, 1 << 31 | 3);
    assert_eq!((a.q.load(BAR + 4, 4), a.get(CMD), a.get(IE), a.get(CI), a.get(0)), (1 << 31, 6, 0, 0, LIST));
    assert_eq!((a.get(SSTS), a.get(TFD)), (0x113, 0x7f));
    a.start();
    assert_eq!((a.get(TFD), a.ask(&command(0x25, 3, 1, 0), &[(DATA, 512)]) & DHRS), (0x150, DHRS));
    // Busy forgotten by the driver: CLO
    a.put(CMD, 0x16);
    a.again();
    a.lay_out(0, &fis, &[]);
    a.put(CI, 1);
    a.put(CMD, 0x16);
    assert_eq!(a.get(TFD), 0xd0);
    a.put(CMD, 0x1e);
    assert_eq!((a.get(TFD), a.get(CMD) & 8), (0x50, 0));
}

#[test]
fn a_cd_is_read_by_packets() {
    let (_dir, path) = image(400);
    let mut a = Ahci::new(&devices(&path, "ide-cd", ",format=raw"));
    a.start();
    assert_eq!((a.get(SIG), a.get(TFD)), (0xeb14_0101, 0x150));
    assert_eq!(a.ask(&command(0xa1, 0, 0, 0), &[(DATA, 512)]), DHRS | PSS);
    assert_eq!((a.word(DATA), a.q.read(DATA + 54, 12)), (0x85c0, b"EQUMD DVR-MO".to_vec()));
    let packet = |a: &mut Ahci, dma: u16, packet: [u8; 12], len: u32| {
        // The byte count limit of replies by the data register: 4 KiB
        a.lay_out(0, &command(0xa0, 0x10_0000, 0, dma), &[(DATA, len)]);
        a.q.write(TABLES + 0x40, &packet);
        a.put(CI, 1);
        let is = a.interrupt();
        (is, a.moved())
    };
    let read = [0x28, 0, 0, 0, 0, 3, 0, 0, 5, 0, 0, 0];
    for (dma, want) in [(0, DHRS | PSS), (1, DHRS)] {
        a.q.write(DATA, &[0; 10240]);
        assert_eq!(packet(&mut a, dma, read, 10240), (want, 10240));
        assert_eq!((a.word(DATA), a.word(DATA + 10238)), (12, 31));
    }
    assert_eq!(packet(&mut a, 1, [0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0], 64), (DHRS, 36));
    assert_eq!(packet(&mut a, 0, [0; 12], 512), (DHRS, 0));
    // An unknown command, and why
    assert_eq!((packet(&mut a, 0, [0xff; 12], 512).0, a.get(TFD)), (DHRS | TFES, 0x5041));
    a.again();
    assert_eq!(packet(&mut a, 0, [3, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0], 18), (DHRS | PSS, 18));
    assert_eq!((a.q.load(DATA + 2, 1), a.q.load(DATA + 12, 1)), (5, 0x20));
    // No packet
    a.q.store(LIST + 8, 8, NOWHERE - 0x40);
    a.put(CI, 1);
    assert_eq!(a.interrupt() & HBFS, HBFS);
}

#[test]
fn interrupts_come_by_line_and_by_message() {
    let (_dir, path) = image(64);
    let mut a = Ahci::disk(&path);
    // All PIRQs go to line 11.
    a.q.out(0xcf8, 4, 0x8000_0860);
    a.q.out(0xcfc, 4, 0x0b0b_0b0b);
    a.q.intercept_in("/machine/i440fx/ioapic");
    a.lay_out(0, &command(0xe7, 0, 0, 0), &[]);
    a.put(CI, 1);
    until("the end", || a.get(IS) == DHRS);
    assert!(a.q.irq(11));
    assert_eq!(a.q.load(BAR + 8, 4), 2);
    // The controller's bit comes back as long as the port's is there.
    a.q.store(BAR + 8, 4, 2);
    assert_eq!((a.q.load(BAR + 8, 4), a.q.irq(11)), (2, true));
    a.put(IS, DHRS);
    assert!(a.q.irq(11), "the controller's bit stays");
    a.q.store(BAR + 8, 4, 2);
    assert!(!a.q.irq(11));
    // By message, to memory
    for (at, v) in [(0x84, 0x3000), (0x88, 0), (0x8c, 0x4321), (0x80, 0x1_0000)] {
        a.q.out(0xcf8, 4, 0x8000_2000 | at);
        a.q.out(0xcfc, 4, v);
    }
    a.put(CI, 1);
    until("the end", || a.get(IS) == DHRS);
    assert_eq!((a.q.load(0x3000, 4), a.q.irq(11)), (0x4321, false));
    a.q.store(0x3000, 4, 0);
    a.q.store(BAR + 8, 4, 2);
    assert_eq!(a.q.load(0x3000, 4), 0x4321, "it is told again");
    a.q.store(0x3000, 4, 0);
    a.put(IS, DHRS);
    a.q.store(BAR + 8, 4, 2);
    assert_eq!(a.q.load(0x3000, 4), 0);
}

/// A write that would make another format of an image whose format was guessed fails, and works with other data.
#[test]
fn a_write_that_stops_the_machine_is_made_again() {
    for queued in [false, true] {
        let (dir, path) = image(64);
        let socket = dir.path().join("qmp");
        let mut args = devices(&path, "ide-hd", ",werror=stop");
        args.extend(["-qmp".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]);
        let mut a = Ahci::new(&args);
        let mut q = Qmp::connect(&socket);
        q.run("qmp_capabilities", serde_json::json!({}));
        a.start();
        a.q.write(DATA, b"QED\0");
        let fis = if queued { command(0x61, 0, 0, 1) } else { command(0x35, 0, 1, 0) };
        a.lay_out(0, &fis, &[(DATA, 512)]);
        a.put(SACT, queued.into());
        a.put(CI, 1);
        q.event("STOP");
        assert_eq!(q.run("query-status", serde_json::json!({}))["status"], "io-error");
        assert_eq!((a.get(CI), a.get(SACT)), (u64::from(!queued), queued.into()), "the guest waits");
        assert_eq!((a.get(IS), std::fs::read(&path).unwrap()[..4] == [0; 4]), (0, true));
        a.q.write(DATA, &[0x5a; 512]);
        q.run("cont", serde_json::json!({}));
        assert_eq!(a.interrupt(), if queued { SDBS } else { DHRS });
        assert_eq!((a.get(CI), a.get(SACT)), (0, 0));
        assert_eq!(std::fs::read(&path).unwrap()[..1024], [[0x5a, 0x5a].repeat(256), [1, 0].repeat(256)].concat());
    }
}

#[test]
fn commands_in_flight_are_saved_and_made_again() {
    let (_dir, path) = image(4096);
    let args = devices(&path, "ide-hd", ",format=raw");
    let board = Board::pc(&args.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let core: &Core = board.core();
    let store = |m: &mut Locked, at: u64, v: u64| core.memory.store(m, at, 4, v).unwrap();
    let port = BAR + 0x180;
    let blocks = block::Blocks::of(core);
    // (The board waits for requests after what is done under its lock.)
    let locked = |f: &dyn Fn(&mut Locked)| f(&mut core.lock());
    locked(&|m| {
        for (at, v) in [(0x24, BAR), (0x04, 7)] {
            core.io.store(m, 0xcf8, 4, 0x8000_2000 | at).unwrap();
            core.io.store(m, 0xcfc, 4, v).unwrap();
        }
        for (register, v) in [(0, LIST), (8, FIS), (IE, 0xffff_ffff), (CMD, 0x17)] {
            store(m, port + register, v);
        }
        // (Guest memory ends at 2 MiB.)
        let data = |n: u64| LIST + 0x4_0000 + 0x1_0000 * n;
        let fises = [command(0x25, 10, 2, 0), command(0x60, 20, 1 << 3, 2), command(0x61, 30, 2 << 3, 2)];
        for (slot, fis) in fises.iter().enumerate() {
            for (at, bytes) in laid_out(slot as u64, fis, &[(data(slot as u64), 1024)]) {
                core.memory.write(m, at, &bytes).unwrap();
            }
        }
        core.memory.write(m, data(2), &[0x77; 1024]).unwrap();
    });
    let state = || {
        let m = &mut core.lock();
        let mut get = |at: u64| core.memory.load(m, at, 4).unwrap();
        let data = LIST + 0x4_0000;
        let registers = [get(port + CI), get(port + SACT), get(port + IS)];
        (registers, [get(data) & 0xffff, get(data + 0x1_0000) & 0xffff])
    };
    // One that is not queued, then two that are. (What is read may be in memory before the disk says that it is.)
    for (issued, sact, begun, ended) in
        [(1, 0, [1, 0, 0], ([0, 0, DHRS], [10, 0])), (6, 6, [0, 6, DHRS], ([0, 0, DHRS | SDBS], [10, 20]))]
    {
        locked(&|m| {
            store(m, port + SACT, sact);
            store(m, port + CI, issued);
        });
        assert_eq!(state().0, begun);
        let saved = board.snapshot().unwrap();
        blocks.drain();
        assert_eq!(state(), ended);
        let file = std::fs::read(&path).unwrap();
        if sact != 0 {
            assert_eq!(file[30 * 512..32 * 512], [0x77; 1024]);
            std::fs::write(&path, vec![0x11; file.len()]).unwrap();
        }
        board.restore(&saved).unwrap();
        assert_eq!(state().0, begun, "the disk has not answered");
        blocks.drain();
        if sact == 0 {
            assert_eq!(state(), ended);
        } else {
            assert_eq!(state(), ([0, 0, DHRS | SDBS], [10, 0x1111]));
            assert_eq!(std::fs::read(&path).unwrap()[30 * 512..32 * 512], [0x77; 1024]);
        }
    }
}

#[test]
fn a_port_takes_one_drive() {
    let drive = |id: &str| format!("if=none,id={id},driver=null-co,size=1M");
    let run = |devices: &[&str]| {
        let mut args =
            vec!["-display".to_owned(), "none".into(), "-drive".into(), drive("d"), "-drive".into(), drive("e")];
        args.extend(["-device", "ahci,id=a"].map(str::to_owned));
        devices.iter().for_each(|d| args.extend(["-device".to_owned(), (*d).to_owned()]));
        tests::process::run(&args.iter().map(String::as_str).collect::<Vec<_>>(), "").stderr
    };
    let twice = run(&["ide-hd,drive=d,bus=a.0", "ide-hd,drive=e,bus=a.0"]);
    assert!(twice.contains("Bus 'a.0' is full"), "{twice}");
    let slave = run(&["ide-hd,drive=d,bus=a.5,unit=1"]);
    assert!(slave.contains("Can't create IDE unit 1, bus supports only 1 units"), "{slave}");
    let none = run(&["ide-hd,drive=d,bus=a.6"]);
    assert!(none.contains("Bus 'a.6' not found"), "{none}");
}

#[test]
fn a_read_under_way_leaves_memory_alone_when_it_is_given_up() {
    let (_dir, path) = image(64);
    let mut a = Ahci::new(&devices(&path, "ide-hd", ",format=raw,throttling.iops-total=1"));
    a.start();
    // READ FPDMA QUEUED, then READ DMA EXT; the controller is reset, or the port's engine stops and its drive is reset.
    for (code, count, features) in [(0x60, 0, 1), (0x25, 1, 0)] {
        for controller in [true, false] {
            let read = |a: &mut Ahci, sector: u64, at: u64| {
                a.lay_out(0, &command(code, sector, count, features), &[(at, 512)]);
                if code == 0x60 {
                    a.put(SACT, 1);
                }
                a.put(CI, 1);
            };
            let slowly = |a: &mut Ahci| {
                until("a read", || {
                    a.q.clock_step(100_000_000);
                    a.get(CI) | a.get(SACT) == 0
                });
            };
            let other = DATA + 0x1000;
            read(&mut a, 1, other);
            slowly(&mut a);
            read(&mut a, 2, DATA);
            assert_ne!(a.get(CI) | a.get(SACT), 0, "the second of a second waits");
            if controller {
                a.q.store(BAR + 4, 4, 1);
                a.start();
            } else {
                a.put(CMD, 0x16);
                a.q.write(DATA, &[0x44; 512]);
                a.put(SCTL, 1);
                a.put(SCTL, 0);
                a.again();
            }
            a.q.write(DATA, &[0x44; 512]);
            a.q.clock_step(10_000_000_000);
            read(&mut a, 3, other);
            slowly(&mut a);
            assert_eq!((a.word(other), a.get(TFD) & 0xff), (3, 0x50));
            a.q.clock_step(10_000_000_000);
            assert_eq!(a.q.read(DATA, 512), [0x44; 512], "{code:#x} {controller}");
            let is = a.get(IS);
            a.put(IS, is);
        }
    }
}

#[test]
fn a_reset_forgets_a_write_under_way_and_what_is_written_after_it_is_last() {
    let (_dir, path) = image(64);
    let mut a = Ahci::new(&devices(&path, "ide-hd", ",format=raw,throttling.iops-total=1"));
    a.start();
    // WRITE DMA EXT, then WRITE FPDMA QUEUED
    for (n, (code, count, features)) in [(0x61, 0, 1), (0x35, 1, 0)].into_iter().enumerate() {
        let sector = 8 + n as u64;
        let write = |a: &mut Ahci, byte: u8| {
            a.q.write(DATA, &[byte; 512]);
            a.lay_out(0, &command(code, sector, count, features), &[(DATA, 512)]);
            if code == 0x61 {
                a.put(SACT, 1);
            }
            a.put(CI, 1);
        };
        let slowly = |a: &mut Ahci| {
            until("a write", || {
                a.q.clock_step(100_000_000);
                a.get(CI) | a.get(SACT) == 0
            });
        };
        write(&mut a, 0x11);
        slowly(&mut a);
        // The second of a second waits, and the controller is reset.
        write(&mut a, 0x22);
        a.q.store(BAR + 4, 4, 1);
        assert_eq!((a.q.load(BAR + 4, 4) & 1, a.get(CI), a.get(SACT)), (0, 0, 0));
        a.start();
        write(&mut a, 0x33);
        assert_ne!(a.get(CI) | a.get(SACT), 0, "neither is done");
        slowly(&mut a);
        assert_eq!(a.get(TFD) & 0xff, 0x50);
        a.q.clock_step(10_000_000_000);
        assert_eq!(std::fs::read(&path).unwrap()[sector as usize * 512..][..512], [0x33; 512], "{code:#x}");
        // Time enough for the next to begin at once
        let is = a.get(IS);
        a.put(IS, is);
    }
}
