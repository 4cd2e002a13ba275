//! The PS/2 keyboard's side of its serial link. Source: IBM PS/2 Technical Reference, keyboard (101/102-key), commands.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use ui::keys::Key;

/// Bytes of key codes the keyboard holds; later ones are lost.
const KEY_QUEUE: usize = 16;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const POWER_ON: u8 = 0xaa;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ps2KbdRegs {
    /// Key codes.
    queue: VecDeque<u8>,
    /// What the last command brought: read before key codes, and dropped when the next command comes.
    replies: VecDeque<u8>,
    /// Last byte read: what an empty queue answers.
    last: u8,
    write_cmd: Option<u8>,
    scan_enabled: bool,
    scancode_set: u8,
    /// Lock lights: scroll, num, caps in bits 0, 1, 2.
    leds: u8,
    /// The controller translates to set 1.
    translate: bool,
}

impl Default for Ps2KbdRegs {
    fn default() -> Self {
        Ps2KbdRegs {
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            last: 0,
            write_cmd: None,
            scan_enabled: true,
            scancode_set: 2,
            leds: 0,
            translate: false,
        }
    }
}

impl Ps2KbdRegs {
    /// Level of the line to the controller.
    pub fn pending(&self) -> bool {
        !(self.replies.is_empty() && self.queue.is_empty())
    }

    /// Lock lights as the guest set them: scroll, num, caps in bits 0, 1, 2.
    pub fn leds(&self) -> u8 {
        self.leds
    }

    /// The controller switches translation on or off.
    pub fn set_translation(&mut self, on: bool) {
        self.translate = on;
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes);
    }

    /// The next byte; an empty queue repeats the last one.
    pub fn read(&mut self) -> u8 {
        if let Some(b) = self.replies.pop_front().or_else(|| self.queue.pop_front()) {
            self.last = b;
        }
        self.last
    }

    fn defaults(&mut self) {
        let translate = self.translate;
        *self = Ps2KbdRegs { translate, last: self.last, ..Ps2KbdRegs::default() };
    }

    /// A command or parameter from the host; what is left of the reply to the one before is lost.
    pub fn write(&mut self, val: u8) {
        self.replies.clear();
        match self.write_cmd.take() {
            None => self.command(val),
            Some(0xf0) => self.select_set(val),
            Some(0xed) => {
                self.leds = val & 7;
                self.reply(&[ACK]);
            }
            Some(_) => self.reply(&[ACK]), // typematic rate: the host's key repeat is used
        }
    }

    fn command(&mut self, val: u8) {
        match val {
            0x00 => self.reply(&[ACK]),
            0xee => self.reply(&[0xee]),
            0xf2 => {
                let id = if self.translate { 0x41 } else { 0x83 };
                self.reply(&[ACK, 0xab, id]);
            }
            0xed | 0xf0 | 0xf3 => {
                self.write_cmd = Some(val);
                self.reply(&[ACK]);
            }
            0xf4 => {
                self.scan_enabled = true;
                self.reply(&[ACK]);
            }
            0xf5 | 0xf6 => {
                self.defaults();
                self.scan_enabled = val == 0xf6;
                self.reply(&[ACK]);
            }
            0xf7..=0xfa => self.reply(&[ACK]), // key types of set 3
            0xfb..=0xfd => {
                self.write_cmd = Some(val);
                self.reply(&[ACK]);
            }
            0xff => {
                self.defaults();
                self.reply(&[ACK, POWER_ON]);
            }
            _ => self.reply(&[RESEND]),
        }
    }

    fn select_set(&mut self, val: u8) {
        match val {
            0 => {
                let set = match (self.translate, self.scancode_set) {
                    (true, 1) => 0x43,
                    (true, 2) => 0x41,
                    (true, _) => 0x3f,
                    (false, set) => set,
                };
                self.reply(&[ACK, set]);
            }
            1..=3 => {
                self.scancode_set = val;
                self.reply(&[ACK]);
            }
            _ => self.reply(&[RESEND]),
        }
    }

    /// A key goes down or up.
    pub fn key(&mut self, key: &Key, down: bool) {
        if !self.scan_enabled {
            return;
        }
        let bytes = match (self.scancode_set, self.translate) {
            (1, _) | (2, true) => set1(key, down),
            (2, false) => set2(key, down),
            _ => set3(key, down, self.translate),
        };
        if self.replies.len() + self.queue.len() + bytes.len() <= KEY_QUEUE {
            self.queue.extend(bytes);
        }
    }
}

fn prefix(code: u16) -> Vec<u8> {
    if code > 0xff { vec![0xe0] } else { vec![] }
}

fn set1(key: &Key, down: bool) -> Vec<u8> {
    match key.name {
        // Pause has no break code; Print sends a shifted pair around its code.
        "pause" if down => vec![0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5],
        "pause" => vec![],
        "print" if down => vec![0xe0, 0x2a, 0xe0, 0x37],
        "print" => vec![0xe0, 0xb7, 0xe0, 0xaa],
        _ => {
            let mut out = prefix(key.set1);
            out.push(key.set1 as u8 | if down { 0 } else { 0x80 });
            out
        }
    }
}

fn set2(key: &Key, down: bool) -> Vec<u8> {
    match key.name {
        "pause" if down => vec![0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77],
        "pause" => vec![],
        "print" if down => vec![0xe0, 0x12, 0xe0, 0x7c],
        "print" => vec![0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12],
        _ if key.set2 == 0 => vec![],
        _ => {
            let mut out = prefix(key.set2);
            if !down {
                out.push(0xf0);
            }
            out.push(key.set2 as u8);
            out
        }
    }
}

/// Set 3, translated like set 2 is: breaks have bit 7 instead of F0. Keys of this set are make-only until told otherwise,
/// but modifiers; every key is given make and break here, as after command FA.
fn set3(key: &Key, down: bool, translate: bool) -> Vec<u8> {
    match (key.set3, down, translate) {
        (0, _, _) => vec![],
        (code, true, _) => vec![code],
        (code, false, true) => vec![code | 0x80],
        (code, false, false) => vec![0xf0, code],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ui::keys::by_name;

    fn all(k: &mut Ps2KbdRegs) -> Vec<u8> {
        let mut out = vec![];
        while k.pending() {
            out.push(k.read());
        }
        out
    }

    #[test]
    fn reset_and_identify() {
        let mut k = Ps2KbdRegs::default();
        k.write(0xff);
        assert_eq!(all(&mut k), [ACK, POWER_ON]);
        k.write(0xf2);
        assert_eq!(all(&mut k), [ACK, 0xab, 0x83]);
        k.write(0xed);
        k.write(0x05);
        assert_eq!((all(&mut k), k.leds()), (vec![ACK], 5)); // the first ACK was not read in time
        k.write(0x42);
        assert_eq!(all(&mut k), [RESEND]);
    }

    #[test]
    fn keys_in_every_set() {
        let mut k = Ps2KbdRegs::default();
        let delete = by_name("delete").unwrap();
        k.key(delete, true);
        k.key(delete, false);
        assert_eq!(all(&mut k), [0xe0, 0x71, 0xe0, 0xf0, 0x71]);
        k.set_translation(true);
        k.key(delete, true);
        k.key(delete, false);
        assert_eq!(all(&mut k), [0xe0, 0x53, 0xe0, 0xd3]);
        k.write(0xf0);
        k.write(3);
        let _ = all(&mut k);
        k.key(delete, true);
        assert_eq!(all(&mut k), [0x64]);
    }

    #[test]
    fn a_full_queue_loses_keys_but_no_replies() {
        let mut k = Ps2KbdRegs::default();
        for _ in 0..40 {
            k.key(by_name("a").unwrap(), true);
        }
        k.write(0xf2);
        k.write(0xee);
        let got = all(&mut k);
        assert_eq!((got.len(), got.first()), (KEY_QUEUE + 1, Some(&0xee))); // replies first, the last one only
        k.write(0xf5);
        let _ = all(&mut k);
        k.key(by_name("a").unwrap(), true);
        assert!(!k.pending());
    }
}
