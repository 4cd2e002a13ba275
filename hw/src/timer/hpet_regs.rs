//! High precision event timer block as registers. Source: IA-PC HPET specification 1.0a, §2.3.
//!
//! The main counter ticks every 10 ns of virtual time and is evaluated when somebody looks; [`HpetRegs::sync`] carries the
//! comparators to a given time. Where that is late and a periodic timer matched several times meanwhile, the edges that are missing
//! follow at up to four times the timer's rate: guests count ticks, and a busy host must not make a guest's tick stop.

use serde::{Deserialize, Serialize};

/// Period of the main counter in nanoseconds.
pub const CLK_NS: u64 = 10;
/// Fewest timers the specification allows.
pub const MIN_TIMERS: u8 = 3;
/// Most timers.
pub const MAX_TIMERS: u8 = 32;
/// Most edges that a timer makes up for; what was missed beyond that is lost.
const MAX_OWED: u64 = 64;
/// IRQ of timer 1 in legacy replacement, and of the RTC.
pub const RTC_ROUTE: u32 = 8;

/// General configuration: ENABLE_CNF.
const ENABLE: u64 = 1;
/// General configuration: LEG_RT_CNF.
const LEGACY: u64 = 2;

/// Timer configuration, §2.3.8.
mod tn {
    pub const LEVEL: u64 = 1 << 1;
    pub const INT_ENB: u64 = 1 << 2;
    pub const PERIODIC: u64 = 1 << 3;
    pub const PER_CAP: u64 = 1 << 4;
    pub const SIZE_CAP: u64 = 1 << 5;
    pub const VAL_SET: u64 = 1 << 6;
    pub const MODE32: u64 = 1 << 8;
    pub const ROUTE_SHIFT: u32 = 9;
    pub const ROUTE: u64 = 0x1f << ROUTE_SHIFT;
    pub const FSB_EN: u64 = 1 << 14;
    pub const FSB_CAP: u64 = 1 << 15;
    pub const WRITABLE: u64 = LEVEL | INT_ENB | PERIODIC | VAL_SET | MODE32 | ROUTE | FSB_EN;
}

/// One comparator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HpetTimer {
    /// Configuration and capability register.
    config: u64,
    /// Comparator (in periodic mode, the accumulator).
    cmp: u64,
    /// Added to the comparator at each match of a periodic timer.
    period: u64,
    /// FSB interrupt route: address and value.
    fsb: u64,
    /// The comparator was written and has not been compared yet: equality counts at once.
    fresh: bool,
    /// Periodic, edge triggered: matches whose interrupts are still to come.
    owed: u64,
    /// Virtual time in ns of the next one that is owed.
    owed_at: u64,
}

impl HpetTimer {
    fn mask(&self) -> u64 {
        if self.config & tn::MODE32 != 0 { u32::MAX.into() } else { u64::MAX }
    }
    fn periodic(&self) -> bool {
        self.config & tn::PERIODIC != 0
    }
    /// Ticks from `count` (exclusive unless the comparator is fresh) to the next match; `None`: 2^64 away.
    fn distance(&self, count: u64) -> Option<u64> {
        let d = self.cmp.wrapping_sub(count) & self.mask();
        if d == 0 && !self.fresh { self.mask().checked_add(1) } else { Some(d) }
    }
}

/// What the wiring does after an access.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// IRQ outputs held by level-triggered timers.
    pub levels: u32,
    /// IRQ outputs to be pulsed: edge-triggered timers that matched.
    pub pulses: u32,
    /// Messages to be written: address, data.
    pub messages: Vec<(u32, u32)>,
    /// Virtual time in ns at which to call [`HpetRegs::sync`] again.
    pub deadline: Option<u64>,
}

/// All that the guest can observe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HpetRegs {
    config: u64,
    isr: u64,
    /// Main counter while halted; while running, its value at `since`.
    base: u64,
    since: u64,
    /// Counter up to which comparators were compared.
    seen: u64,
    timers: Vec<HpetTimer>,
    /// IRQ input of the RTC, passed on outside legacy replacement.
    pub rtc_level: bool,
    /// IRQ input of the PIT.
    pub pit_level: bool,
}

impl Default for HpetRegs {
    fn default() -> Self {
        Self::power_on(MIN_TIMERS, 0, false)
    }
}

impl HpetRegs {
    /// Power-on with `timers` comparators that can reach the inputs in `intcap`; `msi`: FSB delivery offered.
    #[must_use]
    pub fn power_on(timers: u8, intcap: u32, msi: bool) -> Self {
        let t = HpetTimer {
            config: u64::from(intcap) << 32 | tn::PER_CAP | tn::SIZE_CAP | if msi { tn::FSB_CAP } else { 0 },
            cmp: u64::MAX,
            period: 0,
            fsb: 0,
            fresh: false,
            owed: 0,
            owed_at: 0,
        };
        Self {
            config: 0,
            isr: 0,
            base: 0,
            since: 0,
            seen: 0,
            timers: vec![t; timers.clamp(MIN_TIMERS, MAX_TIMERS).into()],
            rtc_level: false,
            pit_level: false,
        }
    }

    /// Reset: registers as at power-on, the input levels stay.
    pub fn reset(&mut self, timers: u8, intcap: u32, msi: bool) {
        let (rtc_level, pit_level) = (self.rtc_level, self.pit_level);
        *self = Self { rtc_level, pit_level, ..Self::power_on(timers, intcap, msi) };
    }

    /// General capabilities and ID, §2.3.4: Intel, 64-bit counter, legacy replacement, revision 1, 10 ns.
    #[must_use]
    pub fn capabilities(&self) -> u64 {
        ((CLK_NS * 1_000_000) << 32) | 0x8086_a001 | (self.timers.len() as u64).saturating_sub(1) << 8
    }

    fn enabled(&self) -> bool {
        self.config & ENABLE != 0
    }

    /// LEG_RT_CNF and ENABLE_CNF: timers 0 and 1 replace PIT and RTC.
    #[must_use]
    pub fn legacy(&self) -> bool {
        self.config & (ENABLE | LEGACY) == ENABLE | LEGACY
    }

    fn counter(&self, now: u64) -> u64 {
        if self.enabled() { self.base.wrapping_add(now.saturating_sub(self.since) / CLK_NS) } else { self.base }
    }

    /// The output of timer `n`.
    fn route(&self, n: usize, t: &HpetTimer) -> u32 {
        match n {
            0 if self.legacy() => 0,
            1 if self.legacy() => RTC_ROUTE,
            _ => ((t.config & tn::ROUTE) >> tn::ROUTE_SHIFT) as u32,
        }
    }

    /// Compares up to `now`; says what to drive.
    pub fn sync(&mut self, now: u64) -> Effect {
        let mut e = Effect::default();
        let count = self.counter(now);
        if self.enabled() {
            let passed = count.wrapping_sub(self.seen);
            let mut fired = 0u64;
            for (n, t) in self.timers.iter_mut().enumerate() {
                let Some(d) = t.distance(self.seen).filter(|&d| d <= passed) else { continue };
                fired |= 1 << n;
                t.fresh = false;
                if t.periodic() && t.period & t.mask() != 0 {
                    let period = t.period & t.mask();
                    let matches = 1 + (passed - d) / period;
                    t.cmp = t.cmp.wrapping_add(period.wrapping_mul(matches)) & t.mask();
                    if t.config & (tn::LEVEL | tn::INT_ENB) == tn::INT_ENB {
                        // One that is due waits behind those that are owed: the guest must be able to tell them apart.
                        if t.owed != 0 {
                            fired &= !(1 << n);
                        }
                        t.owed += matches - u64::from(t.owed == 0);
                    }
                }
            }
            for (n, t) in self.timers.iter_mut().enumerate().filter(|(_, t)| t.owed != 0) {
                if fired >> n & 1 == 0 && t.owed_at <= now {
                    t.owed -= 1;
                    fired |= 1 << n;
                }
                if fired >> n & 1 != 0 {
                    t.owed_at = now.saturating_add((t.period & t.mask()).saturating_mul(CLK_NS) / 4);
                }
                t.owed = t.owed.min(MAX_OWED);
            }
            self.seen = count;
            for (n, t) in self.timers.iter().enumerate().filter(|(n, _)| fired >> n & 1 != 0) {
                if t.config & tn::LEVEL != 0 {
                    self.isr |= 1 << n;
                }
                if t.config & tn::INT_ENB == 0 {
                    continue;
                }
                if t.config & tn::FSB_EN != 0 {
                    e.messages.push(((t.fsb >> 32) as u32, t.fsb as u32));
                } else if t.config & tn::LEVEL == 0 {
                    e.pulses |= 1 << self.route(n, t);
                }
            }
        }
        e.levels = self.levels();
        e.deadline = self.deadline();
        e
    }

    /// What is driven and awaited in this state, without looking at the clock: for a restored block.
    pub fn resume(&self) -> Effect {
        Effect { levels: self.levels(), deadline: self.deadline(), ..Effect::default() }
    }

    fn levels(&self) -> u32 {
        let on = |n: &usize, t: &HpetTimer| {
            self.enabled() && self.isr >> n & 1 != 0 && t.config & (tn::INT_ENB | tn::FSB_EN) == tn::INT_ENB
        };
        self.timers.iter().enumerate().filter(|(n, t)| on(n, t)).fold(0, |l, (n, t)| l | 1 << self.route(n, t))
    }

    fn deadline(&self) -> Option<u64> {
        if !self.enabled() {
            return None;
        }
        let ticks =
            self.timers.iter().filter(|t| t.config & tn::INT_ENB != 0).filter_map(|t| t.distance(self.seen)).min();
        let matched = ticks.and_then(|ticks| {
            let from_base = self.seen.wrapping_sub(self.base).checked_add(ticks)?;
            self.since.checked_add(from_base.checked_mul(CLK_NS)?)
        });
        let owed = self.timers.iter().filter(|t| t.owed != 0).map(|t| t.owed_at).min();
        matched.into_iter().chain(owed).min()
    }

    /// Reads `size` (4 or 8) bytes at `offset`.
    pub fn read(&mut self, offset: u64, size: u32, now: u64) -> (u64, Effect) {
        let e = self.sync(now);
        let reg = match offset & !7 {
            0x00 => self.capabilities(),
            0x10 => self.config,
            0x20 => self.isr,
            0xf0 => self.counter(now),
            o @ 0x100.. => self.timer(o).map_or(0, |t| match o & 0x18 {
                0x00 => t.config,
                0x08 => t.cmp,
                0x10 => t.fsb,
                _ => 0,
            }),
            _ => 0,
        };
        let v = reg >> (8 * (offset & 4));
        (if size == 8 { v } else { v & 0xffff_ffff }, e)
    }

    fn timer(&self, offset: u64) -> Option<&HpetTimer> {
        self.timers.get(usize::try_from((offset.checked_sub(0x100)?) / 0x20).ok()?)
    }

    /// Writes `size` (4 or 8) bytes at `offset`.
    pub fn write(&mut self, offset: u64, size: u32, val: u64, now: u64) -> Effect {
        let mut e = self.sync(now);
        let (shift, width) = (8 * (offset & 4), if size == 8 { u64::MAX } else { 0xffff_ffff });
        let bits = width << shift;
        let val = (val & width) << shift;
        let merge = |old: u64| old & !bits | val;
        match offset & !7 {
            0x10 => {
                let new = merge(self.config) & (ENABLE | LEGACY);
                let count = self.counter(now);
                if (new ^ self.config) & ENABLE != 0 {
                    (self.base, self.since, self.seen) = (count, now, count);
                    self.timers.iter_mut().for_each(|t| t.owed = 0);
                }
                self.config = new;
            }
            0x20 => self.isr &= !val,
            0xf0 if !self.enabled() => {
                self.base = merge(self.base);
                self.seen = self.base;
            }
            o @ 0x100.. => {
                let n = usize::try_from((o - 0x100) / 0x20).unwrap_or(usize::MAX);
                if let Some(t) = self.timers.get_mut(n) {
                    t.owed = 0;
                    match o & 0x18 {
                        0x00 => {
                            let mut new = t.config & !tn::WRITABLE | merge(t.config) & tn::WRITABLE;
                            let route = (new & tn::ROUTE) >> tn::ROUTE_SHIFT;
                            if t.config >> 32 >> route & 1 == 0 {
                                new = new & !tn::ROUTE | t.config & tn::ROUTE; // not one this timer can reach
                            }
                            if t.config & tn::FSB_CAP == 0 {
                                new &= !tn::FSB_EN;
                            }
                            t.config = new;
                            t.cmp &= t.mask();
                            t.period &= t.mask();
                            if new & tn::LEVEL == 0 {
                                self.isr &= !(1 << n);
                            }
                        }
                        0x08 => {
                            if !t.periodic() || t.config & tn::VAL_SET != 0 {
                                t.cmp = merge(t.cmp) & t.mask();
                                t.fresh = true;
                            }
                            if t.periodic() {
                                t.period = merge(t.period) & t.mask();
                            }
                            t.config &= !tn::VAL_SET;
                        }
                        0x10 => t.fsb = merge(t.fsb),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        let after = self.sync(now);
        e.pulses |= after.pulses;
        e.messages.extend(after.messages);
        Effect { levels: after.levels, deadline: after.deadline, ..e }
    }

    /// Whether a restored state is one that writes can reach, for a block with `timers` comparators.
    #[must_use]
    pub fn is_valid(&self, timers: u8) -> bool {
        self.timers.len() == usize::from(timers.clamp(MIN_TIMERS, MAX_TIMERS))
            && self.timers.iter().all(|t| t.owed <= MAX_OWED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hpet() -> HpetRegs {
        HpetRegs::power_on(3, 0x00f0_0104, false)
    }
    fn rd(h: &mut HpetRegs, off: u64, now: u64) -> u64 {
        h.read(off, 8, now).0
    }

    #[test]
    fn identity_and_reset_values() {
        let mut h = hpet();
        assert_eq!(rd(&mut h, 0, 0), 0x0098_9680_8086_a201);
        assert_eq!((h.read(4, 4, 0).0, h.read(0, 4, 0).0), (0x0098_9680, 0x8086_a201));
        assert_eq!(
            (rd(&mut h, 0x100, 0), rd(&mut h, 0x108, 0), rd(&mut h, 0x160, 0)),
            (0x00f0_0104_0000_0030, u64::MAX, 0)
        );
        let _ = h.write(0, 8, 0, 0);
        assert_eq!(rd(&mut h, 0, 0) as u32, 0x8086_a201);
    }

    #[test]
    fn counter_runs_while_enabled_and_is_writable_when_halted() {
        let mut h = hpet();
        let _ = h.write(0xf0, 8, 0x1_0000_0000, 0);
        assert_eq!(rd(&mut h, 0xf0, 500), 0x1_0000_0000);
        let _ = h.write(0x10, 4, 1, 1000);
        assert_eq!(rd(&mut h, 0xf0, 1105), 0x1_0000_000a);
        let _ = h.write(0xf0, 8, 0, 1105);
        assert_eq!(h.read(0xf4, 4, 1105).0, 1);
        let _ = h.write(0x10, 4, 0, 1200);
        assert_eq!(rd(&mut h, 0xf0, 9000), 0x1_0000_0014);
    }

    #[test]
    fn one_shot_edge_pulses_its_route_once() {
        let mut h = hpet();
        let _ = h.write(0x100, 4, 0x4 | 2 << 9, 0);
        let _ = h.write(0x108, 8, 100, 0);
        assert_eq!(h.write(0x10, 4, 1, 0).deadline, Some(1000));
        assert_eq!(h.sync(999).pulses, 0);
        let e = h.sync(1000);
        assert_eq!((e.pulses, e.levels, e.deadline), (1 << 2, 0, None)); // again in 2^64 ticks
        assert_eq!(rd(&mut h, 0x20, 1000), 0);
    }

    #[test]
    fn thirty_two_bit_one_shot_matches_again_after_a_wrap() {
        let mut h = hpet();
        let _ = h.write(0x100, 4, 0x104 | 2 << 9, 0);
        let _ = h.write(0x108, 8, 0xffff_ffff_0000_0064, 0);
        assert_eq!(rd(&mut h, 0x108, 0), 0x64);
        let _ = h.write(0x10, 4, 1, 0);
        assert_eq!(h.sync(1000).deadline, Some(1000 + (10 << 32)));
    }

    #[test]
    fn level_interrupt_until_status_is_written() {
        let mut h = hpet();
        let _ = h.write(0x120, 4, 0x6 | 8 << 9, 0);
        let _ = h.write(0x128, 4, 10, 0);
        let _ = h.write(0x12c, 4, 0, 0);
        let _ = h.write(0x10, 4, 1, 0);
        assert_eq!(h.sync(100).levels, 1 << 8);
        assert_eq!(rd(&mut h, 0x20, 100), 2);
        assert_eq!(h.write(0x20, 4, 1, 100).levels, 1 << 8);
        assert_eq!(h.write(0x20, 4, 2, 100).levels, 0);
    }

    #[test]
    fn status_is_set_without_enable_and_driven_when_enabled() {
        let mut h = hpet();
        let _ = h.write(0x120, 4, 0x2 | 8 << 9, 0);
        let _ = h.write(0x128, 8, 10, 0);
        let _ = h.write(0x10, 4, 1, 0);
        assert_eq!(h.sync(200).levels, 0);
        assert_eq!(rd(&mut h, 0x20, 200), 2);
        assert_eq!(h.write(0x120, 4, 0x6 | 8 << 9, 200).levels, 1 << 8);
    }

    #[test]
    fn periodic_through_val_set() {
        let mut h = hpet();
        let _ = h.write(0x10, 4, 1, 0);
        let _ = h.write(0x100, 4, 0x4c | 2 << 9, 0);
        let _ = h.write(0x108, 4, 50, 0); // accumulator (and period)
        let _ = h.write(0x10c, 4, 0, 0);
        assert_eq!(h.read(0x100, 4, 0).0 & 0x40, 0);
        let _ = h.write(0x108, 4, 30, 0); // period only; the high half of the accumulator is still all ones
        let _ = h.write(0x100, 4, 0x14c | 2 << 9, 0); // 32 bits
        let _ = h.write(0x108, 4, 50, 0);
        let _ = h.write(0x108, 4, 30, 0);
        assert_eq!(h.sync(500).pulses, 4);
        assert_eq!(rd(&mut h, 0x108, 500), 80);
        assert_eq!(h.sync(500).deadline, Some(800));
        assert_eq!(h.sync(1500).pulses, 4); // 80, 110, 140: one at once
        assert_eq!(rd(&mut h, 0x108, 1500), 170);
    }

    /// A periodic timer 0 of 100 ticks (1 µs), 32 bits, edges on output 2.
    fn periodic() -> HpetRegs {
        let mut h = hpet();
        let _ = h.write(0x100, 4, 0x14c | 2 << 9, 0);
        let _ = h.write(0x108, 4, 100, 0);
        let _ = h.write(0x10, 4, 1, 0);
        h
    }

    /// Runs the block as a main loop would until `end`: the times of the pulses.
    fn pulses(h: &mut HpetRegs, mut now: u64, end: u64) -> Vec<u64> {
        let mut at = vec![];
        while now <= end {
            let e = h.sync(now);
            if e.pulses != 0 {
                at.push(now);
            }
            now = e.deadline.unwrap_or(u64::MAX).max(now + 1);
        }
        at
    }

    #[test]
    fn edges_that_a_late_host_missed_follow_quickly() {
        let mut h = periodic();
        assert_eq!(pulses(&mut h, 0, 2000), [1000, 2000]);
        // Nobody looks until 5500: the matches of 3000, 4000 and 5000 come one after the other, that of 6000 in time.
        assert_eq!(pulses(&mut h, 5500, 9000), [5500, 5750, 6000, 6250, 7000, 8000, 9000]);
    }

    #[test]
    fn edges_are_made_up_for_within_limits() {
        let mut h = periodic();
        let late = 1_000_000;
        assert_eq!(pulses(&mut h, late, 2 * late).len() as u64, 1 + MAX_OWED + 1000);
        // A timer that is set up again, or a halted block, owes nothing.
        for (reg, val) in [(0x100, 0x4 | 2 << 9), (0x108, 50), (0x10, 0)] {
            let mut h = periodic();
            assert_eq!(h.sync(5000).pulses, 4);
            assert_eq!(h.write(reg, 4, val, 5010).pulses, 0);
            assert_eq!(pulses(&mut h, 5020, 5900), [0u64; 0]);
        }
    }

    #[test]
    fn level_triggered_timers_owe_nothing() {
        let mut h = hpet();
        let _ = h.write(0x100, 4, 0x14e | 2 << 9, 0);
        let _ = h.write(0x108, 4, 100, 0);
        let _ = h.write(0x10, 4, 1, 0);
        let e = h.sync(5500);
        assert_eq!((e.levels, e.deadline), (4, Some(6000)));
    }

    #[test]
    fn legacy_replacement_takes_over_both_lines() {
        let mut h = hpet();
        for t in [0x100, 0x120] {
            let _ = h.write(t, 4, 4, 0);
            let _ = h.write(t + 8, 8, 5, 0);
        }
        let _ = h.write(0x10, 4, 3, 0);
        assert!(h.legacy());
        assert_eq!(h.sync(50).pulses, 1 | 1 << 8);
    }

    #[test]
    fn routes_out_of_reach_are_not_taken() {
        let mut h = hpet();
        let _ = h.write(0x100, 4, 2 << 9, 0);
        let _ = h.write(0x100, 4, 3 << 9, 0);
        assert_eq!(h.read(0x100, 4, 0).0, 0x30 | 2 << 9);
        let _ = h.write(0x100, 4, 0x4000, 0); // no FSB capability
        assert_eq!(h.read(0x100, 4, 0).0 & 0x4000, 0);
    }

    #[test]
    fn fsb_delivery_is_a_message() {
        let mut h = HpetRegs::power_on(3, 4, true);
        let _ = h.write(0x110, 8, 0xfee0_1000_0000_0041, 0);
        let _ = h.write(0x100, 4, 0x4004, 0);
        let _ = h.write(0x108, 8, 7, 0);
        let _ = h.write(0x10, 4, 1, 0);
        let e = h.sync(70);
        assert_eq!((e.messages, e.pulses), (vec![(0xfee0_1000, 0x41)], 0));
    }

    #[test]
    fn comparator_equal_to_the_counter_matches_at_once() {
        let mut h = hpet();
        let _ = h.write(0x10, 4, 1, 0);
        let _ = h.write(0x100, 4, 4 | 2 << 9, 0);
        assert_eq!(h.write(0x108, 8, 100, 1000).pulses, 4);
        assert_eq!(h.write(0x108, 8, 100, 1010).pulses, 0); // passed: 2^64 away
    }
}
