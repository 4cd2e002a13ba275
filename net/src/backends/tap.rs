//! `tap`: frames through an interface of the host, by a descriptor that this process was given or one it makes itself.
//! Not modelled: scripts, the bridge helper, several queues, offloads, vhost: each is an error that says so.

use super::address::{inherited, plain};
use crate::backend::BackendDef;
use crate::client::{Client, End, MAX_FRAME, Parcel};
use crate::join::Batch;
use crate::nets::Nets;
use hw_core::event_loop::{Ready, Watch};
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

struct Tap {
    client: Weak<Client>,
    fd: Arc<OwnedFd>,
    watch: Mutex<Option<Watch>>,
    /// Nothing more can be received.
    gone: AtomicBool,
}

impl Tap {
    fn read(&self) {
        let Some(client) = self.client.upgrade() else { return };
        let mut buf = vec![0; MAX_FRAME];
        let mut batch = Batch::new(&client);
        for _ in 0..256 {
            match rustix::io::read(&self.fd, &mut buf[..]) {
                Ok(n) if n > 0 => {
                    if !batch.send(buf.get(..n).unwrap_or_default().to_vec()) {
                        break;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                // The interface is gone; being told of it again and again helps nobody.
                other => {
                    let why = other.err().map_or_else(|| "end of file".to_owned(), |e| e.to_string());
                    tracing::warn!("tap {}: {why}; nothing more is received", client.name());
                    if let Some(watch) = &*self.watch.lock() {
                        watch.set_interest(Ready::empty());
                    }
                    self.gone.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        if !batch.end()
            && let Some(watch) = &*self.watch.lock()
        {
            watch.set_interest(Ready::empty());
        }
    }
}

impl End for Tap {
    fn receive(&self, frames: &mut VecDeque<Parcel>) {
        for frame in frames.drain(..) {
            // An interface that is down or full loses it, as a wire does.
            _ = rustix::io::write(&self.fd, &frame);
        }
    }

    fn peer_ready(&self) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        if let Some(watch) = &*self.watch.lock() {
            watch.set_interest(Ready::READ);
        }
    }

    fn close(&self) {
        drop(self.watch.lock().take());
    }
}

fn make(name: &str) -> Result<(OwnedFd, String)> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
        .map_err(|e| Error::generic(format!("could not open /dev/net/tun: {}", plain(&e.into()))))?;
    let shown = if name.is_empty() { "tap%d" } else { name };
    let name = crate::hostfd::make_tap(&fd, name)
        .map_err(|e| Error::generic(format!("could not configure /dev/net/tun ({shown}): {}", plain(&e))))?;
    Ok((fd, name))
}

fn open(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    for key in ["script", "downscript"] {
        if opts.take_str(key)?.is_some_and(|s| s != "no" && !s.is_empty()) {
            return Err(Error::generic(format!(
                "{key}= is not built yet: set the interface up beforehand, or use fd="
            )));
        }
    }
    let fd = opts.take_str("fd")?;
    let ifname = opts.take_str("ifname")?;
    let fd = match (fd, ifname) {
        (Some(_), Some(_)) => return Err(Error::generic("ifname= is invalid with fd=")),
        (Some(text), None) => {
            let wrong = || Error::generic(format!("File descriptor named '{text}' not found"));
            let number: i32 = text.parse().map_err(|_| wrong())?;
            client.set_info(format!("fd={number}"));
            inherited(number).map_err(|_| wrong())?
        }
        (None, name) => {
            let (fd, name) = make(&name.unwrap_or_default())?;
            client.set_info(format!("ifname={name},script=no,downscript=no"));
            fd
        }
    };
    let tap = Arc::new(Tap {
        client: Arc::downgrade(client),
        fd: Arc::new(fd),
        watch: Mutex::default(),
        gone: AtomicBool::new(false),
    });
    let me = Arc::downgrade(&tap);
    let watch = nets.events()?.watch(tap.fd.clone(), Ready::READ, move |_| {
        if let Some(t) = me.upgrade() {
            t.read();
        }
    });
    *tap.watch.lock() = Some(watch);
    Ok(tap)
}

inventory::submit! { BackendDef { name: "tap", open } }
