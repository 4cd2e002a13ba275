//! The built-in guest's screen: it runs without a VGA BIOS, so it sets 80 by 25 text itself, with a font of its own.
//! Source: IBM VGA Technical Reference (registers, and the values of mode 3).

use iced_x86::{IcedError, code_asm::*};

/// Where the tables are in the image, and the position of the cursor in memory (bytes from the screen's start).
pub const TABLES: u16 = 0x7000;
const POSITION: u32 = 0x540;

const SCREEN: u32 = 0xb800;
const BLANK: u32 = 0x0720;
const LINE: u32 = 160;
const BYTES: u32 = 25 * LINE;

const SEQUENCER: [u8; 5] = [0x03, 0x00, 0x03, 0x00, 0x02];
#[rustfmt::skip]
const CRTC: [u8; 25] = [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0,
    0x9c, 0x0e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
];
const GRAPHICS: [u8; 9] = [0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff];
#[rustfmt::skip]
const ATTRIBUTE: [u8; 21] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f,
    0x0c, 0x00, 0x0f, 0x08, 0x00,
];
/// Entries of the DAC that attributes reach.
const COLORS: u8 = 64;

/// Printable ASCII, eight rows of five pixels each, the top row first (most significant byte).
#[rustfmt::skip]
const FONT: [u64; 95] = [
    0x00000000_00000000, 0x04040404_00000400, 0x0a0a0a00_00000000, 0x0a0a1f0a_1f0a0a00, 0x040f140e_051e0400,
    0x18190204_08130300, 0x0c121408_15120d00, 0x0c040800_00000000, 0x02040808_08040200, 0x08040202_02040800,
    0x0004150e_15040000, 0x0004041f_04040000, 0x00000000_0c040800, 0x0000001f_00000000, 0x00000000_000c0c00,
    0x00010204_08100000, 0x0e111315_19110e00, 0x040c0404_04040e00, 0x0e110102_04081f00, 0x1f020402_01110e00,
    0x02060a12_1f020200, 0x1f101e01_01110e00, 0x0608101e_11110e00, 0x1f010204_08080800, 0x0e11110e_11110e00,
    0x0e11110f_01020c00, 0x000c0c00_0c0c0000, 0x000c0c00_0c040800, 0x02040810_08040200, 0x00001f00_1f000000,
    0x08040201_02040800, 0x0e110102_04000400, 0x0e11010d_15150e00, 0x0e11111f_11111100, 0x1e11111e_11111e00,
    0x0e111010_10110e00, 0x1c121111_11121c00, 0x1f10101e_10101f00, 0x1f10101e_10101000, 0x0e111017_11110f00,
    0x1111111f_11111100, 0x0e040404_04040e00, 0x07020202_02120c00, 0x11121418_14121100, 0x10101010_10101f00,
    0x111b1515_11111100, 0x11111915_13111100, 0x0e111111_11110e00, 0x1e11111e_10101000, 0x0e111111_15120d00,
    0x1e11111e_14121100, 0x0f10100e_01011e00, 0x1f040404_04040400, 0x11111111_11110e00, 0x11111111_110a0400,
    0x11111115_15150a00, 0x11110a04_0a111100, 0x1111110a_04040400, 0x1f010204_08101f00, 0x0e080808_08080e00,
    0x00100804_02010000, 0x0e020202_02020e00, 0x040a1100_00000000, 0x00000000_0000001f, 0x08040200_00000000,
    0x00000e01_0f110f00, 0x10101619_11111e00, 0x00000e10_10110e00, 0x01010d13_11110f00, 0x00000e11_1f100e00,
    0x0609081c_08080800, 0x00000f11_110f010e, 0x10101619_11111100, 0x04000c04_04040e00, 0x02000602_0202120c,
    0x10101214_18141200, 0x0c040404_04040e00, 0x00001a15_15111100, 0x00001619_11111100, 0x00000e11_11110e00,
    0x00001e11_111e1010, 0x00000d13_110f0101, 0x00001619_10101000, 0x00000e10_0e011e00, 0x08081c08_08090600,
    0x00001111_11130d00, 0x00001111_110a0400, 0x00001111_15150a00, 0x0000110a_040a1100, 0x00001111_110f010e,
    0x00001f02_04081f00, 0x02040408_04040200, 0x04040404_04040400, 0x08040402_04040800, 0x00000815_02000000,
];

/// Rows of a character's glyph as the guest writes them, eight of the sixteen lines (each stands for two).
pub fn glyph(c: u8) -> [u8; 8] {
    FONT[usize::from(c) - 0x20].to_be_bytes().map(|row| row << 2)
}

/// Font and colours, for offset [`TABLES`] of the image.
pub fn tables() -> Vec<u8> {
    let font = (0x20..0x7f).flat_map(glyph);
    // Two bits a component, as EGA wired them: the high one counts twice as much.
    let part = |c: u8, high: u8, low: u8| (c >> high & 1) * 0x2a + (c >> low & 1) * 0x15;
    let colors = (0..COLORS).flat_map(|c| [part(c, 2, 5), part(c, 1, 4), part(c, 0, 3)]);
    font.chain(colors).collect()
}

/// Writes index and value of each register.
fn indexed(a: &mut CodeAssembler, port: u32, values: &[(u8, u8)]) -> Result<(), IcedError> {
    a.mov(dx, port)?;
    for (index, value) in values {
        a.mov(ax, u32::from(*value) << 8 | u32::from(*index))?;
        a.out(dx, ax)?;
    }
    Ok(())
}

fn numbered(values: &[u8]) -> Vec<(u8, u8)> {
    (0..).zip(values.iter().copied()).collect()
}

/// Sets the mode and clears the screen. DS is the image's segment, ES is 0 again afterwards.
pub fn set_up(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dx, 0x3c2)?;
    a.mov(al, 0x67)?;
    a.out(dx, al)?;
    indexed(a, 0x3c4, &numbered(&SEQUENCER))?;
    // CR11 first: it unlocks CR0 to CR7.
    indexed(a, 0x3d4, &[(0x11, 0x0e)])?;
    indexed(a, 0x3d4, &numbered(&CRTC))?;
    indexed(a, 0x3ce, &numbered(&GRAPHICS))?;
    a.mov(dx, 0x3da)?;
    a.in_(al, dx)?;
    a.mov(dx, 0x3c0)?;
    for (index, value) in numbered(&ATTRIBUTE) {
        for v in [index, value] {
            a.mov(al, u32::from(v))?;
            a.out(dx, al)?;
        }
    }
    a.mov(al, 0x20)?; // the picture on
    a.out(dx, al)?;
    // The font goes into plane 2, two lines a row.
    indexed(a, 0x3c4, &[(2, 4), (4, 6)])?;
    indexed(a, 0x3ce, &[(5, 0), (6, 4)])?;
    a.mov(ax, 0xa000)?;
    a.mov(es, ax)?;
    a.mov(si, u32::from(TABLES))?;
    a.mov(di, 0x20 * 32)?;
    a.mov(bx, FONT.len() as u32)?;
    let (mut next, mut row) = (a.create_label(), a.create_label());
    a.set_label(&mut next)?;
    a.mov(cx, 8)?;
    a.set_label(&mut row)?;
    a.lodsb()?;
    a.stosb()?;
    a.stosb()?;
    a.loop_(row)?;
    a.add(di, 16)?;
    a.dec(bx)?;
    a.jne(next)?;
    indexed(a, 0x3c4, &[(2, 3), (4, 2)])?;
    indexed(a, 0x3ce, &[(5, 0x10), (6, 0x0e)])?;
    // Colours, from where SI has come to.
    a.mov(dx, 0x3c6)?;
    a.mov(al, 0xff)?;
    a.out(dx, al)?;
    a.mov(dx, 0x3c8)?;
    a.xor(ax, ax)?;
    a.out(dx, al)?;
    a.inc(dx)?;
    a.mov(cx, u32::from(COLORS) * 3)?;
    let mut color = a.create_label();
    a.set_label(&mut color)?;
    a.lodsb()?;
    a.out(dx, al)?;
    a.loop_(color)?;
    a.mov(ax, SCREEN)?;
    a.mov(es, ax)?;
    a.xor(di, di)?;
    a.mov(ax, BLANK)?;
    a.mov(cx, BYTES / 2)?;
    a.rep().stosw()?;
    a.xor(ax, ax)?;
    a.mov(es, ax)?;
    a.mov(word_ptr(POSITION).es(), ax)
}

/// Puts the character in AL on the screen, scrolling at its end; changes nothing else. ES is 0.
pub fn put(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let [mut start_of_line, mut next_line, mut store, mut done] = [(); 4].map(|()| a.create_label());
    a.pusha()?;
    a.mov(bx, word_ptr(POSITION).es())?;
    a.cmp(al, u32::from(b'\r'))?;
    a.je(start_of_line)?;
    a.cmp(al, u32::from(b'\n'))?;
    a.je(next_line)?;
    a.mov(ah, 7)?;
    a.mov(cx, SCREEN)?;
    a.mov(es, cx)?;
    a.mov(word_ptr(bx).es(), ax)?;
    a.add(bx, 2)?;
    a.jmp(store)?;
    a.set_label(&mut start_of_line)?;
    a.mov(ax, bx)?;
    a.xor(dx, dx)?;
    a.mov(cx, LINE)?;
    a.div(cx)?;
    a.sub(bx, dx)?;
    a.jmp(store)?;
    a.set_label(&mut next_line)?;
    a.add(bx, LINE as i32)?;
    a.set_label(&mut store)?;
    a.cmp(bx, BYTES as i32)?;
    a.jb(done)?;
    a.sub(bx, LINE as i32)?;
    a.push(ds)?;
    a.mov(cx, SCREEN)?;
    a.mov(ds, cx)?;
    a.mov(es, cx)?;
    a.mov(si, LINE)?;
    a.xor(di, di)?;
    a.mov(cx, (BYTES - LINE) / 2)?;
    a.rep().movsw()?;
    a.mov(ax, BLANK)?;
    a.mov(cx, LINE / 2)?;
    a.rep().stosw()?;
    a.pop(ds)?;
    a.set_label(&mut done)?;
    a.xor(ax, ax)?;
    a.mov(es, ax)?;
    a.mov(word_ptr(POSITION).es(), bx)?;
    // The cursor follows.
    a.shr(bx, 1)?;
    a.mov(dx, 0x3d4)?;
    a.mov(al, 0x0e)?;
    a.mov(ah, bh)?;
    a.out(dx, ax)?;
    a.mov(al, 0x0f)?;
    a.mov(ah, bl)?;
    a.out(dx, ax)?;
    a.popa()
}
