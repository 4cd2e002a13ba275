//! `-icount`: the virtual clock counts executed instructions, so that a run depends on nothing but the guest.
//!
//! The clock is the number of instructions, shifted, plus a bias: the time during which no vCPU had anything to do. vCPUs take
//! turns on one thread (`round_robin`), which also runs the timers of the clock; a vCPU runs until
//! the next deadline and no further. With `shift=auto` the shift follows the host's speed, and nothing repeats.
//! Not modelled: recording and replaying what comes from outside (`rr`).

use crate::tcg::{Counted, Group};
use hw_core::{Core, clock::InstructionClock};
use parking_lot::Mutex;
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// Largest shift: 1.024 µs an instruction.
pub const MAX_SHIFT: u32 = 10;
/// Shift that `auto` begins with: 125 MIPS.
const FIRST_SHIFT: u32 = 3;
/// Host time between two looks at how the clocks go, with `auto`.
const ADJUST: Duration = Duration::from_millis(100);
/// Nanoseconds that the guest may be ahead before `align` holds it.
const AHEAD: i64 = 3_000_000;
/// Nanoseconds that the guest may be late before `align` says so, and host time between two such messages.
const LATE: (i64, Duration) = (1_000_000_000, Duration::from_secs(2));

/// `-icount` as the user gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcountConfig {
    /// An instruction takes 2 to this many nanoseconds; none: so many that the guest's time goes like the host's.
    pub shift: Option<u32>,
    /// A guest that is faster than the host's clock waits for it.
    pub align: bool,
    /// While all vCPUs are idle, the clock goes like the host's; else it jumps to the next deadline at once.
    pub sleep: bool,
}

/// Nanoseconds by instructions.
struct Scale {
    shift: u32,
    bias: i64,
}
impl Scale {
    fn time(&self, instructions: u64) -> i64 {
        ((instructions as i64) << self.shift).wrapping_add(self.bias)
    }
}

/// The instruction-counting clock of a machine.
pub struct Icount {
    config: IcountConfig,
    count: Arc<Counted>,
    scale: Mutex<Scale>,
    pace: Mutex<Pace>,
    group: Weak<Group>,
    nearer: Mutex<Option<Box<dyn Fn() + Send>>>,
}

/// What `auto` and `align` remember.
struct Pace {
    looked: Instant,
    /// The guest's lead when it was looked at.
    lead: i64,
    warned: Option<Instant>,
}

impl Icount {
    pub(crate) fn new(config: IcountConfig, group: &Arc<Group>) -> Arc<Icount> {
        Arc::new(Icount {
            config,
            count: group.count_instructions(),
            scale: Mutex::new(Scale { shift: config.shift.unwrap_or(FIRST_SHIFT), bias: 0 }),
            pace: Mutex::new(Pace { looked: Instant::now(), lead: 0, warned: None }),
            group: Arc::downgrade(group),
            nearer: Mutex::default(),
        })
    }
    /// Sets what wakes the vCPUs' thread when a nearer deadline is armed.
    pub(crate) fn on_nearer(&self, f: impl Fn() + Send + 'static) {
        *self.nearer.lock() = Some(Box::new(f));
    }
    /// Instructions executed so far.
    pub fn executed(&self) -> u64 {
        self.count.get()
    }
    /// What an instruction takes, as a power of two of nanoseconds.
    pub fn shift(&self) -> u32 {
        self.scale.lock().shift
    }
    /// As the user gave it.
    pub fn config(&self) -> IcountConfig {
        self.config
    }
    /// Instructions that bring the clock to `deadline` or just past it; at least one.
    pub(crate) fn until(&self, deadline: u64) -> u64 {
        let s = self.scale.lock();
        let left = (deadline as i64).saturating_sub(s.time(self.count.get())).max(1) as u64;
        left.div_ceil(1 << s.shift)
    }
    /// Time passes without instructions.
    pub(crate) fn pass(&self, ns: u64) {
        let bias = &mut self.scale.lock().bias;
        *bias = bias.saturating_add_unsigned(ns);
    }
    /// The guest's lead over the host's clock, which stands while the machine does.
    fn lead(&self, core: &Core) -> i64 {
        (self.now() as i64).wrapping_sub(core.clocks.now_of(hw_core::ClockType::VirtualRt) as i64)
    }
    /// After a slice: `auto` corrects the shift; how long `align` wants the guest to wait.
    pub(crate) fn keep_pace(&self, core: &Core) -> Option<Duration> {
        if self.config.shift.is_none() {
            self.adjust(core);
        }
        if !self.config.align {
            return None;
        }
        let lead = self.lead(core);
        if lead > AHEAD {
            return Some(Duration::from_nanos(lead.unsigned_abs()));
        }
        let mut p = self.pace.lock();
        if -lead > LATE.0 && p.warned.is_none_or(|at| at.elapsed() > LATE.1) {
            p.warned = Some(Instant::now());
            drop(p);
            tracing::warn!("The guest is now late by {:.1} seconds", -lead as f64 / 1e9);
        }
        None
    }
    /// A guest that runs away slows down, one that falls behind speeds up.
    fn adjust(&self, core: &Core) {
        let mut p = self.pace.lock();
        if p.looked.elapsed() < ADJUST {
            return;
        }
        p.looked = Instant::now();
        let (before, lead) = (p.lead, self.lead(core));
        p.lead = lead;
        let s = &mut *self.scale.lock();
        let shift = if lead > 0 && lead > before {
            s.shift.saturating_sub(1)
        } else if lead < 0 && lead < before {
            (s.shift + 1).min(MAX_SHIFT)
        } else {
            return;
        };
        let n = self.count.get();
        let now = s.time(n);
        s.shift = shift;
        s.bias += now - s.time(n);
    }
}

impl InstructionClock for Icount {
    fn now(&self) -> u64 {
        self.scale.lock().time(self.count.get()).max(0) as u64
    }
    fn set(&self, now: u64) {
        let s = &mut *self.scale.lock();
        s.bias += now as i64 - s.time(self.count.get());
    }
    fn nearer(&self) {
        if let Some(g) = self.group.upgrade() {
            g.stop()
        }
        if let Some(f) = &*self.nearer.lock() {
            f()
        }
    }
}
