//! Timer of the local APIC. Source: Intel SDM vol. 3A §12.5.4. It counts at 1 GHz, divided.

use serde::{Deserialize, Serialize};

/// Timer mode, LVT bits 18..17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// Counts down once. Also the reserved value 3.
    OneShot,
    /// Counts down again and again.
    Periodic,
    /// Fires when the time stamp counter reaches IA32_TSC_DEADLINE.
    TscDeadline,
}

impl TimerMode {
    /// From the timer's LVT entry.
    #[must_use]
    pub fn of_lvt(lvt: u32) -> Self {
        match lvt >> 17 & 3 {
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::OneShot,
        }
    }
}

/// The timer's registers; times are nanoseconds of the virtual clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApicTimer {
    initial_count: u32,
    /// Divide configuration register, bits 3, 1 and 0.
    divide: u8,
    /// When `initial_count` was loaded; `None`: stopped.
    since: Option<u64>,
    /// IA32_TSC_DEADLINE and the virtual time it stands for.
    tsc_deadline: Option<(u64, u64)>,
}

impl ApicTimer {
    /// Initial count register.
    #[must_use]
    pub fn initial_count(&self) -> u32 {
        self.initial_count
    }

    /// Divide configuration register.
    #[must_use]
    pub fn divide(&self) -> u8 {
        self.divide
    }

    /// Binary logarithm of the divisor.
    fn shift(&self) -> u32 {
        let d = u32::from(self.divide);
        ((d & 3 | d >> 1 & 4) + 1) & 7
    }

    /// Ticks since the load.
    fn elapsed(&self, now: u64) -> Option<u64> {
        self.since.map(|t| now.saturating_sub(t) >> self.shift())
    }

    /// Current count register.
    #[must_use]
    pub fn current_count(&self, mode: TimerMode, now: u64) -> u32 {
        let n = u64::from(self.initial_count);
        match self.elapsed(now) {
            Some(d) if mode == TimerMode::Periodic && n != 0 => (n - d % n) as u32,
            Some(d) => n.saturating_sub(d) as u32,
            None => 0,
        }
    }

    /// When the timer fires next.
    #[must_use]
    pub fn deadline(&self, mode: TimerMode, now: u64) -> Option<u64> {
        if mode == TimerMode::TscDeadline {
            return self.tsc_deadline.map(|(_, at)| at);
        }
        let (n, d, since) = (u64::from(self.initial_count).max(1), self.elapsed(now)?, self.since?);
        let ticks = if mode == TimerMode::Periodic { (d / n + 1) * n } else { n };
        since.checked_add(ticks.checked_shl(self.shift())?)
    }

    /// The deadline should have come: whether the timer fires.
    #[must_use]
    pub fn expire(&mut self, mode: TimerMode, now: u64) -> bool {
        match mode {
            TimerMode::Periodic => self.since.is_some(),
            TimerMode::TscDeadline => self.tsc_deadline.take_if(|(_, at)| *at <= now).is_some(),
            TimerMode::OneShot => {
                let due = self.deadline(mode, now).is_some_and(|t| t <= now);
                if due {
                    self.since = None;
                }
                due
            }
        }
    }

    /// IA32_TSC_DEADLINE; 0 when disarmed or in another mode.
    #[must_use]
    pub fn tsc_deadline(&self, mode: TimerMode) -> u64 {
        self.tsc_deadline.filter(|_| mode == TimerMode::TscDeadline).map_or(0, |(v, _)| v)
    }

    /// Writes IA32_TSC_DEADLINE; `at`: the virtual time the value stands for. 0 disarms; ignored in other modes.
    pub fn set_tsc_deadline(&mut self, mode: TimerMode, val: u64, at: u64) {
        if mode == TimerMode::TscDeadline {
            self.tsc_deadline = (val != 0).then_some((val, at));
        }
    }

    /// Writes the initial count register: starts the count, or stops it with 0. Ignored in deadline mode.
    pub fn set_initial_count(&mut self, mode: TimerMode, val: u32, now: u64) {
        if mode != TimerMode::TscDeadline {
            self.initial_count = val;
            self.since = (val != 0).then_some(now);
        }
    }

    /// Writes the divide configuration register: the count goes on from where it is, at the new rate.
    pub fn set_divide(&mut self, mode: TimerMode, val: u8, now: u64) {
        let left = self.current_count(mode, now);
        self.divide = val & 0xb;
        if self.since.is_some() {
            let done = u64::from(self.initial_count - left.min(self.initial_count)) << self.shift();
            self.since = Some(now.saturating_sub(done));
        }
    }

    /// The LVT entry was written. A change between deadline and count modes disarms (§12.5.4.1).
    pub fn change_mode(&mut self, old: TimerMode, new: TimerMode) {
        if (old == TimerMode::TscDeadline) != (new == TimerMode::TscDeadline) {
            (self.since, self.initial_count, self.tsc_deadline) = (None, 0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TimerMode::{OneShot, Periodic, TscDeadline};

    #[test]
    fn divisors() {
        let mut t = ApicTimer::default();
        for (val, by) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)] {
            t.set_divide(OneShot, val, 0);
            t.set_initial_count(OneShot, 10, 0);
            assert_eq!(t.deadline(OneShot, 0), Some(10 * by), "{val}");
        }
    }

    #[test]
    fn a_new_divisor_keeps_the_count() {
        let mut t = ApicTimer::default();
        t.set_divide(OneShot, 11, 0);
        t.set_initial_count(OneShot, 100, 1000);
        t.set_divide(OneShot, 0, 1040);
        assert_eq!((t.current_count(OneShot, 1040), t.deadline(OneShot, 1040)), (60, Some(1160)));
    }

    #[test]
    fn early_calls_do_not_fire() {
        let mut t = ApicTimer::default();
        t.set_initial_count(OneShot, 100, 0);
        assert!(!t.expire(OneShot, 199) && t.expire(OneShot, 200) && !t.expire(OneShot, 300));
        t.set_tsc_deadline(TscDeadline, 1, 500);
        assert!(!t.expire(TscDeadline, 499) && t.expire(TscDeadline, 500) && !t.expire(TscDeadline, 600));
        assert!(!t.expire(Periodic, 700)); // stopped
    }
}
