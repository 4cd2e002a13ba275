//! Frames as datagrams: `dgram`, and `socket` with `udp=` or `mcast=`. Also the choice among the forms of `socket`. What the host does not take
//! now waits, and the sender with it: a local socket holds as few as ten datagrams (unix(7), `max_dgram_qlen`), fewer than a guest sends at once.

use super::address::{Address, datagram, host_port, inherited, plain};
use super::stream;
use crate::backend::BackendDef;
use crate::client::{Client, End, MAX_FRAME, Parcel};
use crate::join::Batch;
use crate::nets::Nets;
use hw_core::event_loop::{EventLoop, HostTimer, Ready, Watch};
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix, recv, send, sendto, sockopt};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// When the receiver is asked again where the host does not say when it has room.
const SOON: Duration = Duration::from_millis(1);

/// What is waited for.
#[derive(Default)]
struct Waits {
    socket: Option<Watch>,
    /// No frames are read, because nobody takes them.
    paused: bool,
    /// Frames could not be sent.
    full: bool,
    /// Says when the receiver at a path has room: the host tells that of connected sockets alone, and ours is not, so that anybody may
    /// send to it. This one is, and nothing else.
    receiver: Option<Watch>,
    soon: Option<HostTimer>,
}

struct Dgram {
    client: Weak<Client>,
    me: Weak<Dgram>,
    events: EventLoop,
    fd: Arc<OwnedFd>,
    to: Option<Address>,
    /// Removed at the end.
    path: Option<String>,
    waits: Mutex<Waits>,
    /// Nothing more can be received.
    gone: AtomicBool,
}

impl Dgram {
    fn start(
        nets: &Arc<Nets>,
        client: &Arc<Client>,
        fd: OwnedFd,
        local: Option<&Address>,
        to: Option<Address>,
    ) -> Result<Arc<Self>> {
        let path = match local {
            Some(Address::Unix(path)) => Some(path.clone()),
            _ => None,
        };
        let client = Arc::downgrade(client);
        let (gone, events) = (AtomicBool::new(false), nets.events()?.clone());
        let fd = Arc::new(fd);
        let new =
            Arc::new_cyclic(|me| Self { client, me: me.clone(), events, fd, to, path, waits: Mutex::default(), gone });
        let me = new.me.clone();
        let watch = new.events.watch(new.fd.clone(), Ready::READ, move |found| {
            let Some(d) = me.upgrade() else { return };
            if found.contains(Ready::WRITE) {
                d.has_room();
            }
            d.read();
        });
        new.waits.lock().socket = Some(watch);
        Ok(new)
    }

    /// Has the loop look for what there is to wait for.
    fn choose_interest(&self, waits: &Waits) {
        if let Some(watch) = &waits.socket {
            let mut interest = Ready::empty();
            interest.set(Ready::READ, !waits.paused && !self.gone.load(Ordering::Relaxed));
            interest.set(Ready::WRITE, waits.full && waits.receiver.is_none() && waits.soon.is_none());
            watch.set_interest(interest);
        }
    }

    /// A datagram, or an error of the host's.
    fn send(&self, frame: &[u8]) -> std::result::Result<(), Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match &self.to {
            Some(Address::Inet(a)) => sendto(&self.fd, frame, flags, a).map(drop),
            Some(Address::Unix(path)) => sendto(&self.fd, frame, flags, &SocketAddrUnix::new(path.as_str())?).map(drop),
            Some(Address::Fd(_)) | None => send(&self.fd, frame, flags).map(drop),
        }
    }

    /// Goes on when the host takes datagrams again. `progress`: it took some since it said so the last time.
    fn wait(&self, progress: bool) {
        let mut waits = self.waits.lock();
        waits.full = true;
        if let Some(Address::Unix(path)) = &self.to {
            if !progress {
                // (It says so of a receiver that is not there any more.)
                waits.receiver = None;
            }
            match &waits.receiver {
                Some(watch) => watch.set_interest(Ready::WRITE),
                None => waits.receiver = self.watch_receiver(path).ok(),
            }
            if waits.receiver.is_none() || !progress {
                let me = self.me.clone();
                waits.soon = Some(self.events.after(SOON, move || {
                    if let Some(d) = me.upgrade() {
                        d.has_room();
                    }
                }));
            }
        }
        self.choose_interest(&waits);
    }

    fn watch_receiver(&self, path: &str) -> std::result::Result<Watch, io::Error> {
        let fd = datagram(None, self.to.as_ref())?;
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        let me = self.me.clone();
        Ok(self.events.watch(Arc::new(fd), Ready::WRITE, move |_| {
            if let Some(d) = me.upgrade() {
                d.has_room();
            }
        }))
    }

    fn has_room(&self) {
        {
            let mut waits = self.waits.lock();
            waits.full = false;
            waits.soon = None;
            if let Some(watch) = &waits.receiver {
                watch.set_interest(Ready::empty());
            }
            self.choose_interest(&waits);
        }
        if let Some(client) = self.client.upgrade() {
            client.flush();
        }
    }

    fn read(&self) {
        let Some(client) = self.client.upgrade().filter(|_| !self.waits.lock().paused) else { return };
        let mut buf = vec![0; MAX_FRAME];
        let mut batch = Batch::new(&client);
        let mut failed = None;
        for _ in 0..256 {
            match recv(&self.fd, &mut buf[..], RecvFlags::DONTWAIT) {
                Ok((n, _)) => {
                    if !batch.send(buf.get(..n).unwrap_or_default().to_vec()) {
                        break;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                // An error of an earlier datagram, which is over once it was reported, or one of the socket, which is not.
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        if !batch.end() {
            let mut waits = self.waits.lock();
            waits.paused = true;
            self.choose_interest(&waits);
        }
        let Some(e) = failed else { return };
        if !matches!(e, Errno::CONNREFUSED | Errno::CONNRESET | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NOBUFS)
        {
            tracing::warn!("{}: {e}; nothing more is received", client.name());
            self.gone.store(true, Ordering::Relaxed);
            self.choose_interest(&self.waits.lock());
        }
    }
}

impl End for Dgram {
    fn receive(&self, frames: &mut VecDeque<Parcel>) {
        if self.waits.lock().full {
            return;
        }
        let mut progress = false;
        while let Some(frame) = frames.front() {
            if self.send(frame) == Err(Errno::AGAIN) {
                return self.wait(progress);
            }
            // (What nobody can receive is lost.)
            frames.pop_front();
            progress = true;
        }
    }

    fn peer_ready(&self) {
        let mut waits = self.waits.lock();
        waits.paused = false;
        self.choose_interest(&waits);
    }

    fn close(&self) {
        let old = std::mem::take(&mut *self.waits.lock());
        drop(old);
        if let Some(path) = &self.path {
            _ = std::fs::remove_file(path);
        }
    }
}

fn bound(at: Option<&Address>, to: Option<&Address>) -> Result<OwnedFd> {
    let shown = at.or(to).map(Address::show).unwrap_or_default();
    datagram(at, to).map_err(|e| Error::generic(format!("can't bind to {shown}: {}", plain(&e))))
}

/// Joins a group; `local`: the interface's address.
fn join(fd: &OwnedFd, group: &SocketAddr, local: Option<IpAddr>) -> io::Result<()> {
    match (group.ip(), local) {
        (IpAddr::V4(group), local) => {
            let at = match local {
                Some(IpAddr::V4(a)) => a,
                _ => std::net::Ipv4Addr::UNSPECIFIED,
            };
            sockopt::set_ip_add_membership(fd, &group, &at)?;
            // The other machines of this host hear it too.
            sockopt::set_ip_multicast_loop(fd, true)?;
            if let Some(IpAddr::V4(a)) = local {
                sockopt::set_ip_multicast_if(fd, &a)?;
            }
        }
        (IpAddr::V6(group), _) => sockopt::set_ipv6_add_membership(fd, &group, 0)?,
    }
    Ok(())
}

fn multicast(nets: &Arc<Nets>, client: &Arc<Client>, group: SocketAddr, local: Option<IpAddr>) -> Result<Arc<dyn End>> {
    if !group.ip().is_multicast() {
        let text = format!("specified mcastaddr {} does not contain a multicast address", group.ip());
        return Err(Error::generic(text));
    }
    let at = Address::Inet(group);
    let fd = bound(Some(&at), None)?;
    join(&fd, &group, local)
        .map_err(|e| Error::generic(format!("can't add socket to multicast group: {}", plain(&e))))?;
    client.set_info(format!("mcast={group}"));
    Ok(Dgram::start(nets, client, fd, None, Some(at))?)
}

fn open(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    let (local, remote) = (Address::take(opts, "local")?, Address::take(opts, "remote")?);
    match (&local, &remote) {
        (local, Some(Address::Inet(group))) if group.ip().is_multicast() => {
            let at = match local {
                Some(Address::Inet(a)) => Some(a.ip()),
                Some(_) => return Err(Error::generic("dgram requires 'local' to be an inet address for multicast")),
                None => None,
            };
            multicast(nets, client, *group, at)
        }
        (None, _) => Err(Error::generic("dgram requires local= parameter")),
        (Some(Address::Fd(fd)), None) => {
            let fd = inherited(*fd).map_err(|e| Error::generic(format!("fd={fd}: {}", plain(&e))))?;
            client.set_info("fd");
            Ok(Dgram::start(nets, client, fd, None, None)?)
        }
        (Some(Address::Fd(_)), Some(_)) => Err(Error::generic("don't set remote with local.fd")),
        (Some(_), None) => Err(Error::generic("'remote' parameter is missing")),
        (Some(a), Some(b)) if std::mem::discriminant(a) != std::mem::discriminant(b) => {
            Err(Error::generic("'remote' type must be the same as 'local' type"))
        }
        (Some(a), Some(b)) => {
            client.set_info(format!("udp={}/{}", a.show(), b.show()));
            let fd = bound(Some(a), None)?;
            Ok(Dgram::start(nets, client, fd, Some(a), Some(b.clone()))?)
        }
    }
}

fn open_socket(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    let mut form = None;
    for key in ["fd", "listen", "connect", "mcast", "udp"] {
        if let Some(value) = opts.take_str(key)?
            && form.replace((key, value)).is_some()
        {
            let text = "exactly one of listen=, connect=, mcast= or udp= is required";
            return Err(Error::generic(text));
        }
    }
    let local = opts.take_str("localaddr")?;
    let (form, value) =
        form.ok_or_else(|| Error::generic("exactly one of listen=, connect=, mcast= or udp= is required"))?;
    if local.is_some() && !["mcast", "udp"].contains(&form) {
        return Err(Error::generic("localaddr= is only valid with mcast= or udp="));
    }
    match form {
        "listen" => stream::legacy(nets, client, Address::Inet(host_port(&value)?), true),
        "connect" => stream::legacy(nets, client, Address::Inet(host_port(&value)?), false),
        "mcast" => {
            let ip = local.map(|l| l.parse().map_err(|_| Error::generic(format!("localaddr '{l}' is not an address"))));
            multicast(nets, client, host_port(&value)?, ip.transpose()?)
        }
        "udp" => {
            let local = local.ok_or_else(|| Error::generic("localaddr= is mandatory with udp="))?;
            let (at, to) = (Address::Inet(host_port(&local)?), Address::Inet(host_port(&value)?));
            client.set_info(format!("udp={}", to.show()));
            let fd = bound(Some(&at), None)?;
            Ok(Dgram::start(nets, client, fd, None, Some(to))?)
        }
        _ => {
            let number: i32 =
                value.parse().map_err(|_| Error::generic(format!("File descriptor named '{value}' not found")))?;
            let fd = inherited(number).map_err(|e| Error::generic(format!("fd={number}: {}", plain(&e))))?;
            let kind = sockopt::socket_type(&fd).map_err(|e| Error::generic(format!("fd={number}: {e}")))?;
            client.set_info(format!("fd={number}"));
            if kind == rustix::net::SocketType::STREAM {
                return stream::legacy(nets, client, Address::Fd(number), false);
            }
            Ok(Dgram::start(nets, client, fd, None, None)?)
        }
    }
}

inventory::submit! { BackendDef { name: "dgram", open } }
inventory::submit! { BackendDef { name: "socket", open: open_socket } }

#[cfg(test)]
mod tests {
    use super::*;
    use hw_core::Core;
    use serde_json::json;
    use std::os::unix::net::UnixDatagram;

    struct Card;

    impl End for Card {
        fn receive(&self, frames: &mut VecDeque<Parcel>) {
            frames.clear();
        }
    }

    /// What arrives at `far` of many frames that a card sends at once.
    fn sent_to(far: &UnixDatagram, connected: bool) -> Vec<usize> {
        const FRAMES: usize = 900;
        let core = Core::new();
        let (nets, events) = (Nets::of(&core), EventLoop::new().unwrap());
        nets.set_events(events.clone());
        let at = far.local_addr().unwrap().as_pathname().unwrap().to_owned();
        let own = at.with_extension("own");
        let address = |p: &std::path::Path| json!({"type": "unix", "path": p.to_str()});
        let opts = json!({"type": "dgram", "id": "n", "local": address(&own), "remote": address(&at)});
        let dgram = nets.netdev_add(Opts::json(opts.as_object().cloned().unwrap())).unwrap();
        let card = Client::new(&nets, "nic", "card".into());
        nets.add(&card, Arc::new(Card));
        nets.connect(&card, &dgram);
        if connected {
            far.connect(&own).unwrap();
        }
        for n in 0..FRAMES {
            card.send(vec![n as u8; 60 + n]);
        }
        far.set_nonblocking(true).unwrap();
        let (mut got, mut buf, end) = (vec![], [0; 1000], std::time::Instant::now() + Duration::from_secs(20));
        while got.len() < FRAMES && std::time::Instant::now() < end {
            events.run_once(Some(Duration::from_millis(20)));
            while let Ok(n) = far.recv(&mut buf) {
                got.push(n);
            }
        }
        nets.close();
        got
    }

    #[test]
    fn what_the_receiver_has_no_room_for_waits() {
        let folder = tempfile::tempdir().unwrap();
        for connected in [false, true] {
            let far = UnixDatagram::bind(folder.path().join(format!("far{connected}"))).unwrap();
            assert_eq!(sent_to(&far, connected), (60..960).collect::<Vec<_>>(), "connected: {connected}");
        }
    }
}
