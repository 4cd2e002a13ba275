//! Memory images of the unit: FSTENV/FLDENV, FSAVE/FRSTOR in 16- and 32-bit, protected and real layouts, FXSAVE/FXRSTOR in
//! the 32- and 64-bit layouts. Source: Intel SDM vol. 1 §8.1.10 (figures 8-9 to 8-12), §10.5.1 (table 10-2).

use super::{F80, Fpu};
use super::{soft::INTEGER, stack::control};

/// Layout of an environment image.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EnvLayout {
    /// 32-bit operand size (28 bytes), else 16-bit (14 bytes).
    pub wide: bool,
    /// Real-address and virtual-8086 mode: linear addresses instead of selector and offset.
    pub real: bool,
}
impl EnvLayout {
    /// Size of the environment in bytes; the registers of FSAVE follow.
    pub const fn bytes(self) -> usize {
        if self.wide { 28 } else { 14 }
    }
}
/// Bytes of FSAVE's registers.
pub const REGISTERS: usize = 80;

fn put(image: &mut [u8], wide: bool, i: usize, v: u32) {
    let n = if wide { 4 } else { 2 };
    if let Some(d) = image.get_mut(i * n..(i + 1) * n) {
        d.copy_from_slice(&v.to_le_bytes()[..n]);
    }
}
fn get(image: &[u8], wide: bool, i: usize) -> u32 {
    let n = if wide { 4 } else { 2 };
    image.get(i * n..(i + 1) * n).unwrap_or(&[]).iter().rev().fold(0, |v, &b| v << 8 | b as u32)
}
fn ten_bytes(x: &F80) -> [u8; 10] {
    let mut b = [0; 10];
    b[..8].copy_from_slice(&x.sig.to_le_bytes());
    b[8..].copy_from_slice(&x.se.to_le_bytes());
    b
}
fn from_ten_bytes(b: &[u8]) -> F80 {
    let v = b.iter().take(10).rev().fold(0u128, |v, &b| v << 8 | b as u128);
    F80 { sig: v as u64, se: (v >> 64) as u16 }
}

impl Fpu {
    /// The full tag word: 0 valid, 1 zero, 2 special, 3 empty.
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |w, n| {
            let r = &self.regs[n];
            let tag = match (self.ftw >> n & 1, r.se & 0x7fff, r.sig) {
                (0, ..) => 3,
                (_, 0, 0) => 1,
                (_, 0 | 0x7fff, _) => 2,
                (_, _, s) if s & INTEGER == 0 => 2,
                _ => 0,
            };
            w | tag << (2 * n)
        })
    }
    fn set_tag_word(&mut self, w: u16) {
        self.ftw = (0..8).fold(0, |f, n| f | ((w >> (2 * n) & 3 != 3) as u8) << n);
    }

    /// Writes the environment.
    pub fn save_env(&self, l: EnvLayout, image: &mut [u8]) {
        let w = l.wide;
        let high = if w { 0xffff_0000 } else { 0 };
        put(image, w, 0, self.fcw as u32 | high);
        put(image, w, 1, self.fsw as u32 | high);
        put(image, w, 2, self.tag_word() as u32 | high);
        let fop = (self.fop & 0x7ff) as u32;
        if l.real {
            let linear = |sel: u16, off: u64| ((sel as u32) << 4).wrapping_add(off as u32);
            let (ip, dp) = (linear(self.fcs, self.fip), linear(self.fds, self.fdp));
            if w {
                put(image, w, 3, ip & 0xffff | high);
                put(image, w, 4, (ip >> 16) << 12 | fop);
                put(image, w, 5, dp & 0xffff | high);
                put(image, w, 6, (dp >> 16) << 12);
            } else {
                put(image, w, 3, ip);
                put(image, w, 4, (ip >> 16 & 15) << 12 | fop);
                put(image, w, 5, dp);
                put(image, w, 6, (dp >> 16 & 15) << 12);
            }
        } else {
            put(image, w, 3, self.fip as u32);
            put(image, w, 4, self.fcs as u32 | if w { fop << 16 } else { 0 });
            put(image, w, 5, self.fdp as u32);
            put(image, w, 6, self.fds as u32 | high);
        }
    }
    /// Reads the environment.
    pub fn load_env(&mut self, l: EnvLayout, image: &[u8]) {
        let at = |i| get(image, l.wide, i);
        self.fcw = control(at(0) as u16);
        self.fsw = at(1) as u16;
        self.set_tag_word(at(2) as u16);
        if l.real {
            let high = if l.wide { 0xffff } else { 15 };
            (self.fip, self.fcs) = ((at(3) & 0xffff | (at(4) >> 12 & high) << 16) as u64, 0);
            (self.fdp, self.fds) = ((at(5) & 0xffff | (at(6) >> 12 & high) << 16) as u64, 0);
            self.fop = at(4) as u16 & 0x7ff;
        } else {
            (self.fip, self.fcs) = (at(3) as u64, at(4) as u16);
            (self.fdp, self.fds) = (at(5) as u64, at(6) as u16);
            if l.wide {
                self.fop = (at(4) >> 16) as u16 & 0x7ff;
            }
        }
        self.summarize();
    }
    /// Writes the registers in stack order.
    pub fn save_regs(&self, image: &mut [u8]) {
        for (i, d) in image.chunks_exact_mut(10).take(8).enumerate() {
            d.copy_from_slice(&ten_bytes(&self.regs[(self.top() + i) & 7]));
        }
    }
    /// Reads the registers in stack order; tags and TOP must have been loaded.
    pub fn load_regs(&mut self, image: &[u8]) {
        let top = self.top();
        for (i, s) in image.chunks_exact(10).take(8).enumerate() {
            self.regs[(top + i) & 7] = from_ten_bytes(s);
        }
    }

    /// Writes the x87 part of an FXSAVE image (bytes 0–23 and 32–159). `wide`: 64-bit instruction and data pointers.
    pub fn fxsave(&self, wide: bool, image: &mut [u8; 512]) {
        image[0..2].copy_from_slice(&self.fcw.to_le_bytes());
        image[2..4].copy_from_slice(&self.fsw.to_le_bytes());
        image[4] = self.ftw;
        image[5] = 0;
        image[6..8].copy_from_slice(&self.fop.to_le_bytes());
        let pointers = [(self.fip, self.fcs), (self.fdp, self.fds)];
        for (d, (off, sel)) in image[8..24].chunks_exact_mut(8).zip(pointers) {
            let v = if wide { off } else { off & 0xffff_ffff | (sel as u64) << 32 };
            d.copy_from_slice(&v.to_le_bytes());
        }
        for (i, d) in image[32..160].chunks_exact_mut(16).enumerate() {
            d.fill(0);
            d[..10].copy_from_slice(&ten_bytes(&self.regs[(self.top() + i) & 7]));
        }
    }
    /// Reads the x87 part of an FXSAVE image.
    pub fn fxrstor(&mut self, wide: bool, image: &[u8; 512]) {
        let word = |i: usize| u16::from_le_bytes([image[i], image[i + 1]]);
        self.fcw = control(word(0));
        self.fsw = word(2);
        self.ftw = image[4];
        self.fop = word(6) & 0x7ff;
        let pointer = |i: usize| (0..8).rev().fold(0u64, |v, k| v << 8 | image[i + k] as u64);
        let (ip, dp) = (pointer(8), pointer(16));
        if wide {
            (self.fip, self.fcs, self.fdp, self.fds) = (ip, 0, dp, 0);
        } else {
            (self.fip, self.fcs) = (ip & 0xffff_ffff, (ip >> 32) as u16);
            (self.fdp, self.fds) = (dp & 0xffff_ffff, (dp >> 32) as u16);
        }
        let top = self.top();
        for (i, s) in image[32..160].chunks_exact(16).enumerate() {
            self.regs[(top + i) & 7] = from_ten_bytes(s);
        }
        self.summarize();
    }
}
