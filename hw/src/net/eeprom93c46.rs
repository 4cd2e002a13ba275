//! The serial EEPROM of network cards: 64 words behind three wires. Source: 93C46 datasheets (Microwire instruction set).
//! Not modelled: writing and erasing. Such instructions are taken and change nothing, as on a part whose writes were never enabled.

use serde::{Deserialize, Serialize};

/// Words.
pub const WORDS: usize = 64;
/// Bits of an instruction: start, two of operation, six of address.
const INSTRUCTION: u8 = 9;
/// Start bit and the operation that reads.
const READ: u16 = 0b110;

/// The part and its wires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eeprom {
    words: Vec<u16>,
    select: bool,
    clock: bool,
    /// Bits of the instruction so far, and how many.
    instruction: u16,
    count: u8,
    /// Reading: the next bit, counted from the first word's most significant; the bit before the first is a zero.
    at: Option<u32>,
    fresh: bool,
}

impl Default for Eeprom {
    fn default() -> Self {
        Self {
            words: vec![0xffff; WORDS],
            select: false,
            clock: false,
            instruction: 0,
            count: 0,
            at: None,
            fresh: false,
        }
    }
}

impl Eeprom {
    /// A part with contents.
    pub fn new(words: [u16; WORDS]) -> Self {
        Self { words: words.to_vec(), ..Self::default() }
    }

    /// A word.
    pub fn word(&self, n: usize) -> u16 {
        self.words.get(n & (WORDS - 1)).copied().unwrap_or(0)
    }

    /// Whether its size is right: state that was loaded may be anything.
    pub fn is_valid(&self) -> bool {
        self.words.len() == WORDS
    }

    /// Drives the wires: chip select, clock, data in.
    pub fn drive(&mut self, select: bool, clock: bool, data: bool) {
        if !select || !self.select {
            (self.instruction, self.count, self.at) = (0, 0, None);
        }
        let rising = select && self.select && clock && !self.clock;
        (self.select, self.clock) = (select, clock);
        if !rising {
            return;
        }
        match &mut self.at {
            Some(_) if self.fresh => self.fresh = false,
            Some(at) => *at = at.wrapping_add(1) % (WORDS as u32 * 16),
            None => {
                // Zeros before the start bit mean nothing.
                if self.count == 0 && !data {
                    return;
                }
                self.instruction = self.instruction << 1 | u16::from(data);
                self.count = self.count.saturating_add(1).min(INSTRUCTION + 1);
                if self.count == INSTRUCTION && self.instruction >> 6 == READ {
                    self.at = Some(u32::from(self.instruction & 0x3f) * 16);
                    self.fresh = true;
                }
            }
        }
    }

    /// Data out: the dummy zero, then the words; otherwise ready.
    pub fn output(&self) -> bool {
        match self.at {
            Some(_) if self.fresh => false,
            Some(at) => self.word(at as usize / 16) >> (15 - at % 16) & 1 != 0,
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock_in(e: &mut Eeprom, bit: bool) {
        e.drive(true, false, bit);
        e.drive(true, true, bit);
        e.drive(true, false, bit);
    }

    #[test]
    fn words_come_out_one_after_the_other() {
        let mut words = [0; WORDS];
        (words[5], words[6], words[63], words[0]) = (0x1234, 0xabcd, 0x8001, 0x7777);
        let mut e = Eeprom::new(words);
        for (address, expected) in [(5, 0x1234_abcd), (63, 0x8001_7777)] {
            e.drive(false, false, false);
            e.drive(true, false, false);
            for bit in (0..9).rev() {
                clock_in(&mut e, (0b110 << 6 | address) >> bit & 1 != 0);
            }
            assert!(!e.output());
            let mut value = 0u32;
            for _ in 0..32 {
                clock_in(&mut e, false);
                value = value << 1 | u32::from(e.output());
            }
            assert_eq!(value, expected);
        }
    }
}
