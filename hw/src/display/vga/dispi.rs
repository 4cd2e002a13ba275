//! The Bochs DISPI interface: high-resolution modes with a linear frame buffer, at ports 0x1ce/0x1cf and in the MMIO BAR.
//! Source: Bochs `vbe` display interface, as documented by its VGABIOS (`vbe_display_api.txt`).

use super::regs::VgaRegs;

/// Number of registers.
pub const REGS: usize = 11;
/// Highest version: ID5, video memory size in register 10.
pub const ID5: u16 = 0xb0c5;
const ID0: u16 = 0xb0c0;
/// Largest width and height.
const MAX_X: u16 = 16000;
const MAX_Y: u16 = 12000;
/// Size of the banked window.
const BANK: u32 = 64 << 10;

/// Register numbers.
pub mod index {
    #![expect(missing_docs, reason = "names of the interface")]
    pub const ID: u16 = 0;
    pub const XRES: u16 = 1;
    pub const YRES: u16 = 2;
    pub const BPP: u16 = 3;
    pub const ENABLE: u16 = 4;
    pub const BANK: u16 = 5;
    pub const VIRT_WIDTH: u16 = 6;
    pub const VIRT_HEIGHT: u16 = 7;
    pub const X_OFFSET: u16 = 8;
    pub const Y_OFFSET: u16 = 9;
    pub const VIDEO_MEMORY_64K: u16 = 10;
}
/// Bits of ENABLE.
pub mod enable {
    #![expect(missing_docs, reason = "names of the interface")]
    pub const ENABLED: u16 = 0x01;
    pub const GETCAPS: u16 = 0x02;
    pub const DAC_8BIT: u16 = 0x20;
    pub const LFB: u16 = 0x40;
    pub const NOCLEARMEM: u16 = 0x80;
}

/// The adapter shows a DISPI mode.
pub fn enabled(r: &VgaRegs) -> bool {
    r.dispi(index::ENABLE) & enable::ENABLED != 0
}

fn set(r: &mut VgaRegs, i: u16, v: u16) {
    if let Some(reg) = r.vbe.get_mut(usize::from(i)) {
        *reg = v;
    }
}

/// Bytes per line of the current mode.
pub fn line_bytes(r: &VgaRegs) -> u32 {
    let width = u32::from(r.dispi(index::VIRT_WIDTH));
    match r.dispi(index::BPP) {
        4 => width / 2,
        bpp => width * u32::from(bpp).div_ceil(8),
    }
}

/// Byte offset of the first shown pixel.
pub fn start(r: &VgaRegs) -> u32 {
    let x = u32::from(r.dispi(index::X_OFFSET));
    let bytes = match r.dispi(index::BPP) {
        4 => x / 2,
        bpp => x * u32::from(bpp).div_ceil(8),
    };
    u32::from(r.dispi(index::Y_OFFSET)).saturating_mul(line_bytes(r)).saturating_add(bytes)
}

/// Reads the register that the index selects.
pub fn read(r: &VgaRegs, vram_size: u64) -> u16 {
    let i = r.vbe_index;
    if i == index::VIDEO_MEMORY_64K {
        return (vram_size >> 16) as u16;
    }
    if r.dispi(index::ENABLE) & enable::GETCAPS != 0 {
        match i {
            index::XRES => return MAX_X,
            index::YRES => return MAX_Y,
            index::BPP => return 32,
            _ => {}
        }
    }
    r.dispi(i)
}

/// Brings the mode's registers into what the memory can hold.
fn fix_limits(r: &mut VgaRegs, vram_size: u64) {
    if !enabled(r) {
        return;
    }
    let bpp = match r.dispi(index::BPP) {
        b @ (4 | 8 | 15 | 16 | 24 | 32) => b,
        _ => 8,
    };
    set(r, index::BPP, bpp);
    let x = (r.dispi(index::XRES) & !7).clamp(8, MAX_X);
    set(r, index::XRES, x);
    let width = (r.dispi(index::VIRT_WIDTH) & !7).clamp(x, MAX_X);
    set(r, index::VIRT_WIDTH, width);
    let line = u64::from(line_bytes(r)).max(1);
    let max_lines = (vram_size / line).min(u16::MAX.into()) as u16;
    let y = r.dispi(index::YRES).clamp(1, MAX_Y).min(max_lines);
    set(r, index::YRES, y);
    set(r, index::VIRT_HEIGHT, max_lines);
    set(r, index::X_OFFSET, r.dispi(index::X_OFFSET).min(MAX_X));
    set(r, index::Y_OFFSET, r.dispi(index::Y_OFFSET).min(MAX_Y));
    // What would begin too far down begins at the top, and if that is not enough, on the left.
    for offset in [index::Y_OFFSET, index::X_OFFSET] {
        if u64::from(start(r)) + u64::from(y) * line > vram_size {
            set(r, offset, 0);
        }
    }
}

/// What a write asks of the wiring.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Clear this many bytes of video memory: a mode was set without NOCLEARMEM.
    Clear(u64),
}

/// Writes the register that the index selects.
pub fn write(r: &mut VgaRegs, val: u16, vram_size: u64) -> Action {
    let i = r.vbe_index;
    match i {
        index::ID if (ID0..=ID5).contains(&val) => set(r, i, val),
        index::XRES | index::YRES | index::BPP | index::VIRT_WIDTH | index::X_OFFSET | index::Y_OFFSET => {
            set(r, i, val);
            fix_limits(r, vram_size);
            update_legacy(r);
        }
        index::BANK => {
            let bank = val & (vram_size >> 16).saturating_sub(1) as u16;
            set(r, i, bank);
            r.bank_offset = u32::from(bank) * BANK;
        }
        index::ENABLE => return write_enable(r, val, vram_size),
        _ => {}
    }
    Action::None
}

fn write_enable(r: &mut VgaRegs, val: u16, vram_size: u64) -> Action {
    let was = enabled(r);
    let mut action = Action::None;
    if val & enable::ENABLED != 0 && !was {
        set(r, index::VIRT_WIDTH, 0);
        set(r, index::X_OFFSET, 0);
        set(r, index::Y_OFFSET, 0);
        set(r, index::ENABLE, r.dispi(index::ENABLE) | enable::ENABLED);
        fix_limits(r, vram_size);
        update_legacy(r);
        if val & enable::NOCLEARMEM == 0 {
            action = Action::Clear(u64::from(r.dispi(index::YRES)) * u64::from(line_bytes(r)));
        }
    } else if val & enable::ENABLED == 0 {
        r.bank_offset = 0;
    }
    r.dac_8bit = val & enable::DAC_8BIT != 0;
    set(r, index::ENABLE, val);
    action
}

/// Makes the VGA registers say what a DISPI mode is, so that guests that look at them (and program them half) still work.
pub fn update_legacy(r: &mut VgaRegs) {
    if !enabled(r) {
        return;
    }
    let put = |r: &mut VgaRegs, i: usize, v: u8| {
        if let Some(c) = r.cr.get_mut(i) {
            *c = v;
        }
    };
    let and_or = |v: u8, keep: u8, or: u8| v & keep | or;
    if let Some(g) = r.gr.get_mut(6) {
        *g = and_or(*g, !0x0c, 0x04 | 0x01); // graphics mode, memory map at A0000, 64 KiB
    }
    let (bpp, y) = (r.dispi(index::BPP), r.dispi(index::YRES).wrapping_sub(1));
    let cr17 = r.crtc(0x17) | 3;
    put(r, 0x17, cr17); // no CGA modes
    put(r, 0x13, (line_bytes(r) >> 3) as u8);
    put(r, 0x01, (r.dispi(index::XRES) >> 3).wrapping_sub(1) as u8);
    put(r, 0x12, y as u8);
    let overflow = and_or(r.crtc(7), !0x42, ((y >> 7) & 0x02) as u8 | ((y >> 3) & 0x40) as u8);
    put(r, 0x07, overflow);
    // Line compare at 1023: no split screen.
    put(r, 0x18, 0xff);
    let cr7 = r.crtc(7) | 0x10;
    put(r, 0x07, cr7);
    let cr9 = r.crtc(9) | 0x40;
    put(r, 0x09, cr9);
    let mode = if bpp == 4 { 0x00 } else { 0x40 };
    if let Some(g) = r.gr.get_mut(5) {
        *g = and_or(*g, !0x60, mode);
    }
    let cr9 = r.crtc(9) & !0x9f; // no double scan
    put(r, 0x09, cr9);
}

#[cfg(test)]
mod tests {
    use super::*;
    const VRAM: u64 = 16 << 20;

    fn mode(r: &mut VgaRegs, x: u16, y: u16, bpp: u16) -> Action {
        for (i, v) in [(index::XRES, x), (index::YRES, y), (index::BPP, bpp)] {
            r.vbe_index = i;
            let _ = write(r, v, VRAM);
        }
        r.vbe_index = index::ENABLE;
        write(r, enable::ENABLED | enable::LFB, VRAM)
    }

    #[test]
    fn a_mode_is_set_and_cleared() {
        let mut r = VgaRegs::default();
        assert_eq!(mode(&mut r, 1024, 768, 32), Action::Clear(1024 * 768 * 4));
        assert_eq!((line_bytes(&r), start(&r)), (4096, 0));
        r.vbe_index = index::VIRT_HEIGHT;
        assert_eq!(read(&r, VRAM), 4096);
        r.vbe_index = index::VIDEO_MEMORY_64K;
        assert_eq!(read(&r, VRAM), 256);
    }

    #[test]
    fn impossible_modes_are_brought_into_memory() {
        let mut r = VgaRegs::default();
        let _ = mode(&mut r, 0xffff, 0xffff, 31);
        assert_eq!(r.dispi(index::BPP), 8);
        let bytes = u64::from(line_bytes(&r)) * u64::from(r.dispi(index::YRES));
        assert!(bytes <= VRAM, "{bytes}");
        r.vbe_index = index::Y_OFFSET;
        let _ = write(&mut r, 0xffff, VRAM);
        assert!(u64::from(start(&r)) + bytes <= VRAM);
    }

    #[test]
    fn only_known_ids_stick() {
        let mut r = VgaRegs { vbe_index: index::ID, ..VgaRegs::default() };
        let _ = write(&mut r, 0xb0c2, VRAM);
        assert_eq!(read(&r, VRAM), 0xb0c2);
        let _ = write(&mut r, 0x1234, VRAM);
        assert_eq!(read(&r, VRAM), 0xb0c2);
    }
}
