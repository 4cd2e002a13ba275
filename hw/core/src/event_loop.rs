//! The loop that waits for the host: file descriptors, host-time timers and work posted from other threads.
//!
//! One thread runs [`EventLoop::run_once`] over and over; every callback is called on that thread with no lock held, so a
//! callback may take the machine lock. Any thread may add, change or remove watches and timers or post work; a sleeping loop is
//! woken through an eventfd. Built on `poll(2)`: a machine has a few dozen descriptors, and regular files can be polled too.
//!
//! Guest timers are not here: they belong to the machine's clocks, which only tell the loop how long it may sleep.

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

bitflags::bitflags! {
    /// What a descriptor is waited for, and what was found. `HANGUP` is reported whenever anything is waited for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Ready: u8 {
        /// Bytes (or a connection, or end of file) can be read.
        const READ = 1;
        /// A write would take at least one byte.
        const WRITE = 2;
        /// The other end is gone, or the descriptor is in error.
        const HANGUP = 4;
    }
}

/// Called when a watched descriptor is ready.
pub type FdCallback = Arc<dyn Fn(Ready) + Send + Sync>;
/// Work for the loop's thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// How often jobs that jobs post run before descriptors are looked at.
const PASSES: usize = 4;

struct Entry {
    fd: Arc<OwnedFd>,
    interest: Ready,
    call: FdCallback,
}

#[derive(Default)]
struct State {
    next_id: u64,
    fds: BTreeMap<u64, Entry>,
    timers: BTreeMap<(Instant, u64), Job>,
    jobs: VecDeque<Job>,
}

struct Inner {
    state: Mutex<State>,
    wake: OwnedFd,
    sleeping: AtomicBool,
}

/// Handle of an event loop; clones share it.
#[derive(Clone)]
pub struct EventLoop {
    inner: Arc<Inner>,
}

impl EventLoop {
    /// A loop that watches nothing yet.
    ///
    /// # Errors
    /// When the host has no descriptor left for the eventfd.
    pub fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let inner = Inner { state: Mutex::default(), wake, sleeping: AtomicBool::new(false) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Watches `fd`; the watch ends when the returned handle is dropped. An empty interest keeps the watch asleep.
    #[must_use = "dropping the handle ends the watch"]
    pub fn watch(&self, fd: Arc<OwnedFd>, interest: Ready, call: impl Fn(Ready) + Send + Sync + 'static) -> Watch {
        let mut s = self.inner.state.lock();
        s.next_id += 1;
        let id = s.next_id;
        s.fds.insert(id, Entry { fd, interest, call: Arc::new(call) });
        drop(s);
        self.wake_up();
        Watch { id, owner: self.clone() }
    }

    /// Runs `job` once `delay` of host time has passed, unless the handle is dropped before.
    #[must_use = "dropping the handle cancels the timer"]
    pub fn after(&self, delay: Duration, job: impl FnOnce() + Send + 'static) -> HostTimer {
        HostTimer { key: self.schedule(delay, job), owner: self.clone() }
    }

    /// [`EventLoop::after`] that cannot be cancelled.
    pub fn later(&self, delay: Duration, job: impl FnOnce() + Send + 'static) {
        self.schedule(delay, job);
    }

    fn schedule(&self, delay: Duration, job: impl FnOnce() + Send + 'static) -> (Instant, u64) {
        let mut s = self.inner.state.lock();
        s.next_id += 1;
        let key = (Instant::now() + delay, s.next_id);
        s.timers.insert(key, Box::new(job));
        drop(s);
        self.wake_up();
        key
    }

    /// Runs `job` on the loop's thread, in this round or the next. Jobs run in the order they were posted.
    pub fn post(&self, job: impl FnOnce() + Send + 'static) {
        self.inner.state.lock().jobs.push_back(Box::new(job));
        self.wake_up();
    }

    /// Ends the current sleep of the loop, if it sleeps, or makes the next one not happen.
    pub fn wake(&self) {
        // An eventfd write fails only when its counter is full, and then the loop is awake anyway.
        let _ = rustix::io::write(&self.inner.wake, &1u64.to_ne_bytes());
    }

    fn wake_up(&self) {
        if self.inner.sleeping.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Waits until something is ready, at most `timeout` (`None`: no limit), and runs what is due: descriptors first, then
    /// timers, then jobs: also those that jobs post, a few times in turn before descriptors are looked at again. Says whether anything ran.
    pub fn run_once(&self, timeout: Option<Duration>) -> bool {
        let ready = self.wait(timeout);
        let mut ran = false;
        for (id, found) in ready {
            // The callback before this one may have removed or silenced the watch.
            let call = {
                let s = self.inner.state.lock();
                s.fds.get(&id).filter(|e| !e.interest.is_empty()).map(|e| e.call.clone())
            };
            if let Some(call) = call {
                call(found);
                ran = true;
            }
        }
        let now = Instant::now();
        loop {
            let job = {
                let mut s = self.inner.state.lock();
                match s.timers.first_entry() {
                    Some(e) if e.key().0 <= now => e.remove(),
                    _ => break,
                }
            };
            job();
            ran = true;
        }
        for _ in 0..PASSES {
            let jobs = std::mem::take(&mut self.inner.state.lock().jobs);
            if jobs.is_empty() {
                break;
            }
            for job in jobs {
                job();
                ran = true;
            }
        }
        ran
    }

    /// One `poll(2)`; what was found, by watch.
    fn wait(&self, timeout: Option<Duration>) -> Vec<(u64, Ready)> {
        let (watched, sleep) = {
            let s = self.inner.state.lock();
            // From here on whoever changes the state also writes the eventfd.
            self.inner.sleeping.store(true, Ordering::SeqCst);
            let watched: Vec<_> = s
                .fds
                .iter()
                .filter(|(_, e)| !e.interest.is_empty())
                .map(|(id, e)| (*id, e.fd.clone(), e.interest))
                .collect();
            let timer = s.timers.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()));
            let sleep = if s.jobs.is_empty() { timeout.into_iter().chain(timer).min() } else { Some(Duration::ZERO) };
            (watched, sleep)
        };
        let mut polled: Vec<PollFd<'_>> = vec![PollFd::new(&self.inner.wake, PollFlags::IN)];
        polled.extend(watched.iter().map(|(_, fd, interest)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, interest.contains(Ready::READ));
            flags.set(PollFlags::OUT, interest.contains(Ready::WRITE));
            PollFd::new(&**fd, flags)
        }));
        let limit = sleep
            .map(|d| Timespec { tv_sec: d.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: d.subsec_nanos().into() });
        // EINTR is a wake-up like any other; other errors (memory) are answered by trying again.
        let _ = poll(&mut polled, limit.as_ref());
        self.inner.sleeping.store(false, Ordering::SeqCst);
        let mut results = polled.iter().map(PollFd::revents);
        if results.next().is_some_and(|r| r.contains(PollFlags::IN)) {
            let mut count = [0u8; 8];
            let _ = rustix::io::read(&self.inner.wake, &mut count);
        }
        let found = results.map(|r| {
            let mut ready = Ready::empty();
            ready.set(Ready::READ, r.contains(PollFlags::IN));
            ready.set(Ready::WRITE, r.contains(PollFlags::OUT));
            ready.set(Ready::HANGUP, r.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL));
            ready
        });
        watched.iter().map(|(id, ..)| *id).zip(found).filter(|(_, r)| !r.is_empty()).collect()
    }
}

/// A watched descriptor; dropping it ends the watch (a callback that already started still finishes).
pub struct Watch {
    id: u64,
    owner: EventLoop,
}

impl Watch {
    /// Changes what the descriptor is waited for.
    pub fn set_interest(&self, interest: Ready) {
        let mut s = self.owner.inner.state.lock();
        let Some(e) = s.fds.get_mut(&self.id) else { return };
        if e.interest == interest {
            return;
        }
        e.interest = interest;
        drop(s);
        self.owner.wake_up();
    }

    /// What the descriptor is waited for now.
    pub fn interest(&self) -> Ready {
        self.owner.inner.state.lock().fds.get(&self.id).map_or(Ready::empty(), |e| e.interest)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let gone = self.owner.inner.state.lock().fds.remove(&self.id);
        drop(gone); // after the lock: the callback may own things whose drop comes back here
        self.owner.wake_up();
    }
}

/// A pending host timer; dropping it cancels it.
pub struct HostTimer {
    key: (Instant, u64),
    owner: EventLoop,
}

impl Drop for HostTimer {
    fn drop(&mut self) {
        let gone = self.owner.inner.state.lock().timers.remove(&self.key);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_readable_descriptor_is_reported_until_silenced() {
        let ev = EventLoop::new().unwrap();
        let (r, w) = rustix::pipe::pipe().unwrap();
        let hits = Arc::new(AtomicU32::new(0));
        let h = hits.clone();
        let watch = ev.watch(Arc::new(r), Ready::READ, move |_| {
            h.fetch_add(1, Ordering::SeqCst);
        });
        assert!(!ev.run_once(Some(Duration::ZERO)));
        rustix::io::write(&w, b"x").unwrap();
        ev.run_once(Some(Duration::ZERO));
        ev.run_once(Some(Duration::ZERO));
        assert_eq!(hits.load(Ordering::SeqCst), 2);
        watch.set_interest(Ready::empty());
        ev.run_once(Some(Duration::ZERO));
        drop(watch);
        ev.run_once(Some(Duration::ZERO));
        assert_eq!(hits.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_job_posted_from_another_thread_ends_the_sleep() {
        let ev = EventLoop::new().unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        let poster = std::thread::spawn({
            let ev = ev.clone();
            move || {
                std::thread::sleep(Duration::from_millis(20));
                ev.post(move || tx.send(()).unwrap());
            }
        });
        while rx.try_recv().is_err() {
            ev.run_once(None);
        }
        poster.join().unwrap();
    }

    #[test]
    fn timers_run_in_order_and_a_dropped_one_never() {
        let ev = EventLoop::new().unwrap();
        let log = Arc::new(Mutex::new(vec![]));
        let push = |n: u32| {
            let log = log.clone();
            move || log.lock().push(n)
        };
        let _b = ev.after(Duration::from_millis(2), push(2));
        let _a = ev.after(Duration::from_millis(1), push(1));
        drop(ev.after(Duration::ZERO, push(3)));
        while log.lock().len() < 2 {
            ev.run_once(None);
        }
        assert_eq!(*log.lock(), [1, 2]);
    }
}
