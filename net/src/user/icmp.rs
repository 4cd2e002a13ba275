//! ICMP, and how IPv6 hosts find routers and each other. Sources: RFC 792, 4443 (ICMPv6), 4861 (neighbours and routers), 8106 (name servers).

use super::Shared;
use super::udp::Udp;
use super::wire::{self, Packet};
use std::net::{IpAddr, Ipv6Addr};

/// The router's link-local address.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// The name server's.
const DNS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3);
/// Seconds that a router advertisement holds.
const LIFETIME: u16 = 1800;

/// Sends a message to a guest.
pub fn send(s: &mut Shared, src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) {
    let message = wire::icmp(src, dst, kind, code, rest, data);
    let proto = if src.is_ipv4() { wire::ICMP } else { wire::ICMPV6 };
    s.send_ip(src, dst, proto, &message);
}

/// Tells a guest that its packet cannot be delivered.
pub fn unreachable(s: &mut Shared, p: &Packet<'_>) {
    let from = s.config.host_for(p.src);
    // (Host, and for IPv6 address, unreachable.)
    let (kind, code, most) = if p.src.is_ipv4() { (3, 1, 548) } else { (1, 3, 1232) };
    let quoted = p.whole.get(..p.whole.len().min(most)).unwrap_or_default();
    send(s, from, p.src, kind, code, [0; 4], quoted);
}

fn is_own(s: &Shared, ip: IpAddr) -> bool {
    let c = &s.config;
    [c.host.into(), c.dns.into(), c.host6.into(), c.dns6.into(), ROUTER.into(), DNS.into()].contains(&ip)
}

fn echo(s: &mut Shared, udp: &mut Udp, p: &Packet<'_>, reply: u8) {
    let Some([_, _, _, _, i0, i1, q0, q1, data @ ..]) = p.payload.get(..) else { return };
    if is_own(s, p.dst) {
        send(s, p.dst, p.src, reply, 0, [*i0, *i1, *q0, *q1], data);
    } else if !s.config.restrict && !udp.ping(s, p.src, p.dst, u16::from_be_bytes([*i0, *i1]), [*q0, *q1], data) {
        unreachable(s, p);
    }
}

/// An ICMP message of a guest's.
pub fn input_v4(s: &mut Shared, udp: &mut Udp, p: &Packet<'_>) {
    if p.payload.first() == Some(&8) && wire::checksum(&[p.payload]) == 0 {
        echo(s, udp, p, 0);
    }
}

/// An ICMPv6 message of a guest's.
pub fn input_v6(s: &mut Shared, udp: &mut Udp, p: &Packet<'_>) {
    if wire::upper_checksum(p.src, p.dst, wire::ICMPV6, p.payload) != 0 {
        return;
    }
    match p.payload.first() {
        Some(128) if !p.src.is_unspecified() => echo(s, udp, p, 129),
        // Only neighbours: what came over a router has fewer hops left (RFC 4861 §7.1.1).
        Some(133) if p.hops == 255 => advertise_router(s, p.src),
        Some(135) if p.hops == 255 => advertise(s, p),
        _ => {}
    }
}

/// The network's only router says who it is and which prefix is on the link.
fn advertise_router(s: &mut Shared, to: IpAddr) {
    let c = &s.config;
    let dst = if to.is_unspecified() { Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into() } else { to };
    let [l0, l1] = if c.restrict { [0, 0] } else { LIFETIME.to_be_bytes() };
    let mut data = vec![0; 8];
    // Source link-layer address.
    data.extend([1, 1]);
    data.extend(s.router_mac().0);
    // Prefix: on the link, and for autoconfiguration.
    data.extend([3, 4, c.prefix6_len, 0xc0]);
    data.extend(86400u32.to_be_bytes());
    data.extend(14400u32.to_be_bytes());
    data.extend([0; 4]);
    data.extend(c.prefix6.octets());
    if !c.restrict {
        // Recursive name server.
        data.extend([25, 3, 0, 0]);
        data.extend(u32::from(LIFETIME).to_be_bytes());
        data.extend(c.told_dns6.octets());
    }
    send(s, ROUTER.into(), dst, 134, 0, [64, 0, l0, l1], &data);
}

/// Answers who asks for one of our addresses.
fn advertise(s: &mut Shared, p: &Packet<'_>) {
    let Some(target) = wire::v6(p.payload, 8) else { return };
    if !is_own(s, target.into()) {
        return;
    }
    let (dst, flags) = if p.src.is_unspecified() {
        (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(), 0xa0)
    } else {
        // Router, solicited, override.
        (p.src, 0xe0)
    };
    let mut data = target.octets().to_vec();
    data.extend([2, 1]);
    data.extend(s.router_mac().0);
    send(s, target.into(), dst, 136, 0, [flags, 0, 0, 0], &data);
}

/// Asks for a guest's Ethernet address.
pub fn solicit(s: &mut Shared, target: Ipv6Addr) {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut data = target.octets().to_vec();
    data.extend([1, 1]);
    data.extend(s.router_mac().0);
    send(s, ROUTER.into(), group.into(), 135, 0, [0; 4], &data);
}
