//! Jobs: work on images that goes on while they are used. States, events and verbs as QAPI's `job.json` and `block-core.json` have them.
//!
//! A job is a [`Task`] that is asked for one step after the other. A step runs on a worker and counts as a request under way; everything else
//! happens on the main loop's thread, in [`Jobs::pump`] and in the commands. So a drain waits for one step of each job, and the next
//! begins after it. What changes the graph at a job's end is done while no vCPU runs and nothing is under way.
//!
//! Nothing is lost: what a stream copies up is written only where the image still has nothing, alone with regard to the guest's writes
//! (`Driver::populate`); layers that a commit reads or writes are nobody else's to write; and what the guest writes while its image is
//! committed is heard of after it is written and copied again.

pub(crate) mod chain;
mod commit;
mod run;
mod start;
mod stream;

use crate::OnError;
use crate::blocks::Blocks;
use parking_lot::Mutex;
use qom::{Error, Result};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;

pub use start::JobOptions;

/// Bytes of a step.
const CHUNK: u64 = 512 << 10;

/// What a job is (QAPI's `JobType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stream,
    Commit,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Commit => "commit",
        }
    }
}

/// QAPI's `JobStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Ready,
    Standby,
    Waiting,
    Pending,
    Aborting,
    Concluded,
    Null,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ready => "ready",
            Self::Standby => "standby",
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Aborting => "aborting",
            Self::Concluded => "concluded",
            Self::Null => "null",
        }
    }
}

/// What users do with a job (QAPI's `JobVerb`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Ends it; not `force`: a ready job ends by itself, without changing what the drive uses.
    Cancel {
        /// At once.
        force: bool,
    },
    /// Pauses it.
    Pause,
    /// Lets it go on.
    Resume,
    /// Bytes in a second; 0: no limit.
    SetSpeed(u64),
    /// Ends a ready job.
    Complete,
    /// Does what a job that waits for it does at its end.
    Finalize,
    /// Forgets a job that has ended.
    Dismiss,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::SetSpeed(_) => "set-speed",
            Self::Complete => "complete",
            Self::Finalize => "finalize",
            Self::Dismiss => "dismiss",
        }
    }

    /// Whether a job in a state takes it.
    fn fits(self, status: Status) -> bool {
        use Status::{Concluded, Created, Paused, Pending, Ready, Running, Standby, Waiting};
        match self {
            Self::Cancel { .. } => {
                matches!(status, Created | Running | Paused | Ready | Standby | Waiting | Pending)
            }
            Self::Pause | Self::Resume | Self::SetSpeed(_) => {
                matches!(status, Created | Running | Paused | Ready | Standby)
            }
            Self::Complete => status == Ready,
            Self::Finalize => status == Pending,
            Self::Dismiss => status == Concluded,
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// So many bytes were copied.
    Copied(u64),
    /// There is nothing to do now, but there may be again: the job is ready.
    Idle,
    /// There is nothing to do any more.
    Done,
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Reading did, not writing.
    pub read: bool,
    pub error: io::Error,
}

impl Fault {
    pub fn read(error: io::Error) -> Self {
        Self { read: true, error }
    }
    pub fn write(error: io::Error) -> Self {
        Self { read: false, error }
    }
}

/// The work of a job.
pub(crate) trait Task: Send {
    /// Does some of it, on a worker.
    fn step(&mut self) -> std::result::Result<Turn, Fault>;
    /// Leaves out what the last step could not do; false: that cannot be left out.
    fn skip(&mut self) -> bool {
        false
    }
    /// It is to end soon, whatever the guest does meanwhile; whether there is more to do before it can. Nothing is under way.
    fn hurry(&mut self) -> bool {
        false
    }
    /// Bytes done, and bytes to do in all.
    fn progress(&self) -> (u64, u64);
    /// The end of a job that did its work: changes the graph. Nothing is under way. `pivot`: of a ready job, the drive changes over.
    ///
    /// # Errors
    /// The graph is as it was.
    fn finish(&mut self, blocks: &Blocks, pivot: bool) -> Result<()>;
    /// Puts back what the job changed to be able to work. Nothing is under way.
    fn clean(&mut self, blocks: &Blocks);
}

/// One job.
pub(crate) struct Job {
    id: String,
    kind: Kind,
    status: Status,
    /// None while a step is at work, and after the end.
    task: Option<Box<dyn Task>>,
    /// As of the last step.
    progress: (u64, u64),
    user_paused: bool,
    cancelled: bool,
    /// It is to end, changing over or not.
    completing: Option<bool>,
    /// The last step found nothing to do.
    idle: bool,
    ready: bool,
    speed: u64,
    on_error: OnError,
    io_status: &'static str,
    error: Option<String>,
    auto_finalize: bool,
    auto_dismiss: bool,
    /// The realtime clock's time before which no step begins.
    not_before: u64,
}

type Stepped = (Arc<Mutex<Job>>, Box<dyn Task>, std::result::Result<Turn, Fault>);

/// All jobs of a machine.
#[derive(Default)]
pub(crate) struct Jobs {
    list: Mutex<Vec<Arc<Mutex<Job>>>>,
    /// Steps that have ended.
    ended: Mutex<Vec<Stepped>>,
    timer: std::sync::OnceLock<hw_core::Timer>,
}

impl Job {
    fn is_busy(&self) -> bool {
        self.task.is_none() && !matches!(self.status, Status::Concluded | Status::Null | Status::Aborting)
    }

    /// `JobInfo`.
    fn info(&self) -> Value {
        let mut v = json!({
            "id": self.id, "type": self.kind.name(), "status": self.status.name(),
            "current-progress": self.progress.0, "total-progress": self.progress.1,
        });
        if let (Some(error), Some(map)) = (&self.error, v.as_object_mut()) {
            map.insert("error".into(), error.as_str().into());
        }
        v
    }

    /// `BlockJobInfo`.
    fn block_info(&self) -> Value {
        let mut v = json!({
            "type": self.kind.name(), "device": self.id, "len": self.progress.1, "offset": self.progress.0,
            "busy": self.is_busy(), "paused": self.user_paused, "speed": self.speed,
            "io-status": self.io_status, "ready": self.ready, "status": self.status.name(),
            "auto-finalize": self.auto_finalize, "auto-dismiss": self.auto_dismiss,
        });
        if let (Some(error), Some(map)) = (&self.error, v.as_object_mut()) {
            map.insert("error".into(), error.as_str().into());
        }
        v
    }

    /// Data of most events.
    fn event(&self) -> Value {
        json!({
            "type": self.kind.name(), "device": self.id, "len": self.progress.1, "offset": self.progress.0,
            "speed": self.speed,
        })
    }
}

impl Blocks {
    fn job_list(&self) -> Vec<Arc<Mutex<Job>>> {
        self.jobs.list.lock().clone()
    }

    fn find_job(&self, id: &str) -> Option<Arc<Mutex<Job>>> {
        self.job_list().into_iter().find(|j| j.lock().id == id)
    }

    /// Whether there is such a job.
    pub fn has_job(&self, id: &str) -> bool {
        self.find_job(id).is_some()
    }

    /// `query-jobs`.
    pub fn query_jobs(&self) -> Value {
        self.job_list().iter().map(|j| j.lock().info()).collect()
    }

    /// `query-block-jobs`.
    pub fn query_block_jobs(&self) -> Value {
        self.job_list().iter().map(|j| j.lock().block_info()).collect()
    }

    /// Does something with a job. On the main loop's thread with no lock held.
    ///
    /// # Errors
    /// There is none, or it is in a state in which it does not take this.
    pub fn job(&self, id: &str, verb: Verb) -> Result<()> {
        let job = self.find_job(id).ok_or_else(|| Error::generic("Job not found"))?;
        {
            let mut j = job.lock();
            if !verb.fits(j.status) {
                return Err(Error::generic(format!(
                    "Job '{id}' in state '{}' cannot accept command verb '{}'",
                    j.status.name(),
                    verb.name()
                )));
            }
            match verb {
                Verb::Cancel { force: false } if j.ready && j.status == Status::Ready => {
                    j.completing = Some(false);
                    j.not_before = 0;
                }
                Verb::Cancel { .. } => j.cancelled = true,
                Verb::Pause if j.user_paused => return Err(Error::generic("Job is already paused")),
                Verb::Pause => j.user_paused = true,
                Verb::Resume if !j.user_paused => {
                    return Err(Error::generic("Can't resume a job that was not paused"));
                }
                Verb::Resume => {
                    j.user_paused = false;
                    j.io_status = "ok";
                    let status = if j.ready { Status::Ready } else { Status::Running };
                    self.to_status(&mut j, status);
                }
                Verb::SetSpeed(speed) => {
                    j.speed = speed;
                    j.not_before = 0;
                }
                Verb::Complete => {
                    j.completing = Some(true);
                    j.not_before = 0;
                }
                Verb::Finalize => self.finalize(&mut j),
                Verb::Dismiss => self.to_status(&mut j, Status::Null),
            }
        }
        self.advance(&job);
        Ok(())
    }

    /// Whether the user paused it.
    pub fn job_is_paused(&self, id: &str) -> bool {
        self.find_job(id).is_some_and(|j| j.lock().user_paused)
    }

    fn to_status(&self, job: &mut Job, status: Status) {
        if job.status == status {
            return;
        }
        job.status = status;
        self.emit("JOB_STATUS_CHANGE", json!({"id": job.id, "status": status.name()}));
    }
}
