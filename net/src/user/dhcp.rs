//! The DHCP server. Source: RFC 2131 and RFC 2132; BOOTP: RFC 951.

use super::config::Config;
use super::wire::{self, v4};
use crate::MacAddr;
use std::net::Ipv4Addr;

/// Addresses it gives out.
pub const LEASES: u32 = 16;
/// Seconds they are given for.
const LEASE_TIME: u32 = 24 * 3600;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

/// Who has which address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leases([Option<MacAddr>; LEASES as usize]);

impl Leases {
    /// The address of a client: the one it has, the one it wants, or a free one.
    fn find(&mut self, start: Ipv4Addr, mac: MacAddr, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let address = |n: usize| Ipv4Addr::from(u32::from(start).wrapping_add(n as u32));
        if let Some(n) = self.0.iter().position(|l| *l == Some(mac)) {
            return Some(address(n));
        }
        let place = wanted.map(|w| u32::from(w).wrapping_sub(u32::from(start)) as usize);
        let place = place.filter(|n| self.0.get(*n).is_some_and(Option::is_none));
        let n = place.or_else(|| self.0.iter().position(Option::is_none))?;
        *self.0.get_mut(n)? = Some(mac);
        Some(address(n))
    }

    fn release(&mut self, mac: MacAddr) {
        for l in self.0.iter_mut().filter(|l| **l == Some(mac)) {
            *l = None;
        }
    }
}

/// A reply, and who it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub data: Vec<u8>,
    pub to: Ipv4Addr,
    /// The client has this address from now on.
    pub bound: Option<Ipv4Addr>,
    pub mac: MacAddr,
}

/// Options of a request.
#[derive(Default)]
struct Wanted {
    kind: Option<u8>,
    address: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

fn options(mut bytes: &[u8]) -> Wanted {
    let mut w = Wanted::default();
    while let [code, rest @ ..] = bytes {
        bytes = rest;
        match code {
            0 => continue,
            255 => break,
            _ => {}
        }
        let Some((len, rest)) = bytes.split_first() else { break };
        let Some((value, rest)) = rest.split_at_checked(usize::from(*len)) else { break };
        match code {
            50 => w.address = v4(value, 0),
            53 => w.kind = value.first().copied(),
            54 => w.server = v4(value, 0),
            _ => {}
        }
        bytes = rest;
    }
    w
}

/// Domain names as RFC 1035 §3.1 writes them.
fn names(list: &[String]) -> Vec<u8> {
    let mut out = vec![];
    for name in list {
        for label in name.split('.').filter(|l| !l.is_empty() && l.len() < 64) {
            out.push(label.len() as u8);
            out.extend(label.bytes());
        }
        out.push(0);
    }
    out
}

/// Answers a request, the payload of a datagram to port 67.
pub fn answer(c: &Config, leases: &mut Leases, request: &[u8]) -> Option<Reply> {
    let head = request.get(..236)?;
    // BOOTREQUEST over Ethernet.
    if !matches!(head, [1, 1, 6, ..]) {
        return None;
    }
    let (mac, ciaddr) = (wire::mac(request, 28)?, v4(request, 12)?);
    let has_cookie = request.get(236..240) == Some(&COOKIE);
    let wanted = request.get(240..).filter(|_| has_cookie).map(options).unwrap_or_default();
    let held = Some(ciaddr).filter(|a| !a.is_unspecified());
    let (reply, address) = match wanted.kind {
        // Plain BOOTP.
        None => (None, Some(leases.find(c.dhcp_start, mac, None)?)),
        Some(DISCOVER) => (Some(OFFER), Some(leases.find(c.dhcp_start, mac, wanted.address)?)),
        Some(REQUEST) => {
            if wanted.server.is_some_and(|s| s != c.host) {
                return None;
            }
            let asked = wanted.address.or(held);
            let found = leases.find(c.dhcp_start, mac, asked);
            if found.is_some() && found == asked { (Some(ACK), found) } else { (Some(NAK), None) }
        }
        Some(INFORM) => (Some(ACK), None),
        Some(RELEASE | DECLINE) => {
            leases.release(mac);
            return None;
        }
        Some(_) => return None,
    };
    let mut r = vec![2, 1, 6, 0];
    r.extend(head.get(4..8)?);
    // secs and flags, ciaddr, yiaddr
    r.extend([0, 0]);
    r.extend(head.get(10..12)?);
    r.extend(if wanted.kind == Some(INFORM) { ciaddr } else { Ipv4Addr::UNSPECIFIED }.octets());
    r.extend(address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    // siaddr, giaddr, chaddr, sname
    r.extend(if reply == Some(NAK) { Ipv4Addr::UNSPECIFIED } else { c.host }.octets());
    r.extend([0; 4]);
    r.extend(head.get(28..44)?);
    r.extend([0; 64]);
    let mut file = c.bootfile.as_deref().filter(|_| reply != Some(NAK)).unwrap_or_default().as_bytes().to_vec();
    file.resize(128, 0);
    if let Some(last) = file.last_mut() {
        *last = 0;
    }
    r.extend(file);
    if has_cookie || wanted.kind.is_some() {
        r.extend(COOKIE);
        let mut add = |code: u8, value: &[u8]| {
            for part in value.chunks(255) {
                r.extend([code, part.len() as u8]);
                r.extend(part);
            }
        };
        if let Some(kind) = reply {
            add(53, &[kind]);
            add(54, &c.host.octets());
        }
        if reply != Some(NAK) {
            add(1, &c.mask.octets());
            if !c.restrict {
                add(3, &c.host.octets());
                add(6, &c.told_dns.octets());
            }
            if address.is_some() {
                add(51, &LEASE_TIME.to_be_bytes());
            }
            for (code, text) in [(12, &c.hostname), (15, &c.domain), (66, &c.tftp_server)] {
                if let Some(text) = text {
                    add(code, text.as_bytes());
                }
            }
            if let Some(file) = c.bootfile.as_ref().filter(|f| f.len() > 127) {
                add(67, file.as_bytes());
            }
            if !c.search.is_empty() {
                add(119, &names(&c.search));
            }
        } else {
            add(56, b"requested address not available");
        }
        r.push(255);
    }
    // The shortest that BOOTP clients take.
    if r.len() < 300 {
        r.resize(300, 0);
    }
    let broadcast = reply == Some(NAK) || held.is_none();
    Some(Reply {
        data: r,
        to: if broadcast { Ipv4Addr::BROADCAST } else { ciaddr },
        bound: address.filter(|_| reply != Some(OFFER)),
        mac,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::take(&mut crate::keyval([("hostname", "guest"), ("bootfile", "/pxe"), ("dnssearch", "a.b")]).unwrap())
            .unwrap()
    }

    fn request(kind: u8, last: u8, wanted: Option<[u8; 4]>) -> Vec<u8> {
        let mut r = vec![0; 236];
        r[..8].copy_from_slice(&[1, 1, 6, 0, 9, 8, 7, 6]);
        r[28..34].copy_from_slice(&[2, 0, 0, 0, 0, last]);
        r.extend(COOKIE);
        r.extend([53, 1, kind]);
        if let Some(a) = wanted {
            r.extend([50, 4]);
            r.extend(a);
        }
        r.push(255);
        r
    }

    fn option(reply: &[u8], code: u8) -> Option<Vec<u8>> {
        let mut at = 240;
        while reply[at] != 255 {
            let len = usize::from(reply[at + 1]);
            if reply[at] == code {
                return Some(reply[at + 2..at + 2 + len].to_vec());
            }
            at += 2 + len;
        }
        None
    }

    #[test]
    fn addresses_are_offered_and_kept() {
        let (c, mut l) = (config(), Leases::default());
        let offer = answer(&c, &mut l, &request(DISCOVER, 1, None)).unwrap();
        assert_eq!((&offer.data[16..20], &offer.data[4..8]), (&[10, 0, 2, 15][..], &[9, 8, 7, 6][..]));
        assert_eq!((offer.to, offer.bound), (Ipv4Addr::BROADCAST, None));
        let ack = answer(&c, &mut l, &request(REQUEST, 1, Some([10, 0, 2, 15]))).unwrap();
        assert_eq!(ack.bound, Some(Ipv4Addr::new(10, 0, 2, 15)));
        for (code, value) in [
            (53, &[ACK][..]),
            (1, &[255, 255, 255, 0]),
            (3, &[10, 0, 2, 2]),
            (6, &[10, 0, 2, 3]),
            (12, b"guest"),
            (119, b"\x01a\x01b\x00"),
        ] {
            assert_eq!(option(&ack.data, code).as_deref(), Some(value), "{code}");
        }
        assert_eq!(&ack.data[108..113], b"/pxe\0");
        // Another client wants the same, or a free one.
        let nak = answer(&c, &mut l, &request(REQUEST, 2, Some([10, 0, 2, 15]))).unwrap();
        assert_eq!(option(&nak.data, 53), Some(vec![NAK]));
        let other = answer(&c, &mut l, &request(DISCOVER, 3, Some([10, 0, 2, 20]))).unwrap();
        assert_eq!(&other.data[16..20], &[10, 0, 2, 20]);
    }

    #[test]
    fn seventeen_clients_are_too_many_and_nonsense_is_nothing() {
        let (c, mut l) = (config(), Leases::default());
        let given = (0..20).filter(|n| answer(&c, &mut l, &request(DISCOVER, *n, None)).is_some()).count();
        assert_eq!(given, 16);
        assert_eq!(answer(&c, &mut l, &request(RELEASE, 0, None)), None);
        assert!(answer(&c, &mut l, &request(DISCOVER, 30, None)).is_some());
        let whole = request(DISCOVER, 1, Some([10, 0, 2, 15]));
        for n in 0..whole.len() {
            let _ = answer(&c, &mut l, &whole[..n]);
        }
        assert_eq!(answer(&c, &mut l, &whole[..235]), None);
    }
}
