//! `user`: a network of its own for the guest, joined to the host's without privileges.
//!
//! The guest sees a router (10.0.2.2), a name server (10.0.2.3) and, through the router, what this process can reach. Each TCP connection
//! ends here, in a stack of its own (`smoltcp`), and goes on as a socket of the host; UDP and pings are sockets of the host too. 10.0.2.2 is
//! the host's loopback. All work is done on the event loop's thread, under one lock, which is released before frames are sent on.
//!
//! Bounds: `tcp::MAX_FLOWS` connections, of which `tcp::HALF_OPEN` not yet established; `udp::MAX_FLOWS` UDP and ping sockets;
//! a connection's buffers are fixed; nothing is kept for packets that belong to nothing.
//!
//! Not here: fragments from the guest are not put together; DHCPv6; `smb`.

mod config;
mod dhcp;
mod icmp;
mod recent;
mod tcp;
#[cfg(test)]
mod tests;
mod tftp;
mod udp;
mod wire;

use crate::MacAddr;
use crate::backend::BackendDef;
use crate::client::{Client, End, Frame, Parcel, takes};
use crate::guest_port::GuestPort;
use crate::nets::Nets;
use crate::offload;
use config::{Config, HostForward, Target, host_end};
use hw_core::event_loop::{EventLoop, HostTimer, Ready, Watch};
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use wire::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet};

/// Guests whose Ethernet addresses are remembered.
const MAX_GUESTS: usize = 256;
/// Frames made before they are sent on.
const BATCH: usize = 128;

/// A rule in force.
struct Forward {
    rule: HostForward,
    /// Where it listens: the rule's address, its port chosen by the host if that was 0.
    at: SocketAddr,
    fd: Arc<OwnedFd>,
    watch: Watch,
    /// Ends a pause.
    pause: Option<HostTimer>,
}

/// How long nothing is taken from a host that has no room for more.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of connections' buffers that may be kept once they are over; and for how long more are kept, which other connections may use.
const FREED: usize = 8 << 20;
const REUSE: Duration = Duration::from_secs(1);

/// What everything in the network shares.
struct Shared {
    config: Config,
    events: EventLoop,
    me: Weak<User>,
    /// Frames for the guest.
    out: Vec<Parcel>,
    guests: HashMap<IpAddr, MacAddr>,
    resolver: Option<IpAddr>,
    /// Character devices of `guestfwd=` rules.
    ports: HashMap<SocketAddr, Box<dyn GuestPort>>,
    ident: u16,
    /// The guest's card cannot take more.
    blocked: bool,
}

impl Shared {
    /// Where a destination of the guest's is on the host. `None`: nowhere.
    fn translate(&self, to: SocketAddr) -> Option<SocketAddr> {
        let c = &self.config;
        let loopback = |v4: bool| if v4 { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        let ip = to.ip();
        if c.restrict {
            return None;
        }
        if ip == IpAddr::V4(c.dns) || ip == IpAddr::V6(c.dns6) {
            return self.resolver.filter(|_| to.port() == 53).map(|r| SocketAddr::new(r, 53));
        }
        if ip == IpAddr::V4(c.host) || ip == IpAddr::V6(c.host6) {
            return Some(SocketAddr::new(loopback(ip.is_ipv4()), to.port()));
        }
        let special = match ip {
            IpAddr::V4(a) => a.is_loopback() || a.is_unspecified() || a.is_broadcast() || a.is_multicast(),
            IpAddr::V6(a) => {
                a.is_loopback()
                    || a.is_unspecified()
                    || a.is_multicast()
                    || a.is_unicast_link_local()
                    || a.to_ipv4_mapped().is_some()
            }
        };
        (!special && !c.contains(ip)).then_some(to)
    }

    /// Ethernet address of one of the network's own.
    fn own_mac(&self, ip: IpAddr) -> MacAddr {
        let [a, b, c, d] = match ip {
            IpAddr::V4(a) => a.octets(),
            IpAddr::V6(_) => self.config.host.octets(),
        };
        MacAddr([0x52, 0x55, a, b, c, d])
    }

    fn router_mac(&self) -> MacAddr {
        self.own_mac(self.config.host.into())
    }

    fn learn(&mut self, ip: IpAddr, mac: MacAddr) {
        let known = self.guests.contains_key(&ip);
        if !mac.is_multicast() && !mac.is_zero() && (known || self.guests.len() < MAX_GUESTS) {
            self.guests.insert(ip, mac);
        }
    }

    /// Sends an IP packet to a guest; asks who has the address if that is not known, and drops the packet.
    fn send_packet(&mut self, src: IpAddr, dst: IpAddr, packet: &[u8]) {
        let ethertype = if src.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let from = self.router_mac();
        let to = match dst {
            IpAddr::V4(a) if a.is_broadcast() => Some(MacAddr::BROADCAST),
            IpAddr::V6(a) if a.is_multicast() => {
                let [.., a, b, c, d] = a.octets();
                Some(MacAddr([0x33, 0x33, a, b, c, d]))
            }
            _ => self.guests.get(&dst).copied(),
        };
        match to {
            Some(to) => self.out.push(wire::frame(to, from, ethertype, packet).into()),
            None => self.ask(dst),
        }
    }

    /// Sends a TCP packet without checksum, which begins behind room for the Ethernet header. `size`: it is to be cut into such pieces.
    fn send_unfinished(&mut self, src: IpAddr, dst: IpAddr, mut frame: Frame, size: Option<u16>) {
        let Some(to) = self.guests.get(&dst).copied() else { return self.ask(dst) };
        let header =
            wire::frame(to, self.router_mac(), if src.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }, &[]);
        if let Some(room) = frame.get_mut(..wire::ETHERNET) {
            room.copy_from_slice(&header);
            self.out.push(offload::unfinished(frame, size));
        }
    }

    /// Sends an upper layer's packet to a guest.
    fn send_ip(&mut self, src: IpAddr, dst: IpAddr, proto: u8, payload: &[u8]) {
        self.ident = self.ident.wrapping_add(1);
        for packet in wire::ip(src, dst, proto, payload, self.ident) {
            self.send_packet(src, dst, &packet);
        }
    }

    /// Asks for a guest's Ethernet address.
    fn ask(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(a) => {
                let (host, from) = (self.config.host, self.router_mac());
                self.out.push(arp(1, MacAddr::BROADCAST, (from, host), (MacAddr::default(), a)).into());
            }
            IpAddr::V6(a) => icmp::solicit(self, a),
        }
    }
}

/// An ARP packet for IPv4 over Ethernet, operation 1 (request) or 2 (reply).
fn arp(op: u16, to: MacAddr, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Frame {
    let mut p = vec![0, 1, 8, 0, 6, 4];
    p.extend(op.to_be_bytes());
    for (mac, ip) in [sender, target] {
        p.extend(mac.0);
        p.extend(ip.octets());
    }
    wire::frame(to, sender.0, ETHERTYPE_ARP, &p)
}

/// All of the network.
struct Stack {
    shared: Shared,
    tcp: tcp::Tcp,
    udp: udp::Udp,
    leases: dhcp::Leases,
    tftp: tftp::Tftp,
    forwards: Vec<Forward>,
    timer: Option<(Instant, HostTimer)>,
    /// Gives the host back what connections had.
    trim: Option<HostTimer>,
}

impl Stack {
    /// Takes a frame of the guest's.
    fn input(&mut self, frame: &Parcel) {
        let unsummed = frame.rest.is_some();
        let (Some(src), Some(ethertype), Some(body)) = (wire::mac(frame, 6), wire::word(frame, 12), frame.get(14..))
        else {
            return;
        };
        let config = &self.shared.config;
        match ethertype {
            ETHERTYPE_ARP if config.ipv4 => self.arp(body),
            ETHERTYPE_IPV4 if config.ipv4 => {
                if let Some(p) = wire::parse_v4(body) {
                    self.packet(src, &Packet { unsummed, ..p });
                }
            }
            ETHERTYPE_IPV6 if config.ipv6 => {
                if let Some(p) = wire::parse_v6(body) {
                    self.packet(src, &Packet { unsummed, ..p });
                }
            }
            _ => {}
        }
    }

    fn arp(&mut self, p: &[u8]) {
        let (Some(op), Some(mac), Some(ip), Some(target)) =
            (wire::word(p, 6), wire::mac(p, 8), wire::v4(p, 14), wire::v4(p, 24))
        else {
            return;
        };
        if p.get(..6) != Some(&[0, 1, 8, 0, 6, 4]) {
            return;
        }
        let c = &self.shared.config;
        let ours = target == c.host || target == c.dns || c.guest_forwards.iter().any(|f| f.at.0 == target);
        if c.contains(ip.into()) && ip != c.host && ip != c.dns {
            self.shared.learn(ip.into(), mac);
        }
        if op == 1 && ours {
            let own = self.shared.own_mac(target.into());
            self.shared.out.push(arp(2, mac, (own, target), (mac, ip)).into());
        }
    }

    fn packet(&mut self, from: MacAddr, p: &Packet<'_>) {
        let s = &mut self.shared;
        let local6 = matches!(p.src, IpAddr::V6(a) if a.is_unicast_link_local());
        let unset = p.src.is_unspecified();
        // Nobody else's address can be behind the guest's card.
        if !unset && !local6 && !s.config.contains(p.src) {
            return;
        }
        let router = [s.config.host.into(), s.config.dns.into(), s.config.host6.into(), s.config.dns6.into()];
        if router.contains(&p.src) {
            return;
        }
        if !unset {
            s.learn(p.src, from);
        }
        match p.proto {
            wire::TCP if !unset => self.tcp.input(s, p),
            wire::UDP => self.datagram(p),
            wire::ICMP if !unset && p.src.is_ipv4() => icmp::input_v4(s, &mut self.udp, p),
            wire::ICMPV6 if p.src.is_ipv6() => icmp::input_v6(s, &mut self.udp, p),
            _ => {}
        }
    }

    fn datagram(&mut self, p: &Packet<'_>) {
        let (Some(from), Some(to), Some(len)) =
            (wire::word(p.payload, 0), wire::word(p.payload, 2), wire::word(p.payload, 4))
        else {
            return;
        };
        let Some(data) = p.payload.get(8..usize::from(len)) else { return };
        let s = &mut self.shared;
        let host: IpAddr = s.config.host_for(p.src);
        if to == 67 && p.src.is_ipv4() && (p.dst == host || p.dst == IpAddr::V4(Ipv4Addr::BROADCAST)) {
            if let Some(reply) = dhcp::answer(&s.config, &mut self.leases, data) {
                if let Some(ip) = reply.bound {
                    s.learn(ip.into(), reply.mac);
                }
                let (src, dst) = (IpAddr::from(s.config.host), IpAddr::from(reply.to));
                let datagram = wire::udp((src, 67), (dst, 68), &reply.data);
                s.send_ip(src, dst, wire::UDP, &datagram);
            }
            return;
        }
        if p.src.is_unspecified() {
            return;
        }
        if to == 69 && p.dst == host {
            let peer = SocketAddr::new(p.src, from);
            if let Some(reply) = self.tftp.answer(s.config.tftp.as_deref(), peer, data) {
                let datagram = wire::udp((p.dst, 69), (p.src, from), &reply);
                s.send_ip(p.dst, p.src, wire::UDP, &datagram);
            }
            return;
        }
        self.udp.input(s, SocketAddr::new(p.src, from), SocketAddr::new(p.dst, to), data, p);
    }

    /// Takes nothing from a listener for a while: who waits there would be reported again and again.
    fn pause(&mut self, listener: &Arc<OwnedFd>) {
        let Some(forward) = self.forwards.iter_mut().find(|f| Arc::ptr_eq(&f.fd, listener)) else { return };
        forward.watch.set_interest(Ready::empty());
        let (me, listener) = (self.shared.me.clone(), listener.clone());
        let go_on = move || {
            let Some(user) = me.upgrade() else { return };
            user.run(|s| {
                if let Some(f) = s.forwards.iter_mut().find(|f| Arc::ptr_eq(&f.fd, &listener)) {
                    f.watch.set_interest(Ready::READ);
                    f.pause = None;
                }
            });
        };
        forward.pause = Some(self.shared.events.after(PAUSE, go_on));
    }

    /// Arms the timer for the next thing that a connection has to do.
    fn arm(&mut self) {
        let Some(at) = self.tcp.next_deadline() else { return };
        // Deadlines move with each segment, mostly away: a timer that comes too early finds out, and is armed again.
        if self.timer.as_ref().is_some_and(|t| t.0 <= at) {
            return;
        }
        let me = self.shared.me.clone();
        let delay = at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let timer = self.shared.events.after(delay, move || {
            if let Some(user) = me.upgrade() {
                user.run(|s| {
                    s.timer = None;
                    s.tcp.expire(Instant::now());
                });
            }
        });
        self.timer = Some((at, timer));
    }

    /// Sees to it that the host gets back what connections had, once there is much of it.
    fn arm_trim(&mut self) {
        if self.tcp.freed < FREED || self.trim.is_some() {
            return;
        }
        let me = self.shared.me.clone();
        self.trim = Some(self.shared.events.after(REUSE, move || {
            if let Some(user) = me.upgrade() {
                user.run(|s| (s.trim, s.tcp.freed) = (None, 0));
                hw_core::heap::give_back();
            }
        }));
    }
}

/// A user-mode network.
pub struct User {
    client: Weak<Client>,
    stack: Mutex<Option<Stack>>,
}

impl User {
    /// Does `f`, then whatever connections have to do, and sends the frames that come of it.
    fn run(&self, f: impl FnOnce(&mut Stack)) {
        let Some(client) = self.client.upgrade() else { return };
        let mut f = Some(f);
        loop {
            let (frames, more) = {
                let mut guard = self.stack.lock();
                let Some(stack) = guard.as_mut() else { return };
                if let Some(f) = f.take() {
                    f(stack);
                }
                stack.shared.blocked = !client.can_send();
                stack.tcp.run(&mut stack.shared);
                stack.arm();
                stack.arm_trim();
                let more = stack.tcp.has_work() && !stack.shared.blocked;
                (std::mem::take(&mut stack.shared.out), more)
            };
            for frame in frames {
                client.send(frame);
            }
            if !more {
                return;
            }
        }
    }

    /// `hostfwd=`, `hostfwd_add`.
    ///
    /// # Errors
    /// The rule is none, or the host does not let us listen there.
    pub(crate) fn add_forward(&self, text: &str) -> Result<()> {
        let mut guard = self.stack.lock();
        let Some(stack) = guard.as_mut() else { return Err(Error::generic("the network is closed")) };
        let rule = stack.shared.config.host_forward(text)?;
        let failed = |_| Error::generic(format!("Could not set up host forwarding rule '{text}'"));
        let fd = Arc::new(tcp::listen(rule.udp, rule.host).map_err(failed)?);
        let (me, shared_fd, r) = (stack.shared.me.clone(), fd.clone(), rule.clone());
        let watch = stack.shared.events.watch(fd.clone(), Ready::READ, move |_| {
            let Some(user) = me.upgrade() else { return };
            user.run(|s| {
                if r.udp {
                    s.udp.forwarded(&mut s.shared, &shared_fd, r.guest);
                } else if !s.tcp.accept(&mut s.shared, &shared_fd, r.guest) {
                    s.pause(&shared_fd);
                }
            });
        });
        let at = rustix::net::getsockname(&*fd).ok().and_then(|a| SocketAddr::try_from(a).ok()).unwrap_or(rule.host);
        stack.forwards.push(Forward { rule, at, fd, watch, pause: None });
        Ok(())
    }

    /// `hostfwd_remove`; whether there was such a rule.
    ///
    /// # Errors
    /// The text is no end of a rule.
    pub(crate) fn remove_forward(&self, text: &str) -> Result<bool> {
        let (udp, host) = host_end(text).map_err(|_| Error::generic("Invalid format"))?;
        let mut guard = self.stack.lock();
        let Some(stack) = guard.as_mut() else { return Ok(false) };
        let before = stack.forwards.len();
        let fds: Vec<_> =
            stack.forwards.iter().filter(|f| f.rule.udp == udp && f.rule.host == host).map(|f| f.fd.clone()).collect();
        stack.udp.forget(&fds);
        stack.forwards.retain(|f| f.rule.udp != udp || f.rule.host != host);
        Ok(stack.forwards.len() < before)
    }

    /// `info usernet`.
    pub(crate) fn describe(&self) -> String {
        use std::os::fd::AsRawFd;
        let mut out = "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n".to_owned();
        let guard = self.stack.lock();
        let Some(stack) = guard.as_ref() else { return out };
        let mut line = |what: &str, fd: i32, src: SocketAddr, dst: SocketAddr, recv: usize, send: usize| {
            let show = |ip: IpAddr| if ip.is_unspecified() { "*".to_owned() } else { ip.to_string() };
            let _ = writeln!(
                out,
                "  {what:<17} {fd:>4} {:>15} {:>5} {:>15} {:>5} {recv:>5} {send:>5}",
                show(src.ip()),
                src.port(),
                show(dst.ip()),
                dst.port()
            );
        };
        for f in &stack.forwards {
            let what = if f.rule.udp { "UDP[HOST_FORWARD]" } else { "TCP[HOST_FORWARD]" };
            line(what, f.fd.as_raw_fd(), f.at, f.rule.guest, 0, 0);
        }
        stack.tcp.describe(&mut line);
        stack.udp.describe(&mut line);
        out
    }
}

impl End for User {
    fn receive(&self, frames: &mut VecDeque<Parcel>) {
        // In batches, so that answers go out while there is room for them.
        while !frames.is_empty() {
            let n = frames.len().min(BATCH);
            let batch: Vec<Parcel> = frames.drain(..n).collect();
            self.run(|s| batch.iter().for_each(|f| s.input(f)));
        }
    }

    fn peer_ready(&self) {
        self.run(|_| {});
    }

    fn close(&self) {
        let old = self.stack.lock().take();
        drop(old);
    }

    fn user(&self) -> Option<&User> {
        Some(self)
    }
}

/// The host's name server.
fn resolver() -> Option<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let servers = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver")?.trim().parse().ok());
    let mut servers: Vec<IpAddr> = servers.collect();
    servers.sort_by_key(|ip| !ip.is_ipv4());
    servers.first().copied()
}

fn open(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    let config = Config::take(opts)?;
    let events = nets.events()?.clone();
    let mut ports = HashMap::new();
    for forward in &config.guest_forwards {
        if let Target::Device(device) = &forward.to {
            let label = format!("guestfwd.tcp.{}", forward.at.1);
            ports.insert(SocketAddr::from(forward.at), nets.guest_port(&label, device)?);
        }
    }
    client.set_info(format!("net={},restrict={}", config.net, if config.restrict { "on" } else { "off" }));
    let rules = config.host_forwards.clone();
    client.set_takes(takes::CHECKSUM | takes::TCPV4 | takes::TCPV6);
    let user = Arc::new_cyclic(|me| User {
        client: Arc::downgrade(client),
        stack: Mutex::new(Some(Stack {
            shared: Shared {
                config,
                events,
                me: me.clone(),
                out: vec![],
                guests: HashMap::new(),
                resolver: resolver(),
                ports,
                ident: 0,
                blocked: false,
            },
            tcp: tcp::Tcp::default(),
            udp: udp::Udp::default(),
            leases: dhcp::Leases::default(),
            tftp: tftp::Tftp::default(),
            forwards: vec![],
            timer: None,
            trim: None,
        })),
    });
    for rule in rules {
        if let Err(e) = user.add_forward(&rule) {
            user.close();
            return Err(e);
        }
    }
    Ok(user)
}

inventory::submit! { BackendDef { name: "user", open } }
