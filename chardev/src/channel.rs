//! One character device: a backend on the host's side, up to [`MAX_FRONTS`] front ends on the machine's side.

use crate::backend::{self, Backend};
use crate::config::{self, Config};
use crate::frontend::{Event, Handlers};
use crate::mux::{MAX_FRONTS, Mux};
use crate::{Error, Result};
use hw_core::event_loop::{EventLoop, Job};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Most bytes that wait in memory for the host; what comes on top is dropped.
const MAX_QUEUE: usize = 64 << 20;

/// What character devices need from the program around them.
pub struct Host {
    /// Where descriptors are watched.
    pub events: EventLoop,
    /// Asks the machine to end: Ctrl-A x.
    pub quit: Box<dyn Fn() + Send + Sync>,
    /// Tells the user something in one line.
    pub report: Box<dyn Fn(&str) + Send + Sync>,
    /// Whether the process was asked to end while it waits for a peer.
    pub interrupted: Box<dyn Fn() -> bool + Send + Sync>,
    /// The key that starts a command to the multiplexer; Ctrl-A is 1.
    pub escape: u8,
    /// The process will lose its terminal: `stdio` is refused.
    pub daemonize: bool,
}

/// All character devices of one machine, by id.
#[derive(Clone)]
pub struct Hub {
    host: Arc<Host>,
    channels: Arc<Mutex<BTreeMap<String, Arc<Channel>>>>,
}

impl Hub {
    /// No devices yet.
    pub fn new(host: Host) -> Self {
        Self { host: Arc::new(host), channels: Arc::default() }
    }

    /// Makes the device; with `mux` also the multiplexer, which then has the id and the device is called `id-base`.
    ///
    /// # Errors
    /// When the id is taken or the host refuses.
    pub fn open(&self, config: &Config) -> Result<Arc<Channel>> {
        if self.channels.lock().contains_key(&config.id) {
            return Err(Error::Duplicate(config.id.clone()));
        }
        if !config.mux {
            return self.make(config);
        }
        let base = Config { id: format!("{}-base", config.id), mux: false, ..config.clone() };
        self.make(&base)?;
        self.make(&Config::new(&config.id, config::Backend::Mux { chardev: base.id }))
    }

    fn make(&self, config: &Config) -> Result<Arc<Channel>> {
        let log = match &config.logfile {
            Some(path) => {
                let file = File::options()
                    .create(true)
                    .write(true)
                    .append(config.logappend)
                    .truncate(!config.logappend)
                    .open(path);
                Some(Mutex::new(file.map_err(|source| Error::Open { path: path.clone(), source })?))
            }
            None => None,
        };
        let channel = Arc::new(Channel {
            label: config.id.clone(),
            kind: backend::kind(&config.backend),
            host: self.host.clone(),
            backend: OnceLock::new(),
            mux: matches!(config.backend, config::Backend::Mux { .. }).then(|| Mux::new(self.host.escape)),
            state: Mutex::default(),
            open: AtomicBool::new(false),
            log,
        });
        let backend = backend::open(&config.backend, &channel, self)?;
        let _ = channel.backend.set(backend);
        channel.accept_input();
        self.channels.lock().insert(config.id.clone(), channel.clone());
        Ok(channel)
    }

    /// The device called `id`.
    pub fn find(&self, id: &str) -> Option<Arc<Channel>> {
        self.channels.lock().get(id).cloned()
    }

    /// All devices, by id.
    pub fn all(&self) -> Vec<Arc<Channel>> {
        self.channels.lock().values().cloned().collect()
    }

    /// Ends the device called `id`.
    ///
    /// # Errors
    /// When there is none, or a front end still has it.
    pub fn remove(&self, id: &str) -> Result<()> {
        let channel = self.find(id).ok_or_else(|| Error::NotFound(id.into()))?;
        if channel.in_use() {
            return Err(Error::Busy(id.into()));
        }
        self.channels.lock().remove(id);
        channel.close();
        Ok(())
    }

    /// Ends all devices: sockets are unlinked, terminals restored.
    pub fn close_all(&self) {
        let all = std::mem::take(&mut *self.channels.lock());
        for channel in all.values() {
            channel.close();
        }
    }

    /// What the program around gave.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }
}

#[derive(Default)]
struct State {
    fronts: Vec<Option<Front>>,
    /// Accepted by `write_all`, not yet by the host.
    queue: VecDeque<u8>,
    /// The queue flushes itself when the host takes bytes again.
    flushing: bool,
    waiting: Vec<Job>,
}

#[derive(Default)]
struct Front {
    handlers: Option<Arc<Handlers>>,
    /// Was told that the other end is there.
    told: bool,
    /// Said that nobody takes part behind it.
    closed: bool,
}

/// One character device.
pub struct Channel {
    label: String,
    kind: &'static str,
    host: Arc<Host>,
    backend: OnceLock<Box<dyn Backend>>,
    mux: Option<Mux>,
    state: Mutex<State>,
    open: AtomicBool,
    log: Option<Mutex<File>>,
}

impl Channel {
    /// Its id.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Kind, as in the QOM type's name after `chardev-`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Where it leads, as `query-chardev` shows it.
    pub fn filename(&self) -> String {
        self.backend.get().map_or_else(String::new, |b| b.filename())
    }

    /// Whether a front end is attached, handles input, and has not said that nobody is behind it.
    pub fn frontend_open(&self) -> bool {
        self.state.lock().fronts.iter().flatten().any(|f| f.handlers.is_some() && !f.closed)
    }

    pub(crate) fn set_frontend_open(&self, tag: usize, on: bool) {
        if let Some(Some(front)) = self.state.lock().fronts.get_mut(tag) {
            front.closed = !on;
        }
    }

    /// Whether the other end is there.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// The multiplexer's part, if this is one.
    pub fn mux(&self) -> Option<&Mux> {
        self.mux.as_ref()
    }

    /// The ring buffer's part, if this is one.
    pub fn ringbuf(&self) -> Option<&backend::Ringbuf> {
        self.backend.get()?.ringbuf()
    }

    /// The program around.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    fn in_use(&self) -> bool {
        self.state.lock().fronts.iter().any(Option::is_some)
    }

    pub(crate) fn attach(&self) -> Result<usize> {
        let limit = if self.mux.is_some() { MAX_FRONTS } else { 1 };
        let mut s = self.state.lock();
        let tag = s.fronts.iter().position(Option::is_none).unwrap_or(s.fronts.len());
        if tag >= limit {
            return Err(Error::InUse(self.label.clone()));
        }
        match s.fronts.get_mut(tag) {
            Some(slot) => *slot = Some(Front::default()),
            None => s.fronts.push(Some(Front::default())),
        }
        Ok(tag)
    }

    pub(crate) fn detach(&self, tag: usize) {
        let gone = self.state.lock().fronts.get_mut(tag).and_then(Option::take);
        drop(gone); // after the lock: a handler may own anything
    }

    pub(crate) fn set_handlers(self: &Arc<Self>, tag: usize, handlers: Handlers) {
        let handlers = Arc::new(handlers);
        if let Some(Some(front)) = self.state.lock().fronts.get_mut(tag) {
            front.handlers = Some(handlers);
            front.told = false;
        }
        // The newest front end gets the keyboard; those before it hear that they have lost it before they hear anything else.
        if let Some(mux) = &self.mux {
            mux.joined(tag);
        }
        let weak = Arc::downgrade(self);
        self.host.events.post(move || {
            let Some(channel) = weak.upgrade() else { return };
            if channel.mux.as_ref().is_some_and(|m| m.focus() != tag) {
                channel.tell(tag, Event::MuxOut);
            }
            if channel.is_open() {
                channel.tell(tag, Event::Opened);
            }
            if let Some(mux) = &channel.mux {
                mux.announce(&channel);
            }
            channel.accept_input();
        });
    }

    pub(crate) fn handlers(&self, tag: usize) -> Option<Arc<Handlers>> {
        self.state.lock().fronts.get(tag)?.as_ref()?.handlers.clone()
    }

    /// Tags of the attached front ends.
    pub(crate) fn tags(&self) -> Vec<usize> {
        self.state.lock().fronts.iter().enumerate().filter(|(_, f)| f.is_some()).map(|(i, _)| i).collect()
    }

    pub(crate) fn set_focus(self: &Arc<Self>, tag: usize) {
        if let Some(mux) = &self.mux {
            mux.set_focus(self, tag);
        }
    }

    // ---- towards the host ----

    /// Writes what the host takes without blocking.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let stamped = self.mux.as_ref().and_then(|m| m.stamp(bytes));
        if let Some(stamped) = stamped {
            // Time stamps change the length: all of it is taken or waits here.
            self.write_all_raw(&stamped);
            return bytes.len();
        }
        if !self.flush() {
            return 0;
        }
        self.write_now(bytes)
    }

    fn write_now(&self, bytes: &[u8]) -> usize {
        let Some(backend) = self.backend.get() else { return bytes.len() };
        let taken = backend.write(bytes).min(bytes.len());
        if let (Some(log), Some(done)) = (&self.log, bytes.get(..taken)) {
            // A full disk under the log must not stop the machine.
            let _ = log.lock().write_all(done);
        }
        taken
    }

    /// Takes all of `bytes`; what the host does not take now is kept and written later.
    pub fn write_all(self: &Arc<Self>, bytes: &[u8]) {
        match self.mux.as_ref().and_then(|m| m.stamp(bytes)) {
            Some(stamped) => self.write_all_raw(&stamped),
            None => self.write_all_raw(bytes),
        }
        self.flush_later();
    }

    fn write_all_raw(&self, bytes: &[u8]) {
        let taken = if self.flush() { self.write_now(bytes) } else { 0 };
        let rest = bytes.get(taken..).unwrap_or_default();
        let mut s = self.state.lock();
        if s.queue.len() + rest.len() <= MAX_QUEUE {
            s.queue.extend(rest);
        }
    }

    /// Bytes that wait.
    pub fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Whether nothing waits any more.
    fn flush(&self) -> bool {
        loop {
            let chunk: Vec<u8> = {
                let s = self.state.lock();
                if s.queue.is_empty() {
                    return true;
                }
                s.queue.iter().take(4096).copied().collect()
            };
            let taken = self.write_now(&chunk);
            self.state.lock().queue.drain(..taken);
            if taken == 0 {
                return false;
            }
        }
    }

    fn flush_later(self: &Arc<Self>) {
        {
            let mut s = self.state.lock();
            if s.queue.is_empty() || s.flushing {
                return;
            }
            s.flushing = true;
        }
        let weak = Arc::downgrade(self);
        self.on_writable(Box::new(move || {
            let Some(channel) = weak.upgrade() else { return };
            channel.state.lock().flushing = false;
            if channel.flush() {
                // Whoever stopped reading because of the queue may go on.
                channel.accept_input();
            } else {
                channel.flush_later();
            }
        }));
    }

    /// Writes what waits, giving the host up to `limit` to take it: before the process ends.
    pub fn drain(&self, limit: std::time::Duration) {
        let end = std::time::Instant::now() + limit;
        while !self.flush() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub(crate) fn on_writable(self: &Arc<Self>, job: Job) {
        let first = {
            let mut s = self.state.lock();
            s.waiting.push(job);
            s.waiting.len() == 1
        };
        if first {
            let weak = Arc::downgrade(self);
            let ready: Job = Box::new(move || {
                if let Some(channel) = weak.upgrade() {
                    channel.writable();
                }
            });
            match self.backend.get() {
                Some(backend) => backend.on_writable(ready),
                None => self.host.events.post(ready),
            }
        }
    }

    /// The backend takes bytes again (or drops them: either way nobody waits).
    fn writable(&self) {
        let jobs = std::mem::take(&mut self.state.lock().waiting);
        for job in jobs {
            job();
        }
    }

    pub(crate) fn set_echo(&self, on: bool) {
        if let Some(backend) = self.backend.get() {
            backend.set_echo(on);
        }
    }

    fn close(&self) {
        if let Some(backend) = self.backend.get() {
            backend.close();
        }
    }

    // ---- from the host; called by backends on the event loop's thread ----

    /// How many bytes the front end takes now.
    pub(crate) fn can_receive(&self) -> usize {
        match &self.mux {
            Some(mux) => mux.can_receive(),
            None => self.handlers(0).map_or(0, |h| (h.can_receive)()),
        }
    }

    pub(crate) fn receive(self: &Arc<Self>, bytes: &[u8]) {
        match &self.mux {
            Some(mux) => mux.receive(self, bytes),
            None => {
                if let Some(h) = self.handlers(0) {
                    (h.receive)(bytes);
                }
            }
        }
    }

    pub(crate) fn event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Opened => self.open.store(true, Ordering::SeqCst),
            Event::Closed => {
                self.open.store(false, Ordering::SeqCst);
                // Nobody will read what waits: a new peer must not get it.
                self.state.lock().queue.clear();
            }
            _ => {}
        }
        for tag in self.tags() {
            self.tell(tag, event);
        }
    }

    /// Passes an event on; opening and closing only when they change something for that front end.
    fn tell(&self, tag: usize, event: Event) {
        let handlers = {
            let mut s = self.state.lock();
            let Some(Some(front)) = s.fronts.get_mut(tag) else { return };
            let Some(handlers) = front.handlers.clone() else { return };
            match event {
                Event::Opened if std::mem::replace(&mut front.told, true) => return,
                Event::Closed if !std::mem::replace(&mut front.told, false) => return,
                _ => handlers,
            }
        };
        (handlers.event)(event);
    }

    /// Says that the other end is there from the start: front ends that come later are told when they set their handlers.
    pub(crate) fn start_open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Makes the backend ask again how much can be received.
    pub fn accept_input(self: &Arc<Self>) {
        let weak: Weak<Self> = Arc::downgrade(self);
        self.host.events.post(move || {
            if let Some(channel) = weak.upgrade() {
                if let Some(mux) = &channel.mux {
                    mux.flush_input(&channel);
                }
                if let Some(backend) = channel.backend.get() {
                    backend.accept_input();
                }
            }
        });
    }

    /// Sends a break to the front end.
    pub fn send_break(self: &Arc<Self>) {
        self.event(Event::Break);
    }
}
