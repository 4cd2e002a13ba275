//! Headers, read and written. Sources: RFC 826 (ARP), 791 (IPv4), 8200 (IPv6), 768 (UDP), 792 (ICMP), 4443 (ICMPv6), 9293 (TCP).

use crate::MacAddr;
use crate::checksum::{fold, sum};
pub use crate::checksum::{long, word};
use crate::client::Frame;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// Bytes of an IP packet on the link.
pub const MTU: usize = 1500;

/// An Ethernet address at `at`.
pub fn mac(bytes: &[u8], at: usize) -> Option<MacAddr> {
    bytes.get(at..)?.first_chunk().map(|b| MacAddr(*b))
}

pub fn v4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().map(|b| Ipv4Addr::from(*b))
}

pub fn v6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    bytes.get(at..)?.first_chunk::<16>().map(|b| Ipv6Addr::from(*b))
}

/// Checksum of `parts`, each padded to a whole word.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    !(fold(parts.iter().map(|p| u64::from(sum(p))).sum()) as u16)
}

/// Checksum of an upper layer's packet, pseudo-header included.
pub fn upper_checksum(src: IpAddr, dst: IpAddr, proto: u8, data: &[u8]) -> u16 {
    let len = (data.len() as u32).to_be_bytes();
    let rest = [0, 0, 0, proto];
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => checksum(&[&s.octets(), &d.octets(), &rest, &len, data]),
        (IpAddr::V6(s), IpAddr::V6(d)) => checksum(&[&s.octets(), &d.octets(), &len, &rest, data]),
        _ => 0,
    }
}

/// A packet without its IP header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packet<'a> {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub payload: &'a [u8],
    /// With its header.
    pub whole: &'a [u8],
    pub hops: u8,
    /// Its checksum was never filled in: nothing can have happened to it on the way.
    pub unsummed: bool,
}

/// Reads an IPv4 packet. Fragments are not put together: they are `None`, as is whatever is cut short or has a wrong checksum.
pub fn parse_v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let first = *bytes.first()?;
    let (header, total) = (usize::from(first & 15) * 4, usize::from(word(bytes, 2)?));
    let head = bytes.get(..header)?;
    if first >> 4 != 4 || header < 20 || total < header || checksum(&[head]) != 0 || word(bytes, 6)? & 0x3fff != 0 {
        return None;
    }
    let whole = bytes.get(..total)?;
    Some(Packet {
        src: v4(bytes, 12)?.into(),
        dst: v4(bytes, 16)?.into(),
        proto: *bytes.get(9)?,
        payload: whole.get(header..)?,
        whole,
        hops: *bytes.get(8)?,
        unsummed: false,
    })
}

/// Reads an IPv6 packet; extension headers are not looked through.
pub fn parse_v6(bytes: &[u8]) -> Option<Packet<'_>> {
    if bytes.first()? >> 4 != 6 {
        return None;
    }
    let whole = bytes.get(..40 + usize::from(word(bytes, 4)?))?;
    Some(Packet {
        src: v6(bytes, 8)?.into(),
        dst: v6(bytes, 24)?.into(),
        proto: *bytes.get(6)?,
        payload: whole.get(40..)?,
        whole,
        hops: *bytes.get(7)?,
        unsummed: false,
    })
}

/// An Ethernet frame.
pub fn frame(dst: MacAddr, src: MacAddr, ethertype: u16, payload: &[u8]) -> Frame {
    let mut f = Vec::with_capacity(14 + payload.len());
    f.extend(dst.0);
    f.extend(src.0);
    f.extend(ethertype.to_be_bytes());
    f.extend_from_slice(payload);
    f
}

fn header_v4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, len: usize, ident: u16, fragment: u16) -> [u8; 20] {
    let total = (20 + len) as u16;
    let ([t0, t1], [i0, i1], [f0, f1]) = (total.to_be_bytes(), ident.to_be_bytes(), fragment.to_be_bytes());
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (src.octets(), dst.octets());
    let make = |sum: u16| {
        let [c0, c1] = sum.to_be_bytes();
        [0x45, 0, t0, t1, i0, i1, f0, f1, 64, proto, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3]
    };
    make(checksum(&[&make(0)]))
}

/// IP packets around `payload`: several if it must be fragmented (IPv4 only; longer IPv6 packets are lost).
pub fn ip(src: IpAddr, dst: IpAddr, proto: u8, payload: &[u8], ident: u16) -> Vec<Vec<u8>> {
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) if payload.len() <= 0xffff - 20 => {
            let piece = (MTU - 20) & !7;
            let last = payload.len().saturating_sub(1) / if payload.len() + 20 > MTU { piece } else { MTU };
            let size = if last == 0 { MTU } else { piece };
            let one = |(i, data): (usize, &[u8])| {
                let more = if i < last { 0x2000 } else { 0 };
                let at = (i * size / 8) as u16;
                [&header_v4(s, d, proto, data.len(), ident, at | more)[..], data].concat()
            };
            payload.chunks(size).enumerate().map(one).collect()
        }
        (IpAddr::V6(s), IpAddr::V6(d)) if payload.len() + 40 <= MTU => {
            let mut p = vec![0x60, 0, 0, 0];
            p.extend((payload.len() as u16).to_be_bytes());
            p.extend([proto, 255]);
            p.extend(s.octets());
            p.extend(d.octets());
            p.extend_from_slice(payload);
            vec![p]
        }
        _ => vec![],
    }
}

/// A UDP datagram.
pub fn udp(src: (IpAddr, u16), dst: (IpAddr, u16), data: &[u8]) -> Vec<u8> {
    let make = |sum: u16| {
        let mut d = Vec::with_capacity(8 + data.len());
        for v in [src.1, dst.1, (8 + data.len()) as u16, sum] {
            d.extend(v.to_be_bytes());
        }
        d.extend_from_slice(data);
        d
    };
    match upper_checksum(src.0, dst.0, UDP, &make(0)) {
        0 => make(0xffff),
        sum => make(sum),
    }
}

/// An ICMP or ICMPv6 message: type, code, four bytes, data.
pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let make = |sum: u16| [&[kind, code][..], &sum.to_be_bytes(), &rest, data].concat();
    let sum = if src.is_ipv4() { checksum(&[&make(0)]) } else { upper_checksum(src, dst, ICMPV6, &make(0)) };
    make(sum)
}

/// Flags of a TCP segment.
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// What decides where a TCP segment belongs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Sequence numbers it takes.
    pub len: u32,
}

pub fn segment(payload: &[u8]) -> Option<Segment> {
    let header = usize::from(payload.get(12)? >> 4) * 4;
    let flags = payload.get(13)? & 0x3f;
    let data = payload.len().checked_sub(header).filter(|_| header >= 20)?;
    let extra = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
    Some(Segment {
        src_port: word(payload, 0)?,
        dst_port: word(payload, 2)?,
        seq: long(payload, 4)?,
        ack: long(payload, 8)?,
        flags,
        len: data as u32 + extra,
    })
}

/// The reset that answers `s`, from `dst` to `src` (RFC 9293 §3.10.7.1); none for a reset.
pub fn reset(src: IpAddr, dst: IpAddr, s: &Segment) -> Option<Vec<u8>> {
    if s.flags & flag::RST != 0 {
        return None;
    }
    let (seq, ack, flags) = if s.flags & flag::ACK != 0 {
        (s.ack, 0, flag::RST)
    } else {
        (0, s.seq.wrapping_add(s.len), flag::RST | flag::ACK)
    };
    let make = |sum: u16| {
        let mut t = vec![];
        t.extend(s.dst_port.to_be_bytes());
        t.extend(s.src_port.to_be_bytes());
        t.extend(seq.to_be_bytes());
        t.extend(ack.to_be_bytes());
        t.extend([5 << 4, flags, 0, 0]);
        t.extend(sum.to_be_bytes());
        t.extend([0, 0]);
        t
    };
    Some(make(upper_checksum(dst, src, TCP, &make(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));

    #[test]
    fn packets_are_written_as_they_are_read() {
        let data = udp((A, 1000), (B, 53), b"odd");
        assert_eq!(upper_checksum(A, B, UDP, &data), 0);
        let all = ip(A, B, UDP, &data, 7);
        let [one] = &all[..] else { panic!("{all:?}") };
        let p = parse_v4(one).unwrap();
        assert_eq!((p.src, p.dst, p.proto, p.payload), (A, B, UDP, &data[..]));
        let mut bad = one.clone();
        bad[10] ^= 1;
        assert_eq!(parse_v4(&bad), None);
        for n in 0..one.len() {
            assert_eq!(parse_v4(&one[..n]), None);
        }
        let (s, d): (IpAddr, IpAddr) = ("fe80::1".parse().unwrap(), "ff02::2".parse().unwrap());
        let echo = icmp(s, d, 128, 0, [1, 2, 3, 4], b"x");
        let all = ip(s, d, ICMPV6, &echo, 0);
        let p = parse_v6(&all[0]).unwrap();
        assert_eq!((p.payload, upper_checksum(s, d, ICMPV6, &echo)), (&echo[..], 0));
    }

    #[test]
    fn long_datagrams_are_fragmented() {
        let data: Vec<u8> = (0..4000).map(|n| n as u8).collect();
        let all = ip(A, B, UDP, &data, 7);
        assert_eq!(all.len(), 3);
        let mut again = vec![0; 4000];
        for (i, f) in all.iter().enumerate() {
            let (at, body) = (usize::from(word(f, 6).unwrap() & 0x1fff) * 8, &f[20..]);
            again[at..at + body.len()].copy_from_slice(body);
            assert_eq!((word(f, 6).unwrap() & 0x2000 != 0, f.len() <= MTU), (i < 2, true));
        }
        assert_eq!(again, data);
        assert_eq!((ip(A, B, UDP, &data[..1480], 0).len(), ip(A, B, UDP, &data[..1481], 0).len()), (1, 2));
    }

    #[test]
    fn resets_answer_what_is_not_one() {
        let syn = Segment { src_port: 5, dst_port: 6, seq: 100, ack: 0, flags: flag::SYN, len: 1 };
        let r = segment(&reset(A, B, &syn).unwrap()).unwrap();
        assert_eq!((r.src_port, r.dst_port, r.seq, r.ack, r.flags), (6, 5, 0, 101, flag::RST | flag::ACK));
        assert_eq!(reset(A, B, &Segment { flags: flag::RST, ..syn }), None);
    }
}
