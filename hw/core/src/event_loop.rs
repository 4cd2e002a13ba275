//! The loop that waits for the host: file descriptors, host-time timers and work posted from other threads.
//!
//! One thread runs [`EventLoop::run_once`] over and over; every callback is called on that thread with no lock held, so a
//! callback may take the machine lock. Any thread may add, change or remove watches and timers or post work; a sleeping loop is
//! woken through an eventfd where it would sleep too long otherwise. Descriptors are the `poller`'s.
//!
//! Guest timers are not here: they belong to the machine's clocks, which only tell the loop how long it may sleep.

mod poller;

use parking_lot::Mutex;
use poller::Poller;
use rustix::event::{EventfdFlags, Timespec, eventfd};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
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

/// How long the loop sleeps while the host does not take what is waited for.
const RETRY: Duration = Duration::from_millis(10);

struct Entry {
    /// Its place in the poller.
    slot: u64,
    call: FdCallback,
}

/// Whether the loop sleeps, and until when.
#[derive(Clone, Copy)]
enum Sleep {
    Awake,
    Until(Instant),
    ForEver,
}

struct State {
    next_id: u64,
    watches: BTreeMap<u64, Entry>,
    poller: Poller,
    timers: BTreeMap<(Instant, u64), Job>,
    jobs: VecDeque<Job>,
    sleep: Sleep,
    /// The next sleep ends then: somebody asked for it while the loop was awake.
    wake_by: Option<Instant>,
}

impl State {
    /// What is waited for changed: tells the host at once if the loop sleeps; true: it must be woken besides.
    fn changed(&mut self) -> bool {
        if matches!(self.sleep, Sleep::Awake) {
            return false;
        }
        (!self.poller.apply() || self.poller.is_ready()) && self.rouse()
    }

    fn sleeps_beyond(&self, at: Instant) -> bool {
        match self.sleep {
            Sleep::Awake => false,
            Sleep::Until(end) => end > at,
            Sleep::ForEver => true,
        }
    }

    /// Whether somebody must write to the eventfd; the next one need not.
    fn rouse(&mut self) -> bool {
        !matches!(std::mem::replace(&mut self.sleep, Sleep::Awake), Sleep::Awake)
    }
}

struct Inner {
    state: Mutex<State>,
    wake: OwnedFd,
    epoll: Arc<OwnedFd>,
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
    /// When the host has no descriptor left for the eventfd or the epoll instance.
    pub fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let poller = Poller::new()?;
        let epoll = poller.descriptor();
        let (watches, timers, jobs) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let state = Mutex::new(State { next_id: 0, watches, poller, timers, jobs, sleep: Sleep::Awake, wake_by: None });
        Ok(Self { inner: Arc::new(Inner { state, wake, epoll }) })
    }

    /// Watches `fd`; the watch ends when the returned handle is dropped. An empty interest keeps the watch asleep.
    #[must_use = "dropping the handle ends the watch"]
    pub fn watch(&self, fd: Arc<OwnedFd>, interest: Ready, call: impl Fn(Ready) + Send + Sync + 'static) -> Watch {
        let mut s = self.inner.state.lock();
        s.next_id += 1;
        let id = s.next_id;
        let slot = s.poller.add(id, fd, interest);
        s.watches.insert(id, Entry { slot, call: Arc::new(call) });
        let wakes = s.changed();
        drop(s);
        self.wake_if(wakes);
        Watch { id, slot, owner: self.clone() }
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
        let wakes = s.sleeps_beyond(key.0) && s.rouse();
        drop(s);
        self.wake_if(wakes);
        key
    }

    /// Runs `job` on the loop's thread, in this round or the next. Jobs run in the order they were posted.
    pub fn post(&self, job: impl FnOnce() + Send + 'static) {
        let mut s = self.inner.state.lock();
        s.jobs.push_back(Box::new(job));
        let wakes = s.rouse();
        drop(s);
        self.wake_if(wakes);
    }

    /// Ends the current sleep of the loop, if it sleeps, or makes the next one not happen.
    pub fn wake(&self) {
        // An eventfd write fails only when its counter is full, and then the loop is awake anyway.
        let _ = rustix::io::write(&self.inner.wake, &1u64.to_ne_bytes());
    }

    /// Makes the loop be awake in this time from now, once, whatever it does now. Costs nothing if it will be anyway.
    pub fn wake_within(&self, delay: Duration) {
        let Some(at) = Instant::now().checked_add(delay) else { return };
        let mut s = self.inner.state.lock();
        if matches!(s.sleep, Sleep::Awake) {
            s.wake_by = Some(s.wake_by.map_or(at, |by| by.min(at)));
            return;
        }
        let wakes = s.sleeps_beyond(at) && s.rouse();
        drop(s);
        self.wake_if(wakes);
    }

    fn wake_if(&self, wakes: bool) {
        if wakes {
            self.wake();
        }
    }

    /// Whether the loop sleeps now.
    #[cfg(test)]
    fn is_asleep(&self) -> bool {
        !matches!(self.inner.state.lock().sleep, Sleep::Awake)
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
                let awake = |e: &&Entry| !s.poller.interest(e.slot, id).is_empty();
                s.watches.get(&id).filter(awake).map(|e| e.call.clone())
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

    /// Waits once; what was found, by watch.
    fn wait(&self, timeout: Option<Duration>) -> Vec<(u64, Ready)> {
        let sleep = {
            let mut s = self.inner.state.lock();
            let applied = s.poller.apply();
            let now = Instant::now();
            let timer = s.timers.first_key_value().map(|((at, _), _)| at.saturating_duration_since(now));
            let retry = (!applied).then_some(RETRY);
            let none = (!s.jobs.is_empty() || s.poller.is_ready()).then_some(Duration::ZERO);
            let asked = s.wake_by.take().map(|at| at.saturating_duration_since(now));
            let sleep = [timeout, timer, retry, none, asked].into_iter().flatten().min();
            // From here on changes that the loop must hear of write the eventfd.
            s.sleep = match sleep {
                Some(Duration::ZERO) => Sleep::Awake,
                Some(d) => now.checked_add(d).map_or(Sleep::ForEver, Sleep::Until),
                None => Sleep::ForEver,
            };
            sleep
        };
        let limit = sleep
            .map(|d| Timespec { tv_sec: d.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: d.subsec_nanos().into() });
        let (events, woken) = poller::wait(&self.inner.epoll, &self.inner.wake, limit.as_ref());
        let mut s = self.inner.state.lock();
        s.sleep = Sleep::Awake;
        if woken {
            let mut count = [0u8; 8];
            let _ = rustix::io::read(&self.inner.wake, &mut count);
        }
        s.poller.found(&events)
    }
}

/// A watched descriptor; dropping it ends the watch (a callback that already started still finishes).
pub struct Watch {
    id: u64,
    slot: u64,
    owner: EventLoop,
}

impl Watch {
    /// Changes what the descriptor is waited for.
    pub fn set_interest(&self, interest: Ready) {
        let mut s = self.owner.inner.state.lock();
        s.poller.set(self.slot, self.id, interest);
        let wakes = s.changed();
        drop(s);
        self.owner.wake_if(wakes);
    }

    /// What the descriptor is waited for now.
    pub fn interest(&self) -> Ready {
        self.owner.inner.state.lock().poller.interest(self.slot, self.id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut s = self.owner.inner.state.lock();
        let gone = s.watches.remove(&self.id);
        s.poller.remove(self.slot, self.id);
        let wakes = s.changed();
        drop(s);
        drop(gone); // after the lock: the callback may own things whose drop comes back here
        self.owner.wake_if(wakes);
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
    use std::sync::atomic::{AtomicU32, Ordering};

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
    fn a_descriptor_watched_twice_is_reported_to_both_by_what_each_waits_for() {
        let ev = EventLoop::new().unwrap();
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd: Arc<OwnedFd> = Arc::new(a.into());
        let log = Arc::new(Mutex::new(vec![]));
        let push = |n: u32| {
            let log = log.clone();
            move |ready: Ready| log.lock().push((n, ready))
        };
        let reads = ev.watch(fd.clone(), Ready::READ, push(1));
        let writes = ev.watch(fd.clone(), Ready::WRITE, push(2));
        ev.run_once(Some(Duration::ZERO));
        rustix::io::write(&b, b"x").unwrap();
        ev.run_once(Some(Duration::ZERO));
        writes.set_interest(Ready::empty());
        ev.run_once(Some(Duration::ZERO));
        assert_eq!((reads.interest(), writes.interest()), (Ready::READ, Ready::empty()));
        drop(reads);
        ev.run_once(Some(Duration::ZERO));
        writes.set_interest(Ready::HANGUP);
        ev.run_once(Some(Duration::ZERO));
        drop(b);
        ev.run_once(Some(Duration::ZERO));
        let read = (1, Ready::READ);
        let last = log.lock().pop().unwrap();
        assert_eq!(*log.lock(), [(2, Ready::WRITE), read, (2, Ready::WRITE), read]);
        assert!(last.0 == 2 && last.1.contains(Ready::HANGUP), "{last:?}");
    }

    #[test]
    fn a_file_is_always_ready_until_silenced() {
        let ev = EventLoop::new().unwrap();
        let file: OwnedFd = std::fs::File::open("/proc/self/exe").unwrap().into();
        let hits = Arc::new(AtomicU32::new(0));
        let h = hits.clone();
        let watch = ev.watch(Arc::new(file), Ready::READ, move |ready| {
            assert_eq!(ready, Ready::READ);
            h.fetch_add(1, Ordering::SeqCst);
        });
        ev.run_once(None);
        ev.run_once(None);
        watch.set_interest(Ready::empty());
        ev.run_once(Some(Duration::from_millis(1)));
        assert_eq!(hits.load(Ordering::SeqCst), 2);
    }

    /// Runs `change` on another thread once the loop sleeps; how long it slept in all.
    fn slept(ev: &EventLoop, limit: Duration, change: impl FnOnce() + Send + 'static) -> Duration {
        let other = ev.clone();
        let thread = std::thread::spawn(move || {
            while !other.is_asleep() {
                std::thread::yield_now();
            }
            change();
        });
        let began = Instant::now();
        ev.run_once(Some(limit));
        thread.join().unwrap();
        began.elapsed()
    }

    #[test]
    fn a_sleeping_loop_hears_of_what_is_newly_waited_for() {
        let ev = EventLoop::new().unwrap();
        let (r, w) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&w, b"x").unwrap();
        let hits = Arc::new(AtomicU32::new(0));
        let h = hits.clone();
        let watch = ev.watch(Arc::new(r), Ready::empty(), move |_| {
            h.fetch_add(1, Ordering::SeqCst);
        });
        slept(&ev, Duration::from_secs(20), move || {
            watch.set_interest(Ready::READ);
            std::thread::sleep(Duration::from_millis(50));
        });
        assert_eq!(hits.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_sleep_is_cut_short_only_by_what_comes_before_its_end() {
        let ev = EventLoop::new().unwrap();
        let (a, b) = (ev.clone(), ev.clone());
        let limit = Duration::from_millis(60);
        // Later than the end: nothing happens.
        assert!(slept(&ev, limit, move || a.later(Duration::from_secs(60), || ())) >= limit);
        assert!(slept(&ev, Duration::from_secs(20), move || b.wake_within(Duration::ZERO)) < Duration::from_secs(10));
        // While it is awake: the next sleep is short, and only that one.
        ev.wake_within(Duration::ZERO);
        let began = Instant::now();
        ev.run_once(Some(Duration::from_secs(20)));
        assert!(began.elapsed() < Duration::from_secs(10));
        let began = Instant::now();
        ev.run_once(Some(limit));
        assert!(began.elapsed() >= limit);
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
