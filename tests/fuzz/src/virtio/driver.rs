//! A driver's side of a function: it sets the device up as its specification says, or nearly, and then does what the input says.
//! Source: virtio 1.2 §2.7, §2.8, §4.1.

use crate::input::Input;
use crate::rig::{Function, RAM, Rig};
use hw_core::PciDevice;
use qom::Ref;

/// Queues that are set up, entries of each, and where they are: a queue has three pages.
const QUEUES: u64 = 6;
const RINGS: u64 = 0x1_0000;
const STEP: u64 = 0x3000;
/// Where buffers are, and how many.
const BUFFERS: u64 = 0x4_0000;
const BUFFER: u64 = 0x1000;
/// Windows of the modern registers.
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
/// Descriptor flags.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A queue as the driver sees it.
#[derive(Clone, Copy)]
struct Ring {
    next: u16,
    avail: u16,
    wrap: bool,
}

/// The driver.
pub(super) struct Driver {
    f: Function,
    packed: bool,
    size: u16,
    rings: [Ring; QUEUES as usize],
}

impl Driver {
    /// Maps the device and sets it up with the features of `wanted` that it offers. Flags: 1: packed rings, 2: it is not told that the driver
    /// is ready, 4: a legacy driver, 8 and 16: size of the queues.
    pub(super) fn new(rig: &mut Rig, pci: Ref<PciDevice>, flags: u8, wanted: u64) -> Self {
        let f = rig.start(pci);
        let size = [4, 8, 16, 128][usize::from(flags >> 3 & 3)];
        let ring = Ring { next: 0, avail: 0, wrap: true };
        let d = Self { f, packed: flags & 1 != 0, size, rings: [ring; QUEUES as usize] };
        if flags & 4 != 0 {
            d.set_up_legacy(rig, wanted, flags & 2 == 0);
        } else {
            d.set_up(rig, wanted, flags & 2 == 0);
        }
        d
    }

    fn registers(&self) -> u64 {
        self.f.bars[4].0
    }

    fn place(&self, queue: u64) -> [u64; 3] {
        let base = RINGS + queue * STEP;
        [base, base + 0x1000, base + 0x2000]
    }

    fn set_up(&self, rig: &Rig, wanted: u64, ready: bool) {
        let base = self.registers();
        let version = 1 << 32;
        let packed = u64::from(self.packed) << 34;
        for status in [0, 1, 3] {
            rig.store(base + 0x14, 1, status);
        }
        for half in 0..2 {
            rig.store(base, 4, half);
            let offered = rig.load(base + 4, 4);
            rig.store(base + 8, 4, half);
            rig.store(base + 12, 4, offered & (wanted | version | packed) >> (32 * half));
        }
        rig.store(base + 0x14, 1, 11);
        for n in 0..QUEUES {
            rig.store(base + 0x16, 2, n);
            rig.store(base + 0x18, 2, self.size.into());
            for (at, v) in [0x20, 0x28, 0x30].into_iter().zip(self.place(n)) {
                rig.store(base + at, 4, v);
                rig.store(base + at + 4, 4, 0);
            }
            rig.store(base + 0x1c, 2, 1);
        }
        if ready {
            rig.store(base + 0x14, 1, 15);
        }
    }

    fn set_up_legacy(&self, rig: &Rig, wanted: u64, ready: bool) {
        let io = self.f.bars[0].0;
        for status in [0, 1, 3] {
            rig.out(io + 18, 1, status);
        }
        let offered = rig.inp(io, 4);
        rig.out(io + 4, 4, offered & wanted);
        for n in 0..QUEUES {
            rig.out(io + 14, 2, n);
            rig.out(io + 8, 4, self.place(n)[0] >> 12);
        }
        if ready {
            rig.out(io + 18, 1, 7);
        }
    }

    fn notify(&self, rig: &Rig, queue: u64) {
        rig.store(self.registers() + NOTIFY + 4 * queue, 2, queue);
        rig.out(self.f.bars[0].0 + 16, 2, queue);
    }

    /// One thing that a driver may do.
    pub(super) fn step(&mut self, rig: &Rig, what: u8, input: &mut Input<'_>) {
        match what % 16 {
            0..=5 => self.chain(rig, input),
            6 => {
                let queue = input.below(QUEUES as usize) as u64;
                self.notify(rig, queue);
            }
            // Registers of each window.
            7 => {
                let (at, size) = (u64::from(input.word()) % 0x40, 1 << input.below(4));
                rig.store(self.registers() + at, size, input.quad());
            }
            8 => {
                let (at, size) = (u64::from(input.word()) % 0x100, 1 << input.below(4));
                rig.store(self.registers() + DEVICE + at, size, input.quad());
                rig.load(self.registers() + DEVICE + at, size);
            }
            9 => {
                let at = u64::from(input.word()) % 0x4000;
                rig.load(self.registers() + at, 1 << input.below(4));
                rig.load(self.registers() + ISR, 1);
            }
            10 => {
                let (at, size) = (u64::from(input.byte()) % 0x40, 1 << input.below(3));
                rig.out(self.f.bars[0].0 + at, size, input.long().into());
            }
            // Anything in the rings, anything in the buffers.
            11 => {
                let at = RINGS + u64::from(input.word()) % (QUEUES * STEP);
                let len = input.below(32);
                rig.write(at, input.take(len));
            }
            12 => {
                let at = BUFFERS + u64::from(input.word()) * 4;
                let len = input.below(128);
                rig.write(at, input.take(len));
            }
            13 => rig.step(u64::from(input.word()) << 10),
            14 => {
                let m = &mut rig.vm().lock();
                let (at, v) = (u32::from(input.byte()), input.long());
                self.f.pci.config_write(m, at & !3, 4, v);
                self.f.pci.config_write(m, 4, 2, 7);
            }
            _ => {
                self.rings = [Ring { next: 0, avail: 0, wrap: true }; QUEUES as usize];
                let wanted = input.quad();
                self.set_up(rig, wanted, true);
            }
        }
    }

    /// Offers a chain: queue, number of parts, for each where it is, its length, whether the device writes it, and what it holds. Mostly the parts
    /// that the device writes come last, as they must.
    fn chain(&mut self, rig: &Rig, input: &mut Input<'_>) {
        let (queue, shape) = (input.below(QUEUES as usize), input.byte());
        let count = 1 + usize::from(shape & 3);
        let mut parts = vec![];
        for n in 0..count {
            let (kind, len) = (input.byte(), input.word());
            let write = if shape & 0x40 != 0 { kind & 1 != 0 } else { n >= usize::from(shape >> 2 & 3) };
            let addr = match kind >> 5 {
                7 => u64::from(len) << 24 | 0xfff,
                6 => RAM - 0x10,
                _ => BUFFERS + BUFFER * u64::from(kind >> 1 & 63) + u64::from(kind >> 7),
            };
            let len = if kind & 0x1e == 0x1e { u32::from(len) << 16 } else { u32::from(len & 0x1fff) };
            if !write {
                rig.write(addr, input.take((len as usize).min(64)));
            }
            parts.push((addr, len, if write { WRITE } else { 0 }));
        }
        if shape & 0x80 != 0 {
            parts = vec![self.table(rig, queue, &parts)];
        }
        if self.packed {
            self.offer_packed(rig, queue, &parts)
        } else {
            self.offer_split(rig, queue, &parts)
        }
        self.notify(rig, queue as u64);
    }

    fn desc(&self, (addr, len, flags): (u64, u32, u16), last: u16) -> Vec<u8> {
        let mut b = addr.to_le_bytes().to_vec();
        b.extend(len.to_le_bytes());
        let (one, two) = if self.packed { (last, flags) } else { (flags, last) };
        b.extend(one.to_le_bytes());
        b.extend(two.to_le_bytes());
        b
    }

    /// Puts parts into a table of their own, at the end of the queue's first page.
    fn table(&self, rig: &Rig, queue: usize, parts: &[(u64, u32, u16)]) -> (u64, u32, u16) {
        let at = self.place(queue as u64)[0] + 0xf00;
        for (i, (addr, len, flags)) in parts.iter().enumerate() {
            let more = if self.packed || i + 1 == parts.len() { 0 } else { NEXT };
            rig.write(at + 16 * i as u64, &self.desc((*addr, *len, flags | more), i as u16 + 1));
        }
        (at, 16 * parts.len() as u32, INDIRECT)
    }

    fn offer_split(&mut self, rig: &Rig, queue: usize, parts: &[(u64, u32, u16)]) {
        let [table, driver, _] = self.place(queue as u64);
        let ring = &mut self.rings[queue];
        let (head, avail) = (ring.next, ring.avail);
        ring.next = (head + parts.len() as u16) % self.size;
        ring.avail = avail.wrapping_add(1);
        for (i, (addr, len, flags)) in (0u16..).zip(parts) {
            let more = if usize::from(i) + 1 == parts.len() { 0 } else { NEXT };
            let bytes = self.desc((*addr, *len, flags | more), (head + i + 1) % self.size);
            rig.write(table + 16 * u64::from((head + i) % self.size), &bytes);
        }
        rig.store(driver + 4 + 2 * u64::from(avail % self.size), 2, head.into());
        rig.store(driver + 2, 2, avail.wrapping_add(1).into());
    }

    fn offer_packed(&mut self, rig: &Rig, queue: usize, parts: &[(u64, u32, u16)]) {
        let table = self.place(queue as u64)[0];
        let mut ring = self.rings[queue];
        let mut entries = vec![];
        for (i, (addr, len, flags)) in parts.iter().enumerate() {
            let more = if i + 1 == parts.len() { 0 } else { NEXT };
            let state = if ring.wrap { 1 << 7 } else { 1 << 15 };
            entries.push((table + 16 * u64::from(ring.next), self.desc((*addr, *len, flags | more | state), 7)));
            ring.next += 1;
            if ring.next == self.size {
                (ring.next, ring.wrap) = (0, !ring.wrap);
            }
        }
        self.rings[queue] = ring;
        entries.into_iter().rev().for_each(|(at, b)| rig.write(at, &b));
    }
}
