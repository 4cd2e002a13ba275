//! UDP and pings: a socket of the host for each port (or ping identifier) of a guest's. Datagrams from anywhere come back through it.

use super::Shared;
use super::wire::{self, Packet};
use hw_core::event_loop::{Ready, Watch};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, recvfrom, sendto, socket_with,
};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most sockets.
pub const MAX_FLOWS: usize = 512;
/// How long a socket stays without use.
const IDLE: Duration = Duration::from_secs(240);

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Datagrams from a guest's port; `dns`: to the name server, whose answers come from its address.
    Udp { guest: SocketAddr, dns: Option<IpAddr>, v4: bool },
    /// Echo requests.
    Ping { guest: IpAddr, to: IpAddr, ident: u16 },
}

struct Flow {
    fd: Arc<OwnedFd>,
    /// None: the socket is a forwarding rule's.
    _watch: Option<Watch>,
    last: Instant,
}

/// All sockets.
#[derive(Default)]
pub struct Udp(HashMap<Key, Flow>);

impl Udp {
    /// Makes room for one more.
    fn make_room(&mut self) {
        let now = Instant::now();
        self.0.retain(|_, f| now.duration_since(f.last) < IDLE);
        while self.0.len() >= MAX_FLOWS {
            let Some(oldest) = self.0.iter().min_by_key(|(_, f)| f.last).map(|(k, _)| *k) else { return };
            self.0.remove(&oldest);
        }
    }

    fn open(&mut self, s: &Shared, key: Key, v4: bool) -> rustix::io::Result<Arc<OwnedFd>> {
        if let Some(f) = self.0.get_mut(&key) {
            f.last = Instant::now();
            return Ok(f.fd.clone());
        }
        self.make_room();
        let protocol = match (key, v4) {
            (Key::Udp { .. }, _) => None,
            (Key::Ping { .. }, true) => Some(ipproto::ICMP),
            (Key::Ping { .. }, false) => Some(ipproto::ICMPV6),
        };
        let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, protocol)?;
        let fd = Arc::new(fd);
        let me = s.me.clone();
        let watch = s.events.watch(fd.clone(), Ready::READ, move |_| {
            if let Some(user) = me.upgrade() {
                user.run(|stack| stack.udp.readable(&mut stack.shared, key));
            }
        });
        self.0.insert(key, Flow { fd: fd.clone(), _watch: Some(watch), last: Instant::now() });
        Ok(fd)
    }

    /// A guest's datagram.
    pub fn input(&mut self, s: &mut Shared, guest: SocketAddr, to: SocketAddr, data: &[u8], p: &Packet<'_>) {
        let Some(target) = s.translate(to) else {
            let silent =
                s.config.restrict || to.ip().is_multicast() || p.dst == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
            if !silent {
                super::icmp::unreachable(s, p);
            }
            return;
        };
        let dns = [IpAddr::V4(s.config.dns), IpAddr::V6(s.config.dns6)].into_iter().find(|a| *a == to.ip());
        let v4 = target.is_ipv4();
        let result = self
            .open(s, Key::Udp { guest, dns, v4 }, v4)
            .and_then(|fd| sendto(&fd, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &target));
        match result {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNREFUSED) => {}
            Err(_) => super::icmp::unreachable(s, p),
        }
    }

    /// Something came on a socket.
    fn readable(&mut self, s: &mut Shared, key: Key) {
        let Some(flow) = self.0.get_mut(&key) else { return };
        flow.last = Instant::now();
        let fd = flow.fd.clone();
        let mut buf = vec![0; 65536];
        for _ in 0..64 {
            match key {
                Key::Udp { guest, dns, .. } => {
                    let Ok((n, _, from)) = recvfrom(&fd, &mut buf[..], RecvFlags::DONTWAIT) else { return };
                    let Some(from) = from.and_then(|a| SocketAddr::try_from(a).ok()) else { continue };
                    deliver(s, guest, dns, from, buf.get(..n).unwrap_or_default());
                }
                Key::Ping { guest, to, ident } => {
                    let Ok((n, _)) = recv(&fd, &mut buf[..], RecvFlags::DONTWAIT) else { return };
                    // Type, code, checksum, identifier (the kernel's), sequence number, data.
                    let Some([kind, _, _, _, _, _, q0, q1, data @ ..]) = buf.get(..n) else { continue };
                    if matches!((kind, to.is_ipv4()), (0, true) | (129, false)) {
                        let [i0, i1] = ident.to_be_bytes();
                        super::icmp::send(s, to, guest, *kind, 0, [i0, i1, *q0, *q1], data);
                    }
                }
            }
        }
    }

    /// Datagrams from outside, for a guest's port.
    pub fn forwarded(&mut self, s: &mut Shared, fd: &Arc<OwnedFd>, guest: SocketAddr) {
        let mut buf = vec![0; 65536];
        for _ in 0..64 {
            let Ok((n, _, from)) = recvfrom(fd, &mut buf[..], RecvFlags::DONTWAIT) else { return };
            let Some(from) = from.and_then(|a| SocketAddr::try_from(a).ok()) else { continue };
            // Answers go out through the rule's socket.
            let key = Key::Udp { guest, dns: None, v4: from.is_ipv4() };
            if self.0.get(&key).is_none_or(|f| !Arc::ptr_eq(&f.fd, fd)) {
                self.make_room();
                self.0.insert(key, Flow { fd: fd.clone(), _watch: None, last: Instant::now() });
            } else if let Some(f) = self.0.get_mut(&key) {
                f.last = Instant::now();
            }
            deliver(s, guest, None, from, buf.get(..n).unwrap_or_default());
        }
    }

    /// Forgets what goes through the sockets of rules that are gone.
    pub fn forget(&mut self, fds: &[Arc<OwnedFd>]) {
        self.0.retain(|_, f| !fds.iter().any(|fd| Arc::ptr_eq(fd, &f.fd)));
    }

    /// Sends an echo request to the host's network: `rest` is the sequence number. False: this process may not.
    pub fn ping(&mut self, s: &Shared, guest: IpAddr, to: IpAddr, ident: u16, seq: [u8; 2], data: &[u8]) -> bool {
        let Some(target) = s.translate(SocketAddr::new(to, 0)) else { return false };
        let kind = if to.is_ipv4() { 8 } else { 128 };
        let [s0, s1] = seq;
        let message = [&[kind, 0, 0, 0, 0, 0, s0, s1][..], data].concat();
        let Ok(fd) = self.open(s, Key::Ping { guest, to, ident }, to.is_ipv4()) else { return false };
        sendto(&fd, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &target).is_ok()
    }

    /// Shows sockets.
    pub fn describe(&self, line: &mut impl FnMut(&str, i32, SocketAddr, SocketAddr, usize, usize)) {
        use std::os::fd::AsRawFd;
        for (key, f) in &self.0 {
            let left = IDLE.saturating_sub(f.last.elapsed()).as_secs();
            match key {
                Key::Udp { guest, dns, .. } => {
                    let to = SocketAddr::new(dns.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)), 0);
                    line(&format!("UDP[{left} sec]"), f.fd.as_raw_fd(), *guest, to, 0, 0);
                }
                Key::Ping { guest, to, ident } => {
                    let (from, to) = (SocketAddr::new(*guest, *ident), SocketAddr::new(*to, 0));
                    line(&format!("ICMP[{left} sec]"), f.fd.as_raw_fd(), from, to, 0, 0);
                }
            }
        }
    }
}

/// Hands a datagram of the host's to a guest.
fn deliver(s: &mut Shared, guest: SocketAddr, dns: Option<IpAddr>, from: SocketAddr, data: &[u8]) {
    // What comes from the host itself comes from the router.
    let hidden = from.ip().is_loopback() || from.is_ipv4() != guest.is_ipv4() || s.config.contains(from.ip());
    let src = match dns {
        Some(dns) => dns,
        None if hidden => s.config.host_for(guest.ip()),
        None => from.ip(),
    };
    if s.blocked {
        return;
    }
    let datagram = wire::udp((src, from.port()), (guest.ip(), guest.port()), data);
    s.send_ip(src, guest.ip(), wire::UDP, &datagram);
}
