//! Commands to an NVMe controller: its admin queue and one pair of I/O queues. Source: NVM Express 1.4 §3.1, §4.2, §7.6.

use crate::input::Input;
use crate::rig::{RAM, Rig};

/// Longest input.
const MOST: usize = 8 << 10;
/// Queues: admin submission, admin completion, I/O submission, I/O completion; a page each of 16 entries.
const QUEUES: [u64; 4] = [0x1_0000, 0x1_1000, 0x1_2000, 0x1_3000];
const ENTRIES: u64 = 16;
/// Where lists of pages and data are.
const DATA: u64 = 0x2_0000;
/// Registers: configuration, admin queue attributes and bases, doorbells.
const CC: u64 = 0x14;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;

struct Nvme<'a> {
    rig: &'a Rig,
    base: u64,
    /// Next entry of both submission queues.
    tails: [u64; 2],
}

impl Nvme<'_> {
    fn enable(&mut self) {
        self.rig.store(self.base + CC, 4, 0);
        self.rig.store(self.base + AQA, 4, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.rig.store(self.base + ASQ, 8, QUEUES[0]);
        self.rig.store(self.base + ACQ, 8, QUEUES[1]);
        self.rig.store(self.base + CC, 4, 0x0046_0001);
        self.tails = [0, 0];
        self.rig.turn();
        // CREATE I/O COMPLETION QUEUE and SUBMISSION QUEUE, number 1: contiguous, and by which queue it is answered.
        for (opcode, base, answers) in [(5, QUEUES[3], 0), (1, QUEUES[2], 1)] {
            let mut c = vec![0; 64];
            c[0] = opcode;
            c[24..32].copy_from_slice(&base.to_le_bytes());
            c[40..44].copy_from_slice(&(1 | (ENTRIES as u32 - 1) << 16).to_le_bytes());
            c[44..48].copy_from_slice(&[1, 0, answers, 0]);
            self.submit(0, &c);
        }
    }

    /// Puts a command into the admin queue (0) or the other one (1).
    fn submit(&mut self, queue: usize, command: &[u8]) {
        let tail = self.tails[queue];
        self.rig.write(QUEUES[2 * queue] + 64 * tail, command);
        self.tails[queue] = (tail + 1) % ENTRIES;
        self.rig.store(self.base + DOORBELLS + 8 * queue as u64, 4, self.tails[queue]);
        self.rig.turn();
        // The completion is taken.
        self.rig.store(self.base + DOORBELLS + 8 * queue as u64 + 4, 4, self.tails[queue]);
    }
}

/// Steps: commands, registers, memory, time.
pub fn nvme(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let rig = &mut Rig::new();
    let disk = rig.disk();
    let pci = rig.function("nvme", &[("drive", &disk), ("serial", "1")]);
    let f = rig.start(pci);
    let mut n = Nvme { rig, base: f.bars[0].0, tails: [0, 0] };
    n.enable();
    for _ in 0..128 {
        if input.is_empty() {
            break;
        }
        let what = input.byte();
        match what % 8 {
            0..=4 => {
                // Opcode, flags; namespace; two pointers; six words.
                let mut c = vec![input.byte(), if what & 0x40 != 0 { input.byte() } else { 0 }, what, 0];
                c.extend([u8::from(what & 0x20 == 0), 0, 0, 0]);
                c.resize(24, 0);
                for _ in 0..2 {
                    let place = input.word();
                    let at = if place >> 13 == 7 { RAM - 0x100 } else { DATA + u64::from(place) * 8 };
                    c.extend(at.to_le_bytes());
                }
                for _ in 0..6 {
                    let word = input.word();
                    c.extend(if word >> 15 != 0 { u32::from(word) << 16 | 0xffff } else { word.into() }.to_le_bytes());
                }
                n.submit(usize::from(what % 8 > 1), &c);
            }
            5 => {
                let (at, val) = ((u64::from(input.word()) % 0x1040) & !3, input.long());
                let size = 4 << (what >> 7);
                rig.store(n.base + at, size, val.into());
                rig.load(n.base + at, size);
            }
            6 => {
                let (at, len) = (u64::from(input.word()), input.below(64));
                let at = if what & 8 != 0 { QUEUES[0] + at % 0x4000 } else { DATA + at };
                rig.write(at, input.take(len));
            }
            _ if what & 8 != 0 => n.enable(),
            _ => rig.step(u64::from(input.word()) << 12),
        }
        rig.turn();
    }
}
