//! MC146818 real-time clock and 128 bytes of CMOS as registers. Source: Motorola MC146818A datasheet (MC146818A/D); century byte
//! 0x32 (and its PS/2 place 0x37) as PC firmware uses it.
//!
//! Time is evaluated when somebody looks: [`Mc146818Regs::sync`] carries the registers and flags to a given clock value, so flags
//! are right with or without enabled interrupts. Not modelled: daylight saving (DSE is kept, as in today's chip sets), SQW output,
//! crystals other than 32.768 kHz, the 1984 µs during which an update runs (registers change at once, UIP leads by 244 µs).

use serde::{Deserialize, Serialize};

const SECOND: i64 = 1_000_000_000;
/// UIP is set this long before an update: 8 periods of 32.768 kHz.
const UIP_LEAD: i64 = 8 * SECOND / 32_768;
/// Slewed ticks handed out back to back before the guest is given a rest.
const REINJECT_LIMIT: u8 = 20;

/// Register indexes.
pub mod reg {
    #![allow(missing_docs, reason = "the datasheet's names")]
    pub const SECONDS: u8 = 0;
    pub const SECONDS_ALARM: u8 = 1;
    pub const MINUTES: u8 = 2;
    pub const MINUTES_ALARM: u8 = 3;
    pub const HOURS: u8 = 4;
    pub const HOURS_ALARM: u8 = 5;
    pub const DAY_OF_WEEK: u8 = 6;
    pub const DAY_OF_MONTH: u8 = 7;
    pub const MONTH: u8 = 8;
    pub const YEAR: u8 = 9;
    pub const A: u8 = 10;
    pub const B: u8 = 11;
    pub const C: u8 = 12;
    pub const D: u8 = 13;
    pub const CENTURY: u8 = 0x32;
    pub const PS2_CENTURY: u8 = 0x37;
}

/// Register A: update in progress.
pub const UIP: u8 = 0x80;
/// Register B: updates stopped.
pub const SET: u8 = 0x80;
/// Registers B and C: periodic interrupt enable, flag.
pub const PIE: u8 = 0x40;
/// Registers B and C: alarm interrupt enable, flag.
pub const AIE: u8 = 0x20;
/// Registers B and C: update-ended interrupt enable, flag.
pub const UIE: u8 = 0x10;
/// Register B: square wave enable.
pub const SQWE: u8 = 0x08;
/// Register B: binary data.
pub const DM: u8 = 0x04;
/// Register B: 24 hours.
pub const H24: u8 = 0x02;
/// Register C: interrupt request.
pub const IRQF: u8 = 0x80;

/// The 128 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Cmos([u8; 128]);

impl From<Cmos> for Vec<u8> {
    fn from(c: Cmos) -> Self {
        c.0.into()
    }
}

impl TryFrom<Vec<u8>> for Cmos {
    type Error = String;
    fn try_from(v: Vec<u8>) -> Result<Self, String> {
        <[u8; 128]>::try_from(v).map(Self).map_err(|v| format!("CMOS has 128 bytes, not {}", v.len()))
    }
}

impl Cmos {
    /// Byte `n`, modulo 128.
    #[must_use]
    pub fn get(&self, n: u8) -> u8 {
        self.0.get(usize::from(n & 0x7f)).copied().unwrap_or(0)
    }
    /// Sets byte `n`, modulo 128.
    pub fn set(&mut self, n: u8, v: u8) {
        if let Some(b) = self.0.get_mut(usize::from(n & 0x7f)) {
            *b = v;
        }
    }
}

/// A point of the calendar, as the registers count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Full year.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
    /// 0 (Sunday) to 6.
    pub weekday: i64,
}

const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from 0001-01-01 to the first of January of `year`.
fn days_before_year(year: i64) -> i64 {
    let y = year - 1;
    y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400)
}

fn days_before_month(year: i64, month: i64) -> i64 {
    let i = usize::try_from(month - 1).unwrap_or(0) % 12;
    DAYS_BEFORE_MONTH.get(i).copied().unwrap_or(0) + i64::from(i > 1 && leap(year))
}

/// Days from 0001-01-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_162;

impl Date {
    /// The date `secs` seconds after 1970-01-01 00:00:00.
    #[must_use]
    pub fn from_seconds(secs: i64) -> Self {
        let (days, rest) = (secs.div_euclid(86_400) + EPOCH_DAYS, secs.rem_euclid(86_400));
        // An estimate that is at most one year late, then corrected.
        let mut year = days.div_euclid(366) + 1;
        year += (days - days_before_year(year)) / 366;
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let of_year = days - days_before_year(year);
        let month = (1..=12).rev().find(|&m| days_before_month(year, m) <= of_year).unwrap_or(1);
        Self {
            year,
            month,
            day: of_year - days_before_month(year, month) + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: (days + 1).rem_euclid(7),
        }
    }

    /// Seconds since 1970-01-01; fields out of their range carry over.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        let months = self.year * 12 + self.month - 1;
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        let days = days_before_year(year) + days_before_month(year, month) + self.day - 1 - EPOCH_DAYS;
        ((days * 24 + self.hour) * 60 + self.minute) * 60 + self.second
    }
}

/// What the wiring does after an access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Level of IRQ.
    pub irq: bool,
    /// Clock value at which to call [`Mc146818Regs::sync`] again.
    pub deadline: Option<i64>,
    /// An enabled alarm went off: wakes a suspended machine.
    pub alarm: bool,
    /// The guest set the time.
    pub time_set: bool,
}

/// All that the guest can observe. Clock values are nanoseconds of the RTC's clock (`-rtc clock=`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mc146818Regs {
    /// Index register, 7 bits.
    pub index: u8,
    /// The bytes, the time registers as last carried over.
    pub cmos: Cmos,
    /// Calendar seconds of the time registers at `anchor`.
    seconds: i64,
    /// An instant at which the seconds counter stepped.
    anchor: i64,
    /// Guest's day of week minus the calendar's, modulo 7: the counter is free-running.
    weekday_bias: i64,
    /// 32.768 kHz ticks up to which periodic flags were taken into account.
    ticks: i64,
    /// Base year of the two-digit year (property `base_year`).
    base_year: i64,
    /// Periodic interrupts owed to the guest (`lost_tick_policy=slew`).
    owed: u32,
    reinjected: u8,
    slew: bool,
}

impl Default for Mc146818Regs {
    fn default() -> Self {
        Self::power_on(0, 0, 0, false)
    }
}

impl Mc146818Regs {
    /// Power-on at clock value `now` with calendar time `seconds`: 24 hours, BCD, 1024 Hz selected, battery good.
    #[must_use]
    pub fn power_on(now: i64, seconds: i64, base_year: i64, slew: bool) -> Self {
        let mut r = Self {
            index: 0,
            cmos: Cmos([0; 128]),
            seconds,
            anchor: now,
            weekday_bias: 0,
            ticks: Self::tick(now),
            base_year,
            owed: 0,
            reinjected: 0,
            slew,
        };
        r.cmos.set(reg::A, 0x26);
        r.cmos.set(reg::B, H24);
        r.cmos.set(reg::D, 0x80);
        r.show();
        r
    }

    /// RESET pin: interrupt enables and flags off; time, index and CMOS stay.
    pub fn reset(&mut self, now: i64) -> Effect {
        let _ = self.sync(now);
        self.cmos.set(reg::B, self.b() & !(PIE | AIE | UIE | SQWE));
        self.cmos.set(reg::C, 0);
        self.owed = 0;
        self.effect(now)
    }

    fn a(&self) -> u8 {
        self.cmos.get(reg::A)
    }
    fn b(&self) -> u8 {
        self.cmos.get(reg::B)
    }

    fn tick(now: i64) -> i64 {
        (i128::from(now) * 32_768).div_euclid(i128::from(SECOND)) as i64
    }

    /// First instant of tick `t`.
    fn tick_time(t: i64) -> i64 {
        let n = i128::from(t) * i128::from(SECOND);
        (n.div_euclid(32_768) + i128::from(n.rem_euclid(32_768) != 0)) as i64
    }

    /// The divider chain runs (DV2..DV0 select a crystal).
    fn divider_on(&self) -> bool {
        self.a() & 0x70 <= 0x20
    }

    fn running(&self) -> bool {
        self.b() & SET == 0 && self.divider_on()
    }

    /// Periodic rate RS3..RS0 as a power of two of 32.768 kHz ticks.
    fn period_shift(&self) -> Option<u32> {
        match self.a() & 0x0f {
            0 => None,
            rs @ 1..=2 => Some(u32::from(rs) + 6),
            rs => Some(u32::from(rs) - 1),
        }
        .filter(|_| self.divider_on())
    }

    fn encode(&self, v: i64) -> u8 {
        let v = v.rem_euclid(256) as u8;
        if self.b() & DM != 0 { v } else { ((v / 10 % 10) << 4) | (v % 10) }
    }

    fn decode(&self, v: u8) -> i64 {
        if self.b() & DM != 0 { v.into() } else { i64::from(v >> 4) * 10 + i64::from(v & 0xf) }
    }

    fn encode_hour(&self, h: i64) -> u8 {
        if self.b() & H24 != 0 {
            return self.encode(h);
        }
        self.encode(if h % 12 == 0 { 12 } else { h % 12 }) | if h >= 12 { 0x80 } else { 0 }
    }

    /// `seconds` into the time registers.
    fn show(&mut self) {
        let d = Date::from_seconds(self.seconds);
        let year = d.year - self.base_year;
        for (i, v) in [
            (reg::SECONDS, self.encode(d.second)),
            (reg::MINUTES, self.encode(d.minute)),
            (reg::HOURS, self.encode_hour(d.hour)),
            (reg::DAY_OF_WEEK, self.encode((d.weekday + self.weekday_bias).rem_euclid(7) + 1)),
            (reg::DAY_OF_MONTH, self.encode(d.day)),
            (reg::MONTH, self.encode(d.month)),
            (reg::YEAR, self.encode(year.rem_euclid(100))),
            (reg::CENTURY, self.encode(year.div_euclid(100))),
        ] {
            self.cmos.set(i, v);
        }
    }

    /// The time registers into `seconds`; the divider chain keeps its phase.
    fn take(&mut self, now: i64) {
        let v = |i| self.decode(self.cmos.get(i));
        let raw = self.cmos.get(reg::HOURS);
        let hour = if self.b() & H24 != 0 {
            self.decode(raw)
        } else {
            self.decode(raw & 0x7f) % 12 + if raw & 0x80 != 0 { 12 } else { 0 }
        };
        let d = Date {
            year: v(reg::CENTURY) * 100 + v(reg::YEAR) + self.base_year,
            month: v(reg::MONTH),
            day: v(reg::DAY_OF_MONTH),
            hour,
            minute: v(reg::MINUTES),
            second: v(reg::SECONDS),
            weekday: 0,
        };
        let (seconds, weekday) = (d.seconds(), v(reg::DAY_OF_WEEK) - 1);
        self.seconds = seconds;
        self.weekday_bias = (weekday - Date::from_seconds(seconds).weekday).rem_euclid(7);
        self.anchor = now - (now - self.anchor).rem_euclid(SECOND);
    }

    /// Seconds from `from` (exclusive) to the next match of the alarm registers. A byte of 0xc0 or more matches anything.
    fn next_alarm(&self, from: i64) -> Option<i64> {
        let hit = |reg: u8, raw: u8| self.cmos.get(reg) >= 0xc0 || self.cmos.get(reg) == raw;
        let seconds: Vec<i64> = (0..60).filter(|&s| hit(reg::SECONDS_ALARM, self.encode(s))).collect();
        let minutes: Vec<i64> = (0..60).filter(|&m| hit(reg::MINUTES_ALARM, self.encode(m))).collect();
        let hours: Vec<i64> = (0..24).filter(|&h| hit(reg::HOURS_ALARM, self.encode_hour(h))).collect();
        let after = from.rem_euclid(86_400) + 1;
        // The next 25 hours, the first of them from `after` on.
        (after / 3600..=after / 3600 + 24)
            .filter(|h| hours.contains(&(h % 24)))
            .find_map(|h| {
                let mut at = minutes.iter().flat_map(|m| seconds.iter().map(move |s| h * 3600 + m * 60 + s));
                at.find(|&t| t >= after)
            })
            .map(|t| t - after + 1)
    }

    /// Carries time and flags to `now`.
    pub fn sync(&mut self, now: i64) -> Effect {
        let mut flags = 0;
        if self.running() {
            let steps = (now - self.anchor).div_euclid(SECOND);
            if steps > 0 {
                flags |= UIE;
                if self.next_alarm(self.seconds).is_some_and(|n| n <= steps) {
                    flags |= AIE;
                }
            }
            if steps != 0 {
                self.seconds += steps;
                self.anchor += steps * SECOND;
                self.show();
            }
        }
        let (before, after) = (self.ticks, Self::tick(now));
        self.ticks = after;
        if let Some(shift) = self.period_shift() {
            let n = (after >> shift) - (before >> shift);
            if n > 0 {
                flags |= PIE;
                let pending = self.cmos.get(reg::C) & PIE != 0;
                if self.slew && self.b() & PIE != 0 {
                    let lost = u32::try_from(n - 1 + i64::from(pending)).unwrap_or(u32::MAX);
                    self.owed = self.owed.saturating_add(lost);
                }
                self.reinjected = 0;
            }
        }
        let fresh = flags & !self.cmos.get(reg::C);
        self.cmos.set(reg::C, self.cmos.get(reg::C) | flags);
        Effect { alarm: fresh & AIE & self.b() != 0, ..self.effect(now) }
    }

    /// Line and next deadline of a restored clock.
    pub fn resume(&mut self, now: i64) -> Effect {
        self.effect(now)
    }

    /// IRQF, the line and the next deadline.
    fn effect(&mut self, now: i64) -> Effect {
        let c = self.cmos.get(reg::C) & !IRQF;
        let irq = c & self.b() & (PIE | AIE | UIE) != 0;
        self.cmos.set(reg::C, c | if irq { IRQF } else { 0 });
        let mut deadline: Option<i64> = None;
        let mut want = |t: i64| deadline = Some(deadline.map_or(t, |d| d.min(t)));
        if !irq {
            if self.b() & PIE != 0
                && let Some(shift) = self.period_shift()
            {
                want(Self::tick_time(((Self::tick(now) >> shift) + 1) << shift));
            }
            if self.running() {
                if self.b() & UIE != 0 {
                    want(self.anchor + SECOND);
                }
                if self.b() & AIE != 0
                    && let Some(n) = self.next_alarm(self.seconds)
                {
                    want(self.anchor + n * SECOND);
                }
            }
        }
        Effect { irq, deadline, ..Effect::default() }
    }

    /// Writes the index (offset 0) or the selected byte (offset 1).
    pub fn write(&mut self, offset: u64, val: u8, now: i64) -> Effect {
        if offset & 1 == 0 {
            self.index = val & 0x7f;
            return self.sync(now);
        }
        let mut alarm = self.sync(now).alarm;
        let mut time_set = false;
        match self.index {
            reg::A => {
                let (was_reset, was_running) = (self.a() & 0x60 == 0x60, self.running());
                self.cmos.set(reg::A, val & !UIP);
                if was_reset && self.divider_on() {
                    // The first update comes half a second after the reset is removed.
                    self.anchor = now - SECOND / 2;
                }
                if !was_running && self.running() {
                    self.take(now);
                    time_set = true;
                }
            }
            reg::B => {
                let was_running = self.running();
                self.cmos.set(reg::B, if val & SET != 0 { val & !UIE } else { val });
                if !was_running && self.running() {
                    self.take(now);
                    time_set = true;
                }
            }
            reg::C | reg::D => {}
            i => {
                let i = if i == reg::PS2_CENTURY { reg::CENTURY } else { i };
                self.cmos.set(i, val);
                let is_time = matches!(i, 0 | 2 | 4 | 6..=9 | reg::CENTURY);
                if is_time && self.running() {
                    self.take(now);
                    self.show();
                    time_set = true;
                }
            }
        }
        let e = self.effect(now);
        alarm |= e.alarm;
        Effect { alarm, time_set, ..e }
    }

    /// Reads the selected byte (offset 1); the index register is write only: 0xff.
    pub fn read(&mut self, offset: u64, now: i64) -> (u8, Effect) {
        let mut e = self.sync(now);
        if offset & 1 == 0 {
            return (0xff, e);
        }
        let v = match self.index {
            reg::A => {
                let lead = SECOND - (now - self.anchor).rem_euclid(SECOND) <= UIP_LEAD;
                self.a() & !UIP | if self.running() && lead { UIP } else { 0 }
            }
            reg::C => {
                let v = self.cmos.get(reg::C);
                self.cmos.set(reg::C, 0);
                if self.owed > 0 && self.b() & PIE != 0 && self.reinjected < REINJECT_LIMIT {
                    self.owed -= 1;
                    self.reinjected += 1;
                    self.cmos.set(reg::C, PIE);
                }
                let alarm = e.alarm;
                e = Effect { alarm, ..self.effect(now) };
                v
            }
            reg::PS2_CENTURY => self.cmos.get(reg::CENTURY),
            i => self.cmos.get(i),
        };
        (v, e)
    }

    /// Calendar seconds of the time registers after the last access.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    /// Whether a restored state is one that accesses can reach.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let sane = 1i64 << 45;
        self.index < 0x80
            && self.seconds.abs() < sane
            && self.base_year.abs() < 100_000
            && self.anchor.abs() < i64::MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 951_782_399; // Mon 2000-02-28 23:59:59
    fn rtc() -> Mc146818Regs {
        Mc146818Regs::power_on(0, T0, 0, false)
    }
    fn rd(r: &mut Mc146818Regs, i: u8, now: i64) -> u8 {
        let _ = r.write(0, i, now);
        r.read(1, now).0
    }
    fn wr(r: &mut Mc146818Regs, i: u8, v: u8, now: i64) -> Effect {
        let _ = r.write(0, i, now);
        r.write(1, v, now)
    }
    fn time(r: &mut Mc146818Regs, now: i64) -> [u8; 8] {
        [0x32, 9, 8, 7, 6, 4, 2, 0].map(|i| rd(r, i, now))
    }

    #[test]
    fn calendar_round_trips() {
        for s in [-62_135_596_800, -86_401, -1, 0, 68_169_600, T0, 951_868_800, 4_102_444_799, 253_402_300_799] {
            assert_eq!(Date::from_seconds(s).seconds(), s);
        }
        let d = Date::from_seconds(T0);
        assert_eq!((d.year, d.month, d.day, d.hour, d.minute, d.second, d.weekday), (2000, 2, 28, 23, 59, 59, 1));
    }

    #[test]
    fn counts_over_a_leap_day_in_bcd() {
        let mut r = rtc();
        assert_eq!(time(&mut r, 0), [0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59]);
        assert_eq!(time(&mut r, SECOND), [0x20, 0x00, 0x02, 0x29, 3, 0, 0, 0]);
        assert_eq!(time(&mut r, 86_401 * SECOND), [0x20, 0x00, 0x03, 0x01, 4, 0, 0, 0]);
    }

    #[test]
    fn binary_and_twelve_hours() {
        let mut r = rtc();
        let _ = wr(&mut r, reg::B, SET, 0); // BCD, 12 h
        for (i, v) in [(0, 0x58), (2, 0x59), (4, 0x92), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19), (6, 6)] {
            let _ = wr(&mut r, i, v, 0);
        }
        let _ = wr(&mut r, reg::B, 0, 0);
        assert_eq!(rd(&mut r, 4, SECOND), 0x92); // 12 PM
        let _ = wr(&mut r, reg::B, DM | H24, SECOND);
        assert_eq!(time(&mut r, 2 * SECOND), [19, 99, 12, 31, 6, 13, 0, 0]);
    }

    #[test]
    fn set_freezes_and_keeps_the_phase() {
        let mut r = rtc();
        let _ = wr(&mut r, reg::B, SET | H24, SECOND / 4);
        assert_eq!(rd(&mut r, 0, 10 * SECOND), 0x59);
        let _ = wr(&mut r, 0, 0x10, 10 * SECOND);
        let e = wr(&mut r, reg::B, H24, 10 * SECOND + SECOND / 2);
        assert!(e.time_set);
        assert_eq!((rd(&mut r, 0, 11 * SECOND - 1), rd(&mut r, 0, 11 * SECOND)), (0x10, 0x11));
    }

    #[test]
    fn divider_reset_starts_half_a_second_before_the_update() {
        let mut r = rtc();
        let _ = wr(&mut r, reg::A, 0x70, 0);
        let _ = wr(&mut r, 0, 0x00, 0);
        let _ = wr(&mut r, reg::A, 0x26, 3 * SECOND);
        assert_eq!((rd(&mut r, 0, 3 * SECOND + SECOND / 2 - 1), rd(&mut r, 0, 3 * SECOND + SECOND / 2)), (0, 1));
    }

    #[test]
    fn uip_leads_the_update() {
        let mut r = rtc();
        assert_eq!(rd(&mut r, reg::A, SECOND - UIP_LEAD - 1), 0x26);
        assert_eq!(rd(&mut r, reg::A, SECOND - UIP_LEAD), 0xa6);
        assert_eq!(rd(&mut r, reg::A, SECOND), 0x26);
    }

    #[test]
    fn periodic_interrupt_until_register_c_is_read() {
        let mut r = rtc();
        let e = wr(&mut r, reg::B, H24 | PIE, 0);
        assert_eq!((e.irq, e.deadline), (false, Some(Mc146818Regs::tick_time(32))));
        let e = r.sync(Mc146818Regs::tick_time(32));
        assert_eq!((e.irq, e.deadline), (true, None));
        let _ = r.write(0, reg::C, 1_000_000);
        let (c, e) = r.read(1, 1_000_000);
        assert_eq!((c, e.irq), (IRQF | PIE, false));
        assert!(e.deadline.is_some());
    }

    #[test]
    fn flags_without_enables_do_not_interrupt_until_enabled() {
        let mut r = rtc();
        assert!(!r.sync(2 * SECOND).irq);
        assert!(wr(&mut r, reg::B, H24 | UIE, 2 * SECOND).irq);
        assert_eq!(rd(&mut r, reg::C, 2 * SECOND), IRQF | UIE | PIE | AIE); // midnight was the alarm too
    }

    #[test]
    fn alarm_matches_with_wildcards() {
        let mut r = rtc();
        for (i, v) in [(1, 0x10), (3, 0xff), (5, 0x00)] {
            let _ = wr(&mut r, i, v, 0);
        }
        let e = wr(&mut r, reg::B, H24 | AIE, 0);
        assert_eq!(e.deadline, Some(11 * SECOND));
        assert!(!r.sync(11 * SECOND - 1).alarm);
        let e = r.sync(11 * SECOND);
        assert!(e.irq && e.alarm);
        assert_eq!(rd(&mut r, reg::C, 11 * SECOND) & (IRQF | AIE), IRQF | AIE);
        let _ = wr(&mut r, 1, 0x7f, 11 * SECOND); // no such second
        assert_eq!(r.sync(12 * SECOND).deadline, None);
    }

    #[test]
    fn alarm_once_a_day() {
        let mut r = rtc();
        for (i, v) in [(1, 0x59), (3, 0x59), (5, 0x23)] {
            let _ = wr(&mut r, i, v, 0);
        }
        assert_eq!(wr(&mut r, reg::B, H24 | AIE, 0).deadline, Some(86_400 * SECOND));
    }

    #[test]
    fn reset_clears_enables_and_flags_only() {
        let mut r = rtc();
        let _ = wr(&mut r, 0x40, 0xa5, 0);
        let _ = wr(&mut r, reg::B, H24 | PIE | AIE | UIE | SQWE, 0);
        assert!(r.sync(SECOND).irq);
        assert_eq!(r.reset(SECOND), Effect::default());
        assert_eq!((rd(&mut r, reg::B, SECOND), rd(&mut r, reg::C, SECOND), rd(&mut r, 0x40, SECOND)), (H24, 0, 0xa5));
    }

    #[test]
    fn read_only_and_aliased_bytes() {
        let mut r = rtc();
        let _ = wr(&mut r, reg::D, 0, 0);
        let _ = wr(&mut r, reg::C, 0xff, 0);
        assert_eq!((rd(&mut r, reg::D, 0), rd(&mut r, reg::C, 0)), (0x80, 0));
        assert_eq!((rd(&mut r, 0x37, 0), rd(&mut r, 0x32, 0), r.read(0, 0).0), (0x20, 0x20, 0xff));
        let _ = wr(&mut r, 0x80 | 0x40, 7, 0); // NMI mask bit is not part of the index
        assert_eq!(rd(&mut r, 0x40, 0), 7);
    }

    #[test]
    fn slew_pays_lost_ticks_back() {
        let mut r = Mc146818Regs::power_on(0, T0, 0, true);
        let _ = wr(&mut r, reg::B, H24 | PIE, 0);
        let late = Mc146818Regs::tick_time(32 * 3);
        let _ = r.sync(late); // three periods at once
        let _ = r.write(0, reg::C, late);
        assert_eq!([r.read(1, late).0, r.read(1, late).0, r.read(1, late).0, r.read(1, late).0], [0xc0, 0xc0, 0xc0, 0]);
    }

    #[test]
    fn a_weekday_of_ones_own_is_kept() {
        let mut r = rtc();
        let _ = wr(&mut r, reg::DAY_OF_WEEK, 7, 0);
        assert_eq!((rd(&mut r, reg::DAY_OF_WEEK, 0), rd(&mut r, reg::DAY_OF_WEEK, SECOND)), (7, 1));
    }
}
