//! 8237A DMA controller as registers (QEMU's type name says 8257). Source: Intel 8237A datasheet (231466), PIIX3 datasheet
//! (290550) §2.5.1 for the page registers. The mask is read as on QEMU, where the request register is written.
//!
//! A client moves its bytes when it asks for service; priorities and bus timing are therefore not observable and rotation,
//! compressed timing and extended write are kept as command bits only. Memory-to-memory transfers do not exist in the PIIX3 (its
//! command register reserves the bits).

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// Mode register, one per channel.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// Channel the write was for.
    #[bits(2)]
    pub channel: u8,
    /// 0 verify, 1 write (device to memory), 2 read (memory to device), 3 illegal.
    #[bits(2)]
    pub transfer: u8,
    /// Reload at terminal count.
    pub autoinit: bool,
    /// Address goes down.
    pub decrement: bool,
    /// 0 demand, 1 single, 2 block, 3 cascade.
    #[bits(2)]
    pub mode: u8,
}

/// Command register.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Memory to memory.
    pub mem_to_mem: bool,
    /// Channel 0 address hold.
    pub ch0_hold: bool,
    /// Controller disabled.
    pub disable: bool,
    /// Compressed timing.
    pub compressed: bool,
    /// Rotating priority.
    pub rotating: bool,
    /// Extended write.
    pub extended_write: bool,
    /// DREQ active low.
    pub dreq_low: bool,
    /// DACK active high.
    pub dack_high: bool,
}

/// One channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Base address, reloaded by autoinitialisation.
    pub base_addr: u16,
    /// Base word count.
    pub base_count: u16,
    /// Current address.
    pub addr: u16,
    /// Current word count: transfers left, minus one.
    pub count: u16,
    /// Page register, address bits 23..16.
    pub page: u8,
    /// High page register, address bits 30..24.
    pub page_high: u8,
    /// Mode register.
    pub mode: Mode,
}

/// All that the guest can observe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct I8257Regs {
    /// Channels 0 to 3 (4 to 7 of the second controller).
    pub channels: [Channel; 4],
    /// Command register.
    pub command: Command,
    /// Mask register, bits 3..0.
    pub mask: u8,
    /// Terminal counts since the last status read.
    pub tc: u8,
    /// DREQ inputs.
    pub dreq: u8,
    /// Software requests.
    pub request: u8,
    /// First/last flip-flop: the next byte is the high one.
    pub flip_flop: bool,
}

impl Default for I8257Regs {
    /// After RESET: all channels masked, all else clear.
    fn default() -> Self {
        Self {
            channels: Default::default(),
            command: Command::new(),
            mask: 0xf,
            tc: 0,
            dreq: 0,
            request: 0,
            flip_flop: false,
        }
    }
}

/// A piece of a transfer that does not wrap in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Lowest bus address.
    pub addr: u64,
    /// Bytes.
    pub len: usize,
    /// The first byte of the device is the last in memory.
    pub reversed: bool,
}

impl I8257Regs {
    /// RESET or master clear: like the pin, base, current and page registers keep their values.
    pub fn master_clear(&mut self) {
        self.command = Command::new();
        self.mask = 0xf;
        self.tc = 0;
        self.request = 0;
        self.flip_flop = false;
    }

    /// Which byte the flip-flop selects (true: high); moves it on.
    fn toggle(&mut self) -> bool {
        self.flip_flop = !self.flip_flop;
        !self.flip_flop
    }

    /// Reads channel register `reg` (0 to 7: address, count, address …).
    pub fn read_channel(&mut self, reg: u64) -> u8 {
        let high = self.toggle();
        let Some(c) = self.channels.get((reg >> 1 & 3) as usize) else { return 0 };
        let v = if reg & 1 != 0 { c.count } else { c.addr };
        if high { (v >> 8) as u8 } else { v as u8 }
    }

    /// Writes channel register `reg`: base and current registers together.
    pub fn write_channel(&mut self, reg: u64, val: u8) {
        let high = self.toggle();
        let Some(c) = self.channels.get_mut((reg >> 1 & 3) as usize) else { return };
        let merge = |old: u16| if high { old & 0xff | u16::from(val) << 8 } else { old & 0xff00 | u16::from(val) };
        if reg & 1 != 0 {
            c.base_count = merge(c.base_count);
            c.count = c.base_count;
        } else {
            c.base_addr = merge(c.base_addr);
            c.addr = c.base_addr;
        }
    }

    /// Reads control register `reg` (0 to 7). Status clears the terminal counts; the temporary register holds 0.
    pub fn read_control(&mut self, reg: u64) -> u8 {
        match reg & 7 {
            0 => std::mem::take(&mut self.tc) | (self.dreq | self.request) << 4,
            // (Not defined by the 8237A.)
            1 => 0xf0 | self.mask,
            _ => 0,
        }
    }

    /// Writes control register `reg`. True: a channel may have become ready to run.
    #[must_use]
    pub fn write_control(&mut self, reg: u64, val: u8) -> bool {
        let bit = 1 << (val & 3);
        match reg & 7 {
            0 => {
                self.command = Command::from_bits(val);
                return !self.command.disable();
            }
            1 if val & 4 != 0 => {
                self.request |= bit;
                self.tc &= !bit;
                return true;
            }
            1 => {
                self.request &= !bit;
                self.tc &= !bit;
            }
            2 if val & 4 != 0 => self.mask |= bit,
            2 => {
                self.mask &= !bit;
                return true;
            }
            3 => {
                if let Some(c) = self.channels.get_mut(usize::from(val & 3)) {
                    c.mode = Mode::from_bits(val);
                }
            }
            4 => self.flip_flop = false,
            5 => self.master_clear(),
            6 => {
                self.mask = 0;
                return true;
            }
            _ => {
                self.mask = val & 0xf;
                return true;
            }
        }
        false
    }

    /// The channel that page register offset `n` (0 to 7) belongs to.
    fn page_channel(n: u64) -> Option<usize> {
        [None, Some(2), Some(3), Some(1), None, None, None, Some(0)].get((n & 7) as usize).copied().flatten()
    }

    /// Page register at offset `n`; `high`: the second bank.
    #[must_use]
    pub fn read_page(&self, n: u64, high: bool) -> u8 {
        match Self::page_channel(n).and_then(|c| self.channels.get(c)) {
            Some(c) if high => c.page_high,
            Some(c) => c.page,
            None => 0,
        }
    }

    /// Writes a page register.
    pub fn write_page(&mut self, n: u64, high: bool, val: u8) {
        match Self::page_channel(n).and_then(|c| self.channels.get_mut(c)) {
            Some(c) if high => c.page_high = val & 0x7f,
            Some(c) => c.page = val,
            None => {}
        }
    }

    /// Whether channel `n` is unmasked and the controller enabled.
    #[must_use]
    pub fn enabled(&self, n: usize) -> bool {
        !self.command.disable() && self.mask & (1 << (n & 3)) == 0
    }

    /// Channels that are enabled and requested, by DREQ, or by software in block mode ("Request Register").
    #[must_use]
    pub fn ready(&self) -> u8 {
        const BLOCK: u8 = 2;
        let block = |(n, c): (usize, &Channel)| u8::from(c.mode.mode() == BLOCK) << n;
        let block = self.channels.iter().enumerate().map(block).fold(0, |all, bit| all | bit);
        if self.command.disable() { 0 } else { (self.dreq | self.request & block) & !self.mask & 0xf }
    }

    /// Bytes that channel `n` has moved, and is to move in all, since it was programmed or reloaded. Words where `shift` is 1.
    #[must_use]
    pub fn progress(&self, n: usize, shift: u32) -> (u32, u32) {
        self.channels.get(n).map_or((0, 0), |c| {
            (u32::from(c.base_count.wrapping_sub(c.count)) << shift, (u32::from(c.base_count) + 1) << shift)
        })
    }

    /// Where `len` bytes lie in memory, `pos` bytes after the base address of channel `n`: at most up to the end of the page, where
    /// the address counter wraps.
    #[must_use]
    pub fn span(&self, n: usize, pos: u32, len: usize, shift: u32) -> Option<Span> {
        let c = self.channels.get(n)?;
        let page = u64::from(c.page_high) << 24 | u64::from(c.page) << 16;
        let page = if shift == 0 { page } else { page & !0x1_ffff };
        let window = 0x1_0000u64 << shift;
        let (base, off) = (u64::from(c.base_addr) << shift, u64::from(pos) % window);
        let (at, room) = if c.mode.decrement() {
            // Downwards the last byte comes first; `at` is the highest address.
            let at = (base + window - off) % window + ((1 << shift) - 1);
            (at, at + 1)
        } else {
            let at = (base + off) % window;
            (at, window - at)
        };
        let len = u64::try_from(len).ok()?.min(room);
        let low = if c.mode.decrement() { at + 1 - len } else { at };
        (len != 0).then_some(Span { addr: page + low, len: len as usize, reversed: c.mode.decrement() })
    }

    /// The client of channel `n` says that `done` bytes of the total are moved now. Terminal count reloads or masks the channel.
    pub fn advance_to(&mut self, n: usize, done: u32, shift: u32) {
        let bit = 1u8 << (n & 3);
        let Some(c) = self.channels.get_mut(n) else { return };
        let total = u32::from(c.base_count) + 1;
        let done = (done >> shift).min(total);
        let full = done == total;
        let done = done as u16; // 0x10000 wraps, as do the registers
        c.count = c.base_count.wrapping_sub(done);
        c.addr = if c.mode.decrement() { c.base_addr.wrapping_sub(done) } else { c.base_addr.wrapping_add(done) };
        if full {
            self.tc |= bit;
            self.request &= !bit;
            if c.mode.autoinit() {
                (c.addr, c.count) = (c.base_addr, c.base_count);
            } else {
                self.mask |= bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(mode: u8, addr: u16, count: u16) -> I8257Regs {
        let mut r = I8257Regs::default();
        let _ = r.write_control(4, 0);
        for (reg, v) in [(4, addr), (5, count)] {
            r.write_channel(reg, v as u8);
            r.write_channel(reg, (v >> 8) as u8);
        }
        let _ = r.write_control(3, mode | 2);
        r.write_page(1, false, 0x12);
        assert!(r.write_control(2, 2));
        r
    }

    #[test]
    fn registers_go_through_the_flip_flop() {
        let mut r = setup(0x44, 0x3456, 0x01ff);
        assert_eq!(
            (r.read_channel(4), r.read_channel(4), r.read_channel(5), r.read_channel(5)),
            (0x56, 0x34, 0xff, 0x01)
        );
        let _ = r.read_channel(4);
        let _ = r.write_control(4, 0);
        assert_eq!(r.read_channel(4), 0x56);
        assert_eq!((r.read_page(1, false), r.read_page(0, false)), (0x12, 0));
    }

    #[test]
    fn transfer_stops_at_terminal_count_and_masks() {
        let mut r = setup(0x44, 0x3456, 9);
        assert_eq!(
            (r.progress(2, 0), r.span(2, 0, 4, 0)),
            ((0, 10), Some(Span { addr: 0x12_3456, len: 4, reversed: false }))
        );
        r.advance_to(2, 4, 0);
        assert_eq!((r.channels[2].addr, r.channels[2].count, r.progress(2, 0), r.tc), (0x345a, 5, (4, 10), 0));
        assert_eq!(r.span(2, 4, 6, 0).map(|s| s.addr), Some(0x12_345a));
        r.advance_to(2, 10, 0);
        assert_eq!((r.channels[2].count, r.mask & 4, r.ready()), (0xffff, 4, 0));
        assert_eq!((r.read_control(0), r.read_control(0)), (4, 0));
    }

    #[test]
    fn autoinit_reloads() {
        let mut r = setup(0x58, 0x100, 3);
        r.advance_to(2, 4, 0);
        assert_eq!((r.channels[2].addr, r.channels[2].count, r.mask & 4, r.tc), (0x100, 3, 0, 4));
    }

    #[test]
    fn the_largest_count_ends_too() {
        let mut r = setup(0x44, 0, 0xffff);
        r.advance_to(2, 0xffff, 0);
        assert_eq!((r.tc, r.channels[2].count), (0, 0));
        r.advance_to(2, 0, 0);
        assert_eq!(r.tc, 0);
        r.advance_to(2, 0x1_0000, 0);
        assert_eq!((r.tc, r.channels[2].count, r.mask & 4), (4, 0xffff, 4));
    }

    #[test]
    fn decrement_and_wrap() {
        let r = setup(0x64, 0x0001, 3);
        assert_eq!(r.span(2, 0, 4, 0), Some(Span { addr: 0x12_0000, len: 2, reversed: true }));
        assert_eq!(r.span(2, 2, 2, 0), Some(Span { addr: 0x12_fffe, len: 2, reversed: true }));
        let r = setup(0x44, 0xfffe, 3);
        assert_eq!(r.span(2, 0, 4, 0).map(|s| (s.addr, s.len)), Some((0x12_fffe, 2)));
        assert_eq!(r.span(2, 2, 2, 0).map(|s| (s.addr, s.len)), Some((0x12_0000, 2)));
    }

    #[test]
    fn sixteen_bit_channels_count_words() {
        let mut r = setup(0x44, 0x8001, 1);
        r.write_page(1, false, 0x13); // bit 0 is not used
        assert_eq!(
            (r.progress(2, 1), r.span(2, 0, 4, 1)),
            ((0, 4), Some(Span { addr: 0x13_0002, len: 4, reversed: false }))
        );
        r.advance_to(2, 4, 1);
        assert_eq!((r.tc, r.channels[2].addr), (4, 0x8003));
    }

    #[test]
    fn mask_request_and_master_clear() {
        let mut r = I8257Regs::default();
        assert_eq!((r.read_control(7), r.read_control(1)), (0, 0xff));
        r.dreq = 1;
        assert_eq!(r.ready(), 0);
        assert!(r.write_control(6, 0));
        assert_eq!((r.ready(), r.read_control(0)), (1, 0x10));
        assert!(r.write_control(1, 6));
        assert_eq!((r.ready(), r.read_control(0)), (1, 0x50)); // by software in block mode only
        let _ = r.write_control(3, 0x82);
        assert_eq!(r.ready(), 5);
        assert!(!r.write_control(0, 4)); // controller disabled
        assert_eq!(r.ready(), 0);
        let _ = r.write_control(5, 0);
        assert_eq!((r.request, r.mask, r.command.disable(), r.read_control(0)), (0, 0xf, false, 0x10));
        assert!(r.write_control(7, 0xa));
        assert_eq!(r.read_control(1), 0xfa);
    }
}
