//! A group of drives and nodes that share limits.

use super::bucket::{Buckets, Limits};
use hw_core::clock::{ClockType, Clocks, Source, Timer};
use parking_lot::Mutex;
use qom::Result;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

/// What a request does when it may go.
type Go = Box<dyn FnOnce() + Send>;

/// The requests of one member that wait.
struct Line {
    member: u64,
    waiting: VecDeque<(u64, Go)>,
}

#[derive(Default)]
struct State {
    buckets: Buckets,
    /// Reads and writes; members take turns.
    lines: [VecDeque<Line>; 2],
    /// Drains under way: no limits.
    lifted: usize,
}

/// A group.
pub struct Group {
    name: String,
    clocks: Arc<Clocks>,
    state: Mutex<State>,
    timer: OnceLock<Timer>,
    this: Weak<Group>,
}

impl State {
    /// The next request of a direction, whose turn it is.
    fn pop(&mut self, write: bool) -> Option<(u64, Go)> {
        let lines = self.lines.get_mut(usize::from(write))?;
        let mut line = lines.pop_front()?;
        let next = line.waiting.pop_front();
        if !line.waiting.is_empty() {
            lines.push_back(line);
        }
        next
    }

    fn push(&mut self, write: bool, member: u64, bytes: u64, go: Go) {
        let Some(lines) = self.lines.get_mut(usize::from(write)) else { return };
        match lines.iter_mut().find(|l| l.member == member) {
            Some(line) => line.waiting.push_back((bytes, go)),
            None => lines.push_back(Line { member, waiting: VecDeque::from([(bytes, go)]) }),
        }
    }

    fn waits(&self, write: bool) -> bool {
        self.lines.get(usize::from(write)).is_some_and(|l| !l.is_empty())
    }

    /// Requests that may go now, and when the next may, in ns from now.
    fn due(&mut self, now: Option<u64>) -> (Vec<Go>, Option<u64>) {
        let (mut go, mut next): (Vec<Go>, Option<u64>) = (vec![], None);
        for write in [false, true] {
            while self.waits(write) {
                let wait = now.filter(|_| self.lifted == 0).map_or(0, |now| self.buckets.wait(write, now));
                if wait > 0 {
                    next = Some(next.map_or(wait, |n| n.min(wait)));
                    break;
                }
                if let Some((bytes, run)) = self.pop(write) {
                    self.buckets.account(write, bytes);
                    go.push(run);
                }
            }
        }
        (go, next)
    }
}

impl Group {
    pub(crate) fn new(name: &str, clocks: &Arc<Clocks>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            name: name.to_owned(),
            clocks: clocks.clone(),
            state: Mutex::default(),
            timer: OnceLock::new(),
            this: this.clone(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        *self.state.lock().buckets.limits()
    }

    /// The guest's time where that is not the host's: a test or a count of instructions moves it then.
    fn clock(&self) -> ClockType {
        if self.clocks.source() == Source::Monotonic { ClockType::Realtime } else { ClockType::Virtual }
    }

    /// The time; None: it stands still, and nothing waits for it.
    fn now(&self) -> Option<u64> {
        let clock = self.clock();
        let stands = clock == ClockType::Virtual && !self.clocks.is_running();
        if stands { None } else { Some(self.clocks.now_of(clock)) }
    }

    /// Sets the limits; what waits is looked at again.
    ///
    /// # Errors
    /// They make no sense together.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        limits.check()?;
        let now = self.now().unwrap_or(0);
        self.state.lock().buckets = Buckets::new(limits, now);
        self.run();
        Ok(())
    }

    /// Calls `go` when a request of `bytes` bytes of member `member` may be made: now, or later from the main loop.
    pub(crate) fn enter(&self, member: u64, write: bool, bytes: u64, go: Go) {
        let now = self.now();
        let mut s = self.state.lock();
        let free = match now {
            Some(now) if s.lifted == 0 => !s.waits(write) && s.buckets.wait(write, now) == 0,
            _ => true,
        };
        if free {
            s.buckets.account(write, bytes);
            drop(s);
            go();
            return;
        }
        s.push(write, member, bytes, go);
        drop(s);
        self.run();
    }

    /// Everything is drained, or not any more.
    pub(crate) fn lift(&self, on: bool) {
        {
            let mut s = self.state.lock();
            s.lifted = if on { s.lifted + 1 } else { s.lifted.saturating_sub(1) };
        }
        self.run();
    }

    /// What looks again at those that wait.
    fn new_timer(&self) -> Timer {
        let this = self.this.clone();
        Timer::new(&self.clocks, self.clock(), move |_| {
            if let Some(group) = this.upgrade() {
                group.run();
            }
        })
    }

    /// Lets go what may go, and arms the timer for the rest.
    fn run(&self) {
        let now = self.now();
        let mut s = self.state.lock();
        let (go, next) = s.due(now);
        // Still locked: who looked before a request came must not put the timer off that was armed for it.
        let at = next.zip(now).map(|(wait, now)| now.saturating_add(wait));
        if at.is_some() || self.timer.get().is_some() {
            // (Not before: limits are set before it is known by which clock the machine goes.)
            self.timer.get_or_init(|| self.new_timer()).arm_free(at)
        }
        drop(s);
        go.into_iter().for_each(|go| go());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Limit;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn machine() -> Arc<hw_core::Core> {
        let core = hw_core::Core::new();
        core.clocks.set_stepped();
        core.clocks.start();
        core
    }

    fn group(core: &hw_core::Core, bps: u64) -> Arc<Group> {
        let group = Group::new("g", &core.clocks);
        let mut limits = Limits::default();
        limits.all[0] = Limit { avg: bps, ..Limit::default() };
        group.set_limits(limits).unwrap();
        group
    }

    fn ask(group: &Group, member: u64, gone: &Arc<AtomicUsize>) {
        let gone = gone.clone();
        group.enter(member, true, 1000, Box::new(move || _ = gone.fetch_add(1, SeqCst)));
    }

    #[test]
    fn requests_go_at_the_rate_of_the_machines_clock() {
        let core = machine();
        let (g, gone) = (group(&core, 10_000), Arc::new(AtomicUsize::new(0)));
        (0..30).for_each(|_| ask(&g, 1, &gone));
        // Two fit: the second finds the bucket full, not over.
        assert_eq!(gone.load(SeqCst), 2);
        core.clocks.step(&mut core.lock(), 1_000_000_000);
        assert_eq!(gone.load(SeqCst), 12);
        core.clocks.step(&mut core.lock(), 1_000_000_000);
        assert_eq!(gone.load(SeqCst), 22);
    }

    #[test]
    fn members_take_turns() {
        let core = machine();
        let (g, many, few) = (group(&core, 10_000), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        (0..100).for_each(|_| ask(&g, 1, &many));
        (0..10).for_each(|_| ask(&g, 2, &few));
        core.clocks.step(&mut core.lock(), 1_000_000_000);
        assert_eq!((many.load(SeqCst), few.load(SeqCst)), (7, 5));
    }

    #[test]
    fn a_drain_lets_all_go_and_new_limits_hold_at_once() {
        let core = machine();
        let (g, gone) = (group(&core, 1000), Arc::new(AtomicUsize::new(0)));
        (0..20).for_each(|_| ask(&g, 1, &gone));
        assert!(gone.load(SeqCst) < 3);
        g.lift(true);
        ask(&g, 1, &gone);
        assert_eq!(gone.load(SeqCst), 21);
        g.lift(false);
        ask(&g, 1, &gone);
        assert_eq!(gone.load(SeqCst), 21);
        g.set_limits(Limits::default()).unwrap();
        assert_eq!(gone.load(SeqCst), 22);
    }

    #[test]
    fn a_clock_that_stands_still_limits_nothing() {
        let core = machine();
        let (g, gone) = (group(&core, 1000), Arc::new(AtomicUsize::new(0)));
        core.clocks.stop();
        (0..20).for_each(|_| ask(&g, 1, &gone));
        assert_eq!(gone.load(SeqCst), 20);
    }
}
