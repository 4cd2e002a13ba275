//! How jobs run: steps, errors, ends.

use super::{Fault, Job, Jobs, Status, Turn};
use crate::OnError;
use crate::blocks::{Blocks, plain};
use crate::data::Data;
use crate::request::Outcome;
use hw_core::{ClockType, Timer};
use parking_lot::Mutex;
use serde_json::json;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// How long a job waits before it tries again, or looks whether there is something to do again, in ns.
const PAUSE: u64 = 100_000_000;

impl Jobs {
    /// Takes steps that have ended, and begins those whose time has come. On the main loop's thread with no lock held.
    pub(crate) fn pump(&self, blocks: &Blocks) {
        loop {
            let ended = std::mem::take(&mut *self.ended.lock());
            if ended.is_empty() {
                break;
            }
            for (job, task, result) in ended {
                {
                    let mut j = job.lock();
                    j.progress = task.progress();
                    j.task = Some(task);
                    blocks.stepped(&mut j, result);
                }
                blocks.advance(&job);
            }
        }
        let all = self.list.lock().clone();
        all.iter().for_each(|j| blocks.advance(j));
        let next = all.iter().map(|j| j.lock()).filter(|j| j.waits()).map(|j| j.not_before).min();
        if let (None, None) = (next, self.timer.get()) {
            return;
        }
        let timer = self.timer.get_or_init(|| {
            let pool = Arc::downgrade(blocks.pool());
            Timer::new(&blocks.clocks(), ClockType::Realtime, move |_| {
                if let Some(pool) = pool.upgrade() {
                    pool.wake();
                }
            })
        });
        timer.arm_free(next);
    }

    /// Steps that ended during a drain were not looked at.
    pub(crate) fn after_drain(&self, blocks: &Blocks) {
        if !self.ended.lock().is_empty() {
            blocks.pool().wake();
        }
    }

    /// Forgets all jobs: the images are closed. A step that is at work ends first.
    pub(crate) fn cancel_all(&self, blocks: &Blocks) {
        self.list.lock().clear();
        blocks.drain();
        self.ended.lock().clear();
    }
}

impl Job {
    /// Whether it only waits for its time.
    fn waits(&self) -> bool {
        self.task.is_some() && !self.user_paused && matches!(self.status, Status::Running | Status::Ready)
    }
}

impl Blocks {
    fn now(&self) -> u64 {
        self.clocks().now_of(ClockType::Realtime)
    }

    /// What a step came to.
    fn stepped(&self, job: &mut Job, result: Result<Turn, Fault>) {
        match result {
            Ok(Turn::Copied(bytes)) => {
                job.idle = false;
                // What is to end is not held up.
                if job.speed > 0 && job.completing.is_none() {
                    let ns = u128::from(bytes) * 1_000_000_000 / u128::from(job.speed);
                    job.not_before = self.now().saturating_add(u64::try_from(ns).unwrap_or(u64::MAX / 2));
                }
            }
            Ok(Turn::Idle) => {
                job.idle = true;
                job.not_before = if job.completing.is_some() { 0 } else { self.now().saturating_add(PAUSE) };
                if !job.ready {
                    job.ready = true;
                    self.to_status(job, Status::Ready);
                    self.emit("BLOCK_JOB_READY", job.event());
                }
            }
            Ok(Turn::Done) => {
                if !job.cancelled {
                    job.completing = Some(true);
                    job.idle = true;
                }
            }
            Err(fault) => self.faulted(job, &fault),
        }
    }

    fn faulted(&self, job: &mut Job, fault: &Fault) {
        let nospace = fault.error.raw_os_error() == Some(libc::ENOSPC);
        let action = match job.on_error {
            OnError::Ignore => "ignore",
            OnError::Stop => "stop",
            OnError::Enospc if nospace => "stop",
            _ => "report",
        };
        let operation = if fault.read { "read" } else { "write" };
        self.emit("BLOCK_JOB_ERROR", json!({"device": job.id, "operation": operation, "action": action}));
        let text = plain(&fault.error);
        match action {
            "ignore" => {
                job.not_before = self.now().saturating_add(PAUSE);
                if job.task.as_mut().is_some_and(|t| t.skip()) {
                    job.not_before = 0;
                    job.error.get_or_insert(text);
                }
            }
            "stop" => {
                job.user_paused = true;
                job.io_status = if nospace { "nospace" } else { "failed" };
            }
            _ => {
                job.error = Some(text);
                job.completing = Some(false);
                job.idle = true;
            }
        }
    }

    /// Begins the next step of a job, pauses it, or ends it.
    pub(super) fn advance(&self, job: &Arc<Mutex<Job>>) {
        let mut j = job.lock();
        if j.status == Status::Null {
            drop(j);
            self.jobs.list.lock().retain(|other| !Arc::ptr_eq(other, job));
            return;
        }
        let working = matches!(j.status, Status::Running | Status::Paused | Status::Ready | Status::Standby);
        let ends = j.completing == Some(true);
        let Some(task) = &mut j.task else { return };
        if ends && task.hurry() {
            j.idle = false;
        }
        if j.cancelled && (working || j.status == Status::Pending) {
            self.abort(&mut j);
        } else if !working {
            return;
        } else if j.completing.is_some() && j.idle {
            self.completed(&mut j);
        } else if j.user_paused {
            let status = if j.ready { Status::Standby } else { Status::Paused };
            self.to_status(&mut j, status);
        } else if j.not_before <= self.now()
            && let Some(mut task) = j.task.take()
        {
            drop(j);
            let (jobs, pool, job) = (self.jobs.clone(), self.pool().clone(), job.clone());
            pool.begin();
            let end = pool.clone();
            pool.run(Box::new(move || {
                let result = catch_unwind(AssertUnwindSafe(|| task.step()));
                let gone = |_| Err(Fault::read(io::Error::from_raw_os_error(libc::EIO)));
                let result = result.unwrap_or_else(gone);
                let done = move |_| jobs.ended.lock().push((job, task, result));
                end.end(Box::new(done), Outcome { result: Ok(()), data: Data::default() }, None);
            }));
            return;
        }
        if j.status == Status::Null {
            drop(j);
            self.jobs.list.lock().retain(|other| !Arc::ptr_eq(other, job));
        }
    }

    /// The work is done, or has failed.
    fn completed(&self, job: &mut Job) {
        if job.error.is_some() {
            self.abort(job);
            return;
        }
        self.to_status(job, Status::Waiting);
        self.to_status(job, Status::Pending);
        if job.auto_finalize {
            self.finalize(job);
        } else {
            self.emit("BLOCK_JOB_PENDING", json!({"type": job.kind.name(), "id": job.id}));
        }
    }

    /// What a job that did its work does at its end.
    pub(super) fn finalize(&self, job: &mut Job) {
        let Some(mut task) = job.task.take() else { return };
        let pivot = job.completing == Some(true);
        let result = self.quiet(|| task.finish(self, pivot).inspect_err(|_| task.clean(self)));
        job.progress = task.progress();
        drop(task);
        if let Some(Err(e)) = result {
            job.error = Some(e.to_string());
            self.to_status(job, Status::Aborting);
        }
        self.conclude(job);
    }

    fn abort(&self, job: &mut Job) {
        self.to_status(job, Status::Aborting);
        if let Some(mut task) = job.task.take() {
            self.quiet(|| task.clean(self));
        }
        self.conclude(job);
    }

    fn conclude(&self, job: &mut Job) {
        let mut data = job.event();
        if job.cancelled && job.error.is_none() {
            self.emit("BLOCK_JOB_CANCELLED", data);
        } else {
            if let (Some(error), Some(map)) = (&job.error, data.as_object_mut()) {
                map.insert("error".into(), error.as_str().into());
            }
            self.emit("BLOCK_JOB_COMPLETED", data);
        }
        if job.cancelled && job.error.is_none() {
            job.error = Some("Operation canceled".into());
        }
        self.to_status(job, Status::Concluded);
        if job.auto_dismiss {
            self.to_status(job, Status::Null);
        }
    }
}
