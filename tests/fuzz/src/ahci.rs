//! Command lists of an AHCI controller with a disk at its first port and a CD at its second. Source: AHCI 1.3.1 §3.3, §4.2.

use crate::input::Input;
use crate::rig::{COUNTED, Function, Rig};

/// Longest input.
const MOST: usize = 8 << 10;
/// Bytes of a port's registers, and where the first one's are.
const PORT: u64 = 0x80;
const PORTS: u64 = 0x100;
/// A port's lists, FIS areas and command tables.
const LISTS: u64 = 0x1_0000;
const AREAS: u64 = 0x1_2000;
const TABLES: u64 = 0x2_0000;
/// Where data is.
const DATA: u64 = 0x4_0000;

/// A controller that was started.
pub(crate) struct Ahci {
    pub(crate) f: Function,
}

impl Ahci {
    pub(crate) fn new(rig: &mut Rig) -> Self {
        let (disk, cd) = (rig.disk(), rig.disk());
        let pci = rig.function("ich9-ahci", &[]);
        rig.device("ide-hd", &[("drive", &disk), ("bus", "ide.0")]);
        rig.device("ide-cd", &[("drive", &cd), ("bus", "ide.1")]);
        let ahci = Self { f: rig.start(pci) };
        ahci.start(rig);
        ahci
    }

    fn start(&self, rig: &Rig) {
        self.set(rig, 4, 0x8000_0002);
        for n in 0..2 {
            self.set(rig, PORTS + n * PORT, LISTS + n * 0x400);
            self.set(rig, PORTS + n * PORT + 8, AREAS + n * 0x100);
            self.set(rig, PORTS + n * PORT + 0x14, 0xfdc0_00ff);
            self.set(rig, PORTS + n * PORT + 0x18, 0x11);
        }
    }

    pub(crate) fn set(&self, rig: &Rig, at: u64, val: u64) {
        rig.store(self.f.bars[5].0 + at, 4, val);
    }

    pub(crate) fn get(&self, rig: &Rig, at: u64) -> u64 {
        rig.load(self.f.bars[5].0 + at, 4)
    }

    /// Writes a command's header and FIS. `table`: where its descriptors are.
    pub(crate) fn command(&self, rig: &Rig, port: u64, slot: u64, table: u64, prds: u64, fis: &[u8]) {
        let header = LISTS + port * 0x400 + slot * 32;
        rig.store(header, 4, 5 | prds << 16);
        rig.store(header + 8, 8, table);
        rig.write(table, fis);
    }

    /// Issues a slot; `queued`: it is a queued command.
    pub(crate) fn issue(&self, rig: &Rig, port: u64, slot: u64, queued: bool) {
        if queued {
            self.set(rig, PORTS + port * PORT + 0x34, 1 << slot);
        }
        self.set(rig, PORTS + port * PORT + 0x38, 1 << slot);
    }

    /// The port starts anew after an error, as a driver has it do.
    fn recover(&self, rig: &Rig, port: u64) {
        let at = PORTS + port * PORT;
        self.set(rig, at + 0x18, 0x10);
        self.set(rig, at + 0x10, 0xffff_ffff);
        self.set(rig, at + 0x30, 0xffff_ffff);
        self.set(rig, at + 0x18, 0x11);
    }
}

fn fis(command: u8, fields: &[u8]) -> Vec<u8> {
    let mut fis = vec![0x27, 0x80, command];
    fis.extend(fields);
    fis.resize(20, 0);
    fis
}

/// Steps: a command with its descriptors, a register, memory, time.
pub fn ahci(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let rig = &mut Rig::new();
    let ahci = Ahci::new(rig);
    for _ in 0..128 {
        if input.is_empty() {
            break;
        }
        let (what, port) = (input.byte(), u64::from(input.byte() & 1));
        match what % 8 {
            0..=3 => {
                let slot = u64::from(what >> 3);
                let table = TABLES + port * 0x1_0000 + slot * 0x400;
                let (command, count) = (input.byte(), input.byte());
                let fields = input.take(13);
                let queued = matches!(command, 0x60 | 0x61);
                // Many descriptors are those of the counted memory.
                let table = if count == 0xff { COUNTED } else { table };
                let prds = if count == 0xff { 0xffff } else { u64::from(count % 48) };
                ahci.command(rig, port, slot, table, prds, &fis(command, fields));
                if count != 0xff {
                    for n in 0..prds.min(8) {
                        let at = table + 0x80 + 16 * n;
                        let (place, len) = (input.word(), input.word());
                        rig.store(at, 8, DATA + u64::from(place) * 4);
                        let len = u64::from(len);
                        rig.store(at + 12, 4, if len & 1 == 0 { len } else { (len & 0x7fff) << 7 | len << 31 });
                    }
                }
                ahci.issue(rig, port, slot, queued);
            }
            4 => {
                let (at, val) = (u64::from(input.word() & 0xfff) & !3, input.long());
                let at = if what & 8 != 0 { PORTS + port * PORT + at % PORT } else { at };
                ahci.set(rig, at, val.into());
                ahci.get(rig, at);
            }
            5 => {
                let (at, len) = (u64::from(input.word()), input.below(64));
                let at = if what & 8 != 0 { LISTS + at % 0x2200 } else { TABLES + at };
                rig.write(at, input.take(len));
            }
            6 => ahci.recover(rig, port),
            _ => rig.step(u64::from(input.word()) << 12),
        }
        if what & 0x80 == 0 {
            rig.turn();
        }
    }
    rig.turn();
}

/// Packets to the CD: the command, length and features, its descriptors' length, then whether it has its medium.
pub fn atapi(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let rig = &mut Rig::new();
    let ahci = Ahci::new(rig);
    for _ in 0..128 {
        if input.is_empty() {
            break;
        }
        let (flags, packet, limit, room) = (input.byte(), input.take(12), input.word().to_le_bytes(), input.word());
        let table = TABLES;
        // Features: by DMA or not. Byte count limit: cylinders.
        let fields = [flags & 1, 0, limit[0], limit[1], 0];
        ahci.command(rig, 1, 0, table, 2, &fis(0xa0, &fields));
        rig.write(table + 0x40, packet);
        for n in 0..2 {
            rig.store(table + 0x80 + 16 * n, 8, DATA + 0x2_0000 * n);
            rig.store(table + 0x80 + 16 * n + 12, 4, u64::from(room));
        }
        if flags & 2 != 0 {
            let len = input.below(64);
            rig.write(DATA, input.take(len));
        }
        ahci.issue(rig, 1, 0, false);
        for _ in 0..8 {
            rig.turn();
            rig.step(1_000_000);
        }
        if ahci.get(rig, PORTS + PORT + 0x10) & 0x4000_0000 != 0 {
            ahci.recover(rig, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// READ SECTORS and READ DMA of 127 sectors by the longest table, whose descriptors are two bytes each: of that table 32512 are read, about
    /// once in blocks of 512 bytes, about twice by DMA (before and after the drive was asked).
    #[test]
    fn a_long_table_is_not_read_for_each_block() {
        for command in [0x20, 0xc8] {
            let rig = &mut Rig::new();
            let ahci = Ahci::new(rig);
            let mut fields = [0; 13];
            (fields[4], fields[9]) = (0x40, 127);
            ahci.command(rig, 0, 0, COUNTED, 0xffff, &fis(command, &fields));
            ahci.issue(rig, 0, 0, false);
            (0..500).for_each(|_| rig.turn());
            assert_eq!(ahci.get(rig, PORTS + 0x38), 0, "{command:#x}: the command has ended");
            assert_eq!(ahci.get(rig, PORTS + 0x20) & 1, 0, "{command:#x}: it has ended well");
            assert_eq!(rig.load(LISTS + 4, 4), 127 * 512, "{command:#x}: all was moved");
            assert_eq!(rig.load(0x8_0000, 2), 0x7e7e, "{command:#x}: the last sector is there");
            let reads = rig.counted();
            assert!((4 * 32512..16 * 32512).contains(&reads), "{command:#x}: {reads} reads");
        }
    }
}
