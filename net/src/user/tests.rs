//! A guest's frames against the network, and servers on the host's loopback.

mod segments;

use super::tcp::{HALF_OPEN, Inner, Key};
use super::wire::{self, flag};
use super::*;
use hw_core::Core;
use smoltcp::time::Instant as Stamp;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15));
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const ROUTER: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);

#[derive(Default)]
struct Card(Mutex<VecDeque<Frame>>);

impl End for Card {
    fn receive(&self, frames: &mut VecDeque<Parcel>) {
        self.0.lock().extend(frames.drain(..).map(|p| p.frame));
    }
}

struct Rig {
    _core: Arc<Core>,
    events: EventLoop,
    nets: Arc<Nets>,
    card: Arc<Card>,
    client: Arc<Client>,
}

impl Rig {
    fn new(options: &[(&str, &str)]) -> Self {
        let core = Core::new();
        let nets = Nets::of(&core);
        let events = EventLoop::new().unwrap();
        nets.set_events(events.clone());
        let mut opts = crate::keyval(options.iter().copied()).unwrap();
        opts.set("type", "user");
        opts.set("id", "n");
        let user = nets.netdev_add(opts).unwrap();
        let client = Client::new(&nets, "nic", "card".into());
        let card = Arc::new(Card::default());
        nets.add(&client, card.clone());
        nets.connect(&client, &user);
        Self { _core: core, events, nets, card, client }
    }

    fn turn(&self) {
        self.events.run_once(Some(Duration::from_millis(2)));
    }

    fn send(&self, packet: &[u8]) {
        let ethertype = if packet[0] >> 4 == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        self.client.send(wire::frame(ROUTER, MAC, ethertype, packet));
    }

    fn send_ip(&self, src: IpAddr, dst: IpAddr, proto: u8, payload: &[u8]) {
        wire::ip(src, dst, proto, payload, 1).iter().for_each(|p| self.send(p));
    }

    fn frames(&self) -> Vec<Frame> {
        self.card.0.lock().drain(..).collect()
    }

    /// The next frame that `wanted` likes.
    fn wait<R>(&self, mut wanted: impl FnMut(&[u8]) -> Option<R>) -> R {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let next = self.card.0.lock().pop_front();
            if let Some(r) = next.and_then(|f| wanted(&f)) {
                return r;
            }
            assert!(Instant::now() < end, "no such frame");
            if self.card.0.lock().is_empty() {
                self.turn();
            }
        }
    }

    fn user<R>(&self, f: impl FnOnce(&mut Stack) -> R) -> R {
        let end = self.nets.find("n").unwrap().end().unwrap();
        let mut guard = end.user().unwrap().stack.lock();
        f(guard.as_mut().unwrap())
    }

    /// A connection of the guest's; `f` gets its stack after each exchange, until it says that it is done.
    fn tcp(&self, inner: &mut Inner, mut f: impl FnMut(&mut Inner) -> bool) {
        let start = Instant::now();
        loop {
            let now = Stamp::from_micros(start.elapsed().as_micros() as i64);
            inner.exchange(now, |p| self.send(p));
            if f(inner) {
                inner.exchange(now, |p| self.send(p));
                return self.turn();
            }
            self.turn();
            for frame in self.frames() {
                if wire::parse_v4(&frame[14..]).or(wire::parse_v6(&frame[14..])).is_some_and(|p| p.proto == wire::TCP) {
                    inner.push(frame[14..].to_vec());
                }
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the connection hangs");
        }
    }
}

/// A frame that lies about what is to be done is finished, or lost, before it comes to anybody who takes unfinished ones.
#[test]
fn unfinished_frames_that_lie_are_finished_or_lost() {
    use crate::offload::VnetHeader;
    #[derive(Default)]
    struct Sink(Mutex<Vec<Parcel>>);
    impl End for Sink {
        fn receive(&self, frames: &mut VecDeque<Parcel>) {
            self.0.lock().extend(frames.drain(..));
        }
    }
    let core = Core::new();
    let nets = Nets::of(&core);
    let events = EventLoop::new().unwrap();
    nets.set_events(events.clone());
    let (from, to) = (Client::new(&nets, "nic", "from".into()), Client::new(&nets, "nic", "to".into()));
    let sink = Arc::new(Sink::default());
    nets.add(&from, Arc::new(Card::default()));
    nets.add(&to, sink.clone());
    nets.connect(&from, &to);
    let mut segment = vec![0, 80, 0, 81, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    segment.extend([7; 1000]);
    let whole = wire::frame(ROUTER, MAC, ETHERTYPE_IPV4, &wire::ip(GUEST, HOST, wire::TCP, &segment, 1)[0]);
    let good = crate::offload::unfinished(whole, Some(300));
    let rest = good.rest.unwrap();
    let arrives = |takes: u8, rest: VnetHeader, frame: &Frame| {
        to.set_takes(takes);
        from.send(Parcel { frame: frame.clone(), rest: Some(rest) });
        events.run_once(Some(Duration::from_millis(2)));
        std::mem::take(&mut *sink.0.lock())
    };
    let all = takes::CHECKSUM | takes::TCPV4 | takes::TCPV6;
    assert_eq!(arrives(all, rest, &good.frame), std::slice::from_ref(&good), "whoever takes it gets it as it is");
    let cut = arrives(takes::CHECKSUM, rest, &good.frame);
    assert_eq!(cut.len(), 4, "others get it cut");
    assert!(cut.iter().all(|p| p.rest.is_none() && crate::checksum::check(p).upper == Some(true)));
    // (what, header, frames that come of it)
    let lies = [
        ("no size", VnetHeader { gso_size: 0, ..rest }, 0),
        ("another IP", VnetHeader { gso_type: VnetHeader::TCPV6, ..rest }, 0),
        ("a sum behind the frame", VnetHeader { gso_type: 0, csum_start: 0xfff0, ..rest }, 0),
        ("a sum at the end", VnetHeader { gso_type: 0, csum_start: good.len() as u16 - 17, ..rest }, 0),
        ("a sum elsewhere", VnetHeader { gso_type: 0, csum_start: 14, csum_offset: 6, ..rest }, 1),
        ("cut, a sum behind the frame", VnetHeader { csum_start: 0xffff, csum_offset: 0xffff, ..rest }, 4),
        ("headers behind the frame, ECN", VnetHeader { hdr_len: 0xffff, gso_type: 0x81, csum_offset: 9, ..rest }, 4),
    ];
    for (what, lie, come) in lies {
        let got = arrives(all, lie, &good.frame);
        assert_eq!(got.len(), come, "{what}");
        assert!(got.iter().all(|p| p.rest.is_none()), "{what}: finished");
    }
    // An IP header that counts less, or more, than there is.
    for (at, value, come) in [(17, 0, 4), (16, 0xff, 4)] {
        let mut frame = good.frame.clone();
        frame[at] = value;
        let got = arrives(all, rest, &frame);
        assert!(got.len() >= come && got.iter().all(|p| p.rest.is_none()), "byte {at}: {}", got.len());
    }
    let mut short = good.frame.clone();
    short.truncate(40);
    assert_eq!(arrives(all, rest, &short), [], "no TCP header");
}

fn syn(port: u16, to: u16) -> Vec<u8> {
    let mut t = vec![];
    t.extend(port.to_be_bytes());
    t.extend(to.to_be_bytes());
    t.extend([0, 0, 0, 9, 0, 0, 0, 0, 5 << 4, flag::SYN, 255, 255, 0, 0, 0, 0]);
    let sum = wire::upper_checksum(GUEST, HOST, wire::TCP, &t);
    t[16..18].copy_from_slice(&sum.to_be_bytes());
    t
}

#[test]
fn the_router_answers_arp_and_pings() {
    let rig = Rig::new(&[]);
    rig.client.send(arp(
        1,
        MacAddr::BROADCAST,
        (MAC, Ipv4Addr::new(10, 0, 2, 15)),
        (MacAddr::default(), Ipv4Addr::new(10, 0, 2, 2)),
    ));
    let reply = rig.wait(|f| (wire::word(f, 12) == Some(ETHERTYPE_ARP)).then(|| f.to_vec()));
    assert_eq!((wire::word(&reply, 20), wire::mac(&reply, 22)), (Some(2), Some(ROUTER)));
    rig.send_ip(GUEST, HOST, wire::ICMP, &wire::icmp(GUEST, HOST, 8, 0, [1, 2, 3, 4], b"data"));
    let echo = rig.wait(|f| wire::parse_v4(&f[14..]).filter(|p| p.proto == wire::ICMP).map(|p| p.payload.to_vec()));
    assert_eq!((echo[0], &echo[4..]), (0, &b"\x01\x02\x03\x04data"[..]));
    let (a, b): (IpAddr, IpAddr) = ("fe80::77".parse().unwrap(), "fe80::2".parse().unwrap());
    rig.send_ip(a, b, wire::ICMPV6, &wire::icmp(a, b, 133, 0, [0; 4], &[]));
    let ra = rig.wait(|f| wire::parse_v6(&f[14..]).map(|p| p.payload.to_vec()));
    assert_eq!((ra[0], &ra[24..28]), (134, &[3, 4, 64, 0xc0][..]));
}

#[test]
fn bytes_go_both_ways_and_connections_end() {
    bytes_go_both_ways("127.0.0.1:0", GUEST, HOST);
}

#[test]
fn bytes_go_both_ways_over_ipv6() {
    bytes_go_both_ways("[::1]:0", "fec0::15".parse().unwrap(), "fec0::2".parse().unwrap());
}

fn bytes_go_both_ways(at: &str, guest: IpAddr, host: IpAddr) {
    let rig = Rig::new(&[]);
    let listener = TcpListener::bind(at).unwrap();
    let port = listener.local_addr().unwrap().port();
    let data: Vec<u8> = (0..2_000_000u32).map(|n| (n / 251) as u8 ^ n as u8).collect();
    let server = std::thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        let mut all = vec![];
        s.read_to_end(&mut all).unwrap();
        s.write_all(&all).unwrap();
    });
    let key = Key { guest: SocketAddr::new(host, port), remote: SocketAddr::new(guest, 4000) };
    let mut inner = Inner::new(key, 0, 7, Stamp::from_micros(0), None).unwrap();
    let (mut sent, mut got) = (0, vec![]);
    rig.tcp(&mut inner, |i| {
        let s = i.socket();
        if s.can_send() && sent < data.len() {
            sent += s.send_slice(&data[sent..]).unwrap();
            if sent == data.len() {
                s.close();
            }
        }
        while s.can_recv() {
            s.recv(|b| (b.len(), got.extend_from_slice(b))).unwrap();
        }
        got.len() == data.len() && !s.may_recv()
    });
    server.join().unwrap();
    assert!(got == data);
    let end = Instant::now() + Duration::from_secs(20);
    while rig.user(|s| s.tcp.len()) != (0, 0) {
        assert!(Instant::now() < end, "{:?}", rig.user(|s| s.tcp.len()));
        rig.turn();
    }
}

#[test]
fn silence_ends_a_connection_only_when_something_is_unanswered() {
    let rig = Rig::new(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let key = Key { guest: SocketAddr::new(HOST, port), remote: SocketAddr::new(GUEST, 4002) };
    let mut inner = Inner::new(key, 0, 7, Stamp::from_micros(0), None).unwrap();
    rig.tcp(&mut inner, |i| i.socket().may_send() && rig.user(|s| s.tcp.len()) == (1, 0));
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Nobody says anything for an hour; then both do.
    rig.user(|s| s.tcp.pass(Duration::from_secs(3600)));
    rig.nets.find("n").unwrap().end().unwrap().peer_ready();
    assert_eq!(rig.user(|s| s.tcp.len()), (1, 0), "it is still there");
    server.write_all(b"are you there?").unwrap();
    let mut got = vec![];
    rig.tcp(&mut inner, |i| {
        let s = i.socket();
        while s.can_recv() {
            s.recv(|b| (b.len(), got.extend_from_slice(b))).unwrap();
        }
        got == b"are you there?" && s.send_slice(b"yes").is_ok()
    });
    let mut answer = [0; 3];
    (0..20).for_each(|_| rig.turn());
    server.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"yes");
    // What the guest does not acknowledge is not kept for ever.
    server.write_all(b"and now?").unwrap();
    (0..20).for_each(|_| rig.turn());
    rig.user(|s| s.tcp.pass(Duration::from_secs(600)));
    rig.nets.find("n").unwrap().end().unwrap().peer_ready();
    assert_eq!(rig.user(|s| s.tcp.len()), (1, 0), "it may take its time");
    rig.user(|s| s.tcp.pass(Duration::from_secs(600)));
    rig.nets.find("n").unwrap().end().unwrap().peer_ready();
    assert_eq!(rig.user(|s| s.tcp.len()), (0, 0));
    assert!(server.read(&mut answer).map_or(true, |n| n == 0), "the host's end is closed");
}

#[test]
fn what_the_host_has_not_read_outlives_the_connection() {
    let rig = Rig::new(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (go, wait) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        s.shutdown(std::net::Shutdown::Write).unwrap();
        wait.recv().unwrap();
        let mut all = vec![];
        s.read_to_end(&mut all).unwrap();
        all
    });
    let key = Key { guest: SocketAddr::new(HOST, port), remote: SocketAddr::new(GUEST, 4001) };
    let mut inner = Inner::new(key, 0, 7, Stamp::from_micros(0), None).unwrap();
    let (mut sent, mut closing) = (vec![], false);
    let byte = |n: usize| (n / 251) as u8 ^ n as u8;
    rig.tcp(&mut inner, |i| {
        let s = i.socket();
        // (As soon as the host takes no more, so that all of it is on its way.)
        if !closing && rig.user(|u| u.tcp.is_stalled()) {
            closing = true;
            s.close();
        }
        if !closing && s.can_send() {
            let more: Vec<u8> = (sent.len()..sent.len() + 60_000).map(byte).collect();
            let n = s.send_slice(&more).unwrap();
            sent.extend_from_slice(&more[..n]);
        }
        // The guest has nothing more to wait for.
        closing && matches!(s.state(), smoltcp::socket::tcp::State::TimeWait | smoltcp::socket::tcp::State::Closed)
    });
    assert!(rig.user(|s| s.tcp.is_stalled()), "the host has not read yet");
    go.send(()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !server.is_finished() {
        assert!(Instant::now() < end, "the host's end is not closed");
        rig.turn();
    }
    let got = server.join().unwrap();
    assert!(got == sent, "{} of {}", got.len(), sent.len());
    assert_eq!(rig.user(|s| s.tcp.len()), (0, 0));
}

#[test]
fn a_closed_port_is_refused_and_a_restricted_network_is_silent() {
    let unused = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
    let rig = Rig::new(&[]);
    rig.send_ip(GUEST, HOST, wire::TCP, &syn(5000, unused));
    let flags = rig.wait(|f| {
        let p = wire::parse_v4(&f[14..]).filter(|p| p.proto == wire::TCP)?;
        wire::segment(p.payload).map(|s| (s.flags, s.ack))
    });
    assert_eq!(flags, (flag::RST | flag::ACK, 10));
    // Nothing of the host can be reached, and nothing says why.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (port, udp_port) = (listener.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let rig = Rig::new(&[("restrict", "on")]);
    for to in [HOST, "10.0.2.3".parse().unwrap(), "127.0.0.1".parse().unwrap(), "198.51.100.1".parse().unwrap()] {
        rig.send_ip(GUEST, to, wire::TCP, &syn(5000, port));
        rig.send_ip(GUEST, to, wire::UDP, &wire::udp((GUEST, 5), (to, udp_port), b"x"));
    }
    (0..50).for_each(|_| rig.turn());
    listener.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err() && udp.recv(&mut [0; 8]).is_err() && rig.frames().is_empty());
}

#[test]
fn half_open_connections_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let rig = Rig::new(&[]);
    for n in 0..2000u16 {
        rig.send_ip(GUEST, HOST, wire::TCP, &syn(10_000 + n, port));
        if n % 50 == 0 {
            rig.turn();
            rig.frames();
        }
    }
    (0..20).for_each(|_| rig.turn());
    let (flows, half_open) = rig.user(|s| s.tcp.len());
    assert_eq!((flows, half_open), (HALF_OPEN, HALF_OPEN));
    // Spoofed sources are nobody's.
    let (count, stranger) = (rig.user(|s| s.shared.guests.len()), "192.0.2.1".parse().unwrap());
    rig.send_ip(stranger, HOST, wire::ICMP, &wire::icmp(stranger, HOST, 8, 0, [0; 4], b""));
    rig.send_ip(HOST, HOST, wire::ICMP, &wire::icmp(HOST, HOST, 8, 0, [0; 4], b""));
    (0..5).for_each(|_| rig.turn());
    assert_eq!(rig.user(|s| s.shared.guests.len()), count);
}

#[test]
fn datagrams_come_back_through_the_socket_they_left_by() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let rig = Rig::new(&[]);
    rig.send_ip(GUEST, HOST, wire::UDP, &wire::udp((GUEST, 700), (HOST, port), b"question"));
    (0..5).for_each(|_| rig.turn());
    let mut buf = [0; 64];
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (n, from) = server.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"question");
    let long = vec![7; 4000];
    server.send_to(&long, from).unwrap();
    let mut got = vec![];
    while got.len() < 4008 {
        got.extend(rig.wait(|f| (wire::word(f, 12) == Some(ETHERTYPE_IPV4)).then(|| f[34..].to_vec())));
    }
    assert_eq!((wire::word(&got, 0), wire::word(&got, 2), &got[8..]), (Some(port), Some(700), &long[..]));
}

#[test]
fn forwarded_ports_lead_into_the_guest() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
    let rig = Rig::new(&[("hostfwd", &format!("tcp:127.0.0.1:{port}-:22"))]);
    rig.client.send(arp(
        1,
        MacAddr::BROADCAST,
        (MAC, Ipv4Addr::new(10, 0, 2, 15)),
        (MacAddr::default(), Ipv4Addr::new(10, 0, 2, 2)),
    ));
    let mut host = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let packet = rig.wait(|f| {
        let p = wire::parse_v4(f.get(14..)?).filter(|p| p.proto == wire::TCP)?;
        Some(p.whole.to_vec())
    });
    let p = wire::parse_v4(&packet).unwrap();
    let s = wire::segment(p.payload).unwrap();
    assert_eq!((p.src, s.dst_port, s.flags), (HOST, 22, flag::SYN));
    let s_port = s.src_port;
    let key = Key { guest: SocketAddr::new(HOST, s.src_port), remote: SocketAddr::new(GUEST, 22) };
    let mut inner = Inner::new(key, 0, 9, Stamp::from_micros(0), Some(packet)).unwrap();
    host.write_all(b"hello").unwrap();
    let mut got = vec![];
    rig.tcp(&mut inner, |i| {
        let s = i.socket();
        while s.can_recv() {
            s.recv(|b| (b.len(), got.extend_from_slice(b))).unwrap();
        }
        got == b"hello" && s.send_slice(b"welcome").is_ok()
    });
    let mut answer = [0; 7];
    host.set_nonblocking(true).unwrap();
    rig.tcp(&mut inner, |_| host.read_exact(&mut answer).is_ok());
    assert_eq!(&answer, b"welcome");
    // Over, and remembered.
    drop(host);
    rig.tcp(&mut inner, |i| {
        i.socket().close();
        rig.user(|s| s.tcp.len()) == (0, 0)
    });
    let key = |from: u16| Key { guest: SocketAddr::new(GUEST, 22), remote: SocketAddr::new(HOST, from) };
    assert!(rig.user(|s| s.tcp.recent().contains(&key(s_port))));
    // A port from which one came that the guest may still know is not used: the guest would take the next one for a part of the old.
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let kind = rustix::net::SocketType::STREAM;
    let again = rustix::net::socket_with(rustix::net::AddressFamily::INET, kind, flags, None).unwrap();
    rustix::net::bind(&again, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let from = SocketAddr::try_from(rustix::net::getsockname(&again).unwrap()).unwrap().port();
    rig.user(|s| s.tcp.recent().add(key(from), Instant::now()));
    rig.frames();
    rustix::net::connect(&again, &SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let source = rig.wait(|f| {
        let p = wire::parse_v4(f.get(14..)?).filter(|p| p.proto == wire::TCP)?;
        wire::segment(p.payload).filter(|s| s.flags == flag::SYN).map(|s| s.src_port)
    });
    assert!(source != from && source != s_port, "{source} after {from} and {s_port}");
}

/// Frames of any length and content: nothing panics, nothing piles up, nothing leaves, and the network still works.
#[test]
fn nonsense_is_harmless() {
    let rig = Rig::new(&[("restrict", "on")]);
    let seeds: Vec<Vec<u8>> = [
        wire::ip(GUEST, HOST, wire::TCP, &syn(1, 2), 1),
        wire::ip(GUEST, HOST, wire::UDP, &wire::udp((GUEST, 68), (HOST, 67), &[1; 300]), 1),
        wire::ip(GUEST, HOST, wire::UDP, &wire::udp((GUEST, 9), (HOST, 69), b"\0\x01a\0octet\0"), 1),
        wire::ip(GUEST, HOST, wire::ICMP, &wire::icmp(GUEST, HOST, 8, 0, [0; 4], b"x"), 1),
        vec![vec![0x60; 60]],
    ]
    .concat();
    let mut x = 88_172_645_463_325_252u64;
    let mut random = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    for n in 0..20_000 {
        let seed = &seeds[random() % seeds.len()];
        let kind = if seed[0] >> 4 == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        let mut f = wire::frame(ROUTER, MAC, if random() % 8 == 0 { ETHERTYPE_ARP } else { kind }, seed);
        for _ in 0..random() % 4 {
            let at = random() % f.len();
            f[at] = random() as u8;
        }
        f.truncate(1 + random() % (f.len() * 2));
        rig.client.send(f);
        if n % 100 == 0 {
            rig.turn();
            rig.frames();
        }
    }
    (0..5).for_each(|_| rig.turn());
    assert_eq!(rig.user(|s| s.tcp.len()), (0, 0), "connections in a closed network");
    assert!(rig.user(|s| s.shared.guests.len() <= MAX_GUESTS && s.shared.out.is_empty()));
    rig.frames();
    rig.client.send(arp(
        1,
        MacAddr::BROADCAST,
        (MAC, Ipv4Addr::new(10, 0, 2, 15)),
        (MacAddr::default(), Ipv4Addr::new(10, 0, 2, 2)),
    ));
    rig.send_ip(GUEST, HOST, wire::ICMP, &wire::icmp(GUEST, HOST, 8, 0, [1, 2, 3, 4], b"still there"));
    let echo = rig.wait(|f| wire::parse_v4(f.get(14..)?).filter(|p| p.proto == wire::ICMP).map(|p| p.payload.to_vec()));
    assert_eq!((echo[0], &echo[8..]), (0, &b"still there"[..]));
}
