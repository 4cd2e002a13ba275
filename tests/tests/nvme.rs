//! An NVMe controller by its registers and queues.

use std::path::{Path, PathBuf};
use tests::packages;
use tests::qtest::Qtest;

const BAR: u64 = 0xfe00_0000;
/// Queues, each a page: submission, then completion.
const ADMIN: u64 = 0x10_0000;
const IO: u64 = 0x11_0000;
const DATA: u64 = 0x20_0000;
/// Entries of the queues.
const SIZE: u32 = 8;
/// How often something is looked at that comes from another thread.
const PATIENCE: u32 = 100_000;

/// A folder with an image whose sectors of 512 bytes each hold their number.
fn image(sectors: u16) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("image");
    let bytes: Vec<u8> = (0..sectors).flat_map(|n| n.to_le_bytes().repeat(256)).collect();
    std::fs::write(&path, bytes).expect("an image");
    (dir, path)
}

/// A pair of queues as its driver sees it: one command at a time.
#[derive(Clone, Copy)]
struct Queue {
    base: u64,
    id: u64,
    tail: u32,
    head: u32,
    phase: u16,
}

struct Nvme {
    q: Qtest,
    admin: Queue,
    io: Queue,
}

fn queue(base: u64, id: u64) -> Queue {
    Queue { base, id, tail: 0, head: 0, phase: 1 }
}

impl Nvme {
    fn new(path: &Path, device: &str) -> Self {
        Self::limited(path, "", device)
    }

    /// With limits of the drive's.
    fn limited(path: &Path, limits: &str, device: &str) -> Self {
        let firmware = packages::seabios().expect("SeaBIOS can be fetched").to_str().expect("a plain path").to_owned();
        let drive = format!("if=none,id=d,file={},format=raw,discard=unmap{limits}", path.display());
        let device = format!("nvme,drive=d,serial=s1,addr=4{device}");
        let mut q = Qtest::start(&["-nodefaults", "-m", "64", "-L", &firmware, "-drive", &drive, "-device", &device]);
        for (at, v) in [(0x10, BAR as u32), (0x14, 0), (0x04, 6)] {
            q.out(0xcf8, 4, 0x8000_0000 | 4 << 11 | at);
            q.out(0xcfc, 4, v);
        }
        Self { q, admin: queue(ADMIN, 0), io: queue(IO, 1) }
    }

    /// Enables the controller and makes a pair of queues.
    fn start(&mut self) {
        self.enable();
        let size = (SIZE - 1) << 16 | 1;
        assert_eq!(self.admin(0x05, 0, IO + 0x1000, [size, 3, 0]), (0, 0), "completion queue");
        assert_eq!(self.admin(0x01, 0, IO, [size, 1 << 16 | 1, 0]), (0, 0), "submission queue");
    }

    fn enable(&mut self) {
        self.q.write(ADMIN, &[0; 0x2000]);
        self.q.write(IO, &[0; 0x2000]);
        (self.admin, self.io) = (queue(ADMIN, 0), queue(IO, 1));
        self.q.store(BAR + 0x24, 4, u64::from((SIZE - 1) << 16 | (SIZE - 1)));
        self.q.store(BAR + 0x28, 8, ADMIN);
        self.q.store(BAR + 0x30, 8, ADMIN + 0x1000);
        self.q.store(BAR + 0x14, 4, 4 << 20 | 6 << 16 | 1);
        assert_eq!(self.q.load(BAR + 0x1c, 4), 1, "ready");
    }

    /// Begins a command of command dwords 10 to 12.
    fn begin(&mut self, at: &mut Queue, (opcode, flags): (u8, u8), nsid: u32, prp: (u64, u64), dw: [u32; 3]) {
        let mut b = vec![opcode, flags, 0x34, 0x12];
        b.extend(nsid.to_le_bytes());
        b.resize(24, 0);
        b.extend(prp.0.to_le_bytes());
        b.extend(prp.1.to_le_bytes());
        b.extend(dw.iter().flat_map(|w| w.to_le_bytes()));
        b.resize(64, 0);
        self.q.write(at.base + 64 * u64::from(at.tail), &b);
        at.tail = (at.tail + 1) % SIZE;
        self.q.store(BAR + 0x1000 + 8 * at.id, 4, at.tail.into());
    }

    /// Whether a completion has come.
    fn came(&mut self, at: &Queue) -> bool {
        self.q.load(at.base + 0x1000 + 16 * u64::from(at.head) + 14, 2) as u16 & 1 == at.phase
    }

    /// A command of command dwords 10 to 12; status and result.
    fn ask(
        &mut self,
        mut at: Queue,
        opcode: u8,
        flags: u8,
        nsid: u32,
        prp: (u64, u64),
        dw: [u32; 3],
    ) -> (Queue, u16, u32) {
        self.begin(&mut at, (opcode, flags), nsid, prp, dw);
        let entry = at.base + 0x1000 + 16 * u64::from(at.head);
        let came = (0..PATIENCE).any(|_| self.came(&at));
        assert!(came, "no completion of {opcode:#x}");
        assert_eq!((self.q.load(entry + 10, 2), self.q.load(entry + 12, 2)), (at.id, 0x1234));
        let (status, result) = (self.q.load(entry + 14, 2) as u16 >> 1, self.q.load(entry, 4) as u32);
        at.head = (at.head + 1) % SIZE;
        at.phase ^= u16::from(at.head == 0);
        self.q.store(BAR + 0x1004 + 8 * at.id, 4, at.head.into());
        (at, status, result)
    }

    fn admin(&mut self, opcode: u8, nsid: u32, prp: u64, dw: [u32; 3]) -> (u16, u32) {
        let (at, status, result) = self.ask(self.admin, opcode, 0, nsid, (prp, 0), dw);
        self.admin = at;
        (status, result)
    }

    fn io(&mut self, opcode: u8, prp: (u64, u64), dw: [u32; 3]) -> u16 {
        let (at, status, _) = self.ask(self.io, opcode, 0, 1, prp, dw);
        self.io = at;
        status
    }
}

#[test]
fn the_controller_starts_and_says_what_it_is() {
    let (_dir, path) = image(4096);
    let mut n = Nvme::new(&path, ",logical_block_size=4096,physical_block_size=4096");
    n.q.out(0xcf8, 4, 0x8000_2000);
    assert_eq!(n.q.inp(0xcfc, 4), 0x0010_1b36);
    let cap = n.q.load(BAR, 8);
    assert_eq!((cap & 0xffff, cap >> 16 & 1, cap >> 37 & 1, cap >> 48 & 0xf), (2047, 1, 1, 0));
    assert_eq!((n.q.load(BAR + 8, 4), n.q.load(BAR + 0x1c, 4)), (0x0001_0400, 0));
    // Queues that are none
    n.q.store(BAR + 0x14, 4, 1);
    assert_eq!(n.q.load(BAR + 0x1c, 4), 2, "fatal status");
    n.q.store(BAR + 0x14, 4, 0);
    n.start();
    assert_eq!(n.admin(0x06, 0, DATA, [1, 0, 0]), (0, 0));
    assert_eq!(n.q.read(DATA + 4, 6), b"s1    ");
    assert_eq!(n.q.read(DATA + 24, 14), b"QEMU NVMe Ctrl");
    assert_eq!((n.q.load(DATA + 77, 1), n.q.load(DATA + 512, 2), n.q.load(DATA + 516, 4)), (7, 0x4466, 256));
    assert_eq!(n.admin(0x06, 1, DATA, [0, 0, 0]), (0, 0));
    assert_eq!((n.q.load(DATA, 8), n.q.load(DATA + 130, 1)), (512, 12));
    assert_eq!(n.admin(0x06, 0, DATA, [2, 0, 0]), (0, 0));
    assert_eq!(n.q.load(DATA, 8), 1);
    assert_eq!(n.admin(0x06, 300, DATA, [0, 0, 0]).0, 0x400b);
    // Features, logs, what there is not
    assert_eq!(n.admin(0x09, 0, 0, [7, 0, 0]), (0, 63 << 16 | 63));
    assert_eq!(n.admin(0x09, 0, 0, [6, 0, 0]), (0, 0));
    assert_eq!(n.admin(0x0a, 0, 0, [6, 0, 0]), (0, 0));
    assert_eq!(n.admin(0x02, u32::MAX, DATA, [127 << 16 | 2, 0, 0]), (0, 0));
    assert_eq!(n.q.load(DATA + 1, 2), 0x143);
    assert_eq!((n.admin(0x02, 0, DATA, [0x77, 0, 0]).0, n.admin(0x80, 1, 0, [0; 3]).0), (0x4109, 0x4001));
    // Queues: taken, too long, of no completion queue, in use
    let size = (SIZE - 1) << 16;
    assert_eq!(n.admin(0x05, 0, IO, [size | 1, 1, 0]).0, 0x4101);
    assert_eq!(n.admin(0x05, 0, IO, [4000 << 16 | 2, 1, 0]).0, 0x4102);
    assert_eq!(n.admin(0x05, 0, IO, [size | 2, 100 << 16 | 1, 0]).0, 0x4108);
    assert_eq!(n.admin(0x05, 0, IO + 8, [size | 2, 1, 0]).0, 0x4013);
    assert_eq!(n.admin(0x01, 0, IO, [size | 2, 5 << 16 | 1, 0]).0, 0x4100);
    assert_eq!(n.admin(0x04, 0, 0, [1, 0, 0]).0, 0x410c);
    assert_eq!(n.admin(0x00, 0, 0, [1, 0, 0]), (0, 0));
    assert_eq!(n.admin(0x04, 0, 0, [1, 0, 0]), (0, 0));
    // Shutdown, and a start after it
    n.q.store(BAR + 0x14, 4, 4 << 20 | 6 << 16 | 1 << 14 | 1);
    assert_eq!(n.q.load(BAR + 0x1c, 4), 9);
    n.q.store(BAR + 0x14, 4, 0);
    assert_eq!(n.q.load(BAR + 0x1c, 4), 0);
    n.start();
    let bad = [("nvme,drive=d", "serial property not set"), ("nvme,serial=1,cmb_size_mb=4", "not built yet")];
    for (device, what) in bad {
        let args = ["-display", "none", "-drive", "if=none,id=d,driver=null-co,size=1M", "-device", device];
        let out = tests::process::run(&args, "");
        assert!(out.stderr.contains(what), "{device}: {}", out.stderr);
    }
}

#[test]
fn blocks_are_read_written_compared_and_given_back() {
    let (_dir, path) = image(4096);
    let mut n = Nvme::new(&path, "");
    n.start();
    let sector = |n: u16| n.to_le_bytes().repeat(256);
    let file = |at: usize, n: usize| std::fs::read(&path).unwrap()[at * 512..(at + n) * 512].to_vec();
    // More commands than the queue has entries: it wraps.
    for at in 5..30u16 {
        assert_eq!(n.io(2, (DATA + 512, 0), [at.into(), 0, 1]), 0);
        assert_eq!(n.q.read(DATA + 512, 1024), [sector(at), sector(at + 1)].concat());
    }
    // Over two pages, and over a list of pages
    assert_eq!(n.io(2, (DATA + 0xe00, DATA + 0x8000), [40, 0, 1]), 0);
    assert_eq!((n.q.load(DATA + 0xe00, 2), n.q.load(DATA + 0x8000, 2)), (40, 41));
    for i in 0..31u64 {
        n.q.store(DATA + 0x1000 + 8 * i, 8, DATA + 0x10_0000 + 0x2000 * i);
    }
    assert_eq!(n.io(2, (DATA, DATA + 0x1000), [64, 0, 255]), 0);
    assert_eq!((n.q.load(DATA, 2), n.q.load(DATA + 0x10_0000 + 0x2000 * 30, 2)), (64, 64 + 31 * 8));
    // By a scatter gather list of one descriptor, and of the wrong length
    let (at, status, _) = n.ask(n.io, 2, 0x40, 1, (DATA, 512), [77, 0, 0]);
    assert_eq!((status, n.q.load(DATA, 2)), (0, 77));
    let (at, status, _) = n.ask(at, 2, 0x40, 1, (DATA, 511), [77, 0, 0]);
    assert_eq!(status, 0x400f);
    n.io = at;
    // Written, stable, compared
    n.q.write(DATA, &[0x5a; 1024]);
    assert_eq!(
        (n.io(1, (DATA, 0), [100, 0, 1]), n.io(1, (DATA, 0), [102, 0, 1 << 30 | 1]), n.io(0, (0, 0), [0; 3])),
        (0, 0, 0)
    );
    assert_eq!((file(100, 4), file(104, 1)), (vec![0x5a; 2048], sector(104)));
    assert_eq!((n.io(5, (DATA, 0), [100, 0, 1]), n.io(5, (DATA, 0), [103, 0, 1])), (0, 0x4285));
    // Zeros, ranges given back, a look at blocks
    assert_eq!((n.io(8, (0, 0), [100, 0, 1]), n.io(0x0c, (0, 0), [0, 0, 15])), (0, 0));
    assert_eq!((file(100, 2), file(102, 1)), (vec![0; 1024], vec![0x5a; 512]));
    n.q.store(DATA + 4, 4, 8);
    n.q.store(DATA + 8, 8, 512);
    assert_eq!(n.io(9, (DATA, 0), [0, 4, 0]), 0);
    assert_eq!((file(512, 8), file(520, 1)), (vec![0; 4096], sector(520)));
    // Beyond the end, longer than a transfer may be, pages that are none, a namespace that is none
    assert_eq!((n.io(2, (DATA, 0), [4095, 0, 1]), n.io(2, (DATA, 0), [0, 1, 0])), (0x4080, 0x4080));
    assert_eq!((n.io(2, (DATA, 0), [0, 0, 1024]), n.io(2, (DATA + 512, DATA + 8), [0, 0, 7])), (0x4002, 0x4013));
    assert_eq!(n.io(0x55, (0, 0), [0; 3]), 0x4001);
    let (at, status, _) = n.ask(n.io, 2, 0, 9, (DATA, 0), [0; 3]);
    assert_eq!(status, 0x400b);
    n.io = at;
    // A doorbell that there is not is an event, for those who asked.
    let mut aer = vec![0x0c, 0, 0x34, 0x12];
    aer.resize(64, 0);
    n.q.write(ADMIN + 64 * u64::from(n.admin.tail), &aer);
    n.admin.tail = (n.admin.tail + 1) % SIZE;
    n.q.store(BAR + 0x1000, 4, n.admin.tail.into());
    let entry = ADMIN + 0x1000 + 16 * u64::from(n.admin.head);
    assert_ne!(n.q.load(entry + 14, 2) as u16 & 1, n.admin.phase);
    n.q.store(BAR + 0x1000 + 8 * 40, 4, 1);
    assert_eq!((n.q.load(entry + 14, 2) as u16 & 1, n.q.load(entry, 4)), (n.admin.phase, 0x01_0000));
}

#[test]
fn a_read_under_way_leaves_memory_alone_when_it_is_given_up() {
    let (_dir, path) = image(64);
    // The controller is reset; the queue goes; the command is given up.
    for way in 0..3 {
        let mut n = Nvme::limited(&path, ",throttling.iops-total=1", "");
        n.start();
        let read = |n: &mut Nvme, sector: u32, at: u64| {
            let mut io = n.io;
            n.begin(&mut io, (2, 0), 1, (at, 0), [sector, 0, 0]);
            n.io = io;
        };
        let other = DATA + 0x1000;
        read(&mut n, 1, other);
        let at = n.io;
        assert!((0..PATIENCE).any(|_| n.came(&at)), "the first read");
        read(&mut n, 2, DATA);
        match way {
            0 => {
                n.q.store(BAR + 0x14, 4, 0);
                n.start();
            }
            1 => {
                assert_eq!(n.admin(0x00, 0, 0, [1, 0, 0]), (0, 0));
                assert_eq!(n.admin(0x04, 0, 0, [1, 0, 0]), (0, 0));
                let size = (SIZE - 1) << 16 | 1;
                n.q.write(IO, &[0; 0x2000]);
                n.io = queue(IO, 1);
                assert_eq!(n.admin(0x05, 0, IO + 0x1000, [size, 3, 0]), (0, 0));
                assert_eq!(n.admin(0x01, 0, IO, [size, 1 << 16 | 1, 0]), (0, 0));
            }
            _ => {
                assert_eq!(n.admin(0x08, 0, 0, [0x1234 << 16 | 1, 0, 0]), (0, 0));
                (n.io.head, n.io.tail) = (2, 2);
            }
        }
        n.q.write(DATA, &[0x44; 512]);
        n.q.clock_step(10_000_000_000);
        read(&mut n, 3, other);
        let at = n.io;
        let came = (0..PATIENCE).any(|_| {
            n.q.clock_step(100_000_000);
            n.came(&at)
        });
        assert!(came, "a read afterwards");
        assert_eq!((n.q.load(other, 2), n.q.read(DATA, 512)), (3, vec![0x44; 512]), "{way}");
    }
}

#[test]
fn a_reset_forgets_a_write_under_way_and_what_is_written_after_it_is_last() {
    let (_dir, path) = image(64);
    let mut n = Nvme::limited(&path, ",throttling.iops-total=1", "");
    let write = |n: &mut Nvme, byte: u8| {
        n.q.write(DATA, &[byte; 512]);
        let mut at = n.io;
        n.begin(&mut at, (0x01, 0), 1, (DATA, 0), [8, 0, 0]);
        n.io = at;
    };
    n.start();
    write(&mut n, 0x11);
    let at = n.io;
    assert!((0..PATIENCE).any(|_| n.came(&at)), "the first write");
    // The second of a second waits, and the controller is reset.
    write(&mut n, 0x22);
    n.q.store(BAR + 0x14, 4, 0);
    assert_eq!(n.q.load(BAR + 0x1c, 4), 0);
    n.start();
    write(&mut n, 0x33);
    let at = n.io;
    assert!(!n.came(&at), "neither is done");
    let came = (0..PATIENCE).any(|_| {
        n.q.clock_step(100_000_000);
        n.came(&at)
    });
    assert!(came, "the write after the reset");
    n.q.clock_step(10_000_000_000);
    // One completion, of the new queue's one command, and nothing behind it.
    assert_eq!((n.q.load(IO + 0x1008, 2), n.q.load(IO + 0x100e, 2)), (1, 1));
    assert_eq!(n.q.read(IO + 0x1010, 16), [0; 16]);
    assert_eq!(std::fs::read(&path).unwrap()[8 * 512..9 * 512], [0x33; 512]);
}
