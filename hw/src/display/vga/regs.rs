//! VGA registers behind ports 0x3b0-0x3df. Source: IBM VGA Technical Reference (1992); Intel OpenSource HD Graphics PRM
//! vol. 3 part 1 ("VGA registers"). Not modelled: the beam; the retrace bits toggle at each read, the pixel clock is infinite.

use serde::{Deserialize, Serialize};

/// Attribute controller registers.
pub const AR_COUNT: usize = 0x15;

/// Miscellaneous output register.
pub mod misc {
    /// CRTC at 0x3d0 rather than 0x3b0.
    pub const COLOR: u8 = 0x01;
}
/// Input status 1.
mod st01 {
    pub const DISP_ENABLE: u8 = 0x01;
    pub const V_RETRACE: u8 = 0x08;
}

/// Bits of each register that can be written: sequencer, graphics controller.
const SR_MASK: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0x00, 0x00, 0xff];
const GR_MASK: [u8; 16] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0];

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgaRegs {
    /// Sequencer.
    pub sr_index: u8,
    /// Sequencer registers SR0-SR7.
    pub sr: [u8; 8],
    /// Graphics controller index.
    pub gr_index: u8,
    /// Graphics controller GR0-GR8.
    pub gr: [u8; 16],
    /// Attribute controller index, with the palette-address-source bit 5.
    pub ar_index: u8,
    /// Attribute controller AR0-AR14.
    pub ar: [u8; AR_COUNT],
    /// The next write to 0x3c0 is data.
    pub ar_flip_flop: bool,
    /// CRT controller index.
    pub cr_index: u8,
    /// CRT controller CR0-CRFF.
    pub cr: Vec<u8>,
    /// Miscellaneous output.
    pub misc: u8,
    /// Feature control.
    pub fcr: u8,
    /// Input status 1.
    pub st01: u8,
    /// 0: DAC is being written, 3: read.
    pub dac_state: u8,
    /// Component within an entry.
    pub dac_sub_index: u8,
    /// DAC read address.
    pub dac_read_index: u8,
    /// DAC write address.
    pub dac_write_index: u8,
    /// Components written so far.
    pub dac_cache: [u8; 3],
    /// DAC entries, three components each.
    pub palette: Vec<u8>,
    /// Components have eight bits instead of six (DISPI).
    pub dac_8bit: bool,
    /// The four planes' latches.
    pub latch: [u8; 4],
    /// DISPI index and registers.
    pub vbe_index: u16,
    /// DISPI registers.
    pub vbe: [u16; super::dispi::REGS],
    /// Byte offset of the banked window (DISPI).
    pub bank_offset: u32,
    /// Pixels of 15 to 32 bits are stored with their high byte first (a register of the MMIO BAR).
    pub big_endian: bool,
}

impl Default for VgaRegs {
    fn default() -> Self {
        let mut vbe = [0; super::dispi::REGS];
        let [id, ..] = &mut vbe;
        *id = super::dispi::ID5;
        VgaRegs {
            sr_index: 0,
            sr: [0; 8],
            gr_index: 0,
            gr: [0; 16],
            ar_index: 0,
            ar: [0; AR_COUNT],
            ar_flip_flop: false,
            cr_index: 0,
            cr: vec![0; 256],
            misc: 0,
            fcr: 0,
            st01: 0,
            dac_state: 0,
            dac_sub_index: 0,
            dac_read_index: 0,
            dac_write_index: 0,
            dac_cache: [0; 3],
            palette: vec![0; 768],
            dac_8bit: false,
            latch: [0; 4],
            vbe_index: 0,
            vbe,
            bank_offset: 0,
            big_endian: false,
        }
    }
}

impl VgaRegs {
    /// Rejects saved state no adapter can hold.
    ///
    /// # Errors
    /// A table of the wrong size.
    pub fn check(&self) -> Result<(), String> {
        if self.cr.len() != 256 || self.palette.len() != 768 {
            return Err("VGA register file of the wrong size".into());
        }
        Ok(())
    }

    /// CRT controller register `i`.
    pub fn crtc(&self, i: u8) -> u8 {
        self.cr.get(usize::from(i)).copied().unwrap_or(0)
    }

    /// Sequencer register `i` as it works: a DISPI mode has its own map mask, chaining and dot clock, whatever is set.
    pub fn seq(&self, i: usize) -> u8 {
        let v = self.sr.get(i).copied().unwrap_or(0);
        match (super::dispi::enabled(self), self.dispi(super::dispi::index::BPP), i) {
            (true, 4, 1) => v & !0x08,
            (true, 4, _) | (false, ..) => v,
            (true, _, 2) => v | 0x0f,
            (true, _, 4) => v | 0x08,
            (true, ..) => v,
        }
    }

    /// A DISPI register.
    pub fn dispi(&self, i: u16) -> u16 {
        self.vbe.get(usize::from(i)).copied().unwrap_or(0)
    }

    /// Port answers on this machine's side (colour or monochrome CRTC).
    fn decodes(&self, port: u16) -> bool {
        let color = self.misc & misc::COLOR != 0;
        !(matches!(port, 0x3b0..=0x3bf) && color || matches!(port, 0x3d0..=0x3df) && !color)
    }

    /// Reads a port of 0x3b0-0x3df.
    pub fn read(&mut self, port: u16) -> u8 {
        if !self.decodes(port) {
            return 0xff;
        }
        match port {
            0x3c0 if !self.ar_flip_flop => self.ar_index,
            0x3c1 => self.ar.get(usize::from(self.ar_index & 0x1f)).copied().unwrap_or(0),
            0x3c4 => self.sr_index,
            0x3c5 => self.sr.get(usize::from(self.sr_index)).copied().unwrap_or(0),
            0x3c7 => self.dac_state,
            0x3c8 => self.dac_write_index,
            0x3c9 => self.read_dac(),
            0x3ca => self.fcr,
            0x3cc => self.misc,
            0x3ce => self.gr_index,
            0x3cf => self.gr.get(usize::from(self.gr_index)).copied().unwrap_or(0),
            0x3b4 | 0x3d4 => self.cr_index,
            0x3b5 | 0x3d5 => self.crtc(self.cr_index),
            0x3ba | 0x3da => {
                self.st01 ^= st01::V_RETRACE | st01::DISP_ENABLE;
                self.ar_flip_flop = false;
                self.st01
            }
            _ => 0,
        }
    }

    fn read_dac(&mut self) -> u8 {
        let at = usize::from(self.dac_read_index) * 3 + usize::from(self.dac_sub_index);
        let val = self.palette.get(at).copied().unwrap_or(0);
        self.dac_sub_index += 1;
        if self.dac_sub_index >= 3 {
            self.dac_sub_index = 0;
            self.dac_read_index = self.dac_read_index.wrapping_add(1);
        }
        val
    }

    /// Writes a port of 0x3b0-0x3df.
    pub fn write(&mut self, port: u16, val: u8) {
        if !self.decodes(port) {
            return;
        }
        match port {
            0x3c0 => {
                if self.ar_flip_flop {
                    self.write_attribute(val);
                } else {
                    self.ar_index = val & 0x3f;
                }
                self.ar_flip_flop = !self.ar_flip_flop;
            }
            0x3c2 => self.misc = val & !0x10,
            0x3c4 => self.sr_index = val & 7,
            0x3c5 => {
                let i = usize::from(self.sr_index & 7);
                if let (Some(r), Some(mask)) = (self.sr.get_mut(i), SR_MASK.get(i)) {
                    *r = val & mask;
                }
            }
            0x3c7 => {
                self.dac_read_index = val;
                self.dac_sub_index = 0;
                self.dac_state = 3;
            }
            0x3c8 => {
                self.dac_write_index = val;
                self.dac_sub_index = 0;
                self.dac_state = 0;
            }
            0x3c9 => self.write_dac(val),
            0x3ce => self.gr_index = val & 0x0f,
            0x3cf => {
                let i = usize::from(self.gr_index & 0x0f);
                if let (Some(r), Some(mask)) = (self.gr.get_mut(i), GR_MASK.get(i)) {
                    *r = val & mask;
                }
                super::dispi::update_legacy(self);
            }
            0x3b4 | 0x3d4 => self.cr_index = val,
            0x3b5 | 0x3d5 => self.write_crtc(val),
            0x3ba | 0x3da => self.fcr = val & 0x10,
            _ => {}
        }
    }

    fn write_attribute(&mut self, val: u8) {
        let i = self.ar_index & 0x1f;
        let mask = match i {
            0x00..=0x0f | 0x12 => 0x3f,
            0x10 => !0x10,
            0x11 => 0xff,
            0x13 | 0x14 => 0x0f,
            _ => return,
        };
        // AR12 (colour plane enable) keeps its status mux bits; AR0-AR0F have six bits.
        if let Some(r) = self.ar.get_mut(usize::from(i)) {
            *r = val & mask;
        }
    }

    fn write_dac(&mut self, val: u8) {
        if let Some(c) = self.dac_cache.get_mut(usize::from(self.dac_sub_index)) {
            *c = val;
        }
        self.dac_sub_index += 1;
        if self.dac_sub_index >= 3 {
            let at = usize::from(self.dac_write_index) * 3;
            if let Some(entry) = self.palette.get_mut(at..at + 3) {
                entry.copy_from_slice(&self.dac_cache);
            }
            self.dac_sub_index = 0;
            self.dac_write_index = self.dac_write_index.wrapping_add(1);
        }
    }

    fn write_crtc(&mut self, val: u8) {
        let i = self.cr_index;
        // CR11 bit 7 protects CR0-CR7, but for the line-compare bit 8 in CR7 (bit 4).
        let protected = self.crtc(0x11) & 0x80 != 0 && i <= 7;
        let val = match (protected, i) {
            (false, _) => val,
            (true, 7) => self.crtc(7) & !0x10 | val & 0x10,
            (true, _) => return,
        };
        if let Some(r) = self.cr.get_mut(usize::from(i)) {
            *r = val;
        }
        super::dispi::update_legacy(self);
    }

    /// An entry of the palette as 0x00RRGGBB.
    pub fn color(&self, i: u8) -> u32 {
        let at = usize::from(i) * 3;
        let part = |n: usize| {
            let v = u32::from(self.palette.get(at + n).copied().unwrap_or(0));
            if self.dac_8bit { v } else { (v & 0x3f) << 2 | (v & 0x3f) >> 4 }
        };
        part(0) << 16 | part(1) << 8 | part(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_flip_flop_is_reset_by_input_status() {
        let mut r = VgaRegs { misc: misc::COLOR, ..VgaRegs::default() };
        r.write(0x3c0, 0x01);
        let _ = r.read(0x3da);
        r.write(0x3c0, 0x02);
        r.write(0x3c0, 0x15);
        assert_eq!((r.ar[1], r.ar[2]), (0, 0x15));
    }

    #[test]
    fn crtc_answers_at_one_base_only() {
        let mut r = VgaRegs { misc: misc::COLOR, ..VgaRegs::default() };
        assert_eq!(r.read(0x3b4), 0xff);
        r.write(0x3c2, 0);
        r.write(0x3b4, 0x0e);
        r.write(0x3b5, 0x12);
        assert_eq!((r.read(0x3b5), r.read(0x3d5)), (0x12, 0xff));
    }

    #[test]
    fn crtc_protection_spares_line_compare() {
        let mut r = VgaRegs { misc: misc::COLOR, ..VgaRegs::default() };
        for (i, v) in [(0x11, 0x80), (0x07, 0xff), (0x00, 0x55)] {
            r.write(0x3d4, i);
            r.write(0x3d5, v);
        }
        assert_eq!((r.crtc(7), r.crtc(0)), (0x10, 0));
    }

    #[test]
    fn dac_writes_three_components_then_advances() {
        let mut r = VgaRegs { misc: misc::COLOR, ..VgaRegs::default() };
        r.write(0x3c8, 10);
        for v in [0x3f, 0x20, 0x01, 1, 2, 3] {
            r.write(0x3c9, v);
        }
        assert_eq!(r.color(10), 0x00ff_8204);
        r.write(0x3c7, 11);
        assert_eq!([r.read(0x3c9), r.read(0x3c9), r.read(0x3c9)], [1, 2, 3]);
        assert_eq!(r.read(0x3c7), 3);
    }
}
