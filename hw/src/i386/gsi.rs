//! Global system interrupts: what a wire of the board reaches. 0-15 go to the 8259 pair and the I/O APIC, 16-23 to the
//! I/O APIC alone.

use hw_core::{Line, Locked};
use std::sync::{Arc, OnceLock};

/// Number of interrupts.
pub const GSIS: usize = 24;

/// The wires, made before the chips they end at.
#[derive(Clone, Debug, Default)]
pub struct Gsi {
    ends: Arc<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    pic: OnceLock<Vec<Line>>,
    ioapic: OnceLock<Vec<Line>>,
}

impl Ends {
    fn set(&self, m: &mut Locked, n: usize, level: bool) {
        for chip in [&self.pic, &self.ioapic] {
            if let Some(line) = chip.get().and_then(|c| c.get(n)) {
                line.set(m, level);
            }
        }
    }
}

impl Gsi {
    /// The inputs of the 8259 pair.
    pub fn connect_pic(&self, lines: Vec<Line>) {
        self.ends.pic.get_or_init(|| lines);
    }

    /// The pins of the I/O APIC.
    pub fn connect_ioapic(&self, lines: Vec<Line>) {
        self.ends.ioapic.get_or_init(|| lines);
    }

    /// The wires. Connecting one shows it in the tree.
    pub fn lines(&self) -> Vec<Line> {
        let line = |n| {
            let ends = self.ends.clone();
            Line::new(move |m, level| ends.set(m, n, level))
        };
        (0..GSIS).map(line).collect()
    }
}
