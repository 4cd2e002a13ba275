//! Channels over plain descriptors: `stdio`, `file`, `pipe`; [`FdPair`] also carries `pty` and `socket`.

use super::Backend;
use crate::channel::Channel;
use crate::frontend::Event;
use crate::terminal::{self, Terminal};
use crate::{Error, Result};
use hw_core::event_loop::{EventLoop, Job, Ready, Watch};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// Most bytes read at once.
const CHUNK: usize = 4096;

/// A descriptor to read from and one to write to, either may be absent; both do not block.
pub(crate) struct FdPair {
    channel: Weak<Channel>,
    events: EventLoop,
    input: Mutex<Option<Watch>>,
    output: Mutex<Option<Arc<OwnedFd>>>,
    pending: Mutex<Option<Watch>>,
    /// A socket: a hang-up is final even with bytes unread.
    one_peer: bool,
    /// Rewrites what was read (telnet); returns events found in it.
    filter: Filter,
    /// Called when the input ended: the peer is gone.
    ended: Box<dyn Fn() + Send + Sync>,
}

/// Takes the bytes of a protocol out of what was read.
pub(crate) type Filter = Option<FilterFn>;
type FilterFn = Box<dyn Fn(&mut Vec<u8>) -> Vec<Event> + Send + Sync>;

impl FdPair {
    pub(crate) fn new(
        channel: &Arc<Channel>,
        input: Option<Arc<OwnedFd>>,
        output: Option<Arc<OwnedFd>>,
        one_peer: bool,
        filter: Filter,
        ended: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let events = channel.host().events.clone();
        let pair = Arc::new(Self {
            channel: Arc::downgrade(channel),
            events: events.clone(),
            input: Mutex::default(),
            output: Mutex::new(output),
            pending: Mutex::default(),
            one_peer,
            filter,
            ended: Box::new(ended),
        });
        if let Some(fd) = input {
            let weak = Arc::downgrade(&pair);
            let from = fd.clone();
            *pair.input.lock() = Some(events.watch(fd, Ready::empty(), move |ready| {
                if let Some(pair) = weak.upgrade() {
                    pair.readable(&from, ready);
                }
            }));
        }
        pair
    }

    fn readable(&self, fd: &OwnedFd, ready: Ready) {
        let Some(channel) = self.channel.upgrade() else { return };
        let room = channel.can_receive().min(CHUNK);
        if room == 0 {
            // Sleep until the front end asks again. A socket's peer that is gone makes room for the next one; elsewhere a
            // hang-up may be followed by unread bytes and would keep poll awake.
            if self.one_peer && ready.contains(Ready::HANGUP) {
                return self.hang_up();
            }
            return self.set_interest(self.asleep());
        }
        let mut bytes = vec![0u8; room];
        match rustix::io::read(fd, &mut bytes) {
            Ok(0) => self.hang_up(),
            Ok(n) => {
                bytes.truncate(n);
                let found = self.filter.as_ref().map_or_else(Vec::new, |f| f(&mut bytes));
                for event in found {
                    channel.event(event);
                }
                if !bytes.is_empty() {
                    channel.receive(&bytes);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) if !ready.contains(Ready::HANGUP) => {}
            Err(_) => self.hang_up(),
        }
    }

    fn hang_up(&self) {
        let gone = self.input.lock().take();
        drop(gone);
        (self.ended)();
    }

    fn set_interest(&self, interest: Ready) {
        if let Some(w) = &*self.input.lock() {
            w.set_interest(interest);
        }
    }

    fn asleep(&self) -> Ready {
        if self.one_peer { Ready::HANGUP } else { Ready::empty() }
    }

    pub(crate) fn accept_input(&self) {
        let Some(channel) = self.channel.upgrade() else { return };
        let room = channel.can_receive() > 0;
        self.set_interest(if room { Ready::READ } else { self.asleep() });
    }

    /// Takes everything once the peer does not read any more: `EPIPE`, `ENOSPC` and the like must not stop the machine.
    pub(crate) fn write(&self, bytes: &[u8]) -> usize {
        let out = self.output.lock().clone();
        let Some(fd) = out else { return bytes.len() };
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
            match rustix::io::write(&*fd, rest) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => {
                    self.write_failed(e);
                    return bytes.len();
                }
            }
        }
        done
    }

    fn write_failed(&self, e: Errno) {
        let first = self.output.lock().take().is_some();
        if let Some(channel) = self.channel.upgrade().filter(|_| first && !matches!(e, Errno::PIPE | Errno::CONNRESET))
        {
            let reason = crate::error::reason(&e.into());
            (channel.host().report)(&format!("warning: chardev '{}': output stopped: {reason}", channel.label()));
        }
    }

    pub(crate) fn on_writable(self: &Arc<Self>, job: Job) {
        let out = self.output.lock().clone();
        let Some(fd) = out else { return self.events.post(job) };
        let job = Mutex::new(Some(job));
        let weak: Weak<Self> = Arc::downgrade(self);
        let watch = self.events.watch(fd, Ready::WRITE, move |_| {
            if let Some(pair) = weak.upgrade() {
                drop(pair.pending.lock().take());
            }
            let job = job.lock().take();
            if let Some(job) = job {
                job();
            }
        });
        let old = self.pending.lock().replace(watch);
        drop(old);
    }

    /// Stops watching and lets the descriptors go.
    pub(crate) fn close(&self) {
        let gone = (self.input.lock().take(), self.output.lock().take(), self.pending.lock().take());
        drop(gone);
    }
}

/// A channel whose other end is there until it hangs up, once.
struct Plain {
    pair: Arc<FdPair>,
    filename: &'static str,
    terminal: Option<Terminal>,
}

impl Backend for Plain {
    fn write(&self, bytes: &[u8]) -> usize {
        self.pair.write(bytes)
    }
    fn on_writable(&self, job: Job) {
        self.pair.on_writable(job);
    }
    fn accept_input(&self) {
        self.pair.accept_input();
    }
    fn filename(&self) -> String {
        self.filename.into()
    }
    fn set_echo(&self, on: bool) {
        if let Some(t) = &self.terminal {
            t.set_echo(on);
        }
    }
    fn close(&self) {
        self.pair.close();
        if let Some(t) = &self.terminal {
            t.release();
        }
    }
}

fn plain(
    channel: &Arc<Channel>,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    filename: &'static str,
    terminal: Option<Terminal>,
) -> Box<dyn Backend> {
    let weak = Arc::downgrade(channel);
    let pair = FdPair::new(channel, input.map(Arc::new), output.map(Arc::new), false, None, move || {
        if let Some(c) = weak.upgrade() {
            c.event(Event::Closed);
        }
    });
    channel.start_open();
    Box::new(Plain { pair, filename, terminal })
}

/// Standard input and output. Closed ones are as good as `/dev/null`.
pub(crate) fn stdio(channel: &Arc<Channel>, signal: bool) -> Result<Box<dyn Backend>> {
    if channel.host().daemonize {
        return Err(Error::Config("cannot use stdio with -daemonize".into()));
    }
    let terminal = terminal::claim(signal)?;
    let input = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).ok();
    let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).ok();
    Ok(plain(channel, input, output, "stdio", Some(terminal)))
}

/// A file to write, and perhaps one to read.
pub(crate) fn file(
    channel: &Arc<Channel>,
    path: &Path,
    input: Option<&Path>,
    append: bool,
) -> Result<Box<dyn Backend>> {
    let how = if append { OFlags::APPEND } else { OFlags::TRUNC };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | how;
    let output = rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).map_err(Error::open(path))?;
    let input = input
        .map(|p| {
            rustix::fs::open(p, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
                .map_err(Error::open(p))
        })
        .transpose()?;
    Ok(plain(channel, input, Some(output), "file", None))
}

/// `path.in` and `path.out`, or `path` for both directions.
pub(crate) fn pipe(channel: &Arc<Channel>, path: &Path) -> Result<Box<dyn Backend>> {
    let open = |p: &Path| rustix::fs::open(p, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let with = |suffix: &str| {
        let mut p = path.as_os_str().to_owned();
        p.push(suffix);
        PathBuf::from(p)
    };
    let (input, output) = match (open(&with(".in")), open(&with(".out"))) {
        (Ok(i), Ok(o)) => (i, o),
        _ => {
            let both = open(path).map_err(Error::open(path))?;
            let again = rustix::io::fcntl_dupfd_cloexec(&both, 3).map_err(Error::open(path))?;
            (both, again)
        }
    };
    Ok(plain(channel, Some(input), Some(output), "pipe", None))
}
