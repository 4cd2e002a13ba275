//! Segments as a guest makes them, one by one: what its own stack would do is what each test says.

use super::*;
use std::thread;

const PORT: u16 = 4100;
/// The guest's first sequence number.
const FIRST: u32 = 0xffff_f000;
const PSH: u8 = 8;

/// A guest's end of one connection.
struct Peer<'a> {
    rig: &'a Rig,
    to: u16,
    /// First byte that it wants.
    next: u32,
}

/// A segment that came.
struct Came {
    seq: u32,
    ack: u32,
    flags: u8,
    data: Vec<u8>,
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n / 251) as u8 ^ n as u8).collect()
}

impl<'a> Peer<'a> {
    /// A connection to the host's port `to`.
    fn connect(rig: &'a Rig, to: u16) -> Self {
        let mut peer = Self { rig, to, next: 0 };
        peer.send(FIRST, flag::SYN, &[]);
        let answer = peer.wait();
        assert_eq!(answer.flags, flag::SYN | flag::ACK);
        peer.next = answer.seq.wrapping_add(1);
        peer.send(FIRST.wrapping_add(1), flag::ACK, &[]);
        peer
    }

    /// A segment with its IP header; the checksum is right.
    fn packet(&self, seq: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let ack = if flags & flag::ACK != 0 { self.next } else { 0 };
        let mut t = vec![];
        t.extend(PORT.to_be_bytes());
        t.extend(self.to.to_be_bytes());
        t.extend(seq.to_be_bytes());
        t.extend(ack.to_be_bytes());
        t.extend([5 << 4, flags, 255, 255, 0, 0, 0, 0]);
        t.extend_from_slice(data);
        let sum = wire::upper_checksum(GUEST, HOST, wire::TCP, &t);
        t[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut p = vec![0x45, 0];
        p.extend((20 + t.len() as u16).to_be_bytes());
        p.extend([0, 1, 0, 0, 64, wire::TCP, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        let sum = wire::checksum(&[&p]);
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        p.extend(t);
        p
    }

    fn send(&self, seq: u32, flags: u8, data: &[u8]) {
        self.rig.send(&self.packet(seq, flags, data));
    }

    /// A frame that whoever gets it is to cut.
    fn send_uncut(&self, seq: u32, data: &[u8]) {
        let frame = wire::frame(ROUTER, MAC, ETHERTYPE_IPV4, &self.packet(seq, flag::ACK | PSH, data));
        self.rig.client.send(offload::unfinished(frame, Some(1460)));
    }

    fn acknowledge(&self, upto: u32) {
        let at = Self { next: upto, ..*self };
        at.send(FIRST.wrapping_add(1), flag::ACK, &[]);
    }

    fn came(frame: &[u8]) -> Option<Came> {
        let p = wire::parse_v4(frame.get(14..)?).filter(|p| p.proto == wire::TCP)?;
        let s = wire::segment(p.payload)?;
        let header = usize::from(p.payload[12] >> 4) * 4;
        Some(Came { seq: s.seq, ack: s.ack, flags: s.flags & !PSH, data: p.payload[header..].to_vec() })
    }

    fn wait(&self) -> Came {
        self.rig.wait(Self::came)
    }

    /// What came within `time`.
    fn during(&self, time: Duration) -> Vec<Came> {
        let (end, mut all) = (Instant::now() + time, vec![]);
        while Instant::now() < end {
            self.rig.turn();
            all.extend(self.rig.frames().iter().filter_map(|f| Self::came(f)));
        }
        all
    }
}

fn no_connections(rig: &Rig) {
    let end = Instant::now() + Duration::from_secs(20);
    while rig.user(|s| s.tcp.len()) != (0, 0) {
        assert!(Instant::now() < end, "{:?}", rig.user(|s| s.tcp.len()));
        rig.turn();
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A guest that is slow and says everything twice: acknowledgements of a part of an uncut segment, late ones (it was sent again), the same one
/// four times, one for what was acknowledged long ago.
#[test]
fn uncut_segments_outlive_late_and_repeated_acknowledgements() {
    let rig = Rig::new(&[]);
    rig.client.set_takes(takes::CHECKSUM | takes::TCPV4);
    let (listener, port) = listener();
    let data = pattern(400_000);
    let sent = data.clone();
    let server = thread::spawn(move || listener.accept().unwrap().0.write_all(&sent).unwrap());
    let peer = Peer::connect(&rig, port);
    let first = peer.next;
    let mut got = vec![None; data.len()];
    let (mut top, mut large, mut again, mut rounds, mut ended) = (0u32, 0, 0, 0, false);
    let end = Instant::now() + Duration::from_secs(60);
    while !ended {
        assert!(Instant::now() < end, "it hangs at {top}");
        // The first flight is not acknowledged until it comes again.
        let wait = if rounds == 0 { 1500 } else { 3 };
        let before = top;
        for c in peer.during(Duration::from_millis(wait)) {
            let at = c.seq.wrapping_sub(first);
            large += usize::from(c.data.len() > 1460);
            again += usize::from(at < before.max(top) && !c.data.is_empty());
            for (n, byte) in c.data.iter().enumerate() {
                got[at as usize + n] = Some(*byte);
            }
            top = got.iter().position(Option::is_none).unwrap_or(got.len()) as u32;
            ended |= c.flags & flag::FIN != 0 && at as usize + c.data.len() == data.len();
        }
        rounds += 1;
        if top > before {
            // The middle of a segment, the end four times, the beginning.
            peer.acknowledge(first.wrapping_add(before + (top - before) / 2));
            (0..4).for_each(|_| peer.acknowledge(first.wrapping_add(top)));
            peer.acknowledge(first.wrapping_add(before));
        } else {
            peer.acknowledge(first.wrapping_add(top));
        }
    }
    assert!(got.iter().zip(&data).all(|(a, b)| *a == Some(*b)), "other bytes");
    assert!(large > 0 && again > 0, "{large} uncut, {again} sent again");
    server.join().unwrap();
    let last = Peer { next: first.wrapping_add(data.len() as u32 + 1), ..peer };
    last.send(FIRST.wrapping_add(1), flag::ACK | flag::FIN, &[]);
    no_connections(&rig);
}

/// What a guest sends again because the answer came late is taken once.
#[test]
fn an_uncut_segment_that_comes_twice_is_taken_once() {
    let rig = Rig::new(&[]);
    let (listener, port) = listener();
    let data = pattern(120_000);
    let server = thread::spawn(move || {
        let mut all = vec![];
        listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
        all
    });
    let peer = Peer::connect(&rig, port);
    let at = |n: usize| FIRST.wrapping_add(1 + n as u32);
    // Twice; one that overlaps; one behind a gap, then the gap and more of it; an old one; over the wrap of the numbers.
    for (from, to) in [(0, 50_000), (0, 50_000), (20_000, 70_000), (90_000, 120_000), (60_000, 91_000), (1, 3_000)] {
        peer.send_uncut(at(from), &data[from..to]);
        peer.during(Duration::from_millis(10));
    }
    // (On a slow host what came may have had no room: then a guest sends it again, as here.)
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        peer.send(at(0).wrapping_sub(1), flag::ACK, b"?");
        let acks = peer.during(Duration::from_millis(10)).into_iter().map(|c| c.ack.wrapping_sub(at(0)) as usize);
        let Some(upto) = acks.filter(|n| *n <= data.len()).max() else { continue };
        if upto == data.len() {
            break;
        }
        assert!(Instant::now() < end, "{upto} bytes were acknowledged");
        peer.send_uncut(at(upto), &data[upto..data.len().min(upto + 30_000)]);
    }
    peer.send(at(data.len()), flag::ACK | flag::FIN, &[]);
    let end = Instant::now() + Duration::from_secs(20);
    let mut fin = None;
    while !server.is_finished() || fin.is_none() {
        assert!(Instant::now() < end, "the host does not get its end");
        rig.turn();
        fin = fin.or(rig.frames().iter().filter_map(|f| Peer::came(f)).find(|c| c.flags & flag::FIN != 0));
    }
    let got = server.join().unwrap();
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    let last = Peer { next: fin.unwrap().seq.wrapping_add(1), ..peer };
    last.send(at(data.len() + 1), flag::ACK, &[]);
    no_connections(&rig);
}

#[test]
fn a_guests_reset_in_the_middle_ends_the_hosts_connection_at_once() {
    let rig = Rig::new(&[]);
    let (listener, port) = listener();
    let server = thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut byte = [0; 1];
        s.read_exact(&mut byte).unwrap();
        // More than all buffers hold: it is still being written when the end comes.
        let written = s.write_all(&pattern(32 << 20)).map_err(|e| e.kind());
        (byte, written)
    });
    let peer = Peer::connect(&rig, port);
    let at = FIRST.wrapping_add(1);
    peer.send(at, flag::ACK | PSH, b"x");
    while peer.during(Duration::from_millis(5)).iter().all(|c| c.data.is_empty()) {}
    // One that is not within the window is somebody else's, or an old one.
    peer.send(at.wrapping_add(0x4000_0000), flag::RST, &[]);
    peer.send(at.wrapping_sub(1000), flag::RST, &[]);
    peer.during(Duration::from_millis(20));
    assert_eq!(rig.user(|s| s.tcp.len()), (1, 0), "a reset of another connection's");
    peer.send(at.wrapping_add(1), flag::RST, &[]);
    no_connections(&rig);
    let (byte, written) = server.join().unwrap();
    assert_eq!(&byte, b"x");
    assert!(matches!(written, Err(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)), "{written:?}");
}

#[test]
fn a_hosts_reset_in_the_middle_reaches_the_guest() {
    let rig = Rig::new(&[]);
    let (listener, port) = listener();
    let server = thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        s.read_exact(&mut [0; 10]).unwrap();
        // What it leaves unread makes its end a reset.
    });
    let peer = Peer::connect(&rig, port);
    peer.send_uncut(FIRST.wrapping_add(1), &pattern(40_000));
    let end = Instant::now() + Duration::from_secs(20);
    let mut reset = false;
    while !reset {
        assert!(Instant::now() < end, "no reset");
        // (It is noticed with what is sent next, if not before.)
        reset = peer.during(Duration::from_millis(20)).iter().any(|c| c.flags & flag::RST != 0);
    }
    server.join().unwrap();
    no_connections(&rig);
}

/// What a closed network still does: its own services, and the ways that the user opened.
#[test]
fn a_restricted_network_has_its_own_services_and_open_ways_alone() {
    let (listener, open) = listener();
    let forwarded = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("boot"), b"boot file").unwrap();
    let rig = Rig::new(&[
        ("restrict", "on"),
        ("tftp", dir.path().to_str().unwrap()),
        ("hostfwd", &format!("tcp:127.0.0.1:{forwarded}-:22")),
        ("guestfwd", "tcp:10.0.2.100:80-cmd:cat"),
    ]);
    let own = |f: &[u8]| wire::parse_v4(f.get(14..)?).filter(|p| p.proto == wire::UDP).map(|p| p.payload.to_vec());
    // An address.
    let unset = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut discover = vec![1, 1, 6, 0, 0, 0, 0, 9];
    discover.resize(28, 0);
    discover.extend(MAC.0);
    discover.resize(236, 0);
    discover.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    discover.resize(300, 0);
    let everybody = IpAddr::V4(Ipv4Addr::BROADCAST);
    rig.send_ip(unset, everybody, wire::UDP, &wire::udp((unset, 68), (everybody, 67), &discover));
    let offer = rig.wait(own);
    assert_eq!((offer[8], &offer[8 + 16..][..4]), (2, &[10, 0, 2, 15][..]));
    // A file.
    rig.send_ip(GUEST, HOST, wire::UDP, &wire::udp((GUEST, 2000), (HOST, 69), b"\0\x01boot\0octet\0"));
    assert_eq!(&rig.wait(own)[8..], b"\0\x03\0\x01boot file");
    // The program that was named.
    let mut at = Peer { rig: &rig, to: 80, next: 0 };
    let program = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 100));
    let to_program = |p: &Peer<'_>, seq: u32, flags: u8, data: &[u8]| {
        let mut t = p.packet(seq, flags, data)[20..].to_vec();
        t[16..18].fill(0);
        let sum = wire::upper_checksum(GUEST, program, wire::TCP, &t);
        t[16..18].copy_from_slice(&sum.to_be_bytes());
        rig.send_ip(GUEST, program, wire::TCP, &t);
    };
    to_program(&at, FIRST, flag::SYN, &[]);
    at.next = at.wait().seq.wrapping_add(1);
    to_program(&at, FIRST.wrapping_add(1), flag::ACK, b"through the program");
    let back = rig.wait(|f| Peer::came(f).filter(|c| !c.data.is_empty()));
    assert_eq!(back.data, b"through the program");
    // Into the guest.
    let _host = TcpStream::connect(("127.0.0.1", forwarded)).unwrap();
    let syn = rig.wait(|f| Peer::came(f).filter(|c| c.flags == flag::SYN));
    assert_eq!(syn.flags, flag::SYN);
    // And nothing else: no service of the host's by any address, no name server, no ping beyond.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    listener.set_nonblocking(true).unwrap();
    let before = rig.user(|s| s.tcp.len());
    rig.frames();
    let outside = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    let dns = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));
    for to in [HOST, dns, program, outside, IpAddr::V4(Ipv4Addr::LOCALHOST)] {
        let mut t = super::syn(6000, open);
        t[16..18].fill(0);
        let sum = wire::upper_checksum(GUEST, to, wire::TCP, &t);
        t[16..18].copy_from_slice(&sum.to_be_bytes());
        rig.send_ip(GUEST, to, wire::TCP, &t);
        for port in [udp.local_addr().unwrap().port(), 53] {
            rig.send_ip(GUEST, to, wire::UDP, &wire::udp((GUEST, 6001), (to, port), b"x"));
        }
    }
    rig.send_ip(GUEST, outside, wire::ICMP, &wire::icmp(GUEST, outside, 8, 0, [0; 4], b""));
    (0..50).for_each(|_| rig.turn());
    assert!(listener.accept().is_err() && udp.recv(&mut [0; 8]).is_err(), "the host was reached");
    assert_eq!(rig.user(|s| s.tcp.len()), before, "connections that lead nowhere");
    let answers: Vec<_> = rig.frames().iter().filter_map(|f| Peer::came(f)).filter(|c| c.flags != flag::SYN).collect();
    assert!(answers.is_empty(), "somebody answers");
}
