//! Work that a driver leaves to its card: checksums to be filled in, packets to be cut into frames. For cards that do it (e1000) and for
//! those that describe it by a header before the frame (virtio-net). Sources: virtio 1.2 §5.1.6 (the header), RFC 791 and 8200
//! (fragments), RFC 9293, RFC 3168 (CWR).
//!
//! Frames and headers are a guest's: whatever does not fit together gives no frame.

use crate::checksum::{fold, insert, long, put_long, put_word, sum, word};
use crate::client::{Frame, Parcel};

/// TCP flags: those of the last segment alone, and that of the first.
const TCP_FIN_PSH: u8 = 1 | 8;
const TCP_CWR: u8 = 0x80;
/// IP protocols.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// More fragments follow, in IPv4's word and in IPv6's.
const MF_V4: u16 = 0x2000;
const MF_V6: u16 = 1;

/// How a packet is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Where the IP header begins.
    pub ip: usize,
    /// It is IPv4's.
    pub v4: bool,
    /// Where the TCP or UDP header begins.
    pub upper: usize,
    /// It is TCP's.
    pub tcp: bool,
    /// Bytes of all headers: each frame gets them.
    pub header: usize,
    /// Most bytes of data in a frame.
    pub size: usize,
}

/// Cuts a packet. Lengths, the IPv4 identification, sequence numbers and flags are those of each frame; checksums are up to the
/// caller. Nothing without data, or with a size of zero.
pub fn cut(frame: &[u8], c: Cut) -> impl Iterator<Item = Frame> {
    let header = frame.get(..c.header).unwrap_or_default();
    let payload = if c.size == 0 { &[] } else { frame.get(c.header..).unwrap_or_default() };
    let pieces = payload.chunks(c.size.max(1));
    let last = pieces.len().saturating_sub(1);
    pieces.enumerate().map(move |(n, piece)| {
        let mut f = [header, piece].concat();
        let len = f.len();
        if c.v4 {
            put_word(&mut f, c.ip + 2, len.saturating_sub(c.ip) as u16);
            let ident = word(&f, c.ip + 4).unwrap_or(0).wrapping_add(n as u16);
            put_word(&mut f, c.ip + 4, ident);
        } else {
            put_word(&mut f, c.ip + 4, len.saturating_sub(c.ip + 40) as u16);
        }
        if c.tcp {
            let seq = long(&f, c.upper + 4).unwrap_or(0);
            put_long(&mut f, c.upper + 4, seq.wrapping_add((n * c.size) as u32));
            if let Some(flags) = f.get_mut(c.upper + 13) {
                if n < last {
                    *flags &= !TCP_FIN_PSH;
                }
                if n > 0 {
                    *flags &= !TCP_CWR;
                }
            }
        } else {
            put_word(&mut f, c.upper + 4, len.saturating_sub(c.upper) as u16);
        }
        f
    })
}

/// Where the headers of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The IP header.
    pub ip: usize,
    /// It is IPv4's.
    pub v4: bool,
    /// What follows it, and IPv6's extension headers.
    pub upper: usize,
    /// Protocol of that.
    pub proto: u8,
}

/// Finds the headers of an IP packet; `None`: it is none, or a fragment.
pub fn headers(frame: &[u8]) -> Option<Headers> {
    let mut ip = 14;
    let mut kind = word(frame, 12)?;
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            kind = word(frame, ip + 2)?;
            ip += 4;
        }
    }
    let first = *frame.get(ip)?;
    match (kind, first >> 4) {
        (0x0800, 4) => {
            let len = usize::from(first & 15) * 4;
            let whole = len >= 20 && word(frame, ip + 6)? & 0x3fff == 0;
            whole.then_some(Headers { ip, v4: true, upper: ip + len, proto: *frame.get(ip + 9)? })
        }
        (0x86dd, 6) => {
            let (mut proto, mut upper) = (*frame.get(ip + 6)?, ip + 40);
            // Hop-by-hop options, routing, destination options: as many as there can be in all.
            while matches!(proto, 0 | 43 | 60) {
                proto = *frame.get(upper)?;
                upper += (usize::from(*frame.get(upper + 1)?) + 1) * 8;
            }
            (proto != 44).then_some(Headers { ip, v4: false, upper, proto })
        }
        _ => None,
    }
}

/// Fills in checksums: of the IPv4 header, and of TCP or UDP. What the IP header does not count is not counted.
pub fn sign(frame: &mut [u8], h: Headers, ip: bool, upper: bool) {
    let len = if h.v4 { word(frame, h.ip + 2) } else { word(frame, h.ip + 4).map(|n| n.saturating_add(40)) };
    let end = frame.len().min(h.ip + usize::from(len.unwrap_or(0)));
    let at = match h.proto {
        TCP => h.upper + 16,
        UDP => h.upper + 6,
        _ => frame.len(),
    };
    if upper && at + 2 <= end {
        put_word(frame, at, 0);
        let addresses = if h.v4 { h.ip + 12..h.ip + 20 } else { h.ip + 8..h.ip + 40 };
        let (Some(addresses), Some(data)) = (frame.get(addresses), frame.get(h.upper..end)) else { return };
        let total = u64::from(sum(addresses)) + u64::from(h.proto) + data.len() as u64 + u64::from(sum(data));
        put_word(frame, at, not_zero(!(fold(total) as u16)));
    }
    if ip && h.v4 {
        put_word(frame, h.ip + 10, 0);
        insert(frame, h.ip + 10, h.ip, h.upper - 1);
    }
}

/// A TCP frame without its checksum, and, with a `size`, to be cut into frames with that much data. What is no TCP frame stays what it is.
pub fn unfinished(mut frame: Frame, size: Option<u16>) -> Parcel {
    let Some(h) = headers(&frame).filter(|h| h.proto == TCP) else { return frame.into() };
    let addresses = if h.v4 { h.ip + 12..h.ip + 20 } else { h.ip + 8..h.ip + 40 };
    let (Some(addresses), Some(data)) = (frame.get(addresses), frame.get(h.upper..)) else { return frame.into() };
    let header = data.get(12).map_or(0, |b| usize::from(b >> 4) * 4);
    // The field holds what is not among the bytes that are summed: the pseudo-header.
    let pseudo = fold(u64::from(sum(addresses)) + u64::from(TCP) + data.len() as u64) as u16;
    put_word(&mut frame, h.upper + 16, pseudo);
    let kind = if h.v4 { VnetHeader::TCPV4 } else { VnetHeader::TCPV6 };
    let rest = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: if size.is_some() { kind } else { VnetHeader::NONE },
        hdr_len: if size.is_some() { (h.upper + header) as u16 } else { 0 },
        gso_size: size.unwrap_or(0),
        csum_start: h.upper as u16,
        csum_offset: 16,
    };
    Parcel { frame, rest: Some(rest) }
}

/// A checksum as it is sent: in UDP zero would say that there is none.
fn not_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// What a header before a frame says. Virtio 1.2 §5.1.6
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`VnetHeader::NEEDS_CSUM`] …
    pub flags: u8,
    /// [`VnetHeader::TCPV4`] …
    pub gso_type: u8,
    /// Bytes of headers, a hint.
    pub hdr_len: u16,
    /// Most bytes of data in a frame.
    pub gso_size: u16,
    /// Where the sum begins.
    pub csum_start: u16,
    /// Where it goes, from there.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Bytes.
    pub const LEN: usize = 10;
    /// Flag: a checksum is to be filled in.
    pub const NEEDS_CSUM: u8 = 1;
    /// Flag: the checksum was checked.
    pub const DATA_VALID: u8 = 2;
    /// Kinds of large packets: none, TCP over IPv4, a UDP datagram to be fragmented, TCP over IPv6, UDP datagrams in a row.
    pub const NONE: u8 = 0;
    #[expect(missing_docs, reason = "above")]
    pub const TCPV4: u8 = 1;
    #[expect(missing_docs, reason = "above")]
    pub const UDP: u8 = 3;
    #[expect(missing_docs, reason = "above")]
    pub const TCPV6: u8 = 4;
    #[expect(missing_docs, reason = "above")]
    pub const UDP_L4: u8 = 5;
    /// Or-ed to a kind: the TCP packet has CWR set.
    pub const ECN: u8 = 0x80;

    /// From its bytes, little-endian.
    pub fn from_bytes(b: [u8; Self::LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = b;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    fn fill_checksum(&self, frame: &mut [u8]) -> Option<()> {
        let start = usize::from(self.csum_start);
        let at = start + usize::from(self.csum_offset);
        frame.get(at..at + 2)?;
        let value = !(sum(frame.get(start..)?) as u16);
        put_word(frame, at, not_zero(value));
        Some(())
    }

    /// Whether it says of a frame what its own headers say: TCP (or UDP, if it is not to be cut) whose checksum is missing where that
    /// belongs, data to be cut, an IP length that is the frame's. Others are not passed on unfinished: what they become is seen when they
    /// are finished.
    pub fn describes(&self, frame: &[u8]) -> bool {
        let Some(h) = headers(frame) else { return false };
        let len = if h.v4 { word(frame, h.ip + 2) } else { word(frame, h.ip + 4).and_then(|n| n.checked_add(40)) };
        if len.is_none_or(|n| h.ip + usize::from(n) != frame.len()) {
            return false;
        }
        let kind = self.gso_type & !Self::ECN;
        let (place, least) = if h.proto == TCP { (16, 20) } else { (6, 8) };
        let header = match h.proto {
            TCP => frame.get(h.upper + 12).map_or(0, |b| usize::from(b >> 4) * 4),
            UDP if kind == Self::NONE => 8,
            _ => return false,
        };
        let cut = match kind {
            Self::NONE => true,
            Self::TCPV4 | Self::TCPV6 => {
                h.v4 == (kind == Self::TCPV4) && self.gso_size > 0 && h.upper + header < frame.len()
            }
            _ => false,
        };
        let summed =
            self.flags & Self::NEEDS_CSUM != 0 && usize::from(self.csum_start) == h.upper && self.csum_offset == place;
        cut && summed && header >= least && h.upper + header <= frame.len()
    }

    /// The frames that one with this header stands for; `None`: the header does not go with the frame.
    pub fn frames(&self, mut frame: Frame) -> Option<Vec<Frame>> {
        let kind = self.gso_type & !Self::ECN;
        if kind == Self::NONE {
            if self.flags & Self::NEEDS_CSUM != 0 {
                self.fill_checksum(&mut frame)?;
            }
            return Some(vec![frame]);
        }
        let h = headers(&frame)?;
        let size = usize::from(self.gso_size);
        let fits = match kind {
            Self::TCPV4 => h.v4 && h.proto == TCP,
            Self::TCPV6 => !h.v4 && h.proto == TCP,
            Self::UDP | Self::UDP_L4 => h.proto == UDP,
            _ => false,
        };
        if !fits || size == 0 {
            return None;
        }
        if kind == Self::UDP {
            if self.flags & Self::NEEDS_CSUM != 0 {
                self.fill_checksum(&mut frame)?;
            }
            return fragments(&frame, h, size);
        }
        let tcp = h.proto == TCP;
        let upper_len = if tcp { usize::from(frame.get(h.upper + 12)? >> 4) * 4 } else { 8 };
        let header = h.upper + upper_len;
        if (tcp && upper_len < 20) || header >= frame.len() {
            return None;
        }
        let whole = cut(&frame, Cut { ip: h.ip, v4: h.v4, upper: h.upper, tcp, header, size });
        Some(
            whole
                .map(|mut f| {
                    sign(&mut f, h, true, true);
                    f
                })
                .collect(),
        )
    }
}

/// A packet as IP fragments with `size` bytes of data, which is rounded down to eights.
fn fragments(frame: &[u8], h: Headers, size: usize) -> Option<Vec<Frame>> {
    let size = size & !7;
    let (header, data) = (frame.get(..h.upper)?, frame.get(h.upper..)?);
    if size == 0 || !(8..=0xffff).contains(&data.len()) || (!h.v4 && h.upper != h.ip + 40) {
        return None;
    }
    // (IPv6 numbers its packets only where they are cut: what is there to tell them apart is the datagram's checksum and ports.)
    let ident = long(data, 0)? ^ long(data, 4)?;
    let pieces = data.chunks(size);
    let last = pieces.len() - 1;
    let one = |(n, piece): (usize, &[u8])| {
        let offset = (n * size) as u16;
        let mut f = header.to_vec();
        if h.v4 {
            let more = if n < last { MF_V4 } else { 0 };
            put_word(&mut f, h.ip + 2, (h.upper - h.ip + piece.len()) as u16);
            put_word(&mut f, h.ip + 6, offset >> 3 | more);
            put_word(&mut f, h.ip + 10, 0);
            insert(&mut f, h.ip + 10, h.ip, h.upper - 1);
        } else {
            put_word(&mut f, h.ip + 4, (8 + piece.len()) as u16);
            if let Some(next) = f.get_mut(h.ip + 6) {
                *next = 44;
            }
            f.extend([UDP, 0]);
            f.extend((offset | if n < last { MF_V6 } else { 0 }).to_be_bytes());
            f.extend(ident.to_be_bytes());
        }
        f.extend_from_slice(piece);
        f
    };
    Some(pieces.enumerate().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::check;

    fn v4(proto: u8, upper: &[u8]) -> Frame {
        let mut f = vec![2; 12];
        f.extend([8, 0, 0x45, 0, 0, 0, 0, 7, 0, 0, 64, proto, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        f.extend(upper);
        f
    }

    fn v6(proto: u8, upper: &[u8]) -> Frame {
        let mut f = vec![2; 12];
        f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, proto, 64]);
        f.extend([0xfe; 16]);
        f.extend([0xfd; 16]);
        f.extend(upper);
        f
    }

    fn tcp(payload: usize) -> Vec<u8> {
        let mut t = vec![0, 80, 0, 81, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 0, 0x50, 0x99, 1, 0, 0, 0, 0, 0];
        t.extend((0..payload).map(|n| n as u8));
        t
    }

    fn udp(payload: usize) -> Vec<u8> {
        let mut t = vec![0, 80, 0, 81];
        t.extend((payload as u16 + 8).to_be_bytes());
        t.extend([0, 0]);
        t.extend((0..payload).map(|n| n as u8));
        t
    }

    fn gso(kind: u8, size: u16) -> VnetHeader {
        VnetHeader { flags: VnetHeader::NEEDS_CSUM, gso_type: kind, gso_size: size, ..VnetHeader::default() }
    }

    #[test]
    fn tcp_is_cut_with_right_headers() {
        for (kind, frame, upper) in [
            (VnetHeader::TCPV4, v4(TCP, &tcp(2500)), 34),
            (VnetHeader::TCPV6 | VnetHeader::ECN, v6(TCP, &tcp(2500)), 54),
        ] {
            let frames = gso(kind, 1000).frames(frame.clone()).unwrap();
            assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500].map(|n| n + upper + 20));
            for (n, f) in frames.iter().enumerate() {
                let found = check(f);
                assert_eq!((found.upper, found.ip.unwrap_or(true)), (Some(true), true), "segment {n}");
                assert_eq!(long(f, upper + 4), Some(0xffff_fff0u32.wrapping_add(n as u32 * 1000)));
                // CWR in the first alone, FIN and PSH in the last.
                assert_eq!(f[upper + 13], [0x90, 0x10, 0x19][n]);
                assert_eq!(f[upper + 20..], frame[upper + 20 + n * 1000..][..f.len() - upper - 20]);
            }
        }
        let frames = gso(VnetHeader::TCPV4, 1000).frames(v4(TCP, &tcp(2500))).unwrap();
        assert_eq!((word(&frames[0], 18), word(&frames[2], 18), word(&frames[2], 16)), (Some(7), Some(9), Some(540)));
    }

    #[test]
    fn datagrams_in_a_row_are_cut() {
        for frame in [v4(UDP, &udp(250)), v6(UDP, &udp(250))] {
            let frames = gso(VnetHeader::UDP_L4, 100).frames(frame).unwrap();
            assert_eq!(frames.len(), 3);
            assert!(frames.iter().all(|f| check(f).upper == Some(true) && check(f).udp));
        }
    }

    #[test]
    fn a_datagram_becomes_fragments() {
        let sum_at = |h: VnetHeader, start| VnetHeader { csum_start: start, csum_offset: 6, ..h };
        let frames = sum_at(gso(VnetHeader::UDP, 1004), 34).frames(v4(UDP, &udp(2492))).unwrap();
        assert_eq!(frames.iter().map(|f| word(f, 20).unwrap()).collect::<Vec<_>>(), [0x2000, 0x207d, 0x00fa]);
        assert!(frames.iter().all(|f| check(f).ip == Some(true)));
        let data: Vec<u8> = frames.iter().flat_map(|f| f[34..].to_vec()).collect();
        assert_eq!((data.len(), &data[8..]), (2500, &udp(2492)[8..]));
        assert_ne!(word(&data, 6), Some(0));
        let frames = sum_at(gso(VnetHeader::UDP, 1000), 54).frames(v6(UDP, &udp(1992))).unwrap();
        assert_eq!(frames.iter().map(|f| (f[20], word(f, 56).unwrap())).collect::<Vec<_>>(), [(44, 1), (44, 1000)]);
        assert_eq!(frames[0][58..62], frames[1][58..62]);
    }

    #[test]
    fn a_checksum_goes_where_the_header_says() {
        let mut frame = v4(UDP, &udp(5));
        put_word(&mut frame, 16, 33);
        insert(&mut frame, 24, 14, 33);
        // The field starts as the pseudo-header's sum.
        let pseudo = fold(u64::from(sum(&frame[26..34])) + u64::from(UDP) + 13) as u16;
        put_word(&mut frame, 40, pseudo);
        let h = VnetHeader { csum_start: 34, csum_offset: 6, ..gso(VnetHeader::NONE, 0) };
        assert_eq!(VnetHeader::from_bytes(h.to_bytes()), h);
        let frames = h.frames(frame.clone()).unwrap();
        assert_eq!((frames.len(), check(&frames[0]).upper), (1, Some(true)));
        let far = VnetHeader { csum_start: 46, ..h };
        assert_eq!((far.frames(frame.clone()), VnetHeader { csum_start: 65535, ..h }.frames(frame)), (None, None));
    }

    #[test]
    fn headers_that_do_not_fit_give_nothing() {
        let all = [v4(TCP, &tcp(100)), v6(TCP, &tcp(100)), v4(UDP, &udp(100)), v6(UDP, &udp(100))];
        for (n, frame) in all.iter().enumerate() {
            for kind in [1u8, 3, 4, 5, 2, 6, 0x7f] {
                let fits = match kind {
                    1 => n == 0,
                    4 => n == 1,
                    3 | 5 => n >= 2,
                    _ => false,
                };
                let h = VnetHeader { flags: 0, ..gso(kind, 64) };
                assert_eq!(h.frames(frame.clone()).is_some(), fits, "{n} {kind}");
                assert_eq!(VnetHeader { gso_size: 0, ..h }.frames(frame.clone()), None, "{n} {kind}");
                // Cut short: without all of its headers it is nothing.
                let least = [54, 74, 42, 62][n];
                assert!((0..least).all(|len| h.frames(frame[..len].to_vec()).is_none()), "{n} {kind}");
            }
        }
        let mut frame = v4(TCP, &tcp(100));
        frame[46] = 0x40;
        assert_eq!(gso(VnetHeader::TCPV4, 64).frames(frame.clone()), None, "a TCP header of 16 bytes");
        frame[46] = 0xf0;
        assert_eq!(gso(VnetHeader::TCPV4, 64).frames(frame[..94].to_vec()), None, "a TCP header beyond the frame");
        // Tags and extension headers are passed over.
        let mut tagged = v6(0, &[[TCP, 0, 0, 0, 0, 0, 0, 0].to_vec(), tcp(100)].concat());
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let found = Headers { ip: 18, v4: false, upper: 66, proto: TCP };
        assert_eq!(headers(&tagged), Some(found));
        assert_eq!(gso(VnetHeader::TCPV6, 64).frames(tagged).map(|f| f.len()), Some(2));
    }
}
