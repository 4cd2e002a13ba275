//! The window at A0000-BFFFF over the four planes. Video memory is interleaved: byte `4 * n + p` is byte `n` of plane `p`.
//! Source: IBM VGA Technical Reference, graphics controller (GR0-GR8) and sequencer (SR2, SR4).

use super::regs::VgaRegs;

/// Video memory as the core reaches it.
pub trait Vram {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// A byte; 0xff beyond the end.
    fn load(&self, at: u64) -> u8;
    /// Stores a byte; nothing beyond the end.
    fn store(&self, at: u64, val: u8);
}

/// Offset in the selected memory map (GR6 bits 3:2), or nothing if the window is not there.
fn map(r: &VgaRegs, addr: u32) -> Option<u64> {
    let addr = addr & 0x1ffff;
    let [.., g6, _, _, _, _, _, _, _, _, _] = r.gr;
    let at = match g6 >> 2 & 3 {
        0 => addr,
        1 if addr < 0x1_0000 => addr + r.bank_offset,
        2 => addr.checked_sub(0x1_0000).filter(|a| *a < 0x8000)?,
        3 => addr.checked_sub(0x1_8000)?,
        _ => return None,
    };
    Some(at.into())
}

fn chain4(r: &VgaRegs) -> bool {
    r.seq(4) & 8 != 0
}

/// The processor's accesses go to even and odd planes by address bit 0: writes by SR4 bit 2, reads by GR5 bit 4.
fn odd_even_write(r: &VgaRegs) -> bool {
    r.seq(4) & 4 == 0
}

fn odd_even_read(r: &VgaRegs) -> bool {
    let [_, _, _, _, _, g5, ..] = r.gr;
    g5 & 0x10 != 0
}

/// Address bit 0 does not reach the planes (GR6 bit 1).
fn chained_odd_even(r: &VgaRegs) -> bool {
    let [_, _, _, _, _, _, g6, ..] = r.gr;
    g6 & 2 != 0
}

/// Which byte of the planes an address is. The CRT controller skips bytes of a plane in doubleword mode (CR14 bit 6: three of
/// four) and, where even and odd addresses alternate between planes, in word mode (CR17 bit 6 clear: every other one); here
/// they are left out instead.
fn cell(r: &VgaRegs, at: u64, odd_even: bool) -> u64 {
    if r.crtc(0x14) & 0x40 != 0 {
        at >> 2
    } else if odd_even && r.crtc(0x17) & 0x40 == 0 {
        at >> 1
    } else if chained_odd_even(r) {
        at & !1
    } else {
        at
    }
}

/// Planes that the map mask (SR2) enables.
fn writes(r: &VgaRegs, plane: u64) -> bool {
    r.seq(2) >> (plane & 3) & 1 != 0
}

fn planes(vram: &dyn Vram, at: u64) -> [u8; 4] {
    [0, 1, 2, 3].map(|p| vram.load(at * 4 + p))
}

/// Reads a byte at `addr`, relative to A0000.
pub fn read(r: &mut VgaRegs, vram: &dyn Vram, addr: u32) -> u8 {
    let Some(at) = map(r, addr) else { return 0xff };
    if chain4(r) {
        return vram.load(at);
    }
    let [_, _, g2, _, g4, g5, _, g7, ..] = r.gr;
    let odd_even = odd_even_read(r);
    let plane = if odd_even { g4 & 2 | (at & 1) as u8 } else { g4 & 3 };
    let at = cell(r, at, odd_even);
    if at * 4 >= vram.size() {
        return 0xff;
    }
    r.latch = planes(vram, at);
    if g5 & 8 == 0 {
        let [a, b, c, d] = r.latch;
        return match plane {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        };
    }
    // Read mode 1: a bit is set where all planes that matter (GR7) have the compared colour (GR2).
    (0..4).fold(0xff, |match_, p| {
        let wanted = if g2 >> p & 1 != 0 { 0xff } else { 0 };
        let differs = r.latch.get(p).copied().unwrap_or(0) ^ wanted;
        if g7 >> p & 1 != 0 { match_ & !differs } else { match_ }
    })
}

/// Writes a byte at `addr`, relative to A0000.
pub fn write(r: &mut VgaRegs, vram: &dyn Vram, addr: u32, val: u8) {
    let Some(at) = map(r, addr) else { return };
    if chain4(r) {
        if writes(r, at & 3) {
            vram.store(at, val);
        }
        return;
    }
    let [g0, g1, _, g3, _, g5, _, _, g8, ..] = r.gr;
    let odd_even = odd_even_write(r);
    let reached = match (odd_even, at & 1) {
        (true, 0) => 0b0101,
        (true, _) => 0b1010,
        (false, _) => 0b1111,
    };
    let at = cell(r, at, odd_even);
    let writes = |r: &VgaRegs, plane: u64| reached >> plane & 1 != 0 && writes(r, plane);
    let rotated = val.rotate_right(u32::from(g3 & 7));
    for (plane, latch) in (0u64..).zip(r.latch) {
        let set = |mask: u8| if mask >> plane & 1 != 0 { 0xff } else { 0u8 };
        let (data, mask) = match g5 & 3 {
            0 => (if g1 >> plane & 1 != 0 { set(g0) } else { rotated }, g8),
            1 => {
                if writes(r, plane) {
                    vram.store(at * 4 + plane, latch);
                }
                continue;
            }
            2 => (set(val), g8),
            _ => (set(g0), g8 & rotated),
        };
        let data = match g3 >> 3 & 3 {
            1 => data & latch,
            2 => data | latch,
            3 => data ^ latch,
            _ => data,
        };
        if writes(r, plane) {
            vram.store(at * 4 + plane, data & mask | latch & !mask);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::RefCell;

    pub struct Buffer(pub RefCell<Vec<u8>>);
    impl Vram for Buffer {
        fn size(&self) -> u64 {
            self.0.borrow().len() as u64
        }
        fn load(&self, at: u64) -> u8 {
            self.0.borrow().get(at as usize).copied().unwrap_or(0xff)
        }
        fn store(&self, at: u64, val: u8) {
            if let Some(b) = self.0.borrow_mut().get_mut(at as usize) {
                *b = val;
            }
        }
    }

    fn setup() -> (VgaRegs, Buffer) {
        let mut r = VgaRegs::default();
        (r.sr[2], r.sr[4]) = (0x0f, 0x06);
        r.gr[8] = 0xff;
        (r, Buffer(RefCell::new(vec![0; 0x4_0000])))
    }

    #[test]
    fn write_mode_0_goes_to_the_enabled_planes() {
        let (mut r, v) = setup();
        r.sr[2] = 0b0101;
        write(&mut r, &v, 5, 0xa5);
        assert_eq!(planes(&v, 5), [0xa5, 0, 0xa5, 0]);
        r.gr[4] = 2;
        assert_eq!(read(&mut r, &v, 5), 0xa5);
        assert_eq!(r.latch, [0xa5, 0, 0xa5, 0]);
    }

    #[test]
    fn write_mode_2_and_bit_mask_draw_a_colour() {
        let (mut r, v) = setup();
        r.gr[5] = 2;
        r.gr[8] = 0x0f;
        write(&mut r, &v, 0, 0b1010);
        assert_eq!(planes(&v, 0), [0, 0x0f, 0, 0x0f]);
    }

    #[test]
    fn odd_and_even_writes_go_through_mask_and_latches() {
        let (mut r, v) = setup();
        (r.sr[4], r.gr[6], r.gr[8]) = (0x02, 0x07, 0x0f);
        write(&mut r, &v, 2, 0xff); // even: planes 0 and 2
        write(&mut r, &v, 5, 0xff); // odd: planes 1 and 3
        assert_eq!([planes(&v, 1), planes(&v, 2)], [[0x0f, 0, 0x0f, 0], [0, 0x0f, 0, 0x0f]]);
    }

    #[test]
    fn read_mode_1_compares_colours() {
        let (mut r, v) = setup();
        v.0.borrow_mut()[..4].copy_from_slice(&[0xf0, 0xcc, 0, 0]);
        (r.gr[5], r.gr[2], r.gr[7]) = (8, 0b0011, 0b1111);
        assert_eq!(read(&mut r, &v, 0), 0xc0);
    }

    #[test]
    fn text_window_is_odd_even() {
        let (mut r, v) = setup();
        (r.gr[5], r.gr[6], r.sr[2], r.sr[4]) = (0x10, 0x0e, 3, 2);
        write(&mut r, &v, 0x1_8000, b'A');
        write(&mut r, &v, 0x1_8001, 0x07);
        assert_eq!(planes(&v, 0), [b'A', 7, 0, 0]);
        assert_eq!(read(&mut r, &v, 0x1_8001), 7);
        assert_eq!(read(&mut r, &v, 0), 0xff); // not mapped there
    }
}
