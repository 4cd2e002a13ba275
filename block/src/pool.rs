//! Worker threads, the queue of ended requests, and waiting for all of them.

use crate::data::Spare;
use crate::request::{Done, Outcome};
use crate::ring::Ring;
use hw_core::iothread::Worker;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Most threads of a machine.
const MAX_THREADS: usize = 16;
/// An idle thread ends after this time.
const IDLE: Duration = Duration::from_secs(10);

/// Work of a thread.
pub type Job = Box<dyn FnOnce() + Send>;
type Wake = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    quit: bool,
}

#[derive(Default)]
struct Ended {
    queue: VecDeque<(Done, Outcome)>,
    /// Begun, not yet delivered.
    in_flight: usize,
    wake: Option<Wake>,
}

/// The threads of one machine and what they have done.
#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
    work: Condvar,
    gone: Condvar,
    ended: Mutex<Ended>,
    finished: Condvar,
    spare: Arc<Spare>,
    ring: Mutex<Weak<Ring>>,
}

impl Pool {
    /// Sets what is called, from any thread, when there is something to [`Pool::deliver`].
    pub fn set_wake(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.ended.lock().wake = Some(Arc::new(wake));
    }

    /// Memory for requests.
    pub(crate) fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    /// The ring of all files that want one; it goes with the last of them.
    ///
    /// # Errors
    /// The host gives none.
    pub(crate) fn ring(&self) -> io::Result<Arc<Ring>> {
        let mut ring = self.ring.lock();
        if let Some(there) = ring.upgrade() {
            return Ok(there);
        }
        let new = Ring::new()?;
        *ring = Arc::downgrade(&new);
        Ok(new)
    }

    /// Runs `job` on a worker; on this thread if the host gives no thread.
    pub fn run(self: &Arc<Self>, job: Job) {
        let mut s = self.state.lock();
        s.jobs.push_back(job);
        if s.idle >= s.jobs.len() || s.threads >= MAX_THREADS {
            self.work.notify_one();
            return;
        }
        s.threads += 1;
        drop(s);
        let pool = self.clone();
        let made = std::thread::Builder::new().name("worker".into()).spawn(move || pool.worker());
        if made.is_err() {
            let job = {
                let mut s = self.state.lock();
                s.threads -= 1;
                // Another worker takes it if there is one.
                if s.threads == 0 { s.jobs.pop_front() } else { None }
            };
            if let Some(job) = job {
                job();
            }
        }
    }

    fn worker(&self) {
        let mut s = self.state.lock();
        loop {
            if let Some(job) = s.jobs.pop_front() {
                drop(s);
                job();
                s = self.state.lock();
                continue;
            }
            if s.quit {
                break;
            }
            s.idle += 1;
            let late = self.work.wait_for(&mut s, IDLE).timed_out();
            s.idle -= 1;
            if late && s.jobs.is_empty() {
                break;
            }
        }
        s.threads -= 1;
        self.gone.notify_all();
    }

    /// A request begins.
    pub fn begin(&self) {
        self.ended.lock().in_flight += 1;
    }

    /// A request that began has ended: `done` is called on the thread of `to`, or by [`Pool::deliver`].
    pub fn end(self: &Arc<Self>, done: Done, outcome: Outcome, to: Option<Arc<Worker>>) {
        if let Some(worker) = to {
            let pool = self.clone();
            return worker.post(move || {
                done(outcome);
                pool.ended.lock().in_flight -= 1;
                pool.finished.notify_all();
            });
        }
        let mut e = self.ended.lock();
        e.queue.push_back((done, outcome));
        let wake = e.wake.clone().filter(|_| e.queue.len() == 1);
        drop(e);
        self.finished.notify_all();
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Has [`Pool::deliver`] called soon, from any thread.
    pub fn wake(&self) {
        let wake = self.ended.lock().wake.clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Calls the callbacks of all requests that have ended. No lock may be held that they take.
    pub fn deliver(&self) {
        loop {
            let next = self.ended.lock().queue.pop_front();
            let Some((done, outcome)) = next else { return };
            done(outcome);
            self.ended.lock().in_flight -= 1;
        }
    }

    /// Delivers until nothing is in flight, requests made by callbacks included. No lock may be held that callbacks take.
    pub fn drain(&self) {
        loop {
            self.deliver();
            let mut e = self.ended.lock();
            if e.in_flight == 0 {
                return;
            }
            if e.queue.is_empty() {
                self.finished.wait(&mut e);
            }
        }
    }

    /// Requests that have begun and were not delivered yet.
    pub fn in_flight(&self) -> usize {
        self.ended.lock().in_flight
    }

    /// Ends the threads, after what they do.
    pub fn shut_down(&self) {
        let mut s = self.state.lock();
        s.quit = true;
        self.work.notify_all();
        while s.threads > 0 {
            self.gone.wait(&mut s);
        }
        s.quit = false;
    }
}
