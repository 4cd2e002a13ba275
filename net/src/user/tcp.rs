//! TCP connections. A guest's connection is made once the host's is: the segment that opens it waits until then, so that a guest
//! sees refusals. Each has a stack of its own, so that a segment costs the same however many connections there are.

use super::Shared;
use super::config::Target;
use super::recent::Recent;
use super::wire::{self, MTU, Packet, flag};
use hw_core::event_loop::{Ready, Watch};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown, socket_with, sockopt,
};
use smoltcp::iface::{Config as IfaceConfig, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as Stamp;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most connections.
pub const MAX_FLOWS: usize = 12_000;
/// Most that are not established.
pub const HALF_OPEN: usize = 256;
/// How long a connection may take to be established.
const PATIENCE: Duration = Duration::from_secs(75);
/// Bytes of each direction's buffer, while there are less than so many connections. (All together: less than 300 MiB.)
const BUFFERS: [(usize, usize); 3] = [(128, 256 << 10), (1024, 32 << 10), (MAX_FLOWS, 8 << 10)];
/// How long the host may leave unread what a guest sent that has closed the connection.
const LINGER: Duration = Duration::from_secs(120);
/// How long a guest may say nothing of what it was sent: what Linux does by default. (One that waits for nothing may be silent for ever.)
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// Segments of one connection before another has its turn.
const TURN: usize = 64;
/// How long an acknowledgement waits for data that goes the same way; that of a whole segment does not wait.
const ACK_DELAY: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(5);
/// Bytes read from the host in one turn.
const READ: usize = 256 * 1024;

/// A connection's two ends as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The guest's.
    pub guest: SocketAddr,
    /// The other.
    pub remote: SocketAddr,
}

/// Longest packet, which whoever gets it cuts.
const LARGE: usize = 65535;

/// A packet to go, behind room for the Ethernet header, without checksum; in which pieces.
type Outgoing = (Vec<u8>, Option<u16>);

/// The link of one connection's stack: packets that came, packets to go.
#[derive(Default)]
struct Link {
    rx: VecDeque<Vec<u8>>,
    tx: Vec<Outgoing>,
    /// Packets that may still be made.
    budget: usize,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut Link, Option<u16>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; wire::ETHERNET + len];
        let r = f(packet.get_mut(wire::ETHERNET..).unwrap_or_default());
        self.0.tx.push((packet, self.1));
        self.0.budget = self.0.budget.saturating_sub(1);
        r
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.1 = meta.segmentation_offload_size.map(std::num::NonZeroU16::get);
    }
}

impl Device for Link {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Stamp) -> Option<(Rx, Tx<'_>)> {
        // (An answer to what came is always allowed: the budget bounds what is sent besides.)
        let packet = self.rx.pop_front()?;
        Some((Rx(packet), Tx(self, None)))
    }

    fn transmit(&mut self, _: Stamp) -> Option<Tx<'_>> {
        (self.budget > 0).then_some(Tx(self, None))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut c = DeviceCapabilities::default();
        c.medium = Medium::Ip;
        c.max_transmission_unit = MTU;
        // What came was checked before; what goes is summed and cut by whoever cannot do without.
        (c.checksum.ipv4, c.checksum.tcp) = (Checksum::Tx, Checksum::None);
        // (Over IPv6 smoltcp 0.14 throws packets away that are longer than the link's, even if somebody cuts them.)
        c.segmentation.tcpv4 = std::num::NonZeroUsize::new(LARGE);
        c
    }
}

/// The guest's side of an open connection.
pub struct Inner {
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    link: Link,
}

struct Flow {
    /// It was made outside.
    forwarded: bool,
    host: Arc<OwnedFd>,
    watch: Watch,
    /// The segment that opened it; the host is not connected yet.
    opening: Option<Vec<u8>>,
    inner: Option<Box<Inner>>,
    established: bool,
    born: Instant,
    readable: bool,
    writable: bool,
    /// The host sends no more.
    host_eof: bool,
    /// The guest sends no more, and the host knows.
    host_shut: bool,
    /// The host takes nothing any more.
    broken: bool,
    /// When both ends had closed it.
    closed_at: Option<Instant>,
    /// Since when the guest has not acknowledged all that it was sent, and has not said anything either.
    unanswered: Option<Instant>,
    deadline: Option<Instant>,
    /// A program started for it.
    child: Option<std::process::Child>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Most bytes of segments that are kept while the guest takes nothing.
const HELD: usize = 8 << 20;

/// All connections.
pub struct Tcp {
    flows: HashMap<Key, Flow>,
    /// Connections that have something to do.
    work: VecDeque<Key>,
    waiting: BTreeSet<Key>,
    deadlines: BTreeSet<(Instant, Key)>,
    half_open: usize,
    /// Connections from outside that are over.
    recent: Recent,
    /// Bytes of segments that came while the guest takes nothing.
    held: usize,
    /// Bytes of buffers freed that the host has not got back.
    pub freed: usize,
    start: Instant,
    seed: u64,
}

impl Default for Tcp {
    fn default() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            flows: HashMap::new(),
            work: VecDeque::new(),
            waiting: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            half_open: 0,
            recent: Recent::default(),
            held: 0,
            freed: 0,
            start: Instant::now(),
            seed: now.as_nanos() as u64,
        }
    }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn family(a: &SocketAddr) -> AddressFamily {
    if a.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// A socket that takes connections or datagrams at `at`.
pub fn listen(udp: bool, at: SocketAddr) -> io::Result<OwnedFd> {
    let kind = if udp { SocketType::DGRAM } else { SocketType::STREAM };
    let fd = socket_with(family(&at), kind, FLAGS, None)?;
    if !udp {
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    rustix::net::bind(&fd, &at)?;
    if !udp {
        rustix::net::listen(&fd, 128)?;
    }
    Ok(fd)
}

/// A connection that is being made; true: it is there already, as mostly on this host.
fn connect(to: SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let fd = socket_with(family(&to), SocketType::STREAM, FLAGS, None)?;
    _ = sockopt::set_tcp_nodelay(&fd, true);
    match rustix::net::connect(&fd, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {
            let done = rustix::net::getpeername(&fd).is_ok();
            Ok((fd, done))
        }
        Err(e) => Err(e.into()),
    }
}

/// Starts `command` with one end of a socket pair as its input and output; the other end.
fn program(command: &str) -> io::Result<(OwnedFd, std::process::Child)> {
    use std::process::{Command, Stdio};
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (input, output): (OwnedFd, OwnedFd) = (theirs.try_clone()?.into(), theirs.into());
    let child =
        Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::from(input)).stdout(Stdio::from(output)).spawn()?;
    Ok((ours.into(), child))
}

impl Inner {
    /// A stack that has the remote's address. `opening`: the segment that it answers; without one it connects to the guest.
    /// `others`: how many connections there are, which decides how much it may keep.
    pub fn new(key: Key, others: usize, seed: u64, now: Stamp, opening: Option<Vec<u8>>) -> Option<Box<Self>> {
        let mut link = Link { budget: TURN, ..Link::default() };
        let mut config = IfaceConfig::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut link, now);
        // The whole world is on this link.
        iface.update_ip_addrs(|a| _ = a.push(IpCidr::new(key.remote.ip().into(), 0)));
        let size = BUFFERS.iter().find(|b| others <= b.0).map(|b| b.1)?;
        let buffer = || tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        // An answer that comes at once takes the acknowledgement along: the guest has a packet less to look at.
        socket.set_ack_delay(Some(ACK_DELAY));
        // (No time-out of smoltcp's: it ends connections on which nothing is said, though both ends are there.)
        let remote = IpEndpoint::from(key.remote);
        match opening {
            Some(segment) => {
                socket.listen(remote).ok()?;
                link.rx.push_back(segment);
            }
            None => socket.connect(iface.context(), IpEndpoint::from(key.guest), remote).ok()?,
        }
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        Some(Box::new(Self { iface, sockets, handle, link }))
    }

    /// Polls and gives the packets that come of it: the guest's side in tests.
    #[cfg(test)]
    pub fn exchange(&mut self, now: Stamp, mut send: impl FnMut(&[u8])) {
        self.link.budget = TURN;
        self.poll(now);
        for (frame, size) in std::mem::take(&mut self.link.tx) {
            let mut frame = frame;
            // (Only the kind of the packet matters of this header.)
            let kind = if frame[wire::ETHERNET] >> 4 == 4 { super::ETHERTYPE_IPV4 } else { super::ETHERTYPE_IPV6 };
            frame[12..14].copy_from_slice(&kind.to_be_bytes());
            let parcel = crate::offload::unfinished(frame, size);
            let frames = parcel.rest.expect("TCP").frames(parcel.frame).expect("it fits");
            frames.iter().for_each(|f| send(&f[wire::ETHERNET..]));
        }
    }

    /// A packet came.
    #[cfg(test)]
    pub fn push(&mut self, packet: Vec<u8>) {
        self.link.rx.push_back(packet);
    }

    fn poll(&mut self, now: Stamp) {
        self.iface.poll(now, &mut self.link, &mut self.sockets);
    }

    /// Whether the guest has not acknowledged all that it was sent.
    fn waits(&mut self) -> bool {
        let socket = self.socket();
        let ending = matches!(socket.state(), tcp::State::FinWait1 | tcp::State::Closing | tcp::State::LastAck);
        ending || socket.send_queue() > 0
    }

    pub fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

impl Tcp {
    fn now(&self) -> Stamp {
        Stamp::from_micros(self.start.elapsed().as_micros() as i64)
    }

    fn wake(&mut self, key: Key) {
        if self.waiting.insert(key) {
            self.work.push_back(key);
        }
    }

    /// How many connections there are, and how many of them are not established.
    #[cfg(test)]
    pub fn len(&self) -> (usize, usize) {
        (self.flows.len(), self.half_open)
    }

    /// Connections from outside that are over.
    #[cfg(test)]
    pub fn recent(&mut self) -> &mut Recent {
        &mut self.recent
    }

    /// All that happened was so much earlier.
    #[cfg(test)]
    pub fn pass(&mut self, time: Duration) {
        self.start -= time;
        for f in self.flows.values_mut() {
            f.born -= time;
            f.unanswered = f.unanswered.map(|at| at - time);
        }
        let keys: Vec<_> = self.flows.keys().copied().collect();
        keys.into_iter().for_each(|key| self.wake(key));
    }

    /// Whether a connection has bytes that the host does not take.
    #[cfg(test)]
    pub fn is_stalled(&mut self) -> bool {
        self.flows.values_mut().any(|f| !f.writable && f.inner.as_mut().is_some_and(|i| i.socket().can_recv()))
    }

    /// Whether a connection has something to do.
    pub fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// When a connection has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|d| d.0)
    }

    /// Connections whose time has come.
    pub fn expire(&mut self, now: Instant) {
        while let Some((at, key)) = self.deadlines.first().copied().filter(|d| d.0 <= now) {
            self.deadlines.remove(&(at, key));
            if let Some(f) = self.flows.get_mut(&key) {
                f.deadline = None;
            }
            self.wake(key);
        }
    }

    fn set_deadline(&mut self, key: Key, at: Option<Instant>) {
        let Some(f) = self.flows.get_mut(&key) else { return };
        if f.deadline == at {
            return;
        }
        if let Some(old) = f.deadline.take() {
            self.deadlines.remove(&(old, key));
        }
        f.deadline = at;
        if let Some(at) = at {
            self.deadlines.insert((at, key));
        }
    }

    fn remove(&mut self, key: Key) {
        self.set_deadline(key, None);
        let Some(mut flow) = self.flows.remove(&key) else { return };
        self.freed += flow.inner.as_mut().map_or(0, |i| i.socket().recv_capacity() + i.socket().send_capacity());
        if !flow.established {
            self.half_open = self.half_open.saturating_sub(1);
        } else if flow.forwarded {
            self.recent.add(key, Instant::now());
        }
    }

    /// A segment of a guest's.
    pub fn input(&mut self, s: &mut Shared, p: &Packet<'_>) {
        let Some(seg) = wire::segment(p.payload) else { return };
        if !p.unsummed && wire::upper_checksum(p.src, p.dst, wire::TCP, p.payload) != 0 {
            return;
        }
        let key = Key { guest: SocketAddr::new(p.src, seg.src_port), remote: SocketAddr::new(p.dst, seg.dst_port) };
        if let Some(flow) = self.flows.get_mut(&key) {
            match &mut flow.inner {
                Some(inner) => {
                    // (While the guest takes nothing, nothing is worked off.)
                    self.held = if s.blocked { self.held + p.whole.len() } else { 0 };
                    if self.held > HELD {
                        return; // TCP sends it again
                    }
                    inner.link.rx.push_back(p.whole.to_vec());
                    flow.unanswered = None;
                    self.wake(key);
                }
                // (The same segment again changes nothing.)
                None if seg.flags & flag::RST != 0 => self.remove(key),
                None => {}
            }
            return;
        }
        if seg.flags & (flag::SYN | flag::ACK | flag::RST) != flag::SYN {
            return Self::refuse(s, p, &seg);
        }
        if self.flows.len() >= MAX_FLOWS || self.half_open >= HALF_OPEN || seg.src_port == 0 || seg.dst_port == 0 {
            return;
        }
        let forward = s.config.guest_forwards.iter().find(|f| SocketAddr::from(f.at) == key.remote);
        let host = match (forward.map(|f| &f.to), s.translate(key.remote)) {
            (Some(Target::Command(command)), _) => program(command).map(|(fd, child)| (fd, false, Some(child))),
            (Some(Target::Device(_)), _) => match s.ports.get(&key.remote) {
                Some(port) => port.connect().map(|fd| (fd, true, None)),
                None => return Self::refuse(s, p, &seg),
            },
            (None, Some(to)) => connect(to).map(|(fd, done)| (fd, done, None)),
            // A closed network answers nothing.
            (None, None) if s.config.restrict => return,
            (None, None) => return Self::refuse(s, p, &seg),
        };
        match host {
            Ok((fd, done, child)) => {
                self.add(s, key, fd, Some(p.whole.to_vec()), child);
                if done {
                    self.host_ready(s, key, Ready::WRITE);
                }
            }
            Err(e) => {
                tracing::debug!(to = %key.remote, "no connection: {e}");
                Self::refuse(s, p, &seg);
            }
        }
    }

    fn refuse(s: &mut Shared, p: &Packet<'_>, seg: &wire::Segment) {
        if let Some(rst) = wire::reset(p.src, p.dst, seg) {
            s.send_ip(p.dst, p.src, wire::TCP, &rst);
        }
    }

    fn add(&mut self, s: &Shared, key: Key, fd: OwnedFd, opening: Option<Vec<u8>>, child: Option<std::process::Child>) {
        let host = Arc::new(fd);
        let me = s.me.clone();
        let waits = opening.is_some();
        let interest = if waits { Ready::WRITE } else { Ready::empty() };
        let watch = s.events.watch(host.clone(), interest, move |ready| {
            if let Some(user) = me.upgrade() {
                user.run(|stack| stack.tcp.host_ready(&mut stack.shared, key, ready));
            }
        });
        let flow = Flow {
            forwarded: !waits,
            host,
            watch,
            opening,
            inner: None,
            established: false,
            born: Instant::now(),
            readable: true,
            writable: true,
            host_eof: false,
            host_shut: false,
            broken: false,
            closed_at: None,
            unanswered: None,
            deadline: None,
            child,
        };
        self.flows.insert(key, flow);
        self.half_open += 1;
        self.set_deadline(key, Some(Instant::now() + PATIENCE));
    }

    /// Connections from outside, for the guest; false: the host has no room for more now.
    pub fn accept(&mut self, s: &mut Shared, listener: &OwnedFd, guest: SocketAddr) -> bool {
        use rustix::io::Errno;
        for _ in 0..64 {
            let (fd, from) = match rustix::net::acceptfrom_with(listener, FLAGS) {
                Ok(got) => got,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return false,
                Err(Errno::AGAIN) => return true,
                // (Of the one connection, which went before it was taken.)
                Err(_) => continue,
            };
            let from = from.and_then(|a| SocketAddr::try_from(a).ok());
            let Some(from) = from else { continue };
            let hidden =
                from.ip().is_loopback() || from.ip().is_ipv4() != guest.ip().is_ipv4() || s.config.contains(from.ip());
            let ip = if hidden { s.config.host_for(guest.ip()) } else { from.ip() };
            let mut key = Key { guest, remote: SocketAddr::new(ip, from.port()) };
            self.recent.forget(Instant::now());
            while self.flows.contains_key(&key) || self.recent.contains(&key) {
                key.remote.set_port(key.remote.port().wrapping_add(1).max(1));
            }
            if self.flows.len() >= MAX_FLOWS || self.half_open >= HALF_OPEN {
                continue;
            }
            _ = sockopt::set_tcp_nodelay(&fd, true);
            self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let Some(inner) = Inner::new(key, self.flows.len(), self.seed, self.now(), None) else { continue };
            self.add(s, key, fd, None, None);
            if let Some(f) = self.flows.get_mut(&key) {
                f.inner = Some(inner);
            }
            if !s.guests.contains_key(&guest.ip()) {
                s.ask(guest.ip());
            }
            self.wake(key);
        }
        true
    }

    /// The host's socket of a connection is ready.
    pub fn host_ready(&mut self, s: &mut Shared, key: Key, ready: Ready) {
        let (now, others) = (self.now(), self.flows.len());
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if let Some(segment) = flow.opening.take() {
            // (A program's socket is not one that connects.)
            let connected = flow.child.is_some() || matches!(sockopt::socket_error(&flow.host), Ok(Ok(())));
            self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let inner = if connected { Inner::new(key, others, self.seed, now, Some(segment.clone())) } else { None };
            match inner {
                Some(inner) => flow.inner = Some(inner),
                None => {
                    let p = if key.remote.is_ipv4() { wire::parse_v4(&segment) } else { wire::parse_v6(&segment) };
                    if let Some(p) = p
                        && let Some(seg) = wire::segment(p.payload)
                    {
                        Self::refuse(s, &p, &seg);
                    }
                    return self.remove(key);
                }
            }
        } else {
            flow.readable |= ready.intersects(Ready::READ | Ready::HANGUP);
            flow.writable |= ready.intersects(Ready::WRITE | Ready::HANGUP);
        }
        flow.watch.set_interest(Ready::empty());
        self.wake(key);
    }

    /// Lets connections do what they have to.
    pub fn run(&mut self, s: &mut Shared) {
        while let Some(key) = self.work.pop_front() {
            if s.blocked {
                self.work.push_front(key);
                return;
            }
            self.waiting.remove(&key);
            self.turn(s, key);
            if s.out.len() >= super::BATCH {
                return;
            }
        }
    }

    fn turn(&mut self, s: &mut Shared, key: Key) {
        let (now, clock) = (self.now(), Instant::now());
        let Some(flow) = self.flows.get_mut(&key) else { return };
        let silent = flow.unanswered.is_some_and(|since| clock.duration_since(since) >= SILENCE);
        if silent || !flow.established && clock.duration_since(flow.born) >= PATIENCE {
            if let Some(inner) = &mut flow.inner {
                inner.socket().abort();
                inner.poll(now);
                let packets = std::mem::take(&mut inner.link.tx);
                let ends = (key.remote.ip(), key.guest.ip());
                packets.into_iter().for_each(|(p, size)| s.send_unfinished(ends.0, ends.1, p, size));
            }
            return self.remove(key);
        }
        let Some(inner) = &mut flow.inner else { return };
        inner.link.budget = TURN;
        inner.poll(now);
        let moved = flow_data(flow);
        let Some(inner) = &mut flow.inner else { return };
        if moved {
            inner.poll(now);
        }
        let packets = std::mem::take(&mut inner.link.tx);
        let limited = inner.link.budget == 0;
        for (p, size) in packets {
            s.send_unfinished(key.remote.ip(), key.guest.ip(), p, size);
        }
        let next = inner.iface.poll_delay(now, &inner.sockets);
        let state = inner.socket().state();
        let open = !matches!(state, tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived);
        let waits = inner.waits();
        let space = inner.socket().can_send();
        let unread = inner.socket().can_recv();
        // A connection is over when the host has all that the guest sent before it closed.
        let closed = matches!(state, tcp::State::Closed | tcp::State::TimeWait);
        if closed && flow.closed_at.is_none() {
            flow.closed_at = Some(clock);
        }
        let given_up = flow.closed_at.map(|at| at + LINGER);
        let over = closed && (!unread || flow.broken || given_up.is_some_and(|at| at <= clock));
        if open && !flow.established {
            flow.established = true;
            self.half_open = self.half_open.saturating_sub(1);
        }
        if over {
            return self.remove(key);
        }
        let mut interest = Ready::empty();
        interest.set(Ready::READ, open && !flow.host_eof && !flow.readable && space);
        interest.set(Ready::WRITE, open && !flow.writable && unread);
        flow.watch.set_interest(interest);
        let again = limited || (flow.readable && !flow.host_eof && space && moved);
        let established = flow.established;
        let patience = flow.born + PATIENCE;
        let next = next.map(|d| clock + Duration::from_micros(d.total_micros()));
        let at = if established { next } else { next.map_or(Some(patience), |n| Some(n.min(patience))) };
        flow.unanswered = waits.then(|| flow.unanswered.unwrap_or(clock));
        let silence = flow.unanswered.map(|since| since + SILENCE);
        let at = [at, given_up, silence].into_iter().flatten().min();
        if again {
            self.wake(key);
        }
        self.set_deadline(key, at);
    }

    /// Shows connections.
    pub fn describe(&self, line: &mut impl FnMut(&str, i32, SocketAddr, SocketAddr, usize, usize)) {
        use std::os::fd::AsRawFd;
        let mut all: Vec<_> = self.flows.iter().collect();
        all.sort_by_key(|(k, _)| **k);
        for (key, f) in all {
            let socket = f.inner.as_ref().map(|i| i.sockets.get::<tcp::Socket<'_>>(i.handle));
            let state = match socket.map(tcp::Socket::state) {
                None => "SYN_SENT",
                Some(tcp::State::SynReceived | tcp::State::Listen) => "SYN_RCVD",
                Some(tcp::State::SynSent) => "SYN_SENT",
                Some(tcp::State::Established) => "ESTABLISHED",
                Some(tcp::State::CloseWait) => "CLOSE_WAIT",
                Some(tcp::State::FinWait1) => "FIN_WAIT_1",
                Some(tcp::State::FinWait2) => "FIN_WAIT_2",
                Some(tcp::State::Closing) => "CLOSING",
                Some(tcp::State::LastAck) => "LAST_ACK",
                Some(tcp::State::TimeWait) => "TIME_WAIT",
                Some(tcp::State::Closed) => "CLOSED",
            };
            let (recv, send) = socket.map_or((0, 0), |s| (s.recv_queue(), s.send_queue()));
            line(&format!("TCP[{state}]"), f.host.as_raw_fd(), key.guest, key.remote, recv, send);
        }
    }
}

/// Moves bytes between the host's socket and the guest's; whether the stack must be asked again.
fn flow_data(flow: &mut Flow) -> bool {
    let Some(inner) = &mut flow.inner else { return false };
    let host = &flow.host;
    let socket = inner.sockets.get_mut::<tcp::Socket<'_>>(inner.handle);
    let (mut moved, mut broken) = (false, false);
    // From the guest.
    while flow.writable && socket.can_recv() && !broken {
        let sent = socket.recv(|data| match send(host, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => (n, Ok(n)),
            Err(e) => (0, Err(e)),
        });
        match sent {
            Ok(Ok(_)) => moved = true,
            Ok(Err(rustix::io::Errno::INTR)) => {}
            Ok(Err(rustix::io::Errno::AGAIN)) => flow.writable = false,
            _ => broken = true,
        }
    }
    let ended = matches!(
        socket.state(),
        tcp::State::CloseWait | tcp::State::LastAck | tcp::State::Closing | tcp::State::TimeWait | tcp::State::Closed
    );
    if ended && !socket.can_recv() && !flow.host_shut {
        flow.host_shut = true;
        _ = shutdown(host, Shutdown::Write);
    }
    // From the host.
    let mut total = 0;
    while flow.readable && !flow.host_eof && socket.can_send() && total < READ && !broken {
        let mut short = false;
        let got = socket.send(|room| match recv(host, &mut *room, RecvFlags::DONTWAIT) {
            Ok((n, _)) => {
                short = n < room.len();
                (n, Ok(n))
            }
            Err(e) => (0, Err(e)),
        });
        match got {
            Ok(Ok(0)) => {
                flow.host_eof = true;
                socket.close();
                moved = true;
            }
            Ok(Ok(n)) => {
                total += n;
                moved = true;
                // That was all for now; what comes next is reported.
                flow.readable = !short;
            }
            Ok(Err(rustix::io::Errno::INTR)) => {}
            Ok(Err(rustix::io::Errno::AGAIN)) => flow.readable = false,
            _ => broken = true,
        }
    }
    if broken {
        flow.broken = true;
        socket.abort();
        moved = true;
    }
    moved
}
