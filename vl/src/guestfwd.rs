//! `guestfwd=` to a character device: what connections of a guest's to one address are with.
//!
//! As on QEMU there is one device however many connections there are: it gets what any of them sends, and what it says goes to the oldest.
//! While there is none it waits. A connection ends when the guest ends its half: a character device has no halves.

use crate::options::chardev::{Short, from_short};
use crate::start::open_chardev;
use crate::vm::Vm;
use chardev::{CharFrontend, Handlers};
use hw_core::event_loop::{Ready, Watch};
use net::GuestPort;
use parking_lot::Mutex;
use qom::{Error, Result};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

/// Bytes moved at a time.
const PIECE: usize = 16 << 10;
/// Pieces of one connection before something else has its turn.
const TURN: usize = 16;

/// A connection.
struct Conn {
    number: u64,
    fd: Arc<OwnedFd>,
    watch: Watch,
    /// What the device has not taken yet.
    from_guest: Vec<u8>,
    /// What the connection has not taken yet.
    to_guest: Vec<u8>,
    /// The device says when it takes more.
    waits: bool,
}

impl Conn {
    fn choose_interest(&self) {
        let mut interest = Ready::empty();
        interest.set(Ready::READ, !self.waits);
        interest.set(Ready::WRITE, !self.to_guest.is_empty());
        self.watch.set_interest(interest);
    }

    /// Hands over what it takes now; false: it takes nothing any more.
    fn flush(&mut self) -> bool {
        while !self.to_guest.is_empty() {
            match send(&self.fd, &self.to_guest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => drop(self.to_guest.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return false,
            }
        }
        true
    }
}

/// What lies between the connections and the device.
struct Shared {
    vm: Weak<Vm>,
    me: Weak<Shared>,
    front: CharFrontend,
    /// In the order they were made; locked for moments only.
    conns: Mutex<(u64, Vec<Conn>)>,
}

impl Shared {
    fn with<R>(&self, number: u64, f: impl FnOnce(&mut Conn) -> R) -> Option<R> {
        self.conns.lock().1.iter_mut().find(|c| c.number == number).map(f)
    }

    fn remove(&self, number: u64) {
        let gone = {
            let mut conns = self.conns.lock();
            let at = conns.1.iter().position(|c| c.number == number);
            at.map(|at| conns.1.remove(at))
        };
        drop(gone);
        self.front.accept_input(); // another is the oldest
    }

    fn ready(&self, number: u64, ready: Ready) {
        let mut there = true;
        if ready.contains(Ready::WRITE) {
            there = self.with(number, Conn::flush).unwrap_or(false);
            self.front.accept_input();
        }
        if there && ready.intersects(Ready::READ | Ready::HANGUP) {
            there = self.pump(number);
        }
        if there {
            self.with(number, |c| c.choose_interest());
        } else {
            self.remove(number);
        }
    }

    /// Moves what the guest sent to the device; false: there is no more.
    fn pump(&self, number: u64) -> bool {
        let mut buf = vec![0; PIECE];
        for _ in 0..TURN {
            let Some(mut bytes) = self.with(number, |c| std::mem::take(&mut c.from_guest)) else { return false };
            if bytes.is_empty() {
                let Some(got) = self.with(number, |c| recv(&c.fd, &mut buf[..], RecvFlags::DONTWAIT)) else {
                    return false;
                };
                match got {
                    Ok((n, _)) if n > 0 => bytes.extend_from_slice(buf.get(..n).unwrap_or_default()),
                    Err(Errno::AGAIN | Errno::INTR) => return true,
                    _ => return false,
                }
            }
            let taken = self.front.write(&bytes);
            bytes.drain(..taken.min(bytes.len()));
            if !bytes.is_empty() {
                self.with(number, |c| (c.from_guest, c.waits) = (bytes, true));
                let me = self.me.clone();
                self.front.on_writable(move || {
                    if let Some(s) = me.upgrade() {
                        s.with(number, |c| c.waits = false);
                        s.ready(number, Ready::READ);
                    }
                });
                return true;
            }
        }
        true
    }

    /// How much the oldest connection takes.
    fn can_receive(&self) -> usize {
        self.conns.lock().1.first().map_or(0, |c| PIECE.saturating_sub(c.to_guest.len()))
    }

    fn receive(&self, bytes: &[u8]) {
        let gone = {
            let mut conns = self.conns.lock();
            let Some(first) = conns.1.first_mut() else { return };
            first.to_guest.extend_from_slice(bytes);
            if first.flush() {
                first.choose_interest();
                None
            } else {
                Some(first.number)
            }
        };
        if let Some(number) = gone {
            self.remove(number);
        }
    }
}

/// The device of one rule; it goes with the rule, unless it is one that `-chardev` made.
struct Port {
    shared: Arc<Shared>,
    label: Option<String>,
}

impl GuestPort for Port {
    fn connect(&self) -> io::Result<OwnedFd> {
        let vm = self.shared.vm.upgrade().ok_or_else(|| io::Error::other("the machine is gone"))?;
        let (guests, ours) = UnixStream::pair()?;
        guests.set_nonblocking(true)?;
        let fd = Arc::new(OwnedFd::from(ours));
        let mut conns = self.shared.conns.lock();
        conns.0 += 1;
        let (number, me) = (conns.0, self.shared.me.clone());
        let watch = vm.events.watch(fd.clone(), Ready::READ, move |ready| {
            if let Some(s) = me.upgrade() {
                s.ready(number, ready);
            }
        });
        conns.1.push(Conn { number, fd, watch, from_guest: vec![], to_guest: vec![], waits: false });
        drop(conns);
        self.shared.front.accept_input();
        Ok(guests.into())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.front.detach();
        if let (Some(label), Some(vm)) = (&self.label, self.shared.vm.upgrade()) {
            remove(&vm, label);
        }
    }
}

/// Ends a device of ours. (At the end of the machine it may be gone already.)
fn remove(vm: &Vm, label: &str) {
    if vm.chardevs.remove(label).is_ok()
        && let Some(o) = vm.scope().container("/chardevs").ok().and_then(|c| c.child(label))
    {
        o.unparent();
    }
}

/// Opens `device`, a short form as `-serial` takes it, under the id `label`.
///
/// # Errors
/// It is none, cannot be opened, or is somebody else's.
pub(crate) fn open(vm: &Arc<Vm>, label: &str, device: &str) -> Result<Box<dyn GuestPort>> {
    let failed = |why: &str| Error::generic(format!("Could not open guest forwarding device '{label}': {why}"));
    let (channel, own) = match from_short(label, device).map_err(|e| failed(&e.to_string()))? {
        Short::None => return Err(failed("'none' is no character device")),
        Short::New { monitor: true, .. } => return Err(failed("a monitor beside it (mon:) is not built yet")),
        Short::Existing(id) => (chardev::find(vm.scope(), &id).map_err(|e| failed(&e.to_string()))?, None),
        Short::New { config, .. } => {
            (open_chardev(vm, &config).map_err(|e| failed(&e.to_string()))?, Some(label.to_owned()))
        }
    };
    let shared = Arc::new_cyclic(|me| Shared {
        vm: Arc::downgrade(vm),
        me: me.clone(),
        front: CharFrontend::default(),
        conns: Mutex::default(),
    });
    let port = Port { shared: shared.clone(), label: own };
    shared.front.attach(&channel).map_err(|e| failed(&e.to_string()))?;
    let (can, take) = (Arc::downgrade(&shared), Arc::downgrade(&shared));
    shared.front.set_handlers(Handlers {
        can_receive: Box::new(move || can.upgrade().map_or(0, |s| s.can_receive())),
        receive: Box::new(move |bytes| {
            if let Some(s) = take.upgrade() {
                s.receive(bytes);
            }
        }),
        // (As on QEMU: who comes and goes at the other end is nothing to the guest.)
        event: Box::new(|_| {}),
    });
    Ok(Box::new(port))
}
