//! Intel 8254 programmable interval timer as registers. Source: Intel 8254 datasheet (231164).
//!
//! Counters are evaluated in closed form from the virtual time at which the counting element was loaded, so nothing runs between
//! accesses. The phase of CLK is chosen so that the pulse that loads a counter follows the write (or the GATE edge) at once: a
//! count N written at t reaches terminal count at t + N clocks.
//! Not modelled: the undefined power-on state (all counters run in mode 3 from 0, as PC firmware finds them); the illegal count 1
//! of modes 2 and 3 leaves OUT high.

use serde::{Deserialize, Serialize};

/// CLK of all three counters.
pub const PIT_HZ: u64 = 1_193_182;
const SECOND: u64 = 1_000_000_000;

/// Clocks completed in `ns` nanoseconds.
fn clocks(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(PIT_HZ) / u128::from(SECOND)) as u64
}

/// The first nanosecond at which `n` clocks are complete.
fn nanos(n: u64) -> u64 {
    (u128::from(n) * u128::from(SECOND)).div_ceil(u128::from(PIT_HZ)) as u64
}

/// What the counting element does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Run {
    /// Nothing loaded since the control word (or no trigger yet): it shows this.
    Idle(u16),
    /// Stopped by GATE this many clocks after the load.
    Held(u64),
    /// Loaded at this virtual time and counting.
    Since(u64),
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// Status bits 5..0 as written: RW1 RW0 M2 M1 M0 BCD.
    control: u8,
    /// Count register; 0 stands for the maximum.
    cr: u16,
    /// A complete count was written since the control word.
    written: bool,
    /// The first byte of a two-byte write is in.
    msb_expected: bool,
    /// The first byte of a two-byte read is out.
    msb_next: bool,
    /// Output latch.
    latch: Option<u16>,
    /// The first byte of the latch is out.
    latch_msb_next: bool,
    /// Latched status byte.
    status: Option<u8>,
    /// CR holds what the counting element has not taken over yet.
    null_count: bool,
    /// Count last loaded into the counting element: 1 to 0x10000 (10000 in BCD).
    loaded: u32,
    /// Modes 2 and 3: clocks after the load at which the waiting count is taken over.
    switch_at: Option<u64>,
    run: Run,
    /// Mode 3: OUT when the counting element was loaded.
    phase: bool,
    /// GATE input.
    gate: bool,
}

impl Counter {
    fn power_on(gate: bool, now: u64) -> Self {
        Self {
            control: 3 << 1,
            cr: 0,
            written: true,
            msb_expected: false,
            msb_next: false,
            latch: None,
            latch_msb_next: false,
            status: None,
            null_count: false,
            loaded: 0x1_0000,
            switch_at: None,
            run: if gate { Run::Since(now) } else { Run::Held(0) },
            phase: true,
            gate,
        }
    }

    /// Modes 6 and 7 are 2 and 3: M2 is a don't-care there.
    fn mode(&self) -> u8 {
        match self.control >> 1 & 7 {
            m @ 0..=5 => m,
            m => m - 4,
        }
    }

    fn access(&self) -> u8 {
        self.control >> 4 & 3
    }

    fn bcd(&self) -> bool {
        self.control & 1 != 0
    }

    fn modulus(&self) -> u64 {
        if self.bcd() { 10_000 } else { 0x1_0000 }
    }

    /// The number of clocks that CR stands for.
    fn count(&self) -> u32 {
        let n = if self.bcd() {
            [12, 8, 4, 0].into_iter().fold(0, |n, s| n * 10 + u32::from(self.cr >> s & 0xf))
        } else {
            self.cr.into()
        };
        if n == 0 { self.modulus() as u32 } else { n }
    }

    fn elapsed(&self, now: u64) -> u64 {
        match self.run {
            Run::Idle(_) => 0,
            Run::Held(d) => d,
            Run::Since(t) => clocks(now.saturating_sub(t)),
        }
    }

    /// Mode 3 after `d` clocks: OUT, the clock at which this half began, its length. The odd clock belongs to OUT high.
    fn half(&self, d: u64) -> (bool, u64, u64) {
        let n = u64::from(self.loaded).max(1);
        let first = if self.phase { n.div_ceil(2) } else { n / 2 };
        let (cycle, p) = (d - d % n, d % n);
        if p < first { (self.phase, cycle, first) } else { (!self.phase, cycle + first, n - first) }
    }

    /// Takes the waiting count over if the cycle (mode 2) or half cycle (mode 3) it waits for is complete.
    fn sync(&mut self, now: u64) {
        if let (Some(at), Run::Since(t)) = (self.switch_at, self.run)
            && at <= self.elapsed(now)
        {
            self.phase = self.half(at).0; // meaningful in mode 3
            self.load(t + nanos(at));
        }
    }

    /// CR into the counting element.
    fn load(&mut self, now: u64) {
        self.loaded = self.count();
        self.null_count = false;
        self.switch_at = None;
        self.run = if self.gate || matches!(self.mode(), 1 | 5) { Run::Since(now) } else { Run::Held(0) };
    }

    /// The counting element as the CPU reads it.
    fn current(&self, now: u64) -> u16 {
        if let Run::Idle(v) = self.run {
            return v;
        }
        let (d, n) = (self.elapsed(now), u64::from(self.loaded).max(1));
        let v = match self.mode() {
            2 => n - d % n,
            3 => {
                let (_, start, _) = self.half(d);
                (n & !1).saturating_sub(2 * (d - start))
            }
            _ => {
                let m = self.modulus();
                (n + m - d % m) % m
            }
        } % self.modulus();
        if self.bcd() { (0..4).fold(0, |out, i| out | ((v / 10u64.pow(i) % 10) as u16) << (4 * i)) } else { v as u16 }
    }

    /// OUT.
    fn out(&self, now: u64) -> bool {
        let idle = matches!(self.run, Run::Idle(_));
        let (d, n) = (self.elapsed(now), u64::from(self.loaded));
        match self.mode() {
            0 => !idle && d >= n,
            1 => idle || d >= n,
            2 => idle || !self.gate || n < 2 || d % n != n - 1,
            3 => idle || !self.gate || n < 2 || self.half(d).0,
            _ => idle || d != n,
        }
    }

    /// When OUT changes next by counting alone.
    fn next_edge(&self, now: u64) -> Option<u64> {
        let Run::Since(t) = self.run else { return None };
        let (d, n) = (self.elapsed(now), u64::from(self.loaded));
        let at = match self.mode() {
            0 | 1 => (d < n).then_some(n),
            2 | 3 if n < 2 => None,
            2 => Some(if d % n < n - 1 { d - d % n + n - 1 } else { d - d % n + n }),
            3 => {
                let (_, start, len) = self.half(d);
                Some(start + len)
            }
            _ => (d <= n).then_some(if d < n { n } else { n + 1 }),
        }?;
        Some(t + nanos(at))
    }

    /// Rising edges of OUT in the first `d` clocks after the load.
    fn risen(&self, d: u64) -> u64 {
        let n = u64::from(self.loaded);
        match self.mode() {
            2 | 3 if n < 2 => 0,
            3 if !self.phase => (d + n - n / 2) / n,
            2 | 3 => d / n,
            0 | 1 => u64::from(d >= n),
            _ => u64::from(d > n),
        }
    }

    /// Rising edges of OUT after `from`, up to and including `to`, by counting alone.
    fn rises(&mut self, mut from: u64, to: u64) -> u64 {
        let mut rises = 0;
        if let (Some(at), Run::Since(t)) = (self.switch_at, self.run)
            && at <= self.elapsed(to)
        {
            rises = self.risen(at).saturating_sub(self.risen(clocks(from.saturating_sub(t))));
            self.sync(to);
            from = t + nanos(at);
        }
        let Run::Since(t) = self.run else { return rises };
        let risen = |c: &Self, at: u64| c.risen(clocks(at.saturating_sub(t)));
        rises + risen(self, to).saturating_sub(risen(self, from))
    }

    /// Control word for this counter: logic reset, OUT to its initial level, count unknown until written.
    fn program(&mut self, control: u8, now: u64) {
        let v = self.current(now);
        *self = Self {
            control: control & 0x3f,
            written: false,
            msb_expected: false,
            msb_next: false,
            latch: None,
            latch_msb_next: false,
            null_count: true,
            switch_at: None,
            run: Run::Idle(v),
            phase: true,
            ..*self
        };
    }

    fn latch_count(&mut self, now: u64) {
        if self.latch.is_none() {
            self.latch = Some(self.current(now));
            self.latch_msb_next = false;
        }
    }

    fn latch_status(&mut self, now: u64) {
        if self.status.is_none() {
            self.status = Some(u8::from(self.out(now)) << 7 | u8::from(self.null_count) << 6 | self.control);
        }
    }

    fn write(&mut self, val: u8, now: u64) {
        self.sync(now);
        match (self.access(), self.msb_expected) {
            (2, _) => self.cr = u16::from(val) << 8,
            (3, false) => {
                self.cr = self.cr & 0xff00 | u16::from(val);
                self.msb_expected = true;
                if self.mode() == 0 {
                    // "Writing the first byte disables counting. OUT is set low immediately."
                    self.run = Run::Idle(self.current(now));
                }
                return;
            }
            (3, true) => {
                self.cr = self.cr & 0xff | u16::from(val) << 8;
                self.msb_expected = false;
            }
            _ => self.cr = val.into(),
        }
        let first = !self.written;
        self.written = true;
        self.null_count = true;
        match self.mode() {
            1 | 5 => {} // waits for a trigger
            2 | 3 if !first && !matches!(self.run, Run::Idle(_)) => {
                // Taken over at the end of the running cycle or half cycle; while GATE is low, at its rising edge.
                if matches!(self.run, Run::Since(_)) && self.switch_at.is_none() {
                    let (d, n) = (self.elapsed(now), u64::from(self.loaded).max(1));
                    self.switch_at = Some(if self.mode() == 2 {
                        d - d % n + n
                    } else {
                        let (_, start, len) = self.half(d);
                        start + len
                    });
                }
            }
            _ => {
                self.phase = true;
                self.load(now);
            }
        }
    }

    fn read(&mut self, now: u64) -> u8 {
        self.sync(now);
        if let Some(s) = self.status.take() {
            return s;
        }
        let live = self.current(now);
        let (v, latched) = self.latch.map_or((live, false), |v| (v, true));
        let half = if latched { &mut self.latch_msb_next } else { &mut self.msb_next };
        let (byte, done) = match (self.control >> 4 & 3, *half) {
            (2, _) | (3, true) => ((v >> 8) as u8, true),
            (3, false) => (v as u8, false),
            _ => (v as u8, true),
        };
        *half = !done;
        if latched && done {
            self.latch = None;
        }
        byte
    }

    fn set_gate(&mut self, level: bool, now: u64) {
        self.sync(now);
        if self.gate == level {
            return;
        }
        let d = self.elapsed(now);
        self.gate = level;
        match (self.mode(), level, self.run) {
            (1 | 5, true, _) if self.written => self.load(now),
            (2 | 3, true, Run::Held(_)) => {
                self.phase = true;
                self.load(now);
            }
            (0 | 4, true, Run::Held(d)) => self.run = Run::Since(now.saturating_sub(nanos(d))),
            (0 | 2 | 3 | 4, false, Run::Since(_)) => {
                self.run = Run::Held(d);
                self.switch_at = None;
            }
            _ => {}
        }
    }
}

/// The three counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct I8254Regs {
    counters: [Counter; 3],
}

impl Default for I8254Regs {
    fn default() -> Self {
        Self::power_on(0)
    }
}

impl I8254Regs {
    /// Power-on at virtual time `now`: mode 3, largest count; GATE 2 is low (port 0x61 bit 0).
    #[must_use]
    pub fn power_on(now: u64) -> Self {
        Self { counters: [true, true, false].map(|gate| Counter::power_on(gate, now)) }
    }

    /// Writes offset 0 to 2 (a counter) or 3 (control word).
    pub fn write(&mut self, offset: u64, val: u8, now: u64) {
        if let Some(c) = self.counters.get_mut((offset & 3) as usize) {
            c.write(val, now);
        } else if val >> 6 == 3 {
            for (_, c) in self.counters.iter_mut().enumerate().filter(|(i, _)| val & 2 << i != 0) {
                c.sync(now);
                if val & 0x20 == 0 {
                    c.latch_count(now);
                }
                if val & 0x10 == 0 {
                    c.latch_status(now);
                }
            }
        } else if let Some(c) = self.counters.get_mut(usize::from(val >> 6)) {
            c.sync(now);
            if val & 0x30 == 0 { c.latch_count(now) } else { c.program(val, now) }
        }
    }

    /// Reads offset 0 to 2; the control word register (3) cannot be read: 0.
    pub fn read(&mut self, offset: u64, now: u64) -> u8 {
        self.counters.get_mut((offset & 3) as usize).map_or(0, |c| c.read(now))
    }

    /// Drives GATE of counter `n`.
    pub fn set_gate(&mut self, n: usize, level: bool, now: u64) {
        if let Some(c) = self.counters.get_mut(n) {
            c.set_gate(level, now);
        }
    }

    /// GATE of counter `n`.
    #[must_use]
    pub fn gate(&self, n: usize) -> bool {
        self.counters.get(n).is_some_and(|c| c.gate)
    }

    /// OUT of counter `n` at `now`.
    #[must_use]
    pub fn out(&mut self, n: usize, now: u64) -> bool {
        self.counters.get_mut(n).is_some_and(|c| {
            c.sync(now);
            c.out(now)
        })
    }

    /// Virtual time at which OUT of counter `n` changes next, if it does by itself.
    #[must_use]
    pub fn next_edge(&mut self, n: usize, now: u64) -> Option<u64> {
        let c = self.counters.get_mut(n)?;
        c.sync(now);
        c.next_edge(now)
    }

    /// How often OUT of counter `n` rose after `from`, up to and including `to`.
    #[must_use]
    pub fn rises(&mut self, n: usize, from: u64, to: u64) -> u64 {
        self.counters.get_mut(n).map_or(0, |c| c.rises(from, to))
    }

    /// Nanoseconds of one round of counter `n`.
    #[must_use]
    pub fn period(&self, n: usize) -> u64 {
        self.counters.get(n).map_or(0, |c| nanos(c.loaded.into()))
    }

    /// Whether a write sets counter `n` up again: a control word or a count, no latch command.
    #[must_use]
    pub fn sets_up(n: u8, offset: u64, val: u8) -> bool {
        if offset & 3 == 3 { val >> 6 == n && val & 0x30 != 0 } else { offset & 3 == u64::from(n) }
    }

    /// Whether a restored state is one that writes can reach.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.counters.iter().all(|c| c.control <= 0x3f && (1..=0x1_0000).contains(&c.loaded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counter 2's control word for `mode`, two-byte access.
    fn pit(mode: u8) -> I8254Regs {
        let mut p = I8254Regs::power_on(0);
        p.set_gate(2, true, 0);
        p.write(3, 0xb0 | mode << 1, 0);
        p
    }
    fn load(p: &mut I8254Regs, n: u16, at: u64) {
        p.write(2, n as u8, at);
        p.write(2, (n >> 8) as u8, at);
    }
    fn count(p: &mut I8254Regs, at: u64) -> u16 {
        p.write(3, 0x80, at);
        u16::from(p.read(2, at)) | u16::from(p.read(2, at)) << 8
    }
    fn status(p: &mut I8254Regs, at: u64) -> u8 {
        p.write(3, 0xe8, at);
        p.read(2, at)
    }
    /// OUT during clocks 0, 1, 2 … after time 0.
    fn wave(p: &mut I8254Regs, n: u64) -> String {
        (0..n).map(|i| if p.out(2, nanos(i)) { 'H' } else { 'l' }).collect()
    }

    #[test]
    fn mode_0_rises_at_terminal_count_and_wraps() {
        let mut p = pit(0);
        assert!(!p.out(2, 0));
        load(&mut p, 4, 0);
        assert_eq!(wave(&mut p, 7), "llllHHH");
        assert_eq!(p.next_edge(2, 0), Some(nanos(4)));
        assert_eq!(p.next_edge(2, nanos(4)), None);
        assert_eq!((count(&mut p, nanos(3)), count(&mut p, nanos(5))), (1, 0xffff));
    }

    #[test]
    fn mode_0_first_byte_stops_and_gate_holds() {
        let mut p = pit(0);
        load(&mut p, 10, 0);
        p.set_gate(2, false, nanos(3));
        assert_eq!(count(&mut p, nanos(50)), 7);
        p.set_gate(2, true, nanos(50));
        assert_eq!(count(&mut p, nanos(52)), 5);
        p.write(2, 9, nanos(60)); // terminal count was reached; first byte: OUT low at once
        assert!(!p.out(2, nanos(60)) && p.next_edge(2, nanos(60)).is_none());
        p.write(2, 0, nanos(61));
        assert!(!p.out(2, nanos(69)) && p.out(2, nanos(71)));
    }

    #[test]
    fn mode_1_waits_for_a_trigger_and_retriggers() {
        let mut p = pit(1);
        load(&mut p, 3, 0);
        assert_eq!(wave(&mut p, 3), "HHH");
        assert_eq!(status(&mut p, 0) & 0xc0, 0xc0); // OUT high, null count
        p.set_gate(2, false, 0);
        p.set_gate(2, true, 0);
        assert_eq!(wave(&mut p, 5), "lllHH");
        assert_eq!(status(&mut p, nanos(1)) & 0xc0, 0);
        p.set_gate(2, false, nanos(1)); // no effect
        p.set_gate(2, true, nanos(2)); // again: 3 more
        assert!(!p.out(2, nanos(4)) && p.out(2, nanos(6)));
    }

    #[test]
    fn mode_2_is_low_for_the_last_clock() {
        let mut p = pit(2);
        assert!(p.out(2, 0));
        load(&mut p, 3, 0);
        assert_eq!(wave(&mut p, 7), "HHlHHlH");
        assert_eq!((0..4).map(|i| count(&mut p, nanos(i))).collect::<Vec<_>>(), [3, 2, 1, 3]);
        assert_eq!((p.next_edge(2, 0), p.next_edge(2, nanos(2))), (Some(nanos(2)), Some(nanos(3))));
    }

    #[test]
    fn mode_2_takes_a_new_count_at_the_end_of_the_cycle() {
        let mut p = pit(2);
        load(&mut p, 5, 0);
        load(&mut p, 3, nanos(1));
        assert_eq!(status(&mut p, nanos(2)) & 0x40, 0x40);
        assert_eq!(count(&mut p, nanos(4)), 1);
        assert_eq!(count(&mut p, nanos(5) + 1), 3);
        assert_eq!(status(&mut p, nanos(6)) & 0x40, 0);
    }

    #[test]
    fn mode_2_gate_low_raises_out_and_restarts() {
        let mut p = pit(2);
        load(&mut p, 3, 0);
        assert!(!p.out(2, nanos(2)));
        p.set_gate(2, false, nanos(2));
        assert!(p.out(2, nanos(2)) && p.next_edge(2, nanos(2)).is_none());
        p.set_gate(2, true, nanos(9));
        assert_eq!(count(&mut p, nanos(9)), 3);
    }

    #[test]
    fn mode_3_even_and_odd() {
        let mut p = pit(3);
        load(&mut p, 4, 0);
        assert_eq!(wave(&mut p, 9), "HHllHHllH");
        assert_eq!((0..5).map(|i| count(&mut p, nanos(i))).collect::<Vec<_>>(), [4, 2, 4, 2, 4]);
        let mut p = pit(3);
        load(&mut p, 5, 0);
        assert_eq!(wave(&mut p, 11), "HHHllHHHllH");
        assert_eq!((0..6).map(|i| count(&mut p, nanos(i))).collect::<Vec<_>>(), [4, 2, 0, 4, 2, 4]);
    }

    #[test]
    fn mode_3_takes_a_new_count_at_the_half_cycle() {
        let mut p = pit(3);
        load(&mut p, 8, 0);
        load(&mut p, 4, nanos(1));
        assert!(p.out(2, nanos(3)));
        assert!(!p.out(2, nanos(4) + 1)); // low half, 2 clocks of the new count
        assert_eq!(count(&mut p, nanos(4) + 1), 4);
        assert!(p.out(2, nanos(6) + 2));
    }

    #[test]
    fn modes_4_and_5_strobe_once() {
        let mut p = pit(4);
        load(&mut p, 2, 0);
        assert_eq!(wave(&mut p, 5), "HHlHH");
        assert_eq!(
            (p.next_edge(2, 0), p.next_edge(2, nanos(2)), p.next_edge(2, nanos(3))),
            (Some(nanos(2)), Some(nanos(3)), None)
        );
        let mut p = pit(5);
        load(&mut p, 2, 0);
        assert_eq!(wave(&mut p, 4), "HHHH");
        p.set_gate(2, false, 0);
        p.set_gate(2, true, 0);
        assert_eq!(wave(&mut p, 5), "HHlHH");
    }

    #[test]
    fn bcd_counts_decimal() {
        let mut p = I8254Regs::power_on(0);
        p.set_gate(2, true, 0);
        p.write(3, 0xb1, 0);
        load(&mut p, 0x1000, 0);
        assert_eq!(count(&mut p, nanos(1)), 0x0999);
        assert_eq!(count(&mut p, nanos(1001)), 0x9999);
        load(&mut p, 0, nanos(2000)); // 10^4
        assert_eq!((count(&mut p, nanos(2000)), count(&mut p, nanos(2001) + 1)), (0, 0x9999));
    }

    #[test]
    fn one_byte_access() {
        let mut p = I8254Regs::power_on(0);
        p.write(3, 0x14, 0); // counter 0, LSB, mode 2
        p.write(0, 0x20, 0);
        assert_eq!((p.read(0, 0), p.read(0, nanos(1))), (0x20, 0x1f));
        p.write(3, 0x24, 0); // MSB
        p.write(0, 0x02, 0);
        assert_eq!((p.read(0, 0), p.read(0, nanos(1))), (2, 1));
    }

    #[test]
    fn latches_hold_the_first_and_status_comes_first() {
        let mut p = pit(2);
        load(&mut p, 0x1234, 0);
        p.write(3, 0xc8, 0); // read-back: count and status
        p.write(3, 0x80, nanos(5)); // ignored
        p.write(3, 0xe8, nanos(5)); // ignored
        assert_eq!(p.read(2, nanos(9)), 0xb4);
        assert_eq!((p.read(2, nanos(9)), p.read(2, nanos(9))), (0x34, 0x12));
        assert_eq!((p.read(2, nanos(4)), p.read(2, nanos(4))), (0x30, 0x12)); // live
        assert_eq!(p.read(3, 0), 0);
    }

    #[test]
    fn control_word_shows_in_status_as_written() {
        let mut p = I8254Regs::power_on(0);
        p.write(3, 0xbe, 0); // M = 7: mode 3
        assert_eq!(status(&mut p, 0), 0xfe); // OUT high, null count
        load(&mut p, 0, 0);
        assert_eq!(status(&mut p, 0) & 0x7f, 0x3e);
    }

    #[test]
    fn rising_edges_are_counted_over_any_time() {
        // (Mode 1 waits for GATE.)
        for (mode, n) in [(0, 6), (2, 5), (2, 2), (3, 5), (3, 4), (3, 2), (4, 6), (2, 1)] {
            let mut p = pit(mode);
            load(&mut p, n, 0);
            let wave = wave(&mut p, 40);
            for (from, to) in (0..40).flat_map(|from| (from..40).map(move |to| (from, to))) {
                let plain = wave.as_bytes()[from..=to].windows(2).filter(|w| *w == b"lH").count() as u64;
                assert_eq!(p.rises(2, nanos(from as u64), nanos(to as u64)), plain, "mode {mode}, {n}: {from} to {to}");
            }
        }
        let mut p = pit(2); // 5 clocks, then twice 3: OUT rises at 5, 8 and 11
        load(&mut p, 5, 0);
        load(&mut p, 3, nanos(1));
        assert_eq!(p.rises(2, nanos(1), nanos(11)), 3);
        assert_eq!(p.rises(2, nanos(11), nanos(13)), 0);
        let mut p = pit(3); // a low half of 2 clocks after a high one of 4: 6, 10
        load(&mut p, 8, 0);
        load(&mut p, 4, nanos(1));
        assert_eq!(p.rises(2, nanos(1), nanos(10) + 2), 2);
    }

    #[test]
    fn power_on_state_interrupts_at_18_hz() {
        let mut p = I8254Regs::power_on(1000);
        assert_eq!(p.next_edge(0, 1000), Some(1000 + nanos(0x8000)));
        assert!(!p.gate(2) && p.out(2, 1_000_000));
    }
}
