//! Threads that serve devices: type `iothread`, each with an [`EventLoop`] of its own.
//!
//! What is posted to the loop runs on the thread with no lock held. Requests of the block layer that are submitted there end there.
//! Not modelled: `aio-max-batch`, `thread-pool-*`, `poll-weight`, other than they are by default.

use crate::core::Core;
use crate::event_loop::EventLoop;
use parking_lot::{Condvar, Mutex};
use qom::{Base, Class, Error, Object, Prop, Property, Result, UserCreatable};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

thread_local! {
    static CURRENT: RefCell<Weak<Worker>> = const { RefCell::new(Weak::new()) };
}

/// The `iothread` that this is; nothing on all other threads.
pub fn current() -> Option<Arc<Worker>> {
    CURRENT.with_borrow(Weak::upgrade)
}

/// Type `event-loop-base`.
#[derive(Object)]
#[qom(name = "event-loop-base", parent = Base, abstract, interfaces(dyn UserCreatable))]
pub struct EventLoopBase {
    parent: Base,
    #[property(name = "aio-max-batch", type = "int", default = 0)]
    aio_max_batch: Prop<i64>,
    #[property(name = "thread-pool-min", type = "int", default = 0)]
    thread_pool_min: Prop<i64>,
    #[property(name = "thread-pool-max", type = "int", default = 64)]
    thread_pool_max: Prop<i64>,
}

fn not_negative(name: &str, v: i64) -> Result<()> {
    if v < 0 {
        return Err(Error::generic(format!("{name} value must be in range [0, {}]", i64::MAX)));
    }
    Ok(())
}

impl UserCreatable for EventLoopBase {
    fn complete(&self) -> Result<()> {
        let object = self.object();
        let thread = object.cast::<IoThread>();
        let weight = thread.map_or(WEIGHT, |t| t.poll_weight.get());
        for (name, is, default) in [
            ("aio-max-batch", self.aio_max_batch.get(), 0),
            ("thread-pool-min", self.thread_pool_min.get(), 0),
            ("thread-pool-max", self.thread_pool_max.get(), 64),
            ("poll-weight", weight, WEIGHT),
        ] {
            not_negative(name, is)?;
            if is != default {
                return Err(Error::generic(format!("{name}={is} is not built yet, only {default}")));
            }
        }
        thread.map_or(Ok(()), IoThread::start)?;
        self.freeze();
        Ok(())
    }
}

const WEIGHT: i64 = 3;
/// The first time that is polled, in nanoseconds.
const FIRST_POLL: i64 = 4000;

/// How a thread looks for work before it sleeps: `poll-max-ns`, `poll-grow`, `poll-shrink`.
struct Poll([AtomicI64; 3]);

impl Poll {
    const NAMES: [&str; 3] = ["poll-max-ns", "poll-grow", "poll-shrink"];

    fn get(&self) -> [i64; 3] {
        self.0.each_ref().map(|v| v.load(Ordering::Relaxed))
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self([32768, 2, 2].map(AtomicI64::new))
    }
}

/// Type `iothread`. `poll-max-ns`: how long the thread looks for work, at most, before it sleeps; the time grows and shrinks with what pays.
#[derive(Object)]
#[qom(name = "iothread", parent = EventLoopBase, class_init = IoThread::class_init)]
pub struct IoThread {
    parent: EventLoopBase,
    poll: Arc<Poll>,
    #[property(name = "poll-weight", type = "int", default = WEIGHT)]
    poll_weight: Prop<i64>,
    worker: Mutex<Option<Arc<Worker>>>,
}

/// What users see of one: its properties, `query-iothreads`.
#[expect(missing_docs, reason = "the command's names")]
pub struct Shown {
    pub thread_id: i64,
    pub poll_max_ns: i64,
    pub poll_grow: i64,
    pub poll_shrink: i64,
    pub poll_weight: i64,
    pub aio_max_batch: i64,
}

/// A thread that runs as long as somebody has this. It ends by itself: whoever drops the last one may hold a lock that its work needs.
pub struct Worker(Arc<Shared>);

impl Worker {
    /// Runs `job` on the thread, after what was posted before.
    pub fn post(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) {
        let keep = self.clone();
        self.0.events.post(move || {
            job();
            drop(keep);
        });
    }

    /// Waits for what was posted so far.
    fn settle(self: &Arc<Self>) {
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let tell = done.clone();
        self.post(move || {
            *tell.0.lock() = true;
            tell.1.notify_all();
        });
        let mut is = done.0.lock();
        while !*is {
            done.1.wait(&mut is);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.events.wake();
    }
}

/// What the thread and others have in common.
struct Shared {
    events: EventLoop,
    stop: AtomicBool,
    thread_id: AtomicI64,
    poll: Arc<Poll>,
}

impl Shared {
    /// Runs the loop until somebody stops it.
    fn run(&self) {
        self.thread_id.store(rustix::thread::gettid().as_raw_nonzero().get().into(), Ordering::Relaxed);
        let mut poll = 0;
        while !self.stop.load(Ordering::Acquire) {
            let began = Instant::now();
            let limit = Duration::from_nanos(poll as u64);
            let mut ran = self.events.run_once(Some(Duration::ZERO));
            while !ran && began.elapsed() < limit && !self.stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
                ran = self.events.run_once(Some(Duration::ZERO));
            }
            if !ran && !self.stop.load(Ordering::Acquire) {
                self.events.run_once(None);
                poll = self.next_poll(poll, began.elapsed());
            }
        }
    }

    /// How long to look for work from now on, after work came by this time and not within `poll`.
    fn next_poll(&self, poll: i64, came: Duration) -> i64 {
        let [max, grow, shrink] = self.poll.get();
        if i64::try_from(came.as_nanos()).is_ok_and(|ns| ns <= max) {
            let grown = if poll == 0 { FIRST_POLL } else { poll.saturating_mul(if grow == 0 { 2 } else { grow }) };
            grown.min(max)
        } else {
            poll.checked_div(shrink).unwrap_or(0)
        }
    }
}

/// The threads of a machine: [`Core::service`].
#[derive(Default)]
pub struct IoThreads(Mutex<Vec<Weak<Worker>>>);

impl IoThreads {
    /// Waits for what was posted to all of them so far. With no lock held, and on none of them.
    pub fn settle(&self) {
        let all: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|t| t.settle());
    }
}

impl IoThread {
    fn class_init(c: &mut Class) {
        for (i, name) in Poll::NAMES.into_iter().enumerate() {
            c.property(
                Property::computed::<i64>(name)
                    .type_named("int")
                    .getter(move |t: &IoThread| Ok(t.poll.0.get(i).map_or(0, |v| v.load(Ordering::Relaxed))))
                    .setter(move |t: &IoThread, v: i64| {
                        not_negative(name, v)?;
                        if let Some(p) = t.poll.0.get(i) {
                            p.store(v, Ordering::Relaxed)
                        }
                        Ok(())
                    })
                    .live(),
            );
        }
    }

    fn start(&self) -> Result<()> {
        let fail = |e: std::io::Error| Error::generic(format!("cannot start an iothread: {e}"));
        let events = EventLoop::new().map_err(fail)?;
        let shared = Arc::new(Shared {
            events,
            stop: AtomicBool::new(false),
            thread_id: AtomicI64::new(0),
            poll: self.poll.clone(),
        });
        let worker = Arc::new(Worker(shared.clone()));
        let (me, name) = (Arc::downgrade(&worker), format!("IO {}", self.name().unwrap_or_default()));
        let run = move || {
            CURRENT.set(me);
            shared.run()
        };
        std::thread::Builder::new().name(name).spawn(run).map_err(fail)?;
        // (Its number is known once it runs.)
        worker.settle();
        let all = Core::of(self).service::<IoThreads>();
        let mut all = all.0.lock();
        all.retain(|t| t.strong_count() > 0);
        all.push(Arc::downgrade(&worker));
        *self.worker.lock() = Some(worker);
        Ok(())
    }

    /// Its thread, once it is complete.
    pub fn worker(&self) -> Option<Arc<Worker>> {
        self.worker.lock().clone()
    }

    /// What users see of it.
    pub fn shown(&self) -> Shown {
        let [poll_max_ns, poll_grow, poll_shrink] = self.poll.get();
        Shown {
            thread_id: self.worker().map_or(0, |w| w.0.thread_id.load(Ordering::Relaxed)),
            poll_max_ns,
            poll_grow,
            poll_shrink,
            poll_weight: self.poll_weight.get(),
            aio_max_batch: self.aio_max_batch.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_grows_while_work_comes_soon_and_shrinks_when_it_does_not() {
        let (stop, thread_id) = (AtomicBool::new(false), AtomicI64::new(0));
        let s = Shared {
            events: EventLoop::new().unwrap(),
            stop,
            thread_id,
            poll: Arc::new(Poll([20_000, 2, 4].map(AtomicI64::new))),
        };
        let soon = Duration::from_micros(10);
        assert_eq!([0, 4000, 16_000, 20_000].map(|p| s.next_poll(p, soon)), [4000, 8000, 20_000, 20_000]);
        assert_eq!(s.next_poll(20_000, Duration::from_millis(1)), 5000);
    }
}
