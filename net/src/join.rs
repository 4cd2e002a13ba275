//! TCP segments that follow one another as one packet that is yet to be cut, for receivers that take such: a guest goes through its layers
//! once for all of them. What is joined is what cutting gives back bit by bit (`offload::cut`), so that nobody can tell; a frame waits
//! for the next one only while the host has more. The opposite of what the sender's card did. Sources: RFC 791, 8200, 9293.

use crate::checksum::{check, insert, long, put_word, word};
use crate::client::{Client, Frame, Parcel, takes};
use crate::offload::{headers, unfinished};

/// TCP flags.
const PSH: u8 = 8;
const ACK: u8 = 16;
const TCP: u8 = 6;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Most bytes of an IP packet.
const LONGEST: usize = 65535;
/// Most bytes of the headers of a frame: Ethernet, IPv6, TCP with all options.
const HEADERS: usize = ETHERNET + 40 + 60;

/// A frame that may be joined with others.
#[derive(Clone, Debug)]
struct Segment {
    v4: bool,
    /// Bytes of all headers.
    header: usize,
    /// Bytes behind them.
    data: usize,
    /// Where its data are in the stream.
    seq: u32,
    /// IPv4's number of the packet.
    ident: u16,
    push: bool,
    /// The headers without what differs between segments that are joined.
    same: [u8; HEADERS],
}

/// Looks at a frame; `None`: it is to be left alone.
fn segment(frame: &[u8], taken: u8) -> Option<Segment> {
    let h = headers(frame).filter(|h| h.proto == TCP && h.ip == ETHERNET)?;
    let (ip_header, bit) = if h.v4 { (20, takes::TCPV4) } else { (40, takes::TCPV6) };
    let len = if h.v4 { word(frame, h.ip + 2)?.into() } else { usize::from(word(frame, h.ip + 4)?) + 40 };
    let header = h.upper + usize::from(frame.get(h.upper + 12)? >> 4) * 4;
    let flags = *frame.get(h.upper + 13)?;
    let fits = h.upper == ETHERNET + ip_header
        && ETHERNET + len == frame.len()
        && (h.upper + 20..frame.len()).contains(&header)
        && flags & !PSH == ACK
        && taken & bit != 0;
    let found = if fits { check(frame) } else { return None };
    if found.upper != Some(true) || found.ip == Some(false) {
        return None;
    }
    let mut same = [0; HEADERS];
    same.get_mut(..header)?.copy_from_slice(frame.get(..header)?);
    // Length, number and checksum of IPv4's header or length of IPv6's; the place in the stream, PSH and the checksum of TCP's.
    let (seq, tcp) = (h.upper + 4..h.upper + 8, h.upper + 16..h.upper + 18);
    let ip = if h.v4 { [h.ip + 2..h.ip + 6, h.ip + 10..h.ip + 12] } else { [h.ip + 4..h.ip + 6, 0..0] };
    for range in ip.into_iter().chain([seq, tcp]) {
        same.get_mut(range)?.fill(0);
    }
    *same.get_mut(h.upper + 13)? &= !PSH;
    Some(Segment {
        v4: h.v4,
        header,
        data: frame.len() - header,
        seq: long(frame, h.upper + 4)?,
        ident: if h.v4 { word(frame, h.ip + 4)? } else { 0 },
        push: flags & PSH != 0,
        same,
    })
}

/// What is being joined.
#[derive(Debug)]
struct Held {
    frame: Frame,
    first: Segment,
    /// How many there are.
    count: usize,
    /// The last one may be followed: it was whole, and not the last of what was sent at once.
    open: bool,
}

impl Held {
    /// Whether `next` comes right behind it.
    fn is_before(&self, next: &Segment) -> bool {
        let (f, data) = (&self.first, self.frame.len() - self.first.header);
        self.open
            && next.data <= f.data
            && self.frame.len() + next.data <= ETHERNET + LONGEST
            && next.seq == f.seq.wrapping_add(data as u32)
            && (!f.v4 || next.ident == f.ident.wrapping_add(self.count as u16))
            && (f.v4, f.header, f.same) == (next.v4, next.header, next.same)
    }

    fn finish(self) -> Parcel {
        let Self { mut frame, first, count, .. } = self;
        if count == 1 {
            return frame.into();
        }
        let len = frame.len() - ETHERNET;
        if first.v4 {
            put_word(&mut frame, ETHERNET + 2, len as u16);
            put_word(&mut frame, ETHERNET + 10, 0);
            insert(&mut frame, ETHERNET + 10, ETHERNET, ETHERNET + 19);
        } else {
            put_word(&mut frame, ETHERNET + 4, (len - 40) as u16);
        }
        unfinished(frame, Some(first.data as u16))
    }
}

/// Joins the frames it is given one after the other.
#[derive(Debug)]
struct Joiner {
    /// What the receiver takes, [`takes`].
    taken: u8,
    held: Option<Held>,
}

impl Joiner {
    /// Takes a frame; what is complete by it, first to last.
    fn add(&mut self, frame: Frame) -> [Option<Parcel>; 2] {
        let Some(s) = (self.taken != 0).then(|| segment(&frame, self.taken)).flatten() else {
            return [self.end(), Some(frame.into())];
        };
        if let Some(held) = self.held.as_mut().filter(|h| h.is_before(&s)) {
            held.frame.extend_from_slice(frame.get(s.header..).unwrap_or_default());
            held.count += 1;
            held.open = s.data == held.first.data && !s.push;
            if let (true, Some(flags)) = (s.push, held.frame.get_mut(if s.v4 { 47 } else { 67 })) {
                *flags |= PSH;
            }
            return [None, None];
        }
        let before = self.end();
        self.held = Some(Held { frame, open: !s.push, first: s, count: 1 });
        [before, None]
    }

    /// What is left.
    fn end(&mut self) -> Option<Parcel> {
        self.held.take().map(Held::finish)
    }
}

/// Frames that a backend has from the host at once, on their way to its client's peer.
pub(crate) struct Batch<'a> {
    client: &'a Client,
    joiner: Joiner,
    room: bool,
}

impl<'a> Batch<'a> {
    pub fn new(client: &'a Client) -> Self {
        Self { client, joiner: Joiner { taken: client.peer_joins(), held: None }, room: true }
    }

    /// Sends a frame, now or with others; false: no more until [`crate::End::peer_ready`].
    pub fn send(&mut self, frame: Frame) -> bool {
        for parcel in self.joiner.add(frame).into_iter().flatten() {
            self.room &= self.client.send(parcel);
        }
        self.room
    }

    /// Sends what is left, and says the same.
    pub fn end(mut self) -> bool {
        if let Some(parcel) = self.joiner.end() {
            self.room &= self.client.send(parcel);
        }
        self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::VnetHeader;

    const ALL: u8 = takes::CHECKSUM | takes::TCPV4 | takes::TCPV6;

    /// Segments of a packet that was cut: `data` bytes in pieces of `size`.
    fn segments(v4: bool, data: usize, size: u16, change: impl Fn(&mut Frame)) -> Vec<Frame> {
        let mut f = vec![2; 12];
        if v4 {
            f.extend([8, 0, 0x45, 0, 0, 0, 0xff, 0xfe, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        } else {
            f.extend([0x86, 0xdd, 0x60, 1, 2, 3, 0, 0, 6, 64]);
            f.extend([0xfe; 32]);
        }
        let upper = f.len();
        f.extend([0, 80, 0, 81, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0x80, 0x18, 1, 0, 0, 0, 0, 0]);
        f.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        f.extend((0..data).map(|n| (n * 7 / 3) as u8));
        let len = f.len() - 14;
        put_word(&mut f, if v4 { 16 } else { 18 }, if v4 { len } else { len - 40 } as u16);
        change(&mut f);
        let kind = if v4 { VnetHeader::TCPV4 } else { VnetHeader::TCPV6 };
        let h = VnetHeader { flags: VnetHeader::NEEDS_CSUM, gso_type: kind, gso_size: size, ..VnetHeader::default() };
        assert_eq!(f[upper + 12], 0x80);
        h.frames(f).unwrap()
    }

    /// What comes out, and that it is what went in.
    fn joined(taken: u8, frames: &[Frame]) -> Vec<Parcel> {
        let mut j = Joiner { taken, held: None };
        let mut out: Vec<Parcel> = frames.iter().flat_map(|f| j.add(f.clone())).flatten().collect();
        out.extend(j.end());
        let cut = |p: &Parcel| match p.rest {
            Some(rest) => {
                assert!(rest.describes(&p.frame), "{rest:?}");
                rest.frames(p.frame.clone()).unwrap()
            }
            None => vec![p.frame.clone()],
        };
        assert!(out.iter().flat_map(cut).eq(frames.iter().cloned()), "cut again they are what they were");
        out
    }

    fn sizes(parcels: &[Parcel]) -> Vec<(usize, u16)> {
        parcels.iter().map(|p| (p.len(), p.rest.map_or(0, |r| r.gso_size))).collect()
    }

    #[test]
    fn what_was_cut_is_joined_again() {
        for (v4, header) in [(true, 66), (false, 86)] {
            let frames = segments(v4, 5000, 1448, |_| ());
            assert_eq!(sizes(&joined(ALL, &frames)), [(header + 5000, 1448)]);
            // A whole last one is pushed: the next packet does not go with it.
            let two = [segments(v4, 2896, 1448, |_| ()), segments(v4, 2000, 1448, |_| ())].concat();
            assert_eq!(sizes(&joined(ALL, &two)), [(header + 2896, 1448), (header + 2000, 1448)]);
            // Longer than any packet may be.
            let long = [segments(v4, 60_000, 1448, |f| f[header - 32 + 13] = 0x10), frames].concat();
            assert!(joined(ALL, &long).len() > 1);
        }
    }

    #[test]
    fn what_the_receiver_does_not_take_is_left_alone() {
        for (taken, v4) in [(0, true), (takes::CHECKSUM | takes::TCPV6, true), (takes::CHECKSUM | takes::TCPV4, false)]
        {
            let frames = segments(v4, 5000, 1448, |_| ());
            assert_eq!(joined(taken, &frames).len(), 4);
        }
    }

    #[test]
    fn what_differs_is_not_joined() {
        // Which segment of four is changed, and how (an offset from TCP's header or IPv4's, a value): what comes out.
        let at = |n: usize, offset: usize, value: u8| {
            let mut frames = segments(true, 5000, 1448, |_| ());
            frames[n][offset] = value;
            let h = headers(&frames[n]).unwrap();
            crate::offload::sign(&mut frames[n], h, true, true);
            sizes(&joined(ALL, &frames)).len()
        };
        assert_eq!(at(1, 22, 64), 1, "nothing differs");
        for (offset, value) in [
            (0, 9),
            (15, 4),
            (18, 7),
            (20, 0),
            (22, 63),
            (29, 9),
            (35, 9),
            (38, 9),
            (45, 9),
            (49, 9),
            (56, 9),
            (47, 0x11),
            (47, 0x50),
            (47, 0),
        ] {
            assert!(at(1, offset, value) >= 3, "{offset}: {value}");
        }
        assert_eq!(at(1, 47, 0x18), 2, "pushed");
        // A wrong checksum is the guest's to see.
        let mut frames = segments(true, 5000, 1448, |_| ());
        frames[2][100] ^= 1;
        assert_eq!(joined(ALL, &frames).len(), 3);
        // One that is lost, two that come in the wrong order, one that comes twice.
        let frames = segments(true, 5000, 1448, |_| ());
        assert_eq!(joined(ALL, &[&frames[..1], &frames[2..]].concat()).len(), 2);
        assert_eq!(joined(ALL, &[frames[1].clone(), frames[0].clone(), frames[2].clone()]).len(), 3);
        assert_eq!(joined(ALL, &[frames[0].clone(), frames[0].clone()]).len(), 2);
        // Others between them keep their place.
        let other = vec![0xff; 60];
        assert_eq!(
            sizes(&joined(ALL, &[frames[0].clone(), other, frames[1].clone()])),
            [(1514, 0), (60, 0), (1514, 0)]
        );
    }

    #[test]
    fn frames_of_any_length_pass() {
        for v4 in [true, false] {
            let whole = &segments(v4, 100, 1448, |_| ())[0];
            for n in 0..whole.len() {
                let cut = whole[..n].to_vec();
                assert_eq!(joined(ALL, &[cut.clone(), cut]).len(), 2, "{n}");
            }
        }
    }
}
