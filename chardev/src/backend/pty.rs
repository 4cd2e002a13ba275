//! `pty`: a pseudo-terminal whose other side any program may open.
//!
//! The kernel shows "nobody has it open" as a hang-up on our side, and nothing when somebody opens it: so a disconnected
//! one is looked at once a second.

use super::Backend;
use super::fd::FdPair;
use crate::channel::Channel;
use crate::frontend::Event;
use crate::{Error, Result};
use hw_core::event_loop::{HostTimer, Job};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

struct Pty {
    channel: Weak<Channel>,
    name: String,
    link: Option<PathBuf>,
    master: Arc<OwnedFd>,
    s: Mutex<State>,
    me: Weak<Pty>,
}

#[derive(Default)]
struct State {
    pair: Option<Arc<FdPair>>,
    timer: Option<HostTimer>,
    closed: bool,
}

pub(crate) fn open(channel: &Arc<Channel>, link: Option<&Path>) -> Result<Box<dyn Backend>> {
    let fail = || Error::host("Failed to create PTY");
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(fail())?;
    rustix::pty::grantpt(&master).map_err(fail())?;
    rustix::pty::unlockpt(&master).map_err(fail())?;
    let name = rustix::pty::ptsname(&master, Vec::new()).map_err(fail())?.to_string_lossy().into_owned();
    {
        let slave = rustix::fs::open(name.as_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            .map_err(fail())?;
        let mut modes = rustix::termios::tcgetattr(&slave).map_err(fail())?;
        modes.make_raw();
        rustix::termios::tcsetattr(&slave, OptionalActions::Now, &modes).map_err(fail())?;
    }
    let flags = rustix::fs::fcntl_getfl(&master).map_err(fail())?;
    rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK).map_err(fail())?;
    if let Some(link) = link {
        std::os::unix::fs::symlink(&name, link).map_err(|source| Error::Host {
            what: format!("Failed to create PTY symlink '{}'", link.display()),
            source,
        })?;
    }
    (channel.host().report)(&format!("char device redirected to {name} (label {})", channel.label()));
    let pty = Arc::new_cyclic(|me| Pty {
        channel: Arc::downgrade(channel),
        name,
        link: link.map(Path::to_owned),
        master: Arc::new(master),
        s: Mutex::default(),
        me: me.clone(),
    });
    pty.look_later(Duration::ZERO);
    Ok(Box::new(Owner(pty)))
}

impl Pty {
    /// Whether somebody has the other side open.
    fn peer(&self) -> bool {
        let mut p = [PollFd::new(&*self.master, PollFlags::OUT)];
        let found = poll(&mut p, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok();
        found && !p.iter().any(|p| p.revents().contains(PollFlags::HUP))
    }

    fn look_later(&self, delay: Duration) {
        let Some(channel) = self.channel.upgrade() else { return };
        let me = self.me.clone();
        let timer = channel.host().events.after(delay, move || {
            if let Some(pty) = me.upgrade() {
                pty.look();
            }
        });
        let old = self.s.lock().timer.replace(timer);
        drop(old);
    }

    /// Connects if somebody opened the other side.
    fn look(&self) {
        let Some(channel) = self.channel.upgrade() else { return };
        if self.s.lock().closed {
            return;
        }
        if !self.peer() {
            return self.look_later(Duration::from_secs(1));
        }
        let me = self.me.clone();
        let fd = Some(self.master.clone());
        let pair = FdPair::new(&channel, fd.clone(), fd, false, None, move || {
            if let Some(pty) = me.upgrade() {
                pty.gone();
            }
        });
        self.s.lock().pair = Some(pair.clone());
        channel.event(Event::Opened);
        pair.accept_input();
    }

    fn gone(&self) {
        let pair = self.s.lock().pair.take();
        drop(pair);
        if let Some(channel) = self.channel.upgrade() {
            channel.event(Event::Closed);
        }
        self.look_later(Duration::from_secs(1));
    }

    fn pair(&self) -> Option<Arc<FdPair>> {
        self.s.lock().pair.clone()
    }
}

struct Owner(Arc<Pty>);

impl Backend for Owner {
    fn write(&self, bytes: &[u8]) -> usize {
        match self.0.pair() {
            Some(pair) if self.0.peer() => pair.write(bytes),
            _ => bytes.len(),
        }
    }
    fn on_writable(&self, job: Job) {
        match (self.0.pair(), self.0.channel.upgrade()) {
            (Some(pair), _) => pair.on_writable(job),
            (None, Some(c)) => c.host().events.post(job),
            (None, None) => {}
        }
    }
    fn accept_input(&self) {
        if let Some(pair) = self.0.pair() {
            pair.accept_input();
        }
    }
    fn filename(&self) -> String {
        format!("pty:{}", self.0.name)
    }
    fn close(&self) {
        let gone = {
            let mut s = self.0.s.lock();
            s.closed = true;
            (s.pair.take(), s.timer.take())
        };
        drop(gone);
        if let Some(link) = &self.0.link {
            let _ = std::fs::remove_file(link);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}
