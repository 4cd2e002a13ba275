//! The PS/2 mouse's side of its serial link, with the IntelliMouse and Explorer extensions.
//! Source: IBM PS/2 Technical Reference, mouse; Microsoft IntelliMouse PS/2 protocol (wheel, five buttons).

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes the mouse holds. Replies that find no room are lost as a whole, movements add up.
const QUEUE: usize = 16;
const ACK: u8 = 0xfa;

/// Button bits.
pub mod button {
    /// Left.
    pub const LEFT: u8 = 1;
    /// Right.
    pub const RIGHT: u8 = 2;
    /// Middle.
    pub const MIDDLE: u8 = 4;
    /// Side (fourth).
    pub const SIDE: u8 = 8;
    /// Extra (fifth).
    pub const EXTRA: u8 = 16;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Standard = 0,
    Wheel = 3,
    Buttons = 4,
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ps2MouseRegs {
    queue: VecDeque<u8>,
    last: u8,
    write_cmd: Option<u8>,
    remote: bool,
    enabled: bool,
    scaling: bool,
    wrap: bool,
    sample_rate: u8,
    resolution: u8,
    kind: Kind,
    /// The last two sample rates: the knock that switches extensions on.
    rates: [u8; 2],
    dx: i32,
    dy: i32,
    dz: i32,
    buttons: u8,
}

impl Default for Ps2MouseRegs {
    fn default() -> Self {
        Ps2MouseRegs {
            queue: VecDeque::new(),
            last: 0,
            write_cmd: None,
            remote: false,
            enabled: false,
            scaling: false,
            wrap: false,
            sample_rate: 100,
            resolution: 2,
            kind: Kind::Standard,
            rates: [0; 2],
            dx: 0,
            dy: 0,
            dz: 0,
            buttons: 0,
        }
    }
}

impl Ps2MouseRegs {
    /// Level of the line to the controller.
    pub fn pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next byte; an empty queue repeats the last one.
    pub fn read(&mut self) -> u8 {
        if let Some(b) = self.queue.pop_front() {
            self.last = b;
        }
        self.last
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.queue.len() + bytes.len() <= QUEUE {
            self.queue.extend(bytes);
        }
    }

    /// Command F6: what is queued stays.
    fn defaults(&mut self) {
        let Ps2MouseRegs { sample_rate, resolution, .. } = Ps2MouseRegs::default();
        (self.sample_rate, self.resolution) = (sample_rate, resolution);
        (self.remote, self.enabled, self.scaling) = (false, false, false);
    }

    /// A command or parameter from the host.
    pub fn write(&mut self, val: u8) {
        match self.write_cmd.take() {
            Some(0xf3) => self.set_rate(val),
            Some(_) => {
                self.resolution = val;
                self.push(&[ACK]);
            }
            None if self.wrap && !matches!(val, 0xec | 0xff) => self.push(&[val]),
            None => self.command(val),
        }
    }

    fn command(&mut self, val: u8) {
        match val {
            0xe6 | 0xe7 => self.scaling = val == 0xe7,
            0xe8 | 0xf3 => self.write_cmd = Some(val),
            0xe9 => {
                let flags = u8::from(self.remote) << 6 | u8::from(self.enabled) << 5 | u8::from(self.scaling) << 4;
                return self.push(&[ACK, flags | self.buttons & 7, self.resolution, self.sample_rate]);
            }
            0xea => self.remote = false,
            0xeb => {
                self.push(&[ACK]);
                if self.queue.len() + self.packet_len() <= QUEUE {
                    self.packet();
                }
                return;
            }
            0xec | 0xee => self.wrap = val == 0xee,
            0xf0 => self.remote = true,
            0xf2 => return self.push(&[ACK, self.kind as u8]),
            0xf4 => self.enabled = true,
            0xf5 => self.enabled = false,
            0xf6 => self.defaults(),
            0xff => {
                *self = Ps2MouseRegs { last: self.last, ..Ps2MouseRegs::default() };
                return self.push(&[ACK, 0xaa, 0x00]);
            }
            _ => return self.push(&[0xfe]),
        }
        self.push(&[ACK]);
    }

    fn set_rate(&mut self, val: u8) {
        self.sample_rate = val;
        match (self.rates, val) {
            ([200, 100], 80) => self.kind = Kind::Wheel,
            ([200, 200], 80) => self.kind = Kind::Buttons,
            _ => {}
        }
        let [_, last] = self.rates;
        self.rates = [last, val];
        self.push(&[ACK]);
    }

    /// The mouse moved (right, down, wheel down positive) or its buttons changed.
    pub fn event(&mut self, dx: i32, dy: i32, dz: i32, buttons: u8) {
        if !self.enabled {
            return;
        }
        self.dx = self.dx.saturating_add(dx);
        self.dy = self.dy.saturating_sub(dy);
        self.dz = self.dz.saturating_add(dz);
        self.buttons = buttons;
        if !self.remote {
            // A fast movement takes several packets.
            while self.queue.len() + self.packet_len() <= QUEUE {
                self.packet();
                if self.dx == 0 && self.dy == 0 && self.dz == 0 {
                    break;
                }
            }
        }
    }

    fn packet_len(&self) -> usize {
        if self.kind == Kind::Standard { 3 } else { 4 }
    }

    /// Announces that another device has events for the driver: a movement by one.
    pub fn fake_event(&mut self) {
        self.event(1, 0, 0, self.buttons);
    }

    fn packet(&mut self) {
        let (dx, dy) = (self.dx.clamp(-255, 255), self.dy.clamp(-255, 255));
        self.dx -= dx;
        self.dy -= dy;
        let signs = u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5;
        let mut bytes = vec![0x08 | signs | self.buttons & 7, dx as u8, dy as u8];
        let limit = match self.kind {
            Kind::Standard => {
                self.dz = 0;
                0
            }
            Kind::Wheel => 127,
            Kind::Buttons => 7,
        };
        let dz = self.dz.clamp(-limit, limit);
        self.dz -= dz;
        match self.kind {
            Kind::Standard => {}
            Kind::Wheel => bytes.push(dz as u8),
            Kind::Buttons => bytes.push(dz as u8 & 0x0f | (self.buttons & (button::SIDE | button::EXTRA)) << 1),
        }
        self.push(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(m: &mut Ps2MouseRegs) -> Vec<u8> {
        let mut out = vec![];
        while m.pending() {
            out.push(m.read());
        }
        out
    }

    #[test]
    fn reset_identify_and_knock_for_the_wheel() {
        let mut m = Ps2MouseRegs::default();
        m.write(0xff);
        assert_eq!(all(&mut m), [ACK, 0xaa, 0]);
        for rate in [200, 100, 80] {
            m.write(0xf3);
            m.write(rate);
        }
        let _ = all(&mut m);
        m.write(0xf2);
        assert_eq!(all(&mut m), [ACK, 3]);
    }

    #[test]
    fn movement_is_sent_only_when_enabled() {
        let mut m = Ps2MouseRegs::default();
        m.event(5, 5, 0, 0);
        assert!(!m.pending());
        m.write(0xf4);
        let _ = all(&mut m);
        m.event(5, -3, 0, button::LEFT);
        assert_eq!(all(&mut m), [0x09, 5, 3]);
        m.event(-300, 0, 0, 0);
        assert_eq!(all(&mut m), [0x18, 1, 0, 0x18, 0xd3, 0]); // -255, -45
    }

    #[test]
    fn a_full_queue_loses_whole_replies_and_no_movement() {
        let mut m = Ps2MouseRegs::default();
        m.write(0xf4);
        m.write(0xf4);
        for _ in 0..4 {
            m.write(0xe9);
        }
        m.event(7, 0, 0, 0);
        let got = all(&mut m);
        assert_eq!((got.len(), got.last()), (14, Some(&100)));
        m.event(1, 0, 0, 0);
        assert_eq!(all(&mut m), [8, 8, 0]);
    }

    #[test]
    fn defaults_keep_the_queue_and_a_reset_empties_it() {
        let mut m = Ps2MouseRegs::default();
        m.write(0xf2);
        m.write(0xf6);
        assert_eq!(all(&mut m), [ACK, 0, ACK]);
        m.write(0xf2);
        m.write(0xff);
        assert_eq!(all(&mut m), [ACK, 0xaa, 0]);
    }

    #[test]
    fn wrap_mode_echoes() {
        let mut m = Ps2MouseRegs::default();
        m.write(0xee);
        m.write(0x42);
        m.write(0xec);
        assert_eq!(all(&mut m), [ACK, 0x42, ACK]);
    }
}
