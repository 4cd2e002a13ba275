//! The registers of the 6300ESB's watchdog timer. Source: Intel 6300ESB I/O Controller Hub (300641) §16.
//! The timer counts down twice: the first end may interrupt (which nothing here is wired to, as on QEMU), the second one reboots.

use serde::{Deserialize, Serialize};

/// Configuration register, 60H of configuration space: kind of interrupt, slow or fast clock, no reboot.
mod config {
    pub const INT_TYPE: u16 = 0x03;
    pub const FAST: u16 = 0x04;
    pub const NO_REBOOT: u16 = 0x20;
}
/// Lock register, 68H of configuration space.
mod lock {
    pub const LOCK: u8 = 0x01;
    pub const ENABLE: u8 = 0x02;
    pub const FREE: u8 = 0x04;
}
/// Reload register: serve the timer; it caused the last reboot (as Linux's driver has it: also bit 12).
const RELOAD: u32 = 0x100;
const TIMEOUT: u16 = 0x200;
const TIMEOUT_LINUX: u16 = 0x1000;
const RELOAD_AT: u64 = 0x0c;
/// What must be written there before anything else is.
const KEYS: [u32; 2] = [0x80, 0x86];
/// A preload value.
const PRELOAD: u32 = 0xf_ffff;
/// PCI clock, in Hz; it is divided by 2 to this power, slow and fast.
const CLOCK: u64 = 33_000_000;
const SLOW: u32 = 15;
const FAST: u32 = 5;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EsbRegs {
    config: u16,
    lock: u8,
    preload: [u32; 2],
    /// Keys written so far.
    unlocked: u8,
    /// The second count is at work.
    second: bool,
    /// When the count at work ends, virtual ns.
    ends_at: Option<u64>,
    /// It caused the last reboot. No reset changes this.
    rebooted: bool,
}

impl Default for EsbRegs {
    fn default() -> Self {
        Self { config: 0, lock: 0, preload: [PRELOAD; 2], unlocked: 0, second: false, ends_at: None, rebooted: false }
    }
}

impl EsbRegs {
    /// State after a reset.
    pub fn reset(&mut self) {
        *self = Self { rebooted: self.rebooted, ..Self::default() };
    }

    /// The configuration register.
    pub fn config(&self) -> u16 {
        self.config
    }

    /// Writes it.
    pub fn set_config(&mut self, val: u16) {
        self.config = val & (config::INT_TYPE | config::FAST | config::NO_REBOOT);
    }

    /// The lock register.
    pub fn lock(&self) -> u8 {
        self.lock
    }

    /// Writes it, unless it is locked.
    pub fn set_lock(&mut self, val: u8, now: u64) {
        if self.lock & lock::LOCK != 0 {
            return;
        }
        let was = self.lock & lock::ENABLE != 0;
        self.lock = val & (lock::LOCK | lock::ENABLE | lock::FREE);
        match (was, self.lock & lock::ENABLE != 0) {
            (false, true) => self.count(false, now),
            (_, false) => self.ends_at = None,
            _ => {}
        }
    }

    /// Begins a count.
    fn count(&mut self, second: bool, now: u64) {
        if self.lock & lock::ENABLE == 0 {
            return;
        }
        self.second = second;
        let [first, other] = self.preload;
        let ticks = u64::from(if second { other } else { first });
        let cycles = ticks << if self.config & config::FAST != 0 { FAST } else { SLOW };
        let ns = u128::from(cycles) * 1_000_000_000 / u128::from(CLOCK);
        self.ends_at = Some(now.saturating_add(ns as u64));
    }

    /// When the count at work ends.
    pub fn ends_at(&self) -> Option<u64> {
        self.ends_at
    }

    /// The count at work has ended: whether that is to reboot the machine.
    pub fn ended(&mut self, now: u64) -> bool {
        self.ends_at = None;
        if !self.second {
            self.count(true, now);
            return false;
        }
        let reboots = self.config & config::NO_REBOOT == 0;
        self.rebooted |= reboots;
        if self.lock & lock::FREE != 0 {
            self.count(false, now);
        }
        reboots
    }

    /// Reads `size` bytes.
    pub fn read(&self, off: u64, size: u32) -> u64 {
        match (off, size, self.rebooted) {
            (RELOAD_AT, 2, true) => (TIMEOUT | TIMEOUT_LINUX).into(),
            _ => 0,
        }
    }

    /// Writes `size` bytes.
    pub fn write(&mut self, off: u64, size: u32, val: u32, now: u64) {
        let [first, second] = KEYS;
        match (off, val, self.unlocked) {
            (RELOAD_AT, v, _) if v == first => self.unlocked = 1,
            (RELOAD_AT, v, 1) if v == second => self.unlocked = 2,
            (RELOAD_AT, _, 2) if size == 2 => {
                self.unlocked = 0;
                if val & RELOAD != 0 {
                    self.count(false, now);
                }
                if val as u16 & (TIMEOUT | TIMEOUT_LINUX) != 0 {
                    self.rebooted = false;
                }
            }
            (0 | 4, _, 2) if size == 4 => {
                self.unlocked = 0;
                if let Some(p) = self.preload.get_mut((off / 4) as usize) {
                    *p = val & PRELOAD;
                }
            }
            _ => {}
        }
    }

    /// Rejects what no guest can bring about.
    ///
    /// # Errors
    /// A preload value that is none, more keys than there are.
    pub fn check(&self) -> Result<(), String> {
        let ok = self.unlocked <= 2 && self.preload.iter().all(|p| *p <= PRELOAD);
        if ok { Ok(()) } else { Err("i6300esb: impossible state".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlock(r: &mut EsbRegs) {
        KEYS.iter().for_each(|k| r.write(RELOAD_AT, 2, *k, 0));
    }

    #[test]
    fn a_timer_that_nobody_serves_reboots_after_two_counts() {
        let mut r = EsbRegs::default();
        for off in [0, 4] {
            unlock(&mut r);
            r.write(off, 4, 0x3ff, 0);
        }
        r.write(0, 4, 1, 0); // locked again
        r.set_lock(2, 0);
        let count = (0x3ffu64 << 15) * 1_000_000_000 / 33_000_000;
        assert_eq!(r.ends_at(), Some(count));
        unlock(&mut r);
        r.write(RELOAD_AT, 2, 0x100, 500);
        assert_eq!(r.ends_at(), Some(count + 500));
        assert!(!r.ended(count + 500));
        assert_eq!(r.ends_at(), Some(2 * count + 500));
        assert!(r.ended(2 * count + 500));
        assert_eq!((r.ends_at(), r.read(RELOAD_AT, 2)), (None, 0x1200));
        r.reset();
        assert_eq!((r.read(RELOAD_AT, 2), r.lock(), r.config()), (0x1200, 0, 0));
        unlock(&mut r);
        r.write(RELOAD_AT, 2, 0x200, 0);
        assert_eq!(r, EsbRegs::default());
    }

    #[test]
    fn the_lock_locks_and_the_fast_clock_is_fast() {
        let mut r = EsbRegs::default();
        r.set_config(0xffff);
        assert_eq!(r.config(), 0x27);
        r.set_lock(7, 0);
        assert_eq!(r.ends_at(), Some((0xf_ffffu64 << 5) * 1_000_000_000 / 33_000_000));
        r.set_lock(0, 0);
        assert_eq!(r.lock(), 7);
        assert!(!r.ended(9) && !r.ended(9), "reboots are switched off");
        assert!(r.ends_at().is_some() && r.check().is_ok(), "it runs free");
    }
}
