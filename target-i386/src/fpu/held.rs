//! The unit as the host's holds it. Source: Intel SDM vol. 1 figure 8-9.

use super::{F80, Fpu, stack::control};
use accel::tcg::unit::Image;

impl Fpu {
    /// The image to load into the host's unit.
    pub fn to_host(&self) -> Image {
        let mut image =
            Image { control: self.fcw.into(), status: self.fsw.into(), tags: 0, pointers: [0; 4], regs: [[0; 10]; 8] };
        for n in 0..8 {
            // (Of a register in use the unit finds out itself what it holds.)
            if self.ftw >> n & 1 == 0 {
                image.tags |= 3 << (2 * n)
            }
        }
        for (i, d) in image.regs.iter_mut().enumerate() {
            let r = &self.regs[(self.top() + i) & 7];
            d[..8].copy_from_slice(&r.sig.to_le_bytes());
            d[8..].copy_from_slice(&r.se.to_le_bytes());
        }
        image
    }
    /// Takes everything but the pointers from the host's unit.
    pub fn from_host(&mut self, image: &Image) {
        self.fcw = control(image.control as u16);
        self.fsw = image.status as u16;
        self.ftw = (0..8).fold(0, |f, n| f | ((image.tags >> (2 * n) & 3 != 3) as u8) << n);
        for (i, s) in image.regs.iter().enumerate() {
            let [a, b, c, d, e, f, g, h, low, high] = *s;
            let sig = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            self.regs[(self.top() + i) & 7] = F80 { sig, se: u16::from_le_bytes([low, high]) };
        }
    }
}
