//! The registers of a USB host controller of the first kind. Source: Universal Host Controller Interface (UHCI) Design Guide 1.1, §2.1.
//! Root ports with nothing in them: what is not about a device reads back.

use serde::{Deserialize, Serialize};

/// Root ports.
pub const PORTS: usize = 2;
/// Nanoseconds of a frame.
pub const FRAME: u64 = 1_000_000;

/// USBCMD.
mod cmd {
    pub const RS: u16 = 0x01;
    pub const HCRESET: u16 = 0x02;
    pub const GRESET: u16 = 0x04;
}
/// USBSTS.
pub mod sts {
    /// An interrupt is due.
    pub const USBINT: u16 = 0x01;
    /// A transaction failed.
    pub const ERROR: u16 = 0x02;
    /// A device woke the bus.
    pub const RESUME: u16 = 0x04;
    /// The host's memory did not answer.
    pub const HOST: u16 = 0x08;
    /// The schedule is wrong.
    pub const PROCESS: u16 = 0x10;
    /// The controller stands.
    pub const HALTED: u16 = 0x20;
}
/// USBINTR.
mod intr {
    pub const TIMEOUT: u16 = 0x01;
    pub const RESUME: u16 = 0x02;
    pub const COMPLETE: u16 = 0x04;
    pub const SHORT: u16 = 0x08;
}
/// PORTSC: a device is there; it changed; enabled; that changed; bit 7 reads as one; what software cannot write.
mod port {
    pub const CONNECTED: u16 = 0x01;
    pub const ENABLED: u16 = 0x04;
    pub const ONE: u16 = 0x80;
    pub const CHANGES: u16 = 0x0a;
    pub const READ_ONLY: u16 = 0x1bb;
}
/// Frame numbers that FRNUM shows.
const FRAMES: u16 = 0x7ff;
/// Where nothing is.
const NOTHING: u16 = 0xff7f;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UhciRegs {
    cmd: u16,
    status: u16,
    /// Why USBINT is set: a descriptor asked for it (1), a packet was short (2).
    cause: u8,
    intr: u16,
    frnum: u16,
    list: u32,
    sof: u8,
    ports: [u16; PORTS],
    /// When the next frame begins.
    next_frame: Option<u64>,
}

impl Default for UhciRegs {
    fn default() -> Self {
        Self {
            cmd: 0,
            status: sts::HALTED,
            cause: 0,
            intr: 0,
            frnum: 0,
            list: 0,
            sof: 64,
            ports: [port::ONE; PORTS],
            next_frame: None,
        }
    }
}

impl UhciRegs {
    /// Level of the interrupt line.
    pub fn irq(&self) -> bool {
        let (s, i) = (self.status, self.intr);
        (self.cause & 1 != 0 && i & intr::COMPLETE != 0)
            || (self.cause & 2 != 0 && i & intr::SHORT != 0)
            || (s & sts::ERROR != 0 && i & intr::TIMEOUT != 0)
            || (s & sts::RESUME != 0 && i & intr::RESUME != 0)
            || s & (sts::HOST | sts::PROCESS) != 0
    }

    /// Reads a word.
    pub fn read(&self, off: u64) -> u16 {
        match off {
            0x00 => self.cmd,
            0x02 => self.status,
            0x04 => self.intr,
            0x06 => self.frnum,
            0x08 => self.list as u16,
            0x0a => (self.list >> 16) as u16,
            0x0c => self.sof.into(),
            0x10..0x20 => self.ports.get(usize::from((off as u8 - 0x10) >> 1)).copied().unwrap_or(NOTHING),
            _ => NOTHING,
        }
    }

    /// Writes a word. `now`: virtual time, ns.
    pub fn write(&mut self, off: u64, val: u16, now: u64) {
        match off {
            0x00 => self.command(val, now),
            0x02 => {
                self.status &= !val;
                if val & sts::USBINT != 0 {
                    self.cause = 0;
                }
            }
            0x04 => self.intr = val,
            0x06 if self.status & sts::HALTED != 0 => self.frnum = val & FRAMES,
            0x08 => self.list = self.list & 0xffff_0000 | u32::from(val & 0xf000),
            0x0a => self.list = self.list & 0xffff | u32::from(val) << 16,
            0x0c => self.sof = val as u8,
            0x10..0x20 => {
                if let Some(p) = self.ports.get_mut(usize::from((off as u8 - 0x10) >> 1)) {
                    let mut val = val;
                    if *p & port::CONNECTED == 0 {
                        val &= !port::ENABLED;
                    }
                    *p = (*p & port::READ_ONLY | val & !port::READ_ONLY) & !(val & port::CHANGES);
                }
            }
            _ => {}
        }
    }

    fn command(&mut self, val: u16, now: u64) {
        if val & (cmd::GRESET | cmd::HCRESET) != 0 {
            *self = Self::default();
            // A global reset stays in the register until software ends it; the controller's own ends by itself.
            self.cmd = val & cmd::GRESET;
            return;
        }
        if val & cmd::RS != 0 && self.cmd & cmd::RS == 0 {
            self.next_frame = Some(now.saturating_add(FRAME));
            self.status &= !sts::HALTED;
        } else if val & cmd::RS == 0 {
            self.next_frame = None;
            self.status |= sts::HALTED;
        }
        self.cmd = val;
    }

    /// When the next frame begins.
    pub fn next_frame(&self) -> Option<u64> {
        self.next_frame
    }

    /// A frame begins if it is due: where its entry of the frame list is. Of frames that nobody had time for, more than `most` are left out.
    pub fn begin_frame(&mut self, now: u64, most: u32) -> Option<u64> {
        let due = self.next_frame.filter(|at| *at <= now)?;
        let late = (now - due) / FRAME;
        let skipped = late.saturating_sub(u64::from(most));
        self.frnum = (u64::from(self.frnum) + skipped + 1) as u16 & FRAMES;
        self.next_frame = Some(due.saturating_add((skipped + 1) * FRAME));
        let entry = u64::from(self.frnum & 0x3ff);
        Some(u64::from(self.list) + 4 * entry)
    }

    /// A frame has ended: a descriptor failed, one that did asks for an interrupt.
    pub fn end_frame(&mut self, failed: bool, interrupt: bool) {
        if failed {
            self.status |= sts::ERROR;
        }
        if interrupt {
            self.cause |= 1;
            self.status |= sts::USBINT;
        }
    }

    /// Memory did not answer: the controller stands.
    pub fn host_error(&mut self) {
        self.status |= sts::HOST | sts::HALTED;
        self.cmd &= !cmd::RS;
        self.next_frame = None;
    }

    /// Rejects what no guest can bring about.
    ///
    /// # Errors
    /// A frame number that is none, a controller that both runs and stands.
    pub fn check(&self) -> Result<(), String> {
        let ok = self.frnum <= FRAMES && self.next_frame.is_some() == (self.cmd & cmd::RS != 0);
        if ok { Ok(()) } else { Err("UHCI: impossible state".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_runs_and_counts_frames() {
        let mut r = UhciRegs::default();
        assert_eq!([0, 2, 4, 6, 0xc, 0x10, 0x12, 0x14].map(|o| r.read(o)), [0, 0x20, 0, 0, 64, 0x80, 0x80, 0xff7f]);
        r.write(6, 0xffff, 0);
        assert_eq!(r.read(6), 0x7ff);
        r.write(8, 0x1fff, 0);
        r.write(0xa, 0x12, 0);
        r.write(0, 1, 100);
        assert_eq!((r.read(2), r.next_frame()), (0, Some(FRAME + 100)));
        r.write(6, 5, 0);
        assert_eq!(r.begin_frame(FRAME, 128), None);
        assert_eq!((r.begin_frame(FRAME + 100, 128), r.read(6)), (Some(0x12_1000), 0));
        assert_eq!((r.begin_frame(1000 * FRAME, 128), r.read(6)), (Some(0x12_1000 + 4 * 870), 870));
        assert!(r.check().is_ok());
        r.write(0, 0, 0);
        assert_eq!((r.read(2), r.next_frame()), (0x20, None));
    }

    #[test]
    fn interrupts_are_enabled_one_by_one_and_acknowledged() {
        let mut r = UhciRegs::default();
        r.end_frame(true, true);
        assert_eq!((r.read(2), r.irq()), (0x23, false));
        for bit in [1, 4] {
            r.write(4, bit, 0);
            assert!(r.irq());
        }
        r.write(2, 1, 0);
        assert_eq!((r.read(2), r.irq()), (0x22, false));
        r.host_error();
        assert!(r.irq());
    }

    #[test]
    fn ports_stay_empty_and_resets_bring_all_back() {
        let mut r = UhciRegs::default();
        r.write(0x10, 0xffff, 0);
        assert_eq!(r.read(0x10), 0x80 | !0x1bb & !0x04 & !0x0a);
        r.write(0, 4, 0);
        assert_eq!((r.read(0x10), r.read(0)), (0x80, 4));
        r.write(0, 0, 0);
        r.write(0, 2, 0);
        assert_eq!(r, UhciRegs::default());
    }
}
