//! The 8042 keyboard controller's registers, without wiring. Source: IBM PS/2 Technical Reference, keyboard and auxiliary
//! device controller; Intel UPI-41/42. Not modelled: the keyboard lock and the test inputs.

use serde::{Deserialize, Serialize};

/// Status register, port 0x64.
mod status {
    pub const OBF: u8 = 0x01;
    pub const SELFTEST: u8 = 0x04;
    pub const CMD: u8 = 0x08;
    pub const UNLOCKED: u8 = 0x10;
    pub const AUX_OBF: u8 = 0x20;
}
/// Controller command byte.
mod mode {
    pub const KBD_INT: u8 = 0x01;
    pub const AUX_INT: u8 = 0x02;
    pub const DISABLE_KBD: u8 = 0x10;
    pub const DISABLE_AUX: u8 = 0x20;
    pub const KCC: u8 = 0x40;
}
/// Output port.
mod outport {
    pub const RESET: u8 = 0x01;
    pub const A20: u8 = 0x02;
    pub const OBF: u8 = 0x10;
    pub const AUX_OBF: u8 = 0x20;
    pub const LINES: u8 = OBF | AUX_OBF;
    /// Clock and data of both links, not driven: they read as ones.
    pub const LINKS: u8 = 0xcc;
}

/// Where the byte in the output buffer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The controller itself, shown as a keyboard byte.
    Controller,
    /// The controller itself, shown as an auxiliary byte.
    ControllerAux,
    /// The keyboard's queue.
    Keyboard,
    /// The mouse's queue.
    Aux,
}

/// What a write asks of the wiring.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but the lines.
    None,
    /// Pass a byte to the keyboard.
    ToKeyboard(u8),
    /// Pass a byte to the mouse.
    ToAux(u8),
    /// Open or close the A20 gate. The output port is not the gate's only driver: it acts when it is written, not otherwise.
    GateA20(bool),
    /// Pulse the reset line.
    Reset,
}

/// Levels the wiring must drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// Keyboard interrupt.
    pub kbd: bool,
    /// Mouse interrupt.
    pub aux: bool,
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042Regs {
    write_cmd: u8,
    status: u8,
    mode: u8,
    outport: u8,
    obdata: u8,
    source: Option<Source>,
    /// A byte of the controller's own, waiting for the buffer.
    reply: Option<(u8, bool)>,
    kbd_pending: bool,
    aux_pending: bool,
    /// Interrupt lines: they follow the output buffer and writes of the command byte, not the commands that switch an
    /// interface off.
    kbd_irq: bool,
    aux_irq: bool,
}

impl Default for I8042Regs {
    fn default() -> Self {
        I8042Regs {
            write_cmd: 0,
            status: status::CMD | status::UNLOCKED,
            mode: mode::KBD_INT | mode::AUX_INT,
            outport: outport::RESET | outport::A20 | outport::LINKS,
            obdata: 0,
            source: None,
            reply: None,
            kbd_pending: false,
            aux_pending: false,
            kbd_irq: false,
            aux_irq: false,
        }
    }
}

impl I8042Regs {
    /// Levels of the outputs.
    pub fn lines(&self) -> Lines {
        Lines { kbd: self.kbd_irq, aux: self.aux_irq }
    }

    fn update_irqs(&mut self) {
        let full = self.status & status::OBF != 0;
        let aux = self.status & status::AUX_OBF != 0;
        self.kbd_irq = full && !aux && self.mode & (mode::KBD_INT | mode::DISABLE_KBD) == mode::KBD_INT;
        self.aux_irq = full && aux && self.mode & mode::AUX_INT != 0;
    }

    /// The A20 bit of the output port.
    pub fn a20(&self) -> bool {
        self.outport & outport::A20 != 0
    }

    /// The keyboard translates to scan code set 1 (command byte bit 6).
    pub fn translates(&self) -> bool {
        self.mode & mode::KCC != 0
    }

    fn next_source(&self) -> Option<Source> {
        match self.reply {
            Some((_, true)) => Some(Source::ControllerAux),
            Some((_, false)) => Some(Source::Controller),
            None if self.kbd_pending && self.mode & mode::DISABLE_KBD == 0 => Some(Source::Keyboard),
            None if self.aux_pending && self.mode & mode::DISABLE_AUX == 0 => Some(Source::Aux),
            None => None,
        }
    }

    /// Fills the output buffer if it is empty and somebody has something.
    fn refill(&mut self) {
        if self.status & status::OBF == 0 {
            self.update();
        }
    }

    fn update(&mut self) {
        self.status &= !(status::OBF | status::AUX_OBF);
        self.outport &= !outport::LINES;
        self.source = self.next_source();
        if let Some(source) = self.source {
            self.status |= status::OBF;
            self.outport |= outport::OBF;
            if matches!(source, Source::Aux | Source::ControllerAux) {
                self.status |= status::AUX_OBF;
                self.outport |= outport::AUX_OBF;
            }
        }
        self.update_irqs();
    }

    /// The keyboard's interrupt input: its queue has bytes.
    pub fn keyboard_line(&mut self, level: bool) {
        self.kbd_pending = level;
        self.refill();
    }

    /// The mouse's interrupt input.
    pub fn aux_line(&mut self, level: bool) {
        self.aux_pending = level;
        self.refill();
    }

    fn reply(&mut self, byte: u8, aux: bool) {
        self.reply = Some((byte, aux));
        self.refill();
    }

    /// Port 0x64 read.
    pub fn read_status(&self) -> u8 {
        self.status
    }

    /// What port 0x60 reads while the buffer is empty: the byte before.
    pub fn last(&self) -> u8 {
        self.obdata
    }

    /// Port 0x60 read, first half: empties the buffer and tells where the byte comes from. The wiring takes the byte of
    /// [`Source::Keyboard`] and [`Source::Aux`] from the device and ends with [`I8042Regs::read_done`]; if the buffer was
    /// empty, with [`I8042Regs::last`].
    pub fn read_data(&mut self) -> Option<Source> {
        if self.status & status::OBF == 0 {
            return None;
        }
        self.status &= !(status::OBF | status::AUX_OBF);
        self.outport &= !outport::LINES;
        self.update_irqs();
        let source = self.source.take();
        if let Some(Source::Controller | Source::ControllerAux) = source
            && let Some((byte, _)) = self.reply.take()
        {
            self.obdata = byte;
        }
        source
    }

    /// Port 0x60 read, second half: latches the device's byte, shows the next one. Returns what the guest reads.
    pub fn read_done(&mut self, from_device: Option<u8>) -> u8 {
        if let Some(byte) = from_device {
            self.obdata = byte;
        }
        self.refill();
        self.obdata
    }

    /// Port 0x64 write: a controller command.
    pub fn write_command(&mut self, val: u8) -> Action {
        // F0-FF pulse the output port's low bits: bit 0 low resets, the others are not connected.
        let val = match val {
            0xf0..=0xff if val & 1 == 0 => 0xfe,
            0xf0..=0xff => 0xff,
            v => v,
        };
        match val {
            0x20 => self.reply(self.mode, false),
            0x60 | 0xd1..=0xd4 => self.write_cmd = val,
            0xa7 => self.mode |= mode::DISABLE_AUX,
            0xa8 => {
                self.mode &= !mode::DISABLE_AUX;
                self.refill();
            }
            0xa9 | 0xab => self.reply(0, false),
            0xaa => {
                self.status |= status::SELFTEST;
                self.reply(0x55, false);
            }
            0xad => self.mode |= mode::DISABLE_KBD,
            0xae => {
                self.mode &= !mode::DISABLE_KBD;
                self.refill();
            }
            0xc0 => self.reply(0x80, false),
            0xd0 => self.reply(self.outport, false),
            0xdd => {
                self.outport &= !outport::A20;
                return Action::GateA20(false);
            }
            0xdf => {
                self.outport |= outport::A20;
                return Action::GateA20(true);
            }
            0xfe => return Action::Reset,
            _ => {}
        }
        Action::None
    }

    /// Port 0x60 write: a byte for the keyboard, or the parameter of a controller command.
    pub fn write_data(&mut self, val: u8) -> Action {
        match std::mem::take(&mut self.write_cmd) {
            0x60 => {
                self.mode = val;
                self.update_irqs();
                self.refill();
                Action::None
            }
            0xd1 => {
                self.outport = val;
                if val & outport::RESET == 0 { Action::Reset } else { Action::GateA20(self.a20()) }
            }
            0xd2 => {
                self.reply(val, false);
                Action::None
            }
            0xd3 => {
                self.reply(val, true);
                Action::None
            }
            0xd4 => {
                // A byte for the mouse enables its interface.
                self.mode &= !mode::DISABLE_AUX;
                Action::ToAux(val)
            }
            _ => {
                // A byte for the keyboard enables its interface.
                self.mode &= !mode::DISABLE_KBD;
                Action::ToKeyboard(val)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(r: &mut I8042Regs, kbd: u8) -> u8 {
        let device = matches!(r.read_data(), Some(Source::Keyboard | Source::Aux)).then_some(kbd);
        r.read_done(device)
    }

    #[test]
    fn self_test_answers_55() {
        let mut r = I8042Regs::default();
        assert_eq!(r.write_command(0xaa), Action::None);
        assert_eq!(r.read_status(), 0x1d);
        assert!(r.lines().kbd);
        assert_eq!(read(&mut r, 0), 0x55);
        assert_eq!(r.read_status() & 1, 0);
        assert!(!r.lines().kbd);
    }

    #[test]
    fn command_byte_controls_interrupts_and_interfaces() {
        let mut r = I8042Regs::default();
        let _ = r.write_command(0x60);
        let _ = r.write_data(mode::DISABLE_KBD);
        r.keyboard_line(true);
        assert_eq!(r.read_status() & 1, 0); // interface disabled
        let _ = r.write_command(0xae);
        assert_eq!(r.read_status() & 1, 1);
        assert!(!r.lines().kbd); // no interrupt enabled
        assert_eq!(read(&mut r, 0x1c), 0x1c);
        let _ = r.write_command(0x20);
        r.keyboard_line(false);
        assert_eq!(read(&mut r, 0x1c), 0x1c); // still the next keyboard byte that was shown first
        assert_eq!(read(&mut r, 0), 0);
    }

    #[test]
    fn mouse_bytes_come_with_their_flag() {
        let mut r = I8042Regs::default();
        let _ = r.write_command(0xd4);
        assert_eq!(r.write_data(0xf4), Action::ToAux(0xf4));
        r.aux_line(true);
        assert!(r.lines().aux);
        assert_eq!(r.read_status() & 0x21, 0x21);
    }

    #[test]
    fn resets_and_a20() {
        let mut r = I8042Regs::default();
        assert_eq!(r.write_command(0xfe), Action::Reset);
        assert_eq!(r.write_command(0xf0), Action::Reset);
        assert_eq!(r.write_command(0xff), Action::None);
        assert_eq!(r.write_command(0xdd), Action::GateA20(false));
        assert!(!r.a20());
        let _ = r.write_command(0xd1);
        assert_eq!(r.write_data(0x03), Action::GateA20(true));
        assert!(r.a20());
        let _ = r.write_command(0xd1);
        assert_eq!(r.write_data(0x02), Action::Reset);
    }
}
