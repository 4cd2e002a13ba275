//! `thread=single`: all vCPUs take turns on one thread, in the order of their numbers.
//!
//! A turn is a number of instructions, whatever else happens meanwhile: with an instruction-counting clock who runs when depends on
//! the guests alone. The thread then also runs the timers of that clock, each when its instruction comes.

use crate::{icount::Icount, tcg::Exit, tcg_accel::VcpuThread};
use hw_core::{ClockType, Core, Cpu, RunState, clock::InstructionClock};
use parking_lot::{Condvar, Mutex};
use qom::{Error, Ref, Result};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Instructions that a vCPU runs before it lets another one run, and at most some more: turns of one length could end in one
/// place of a loop for ever, where it holds the lock that all others wait for.
const TURN: u64 = 200_000;
/// The length of turn number `n`.
const fn length(n: u64) -> u64 {
    // (Fractions of multiples of the golden ratio spread evenly.)
    TURN + (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54)
}

/// A vCPU of the thread.
#[derive(Clone)]
struct Member {
    cpu: Ref<Cpu>,
    thread: Arc<dyn VcpuThread>,
    number: u32,
    started: bool,
}

#[derive(Default)]
struct State {
    /// By number.
    members: Vec<Member>,
    /// Somebody did something to a vCPU since the thread looked.
    kicked: bool,
    /// The thread exists.
    running: bool,
}

/// The thread and who takes turns on it.
#[derive(Default)]
pub(crate) struct RoundRobin {
    state: Mutex<State>,
    wake: Condvar,
}

/// A stretch of time in which no vCPU had anything to do.
#[derive(Clone, Copy)]
struct Idle {
    since: Instant,
    /// The clock when it began.
    at: u64,
}

impl RoundRobin {
    /// Makes the thread look at its vCPUs again.
    pub fn kick(&self) {
        self.state.lock().kicked = true;
        self.wake.notify_all();
    }
    /// Adds a vCPU; the first one brings the thread to life.
    pub fn add(
        self: &Arc<Self>,
        cpu: &Ref<Cpu>,
        number: u32,
        thread: Arc<dyn VcpuThread>,
        icount: Option<Arc<Icount>>,
    ) -> Result<()> {
        let mut s = self.state.lock();
        s.members.push(Member { cpu: cpu.clone(), thread, number, started: false });
        s.members.sort_by_key(|m| m.number);
        s.kicked = true;
        self.wake.notify_all();
        if std::mem::replace(&mut s.running, true) {
            return Ok(());
        }
        drop(s);
        let this = self.clone();
        let spawned = std::thread::Builder::new().name("ALL CPUs/TCG".to_owned()).spawn(move || this.run(icount));
        if let Err(e) = spawned {
            let mut s = self.state.lock();
            s.running = false;
            s.members.retain(|m| m.number != number);
            return Err(Error::generic(format!("cannot create the thread of the CPUs: {e}")));
        }
        Ok(())
    }
    /// The vCPUs as they are now: those that came are greeted, those that go are let go. None: the last one went.
    fn members(&self) -> Option<Vec<Member>> {
        let mut s = self.state.lock();
        s.kicked = false;
        for m in s.members.iter_mut().filter(|m| !m.started) {
            m.cpu.thread_started();
            m.started = true;
        }
        let (gone, stay): (Vec<_>, Vec<_>) = s.members.drain(..).partition(|m| m.cpu.is_unplugged());
        s.members = stay;
        let last = s.members.is_empty();
        if last {
            s.running = false
        }
        let members = s.members.clone();
        drop(s);
        gone.iter().for_each(|m| m.cpu.thread_ended());
        (!last).then_some(members)
    }
    /// Waits for a kick, or until a time.
    fn wait(&self, until: Option<Instant>) {
        let mut s = self.state.lock();
        while !s.kicked {
            match until {
                None => self.wake.wait(&mut s),
                Some(t) if self.wake.wait_until(&mut s, t).timed_out() => return,
                Some(_) => {}
            }
        }
    }
    fn run(&self, icount: Option<Arc<Icount>>) {
        let counted = icount.as_deref();
        // Whose turn it is, and instructions left of it.
        let (mut turn, mut left, mut turns) = (0, TURN, 0);
        let mut idle = None;
        while let Some(members) = self.members() {
            let Some(core) = members.first().map(|m| Core::of(&*m.cpu)) else { return };
            let stands = |m: &Member| m.cpu.is_stopped();
            // (Work and requests to stop come first: a machine that is to stand runs no timers.)
            let mut ready: Vec<bool> = members.iter().map(|m| m.cpu.poll_io_event()).collect();
            let stands = members.iter().any(stands);
            // A machine that stands has no time, unless it sleeps.
            let passes = core.clocks.is_running() && (!stands || core.requests.state() == RunState::Suspended);
            let clock = counted.filter(|_| passes);
            if let Some(c) = clock
                && core.clocks.deadline_of(ClockType::Virtual).is_some_and(|d| d <= c.now())
            {
                core.clocks.run_clock(ClockType::Virtual, &mut core.lock());
                ready = members.iter().map(|m| m.cpu.poll_io_event()).collect();
            }
            let next = if stands { None } else { choose(&members, &ready, turn, left) };
            let Some(m) = next.and_then(|i| members.get(i)) else {
                match clock {
                    Some(c) => self.rest(core, c, &mut idle),
                    None => {
                        idle = None;
                        self.wait(None)
                    }
                }
                continue;
            };
            if let (Some(i), Some(c)) = (idle.take(), clock) {
                end_rest(core, c, i)
            }
            if m.number != turn || left == 0 {
                turns += 1;
                (turn, left) = (m.number, length(turns))
            }
            let deadline = clock.and_then(|c| Some(c.until(core.clocks.deadline_of(ClockType::Virtual)?)));
            let (exit, done) = m.thread.turn(&m.cpu, deadline.map_or(left, |d| d.min(left)));
            left = if exit == Exit::Halted { 0 } else { left.saturating_sub(done) };
            if let Some(hold) = clock.and_then(|c| c.keep_pace(core)) {
                self.wait(Some(Instant::now() + hold))
            }
        }
    }
    /// No vCPU has anything to do: the clock goes to the next deadline, at the host's speed or at once.
    fn rest(&self, core: &Core, c: &Icount, idle: &mut Option<Idle>) {
        let deadline = core.clocks.deadline_of(ClockType::Virtual);
        if c.config().sleep {
            let i = idle.get_or_insert_with(|| Idle { since: Instant::now(), at: c.now() });
            let until = deadline.map(|d| i.since + Duration::from_nanos(d.saturating_sub(i.at)));
            if until.is_none_or(|t| Instant::now() < t) {
                return self.wait(until);
            }
            *idle = None;
        }
        // (To the nanosecond, however long the host slept.)
        match deadline {
            Some(d) => c.pass(d.saturating_sub(c.now())),
            None => self.wait(None),
        }
    }
}

/// Something from outside ended a rest: the time it took has passed for the guest.
fn end_rest(core: &Core, c: &Icount, idle: Idle) {
    let passed = idle.since.elapsed().as_nanos() as u64;
    let deadline = core.clocks.deadline_of(ClockType::Virtual);
    c.pass(deadline.map_or(passed, |d| passed.min(d.saturating_sub(idle.at))))
}

/// Who runs: the vCPU whose turn it is, or the next one that can.
fn choose(members: &[Member], ready: &[bool], turn: u32, left: u64) -> Option<usize> {
    let at = members.iter().position(|m| m.number >= turn).unwrap_or(0);
    let same = members.get(at).is_some_and(|m| m.number == turn);
    let first = if same && left == 0 { at + 1 } else { at };
    (first..first + members.len()).map(|i| i % members.len()).find(|&i| ready.get(i) == Some(&true))
}
