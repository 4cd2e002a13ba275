//! Clocks and timers. All times are nanoseconds.
//!
//! Four clocks, as QEMU names them: `realtime` (monotonic, always runs), `virtual` (stops with the machine), `host` (wall
//! clock since the Unix epoch), `virtual_rt` (the part of `realtime` during which the machine ran). The virtual clock has one of three
//! sources: the host's monotonic clock, a counter stepped by a test, or an instruction counter.
//!
//! Timers sit in one deadline queue per clock behind a small mutex, so that a vCPU can arm its local APIC timer without the
//! machine lock; equal deadlines fire in the order they were armed. The main loop sleeps until [`Clocks::next_deadline`]
//! and calls [`Clocks::run_expired`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};

use crate::locked::Locked;

/// One second.
pub const SECOND: u64 = 1_000_000_000;

/// Which clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockType {
    /// Monotonic, runs while the machine is stopped.
    Realtime,
    /// The guest's time.
    #[default]
    Virtual,
    /// Wall clock, nanoseconds since the Unix epoch; may jump.
    Host,
    /// Monotonic, stops with the machine, never instruction-counted.
    VirtualRt,
}

const CLOCKS: [ClockType; 4] = [ClockType::Realtime, ClockType::Virtual, ClockType::Host, ClockType::VirtualRt];

/// Where the virtual clock's time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// The host's monotonic clock.
    Monotonic,
    /// Stepped by [`Clocks::step`], as `-accel qtest` does.
    Stepped,
    /// An instruction counter, [`Clocks::set_icount`]. Whoever runs the vCPUs runs its timers too.
    Icount,
}

const NEVER: u64 = u64::MAX;
type Wake = Arc<dyn Fn(Duration) + Send + Sync>;

/// A virtual clock that counts instructions.
pub trait InstructionClock: Send + Sync {
    /// Its time.
    fn now(&self) -> u64;
    /// Makes `now` its time: part of loading a snapshot.
    fn set(&self, now: u64);
    /// A deadline was armed that comes before all others.
    fn nearer(&self);
}

/// The machine's clock service.
pub struct Clocks {
    start: Instant,
    source: AtomicU8,
    /// `virtual_rt` while it runs is the monotonic clock plus this.
    offset: AtomicI64,
    /// `virtual_rt` while it is stopped, [`NEVER`] while it runs.
    stopped_at: AtomicU64,
    running: AtomicBool,
    stepped: AtomicU64,
    icount: OnceLock<Arc<dyn InstructionClock>>,
    queues: [Queue; 4],
    wake: RwLock<Option<Wake>>,
}

#[derive(Default)]
struct Queue {
    timers: Mutex<Deadlines>,
    next: NextDeadline,
}

/// Copy of the first deadline that can be read without the mutex.
struct NextDeadline(AtomicU64);
impl Default for NextDeadline {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

#[derive(Default)]
struct Deadlines {
    order: BTreeMap<(u64, u64), Arc<TimerInner>>,
    armed: u64,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            source: AtomicU8::new(Source::Monotonic as u8),
            offset: AtomicI64::new(0),
            stopped_at: AtomicU64::new(0),
            running: AtomicBool::new(false),
            stepped: AtomicU64::new(0),
            icount: OnceLock::new(),
            queues: Default::default(),
            wake: RwLock::default(),
        }
    }
}

impl Clocks {
    /// The virtual clock.
    pub fn now(&self) -> u64 {
        match self.source() {
            Source::Monotonic => self.vm_time(),
            Source::Stepped => self.stepped.load(Ordering::Acquire),
            Source::Icount => self.icount.get().map_or(0, |c| c.now()),
        }
    }

    /// Time of any clock.
    pub fn now_of(&self, clock: ClockType) -> u64 {
        match clock {
            ClockType::Realtime => self.monotonic(),
            ClockType::Virtual => self.now(),
            ClockType::Host => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64),
            ClockType::VirtualRt => self.vm_time(),
        }
    }

    /// Where the virtual clock comes from.
    pub fn source(&self) -> Source {
        match self.source.load(Ordering::Relaxed) {
            1 => Source::Stepped,
            2 => Source::Icount,
            _ => Source::Monotonic,
        }
    }

    /// Makes the virtual clock one that only [`Clocks::step`] and [`Clocks::step_to`] move. Before the machine starts.
    pub fn set_stepped(&self) {
        self.source.store(Source::Stepped as u8, Ordering::Relaxed);
    }

    /// Makes the virtual clock count instructions. Before the machine starts; the first one stays.
    pub fn set_icount(&self, clock: Arc<dyn InstructionClock>) {
        _ = self.icount.set(clock);
        self.source.store(Source::Icount as u8, Ordering::Relaxed);
    }

    /// Sets what makes the main loop be awake in some time from now: when a nearer deadline is armed.
    pub fn set_wake(&self, wake: impl Fn(Duration) + Send + Sync + 'static) {
        *self.wake.write() = Some(Arc::new(wake));
    }

    /// Lets `virtual` and `virtual_rt` run.
    pub fn start(&self) {
        if !self.running.swap(true, Ordering::AcqRel) {
            let at = self.stopped_at.load(Ordering::Acquire);
            self.offset.store((at as i64).wrapping_sub(self.monotonic() as i64), Ordering::Release);
            self.stopped_at.store(NEVER, Ordering::Release);
            self.wake(Duration::ZERO);
        }
    }

    /// Stops `virtual` and `virtual_rt`; timers of the virtual clock wait until it runs again.
    pub fn stop(&self) {
        if self.running.swap(false, Ordering::AcqRel) {
            self.stopped_at.store(self.vm_time(), Ordering::Release);
        }
    }

    /// Whether the virtual clock runs.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Sets the virtual clock while the machine is stopped: part of loading a snapshot.
    pub fn restore(&self, now: u64) {
        self.stepped.store(now, Ordering::Release);
        if let Some(c) = self.icount.get() {
            c.set(now);
        }
        if !self.is_running() {
            self.stopped_at.store(now, Ordering::Release);
        }
    }

    fn monotonic(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn vm_time(&self) -> u64 {
        match self.stopped_at.load(Ordering::Acquire) {
            NEVER => (self.monotonic() as i64).wrapping_add(self.offset.load(Ordering::Acquire)) as u64,
            at => at,
        }
    }

    fn queue(&self, clock: ClockType) -> &Queue {
        let [realtime, virt, host, virtual_rt] = &self.queues;
        match clock {
            ClockType::Realtime => realtime,
            ClockType::Virtual => virt,
            ClockType::Host => host,
            ClockType::VirtualRt => virtual_rt,
        }
    }

    /// First deadline of a clock in that clock's time.
    pub fn deadline_of(&self, clock: ClockType) -> Option<u64> {
        Some(self.queue(clock).next.0.load(Ordering::Acquire)).filter(|d| *d != NEVER)
    }

    /// Nanoseconds until the main loop must call [`Clocks::run_expired`]; `None`: nothing to wait for. Stopped clocks and
    /// a virtual clock that does not follow the host's are left out.
    pub fn next_deadline(&self) -> Option<u64> {
        let counts = |c: &ClockType| match c {
            ClockType::Virtual => self.is_running() && self.source() == Source::Monotonic,
            ClockType::VirtualRt => self.is_running(),
            _ => true,
        };
        let wait = |c: ClockType| self.deadline_of(c).map(|d| d.saturating_sub(self.now_of(c)));
        CLOCKS.into_iter().filter(counts).filter_map(wait).min()
    }

    /// Runs every timer whose deadline has passed, but those of a clock that counts instructions. Deadlines are compared with
    /// the time at the start of the call, so a timer that arms itself again waits for the next one.
    pub fn run_expired(&self, m: &mut Locked) {
        for clock in CLOCKS {
            let runs = self.is_running() && self.source() != Source::Icount;
            if clock != ClockType::Virtual || runs {
                self.run_clock(clock, m);
            }
        }
    }

    /// Runs the expired timers of one clock, whether it is stopped or not.
    pub fn run_clock(&self, clock: ClockType, m: &mut Locked) {
        let queue = self.queue(clock);
        if queue.next.0.load(Ordering::Acquire) == NEVER {
            return;
        }
        let now = self.now_of(clock);
        loop {
            let timer = {
                let mut d = queue.timers.lock();
                let Some(first) = d.order.first_entry().filter(|e| e.key().0 <= now) else { break };
                let timer = first.remove();
                timer.key.lock().take();
                queue.publish(&d);
                timer
            };
            m.guarded(|m| (timer.call)(m), || "a timer's callback".to_owned());
        }
    }

    /// Moves a stepped virtual clock forward by `ns`, timer by timer.
    pub fn step(&self, m: &mut Locked, ns: u64) {
        self.step_to(m, self.now().saturating_add(ns));
    }

    /// Moves a stepped virtual clock forward to `to`, timer by timer. A clock with another source is left alone.
    pub fn step_to(&self, m: &mut Locked, to: u64) {
        while self.source() == Source::Stepped {
            let now = self.now();
            let next = self.deadline_of(ClockType::Virtual).unwrap_or(NEVER).clamp(now, to.max(now));
            self.stepped.store(next, Ordering::Release);
            self.run_clock(ClockType::Virtual, m);
            if next >= to {
                break;
            }
        }
    }

    fn wake(&self, within: Duration) {
        let wake = self.wake.read().clone();
        if let Some(wake) = wake {
            wake(within);
        }
    }

    fn arm(&self, timer: &Arc<TimerInner>, deadline: Option<u64>) {
        let queue = self.queue(timer.clock);
        let nearer = {
            let mut d = queue.timers.lock();
            let mut key = timer.key.lock();
            if let Some(old) = key.take() {
                d.order.remove(&old);
            }
            if let Some(at) = deadline.filter(|at| *at != NEVER) {
                d.armed += 1;
                *key = Some((at, d.armed));
                let place = (at, d.armed);
                d.order.insert(place, timer.clone());
            }
            let before = queue.next.0.load(Ordering::Relaxed);
            queue.publish(&d) < before
        };
        if nearer {
            match self.icount.get().filter(|_| timer.clock == ClockType::Virtual) {
                Some(c) => c.nearer(),
                // (Nobody can say when a clock that is stepped will be there.)
                None if timer.clock == ClockType::Virtual && self.source() == Source::Stepped => {
                    self.wake(Duration::ZERO)
                }
                None => {
                    let wait = deadline.map_or(0, |at| at.saturating_sub(self.now_of(timer.clock)));
                    self.wake(Duration::from_nanos(wait));
                }
            }
        }
    }
}

impl Queue {
    fn publish(&self, d: &Deadlines) -> u64 {
        let first = d.order.first_key_value().map_or(NEVER, |(k, _)| k.0);
        self.next.0.store(first, Ordering::Release);
        first
    }
}

type Expired = Box<dyn Fn(&mut Locked) + Send + Sync>;

struct TimerInner {
    clock: ClockType,
    call: Expired,
    /// Place in the queue: deadline and order of arming. Changed under the queue's mutex only.
    key: Mutex<Option<(u64, u64)>>,
}

/// A timer of a device. Not part of its state: it is armed again from the registers when a snapshot is loaded.
#[derive(Default)]
pub struct Timer(OnceLock<(Arc<Clocks>, Arc<TimerInner>)>);

impl Timer {
    /// A timer that belongs to no object.
    pub fn new(clocks: &Arc<Clocks>, clock: ClockType, call: impl Fn(&mut Locked) + Send + Sync + 'static) -> Self {
        let timer = Self::default();
        timer.set_up(clocks, clock, Box::new(call));
        timer
    }

    /// Gives the timer its clock and what it calls; the second call has no effect.
    pub(crate) fn set_up(&self, clocks: &Arc<Clocks>, clock: ClockType, call: Expired) {
        _ = self.0.set((clocks.clone(), Arc::new(TimerInner { clock, call, key: Mutex::default() })));
    }

    /// Calls back at `deadline` (the clock's time, ns; a time in the past fires at once, from the main loop), or not at
    /// all for `None`. Replaces an earlier deadline.
    pub fn arm(&self, _m: &mut Locked, deadline: Option<u64>) {
        self.arm_free(deadline);
    }

    /// [`Timer::arm`] for state that is not under the machine lock (the local APIC).
    pub fn arm_free(&self, deadline: Option<u64>) {
        match self.0.get() {
            Some((clocks, timer)) => clocks.arm(timer, deadline),
            None => tracing::error!("a timer is armed before it was initialised"),
        }
    }

    /// The pending deadline.
    pub fn deadline(&self) -> Option<u64> {
        self.0.get().and_then(|(_, t)| *t.key.lock()).map(|(at, _)| at)
    }

    /// Whether a deadline is pending.
    pub fn is_armed(&self) -> bool {
        self.deadline().is_some()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((clocks, timer)) = self.0.get() {
            clocks.arm(timer, None);
        }
    }
}
