//! What the adapter shows, as 32-bit pixels 0x00RRGGBB. Source: IBM VGA Technical Reference (CRTC, attribute controller).
//! Not modelled: smooth panning by pixels in text modes, underline.

use super::{dispi, planar::Vram, regs::VgaRegs};
use ui::Picture;

/// Largest picture that legacy registers can describe.
const MAX_SIDE: u32 = 2048;

/// Renders the current mode. `blink` is the phase of blinking text, `cursor` that of the text cursor.
pub fn render(r: &VgaRegs, vram: &dyn Vram, blink: bool, cursor: bool) -> Picture {
    let [_, _, _, _, _, _, g6, ..] = r.gr;
    if r.ar_index & 0x20 == 0 {
        return Picture::blank(640, 480);
    }
    if dispi::enabled(r) && r.dispi(dispi::index::BPP) >= 8 {
        return render_dispi(r, vram);
    }
    if g6 & 1 == 0 { text(r, vram, blink, cursor) } else { graphics(r, vram) }
}

fn line_offset(r: &VgaRegs) -> u64 {
    u64::from(r.crtc(0x13)) * 8
}

fn start_address(r: &VgaRegs) -> u64 {
    u64::from(r.crtc(0x0c)) << 8 | u64::from(r.crtc(0x0d))
}

/// Lines of the display: CR12 and its overflow bits.
fn vertical_end(r: &VgaRegs) -> u32 {
    let overflow = u32::from(r.crtc(7));
    (u32::from(r.crtc(0x12)) | (overflow & 0x02) << 7 | (overflow & 0x40) << 3) + 1
}

/// The attribute controller's way from four bits to a DAC entry (AR0-ARF, AR10, AR14).
fn attribute_color(r: &VgaRegs, i: u8) -> u32 {
    let ar = |n: usize| r.ar.get(n).copied().unwrap_or(0);
    let entry = ar(usize::from(i & 0xf));
    let (mode, select) = (ar(0x10), ar(0x14));
    let entry =
        if mode & 0x80 != 0 { entry & 0x0f | (select & 0x0f) << 4 } else { entry & 0x3f | (select & 0x0c) << 4 };
    r.color(entry)
}

fn text(r: &VgaRegs, vram: &dyn Vram, blink: bool, cursor: bool) -> Picture {
    let (s1, s3) = (r.seq(1), r.seq(3));
    let mode_control = r.ar.get(0x10).copied().unwrap_or(0);
    let char_height = u32::from(r.crtc(9) & 0x1f) + 1;
    let wide = s1 & 1 == 0;
    let char_width = if wide { 9 } else { 8 };
    let columns = u32::from(r.crtc(1)) + 1;
    let lines = if r.crtc(6) == 100 && r.crtc(7) & 0x42 == 0 { 100 } else { vertical_end(r) / char_height };
    let (width, height) = (columns * char_width, lines * char_height);
    if width == 0 || height == 0 || width > MAX_SIDE * 2 || height > MAX_SIDE {
        return Picture::blank(720, 400);
    }
    let mut p = Picture::blank(width, height);
    // Character maps A (attribute bit 3 set) and B, in plane 2: 8 KiB each.
    let font = |select: u8| (u64::from(select & 3) << 1 | u64::from(select >> 2)) * 0x2000;
    let fonts = [font(s3 & 3 | (s3 & 0x10) >> 2), font(s3 >> 2 & 3 | (s3 & 0x20) >> 3)];
    let palette: Vec<u32> = (0..16).map(|i| attribute_color(r, i)).collect();
    let color = |i: u8| palette.get(usize::from(i & 0xf)).copied().unwrap_or(0);
    let cursor_at = u64::from(r.crtc(0x0e)) << 8 | u64::from(r.crtc(0x0f));
    let cursor_lines = (u32::from(r.crtc(0x0a) & 0x1f), u32::from(r.crtc(0x0b) & 0x1f));
    let cursor_on = cursor && r.crtc(0x0a) & 0x20 == 0;
    let words_per_line = line_offset(r) / 4;
    for row in 0..lines {
        for column in 0..columns {
            let cell = start_address(r) + u64::from(row) * words_per_line + u64::from(column);
            let (ch, attr) = (vram.load(cell * 4), vram.load(cell * 4 + 1));
            let (mut fg, mut bg) = (color(attr), color(attr >> 4));
            if mode_control & 0x08 != 0 {
                bg = color(attr >> 4 & 7);
                if attr & 0x80 != 0 && !blink {
                    fg = bg;
                }
            }
            let [font_b, font_a] = fonts;
            let glyph = if attr & 8 != 0 { font_a } else { font_b } + u64::from(ch) * 32;
            let line_graphics = wide && mode_control & 4 != 0 && (0xc0..=0xdf).contains(&ch);
            for y in 0..char_height {
                let mut bits = u32::from(vram.load((glyph + u64::from(y)) * 4 + 2)) << 1;
                if line_graphics {
                    bits |= bits >> 1 & 1;
                }
                if cursor_on && cell == cursor_at && (cursor_lines.0..=cursor_lines.1).contains(&y) {
                    bits = 0x1ff;
                }
                let at = ((row * char_height + y) * width + column * char_width) as usize;
                let pixels = p.pixels.get_mut(at..at + char_width as usize);
                for (x, pixel) in (0u32..).zip(pixels.unwrap_or_default()) {
                    *pixel = if bits >> (8 - x) & 1 != 0 { fg } else { bg };
                }
            }
        }
    }
    p
}

/// Pixel formats of the legacy graphics modes.
#[derive(Clone, Copy)]
enum Format {
    /// Four planes, a bit each.
    Planar,
    /// Two bits a pixel, planes 0 and 1 interleaved by odd and even addresses (CGA).
    Packed2,
    /// A byte a pixel.
    Packed8,
}

fn graphics(r: &VgaRegs, vram: &dyn Vram) -> Picture {
    let s1 = r.seq(1);
    let [_, _, _, _, _, g5, ..] = r.gr;
    let format = match g5 >> 5 & 3 {
        0 => Format::Planar,
        1 => Format::Packed2,
        _ => Format::Packed8,
    };
    let double_width = s1 & 8 != 0;
    let characters = u32::from(r.crtc(1)) + 1;
    let width = match format {
        Format::Packed8 => characters * 4,
        Format::Planar | Format::Packed2 => characters * 8,
    };
    let repeat = match format {
        Format::Packed8 => 2,
        _ if double_width => 2,
        _ => 1,
    };
    let total = vertical_end(r);
    let cr9 = r.crtc(9);
    let double_scan = u32::from(cr9 & 0x1f) + 1;
    let double_scan = if cr9 & 0x80 != 0 { double_scan * 2 } else { double_scan };
    let shown = width * repeat;
    if width == 0 || shown > MAX_SIDE || total > MAX_SIDE {
        return Picture::blank(640, 480);
    }
    let compare = u32::from(r.crtc(0x18)) | u32::from(r.crtc(7) & 0x10) << 4 | u32::from(cr9 & 0x40) << 3;
    let (cr17, mut p) = (r.crtc(0x17), Picture::blank(shown, total));
    let (mut base, mut line) = (start_address(r) * 4, 0u32);
    for y in 0..total {
        if y == compare + 1 {
            (base, line) = (0, 0); // split screen: from here on, memory from its start
        }
        let source = u64::from(line / double_scan);
        let mut at = base + source * line_offset(r);
        // CGA and Hercules interleaves: row address bits take the place of address bits 13 and 14.
        let scan = u64::from(line % double_scan);
        if cr17 & 1 == 0 {
            at = at & !(1 << 15) | (scan & 1) << 15;
        }
        if cr17 & 2 == 0 {
            at = at & !(1 << 16) | (scan >> 1 & 1) << 16;
        }
        line += 1;
        let row = (y * shown) as usize;
        let pixels = p.pixels.get_mut(row..row + shown as usize).unwrap_or_default();
        for (x, out) in (0u64..).zip(pixels.chunks_mut(repeat as usize)) {
            let c = match format {
                Format::Planar => attribute_color(r, planar_pixel(r, vram, at, x)),
                Format::Packed2 => {
                    // Four pixels a byte; even bytes in plane 0, odd ones in plane 1.
                    let byte = x / 4;
                    let b = vram.load(at + (byte & !1) * 2 + (byte & 1));
                    attribute_color(r, b >> (6 - 2 * (x & 3)) & 3)
                }
                Format::Packed8 => r.color(vram.load(at + x)),
            };
            out.fill(c);
        }
    }
    p
}

fn planar_pixel(r: &VgaRegs, vram: &dyn Vram, at: u64, x: u64) -> u8 {
    let enable = r.ar.get(0x12).copied().unwrap_or(0xf);
    let bit = 7 - (x & 7);
    (0..4u64).fold(0, |c, plane| c | (vram.load(at + (x / 8) * 4 + plane) >> bit & 1) << plane) & enable
}

fn render_dispi(r: &VgaRegs, vram: &dyn Vram) -> Picture {
    use dispi::index;
    let (width, height) = (u32::from(r.dispi(index::XRES)), u32::from(r.dispi(index::YRES)));
    let bytes = u64::from(r.dispi(index::BPP)).div_ceil(8);
    let stride = u64::from(dispi::line_bytes(r));
    let mut p = Picture::blank(width, height);
    let scale = |v: u32, bits: u32| (v << (8 - bits) | v >> (2 * bits - 8)) & 0xff;
    for (y, row) in (0u64..).zip(p.pixels.chunks_mut(width.max(1) as usize)) {
        let line = u64::from(dispi::start(r)) + y * stride;
        for (x, out) in (0u64..).zip(row) {
            let at = line + x * bytes;
            let b = |i: u64| u32::from(vram.load(at + if r.big_endian { bytes - 1 - i } else { i }));
            *out = match r.dispi(index::BPP) {
                8 => r.color(b(0) as u8),
                15 => {
                    let v = b(0) | b(1) << 8;
                    scale(v >> 10 & 31, 5) << 16 | scale(v >> 5 & 31, 5) << 8 | scale(v & 31, 5)
                }
                16 => {
                    let v = b(0) | b(1) << 8;
                    scale(v >> 11 & 31, 5) << 16 | scale(v >> 5 & 63, 6) << 8 | scale(v & 31, 5)
                }
                _ => b(2) << 16 | b(1) << 8 | b(0),
            };
        }
    }
    p
}

#[cfg(test)]
mod tests {
    use super::{super::planar::tests::Buffer, *};
    use std::cell::RefCell;

    fn regs() -> VgaRegs {
        let mut r = VgaRegs { ar_index: 0x20, ..VgaRegs::default() };
        for i in 0..16u8 {
            r.ar[usize::from(i)] = i;
            for c in 0..3 {
                r.palette[usize::from(i) * 3 + c] = i * 4;
            }
        }
        r.ar[0x12] = 0xf;
        r
    }

    #[test]
    fn text_is_720_by_400_with_glyphs_and_cursor() {
        let mut r = regs();
        r.sr[1] = 0;
        for (i, v) in
            [(1, 79), (6, 0xbf), (7, 0x1f), (9, 0x4f), (0x12, 0x8f), (0x13, 40), (0x0a, 14), (0x0b, 15), (0x0f, 1)]
        {
            r.cr[i] = v;
        }
        let v = Buffer(RefCell::new(vec![0; 0x4_0000]));
        {
            let mut b = v.0.borrow_mut();
            (b[0], b[1]) = (b'X', 0x0f);
            b[5] = 0x07; // attribute of the cursor's cell
            for y in 0..16 {
                b[(usize::from(b'X') * 32 + y) * 4 + 2] = 0x81;
            }
        }
        let p = render(&r, &v, true, true);
        assert_eq!((p.width, p.height), (720, 400));
        let fg = r.color(15);
        assert_eq!([p.pixels[0], p.pixels[1], p.pixels[7], p.pixels[8]], [fg, 0, fg, 0]);
        assert_eq!(p.pixels[14 * 720 + 9], r.color(7));
        assert_eq!(p.pixels[13 * 720 + 9], 0);
    }

    #[test]
    fn mode_13h_is_doubled() {
        let mut r = regs();
        (r.gr[5], r.gr[6]) = (0x40, 5);
        for (i, v) in [(1, 79), (7, 0x1f), (9, 0x41), (0x12, 0x8f), (0x13, 40), (0x17, 0xa3), (0x18, 0xff)] {
            r.cr[i] = v;
        }
        let v = Buffer(RefCell::new(vec![0; 0x4_0000]));
        v.0.borrow_mut()[320] = 3;
        let p = render(&r, &v, true, true);
        assert_eq!((p.width, p.height), (640, 400));
        assert_eq!([p.pixels[640], p.pixels[1280], p.pixels[1281], p.pixels[1282]], [0, r.color(3), r.color(3), 0]);
    }

    #[test]
    fn direct_colour_modes() {
        let mut r = regs();
        let v = Buffer(RefCell::new(vec![0; 0x10_0000]));
        for (i, val) in [(1u16, 8u16), (2, 1), (3, 16), (4, 0x41)] {
            r.vbe_index = i;
            let _ = dispi::write(&mut r, val, 0x10_0000);
        }
        v.0.borrow_mut()[..4].copy_from_slice(&[0x00, 0xf8, 0xe0, 0x07]);
        assert_eq!(render(&r, &v, true, true).pixels[..3], [0xff_0000, 0x00_ff00, 0]);
        r.big_endian = true;
        v.0.borrow_mut()[..4].copy_from_slice(&[0xf8, 0x00, 0x07, 0xe0]);
        assert_eq!(render(&r, &v, true, true).pixels[..3], [0xff_0000, 0x00_ff00, 0]);
    }

    #[test]
    fn any_register_values_render_something_bounded() {
        let v = Buffer(RefCell::new(vec![0x5a; 0x1000]));
        let mut seed = 1u32;
        for _ in 0..40 {
            let mut r = regs();
            let mut next = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            };
            r.cr.iter_mut().for_each(|c| *c = next());
            r.gr.iter_mut().for_each(|c| *c = next());
            r.sr.iter_mut().for_each(|c| *c = next());
            let p = render(&r, &v, true, true);
            assert_eq!(p.pixels.len(), (p.width * p.height) as usize);
        }
    }
}
