//! The user network's path of packets. What a fuzzer sends goes nowhere else: the network is restricted, but for connections to one listener
//! of our own.

use crate::input::Input;
use crate::rig::Rig;
use net::Nets;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest input.
const MOST: usize = 16 << 10;
/// Most bytes of frames that may come back for one frame: a window of a connection, and what reassembly gives.
const MOST_BACK: usize = 4 << 20;

/// A card's end that is a socket of ours: backend `dgram` named `card`, joined to `peer`.
pub(crate) struct Wire {
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
}

fn netdev(nets: &Arc<Nets>, options: &[(&str, &str)]) {
    let opts = net::keyval(options.iter().copied()).expect("options");
    nets.netdev_add(opts).expect("a backend");
}

impl Wire {
    /// Backend `id`, whose other end is this.
    pub(crate) fn new(nets: &Arc<Nets>, id: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let name = |n: &str| dir.path().join(n).display().to_string();
        let socket = UnixDatagram::bind(Path::new(&name("here"))).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let (local, remote) = (name("there"), name("here"));
        netdev(
            nets,
            &[
                ("type", "dgram"),
                ("id", id),
                ("local.type", "unix"),
                ("local.path", &local),
                ("remote.type", "unix"),
                ("remote.path", &remote),
            ],
        );
        socket.connect(Path::new(&local)).expect("a socket");
        Self { socket, _dir: dir }
    }

    /// Sends a frame; lost if there is no room.
    pub(crate) fn send(&self, frame: &[u8]) {
        _ = self.socket.send(frame);
    }

    /// Takes all frames that came: bytes in all.
    pub(crate) fn take(&self) -> usize {
        let mut buf = vec![0; 70 << 10];
        std::iter::from_fn(|| self.socket.recv(&mut buf).ok()).sum()
    }
}

/// Internet checksum of `bytes`, added to `sum`.
fn checksum(mut sum: u32, bytes: &[u8]) -> u16 {
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Puts right what a fuzzer hardly guesses: checksums of an IPv4 packet and of what it carries.
fn repair(frame: &mut [u8]) {
    let Some(ip) = frame.get_mut(14..).filter(|ip| ip.len() >= 20 && ip[0] == 0x45) else { return };
    let len = ip.len() as u16;
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    ip[10..12].fill(0);
    let sum = checksum(0, &ip[..20]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let (head, payload) = ip.split_at_mut(20);
    let at = match head[9] {
        1 => 2,
        6 => 16,
        17 => 6,
        _ => return,
    };
    if payload.len() < at + 2 {
        return;
    }
    payload[at..at + 2].fill(0);
    let pseudo = if head[9] == 1 {
        0
    } else {
        let words = head[12..20].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
        words + u32::from(head[9]) + payload.len() as u32
    };
    let sum = checksum(pseudo, payload);
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The router's address and the guest's, as a frame begins.
const HEAD: [u8; 12] = [0x52, 0x55, 10, 0, 2, 2, 2, 0, 0, 0, 0, 1];

fn v4(proto: u8, dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut f = HEAD.to_vec();
    f.extend([8, 0, 0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0, 10, 0, 2, 15]);
    f.extend(dst);
    f.extend(payload);
    repair(&mut f);
    f
}

/// Frames. First byte: the network is restricted and gets anything, or it is open and gets segments and datagrams to sockets of ours.
pub fn net_user(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let open = input.byte() & 1 != 0;
    let rig = Rig::new();
    let nets = rig.nets();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("f"), vec![7; 3000]).expect("a file");
    let tftp = folder.path().display().to_string();
    let restrict = if open { "off" } else { "on" };
    netdev(
        &nets,
        &[("type", "user"), ("id", "u"), ("restrict", restrict), ("tftp", &tftp), ("bootfile", "f"), ("hostname", "h")],
    );
    let wire = Wire::new(&nets, "w");
    let (Some(user), Some(card)) = (nets.find("u"), nets.find("w")) else { panic!("two backends") };
    nets.connect(&user, &card);
    let turn = || {
        for _ in 0..3 {
            rig.events.run_once(Some(Duration::ZERO));
            nets.deliver();
        }
        let back = wire.take();
        assert!(back <= MOST_BACK, "{back} bytes came back for one frame");
    };
    let listener = open.then(|| {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        tcp.set_nonblocking(true).expect("a listener");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        udp.set_nonblocking(true).expect("a socket");
        (tcp, udp)
    });
    let port = |udp: bool| {
        let of = listener.as_ref().map(|(t, u)| if udp { u.local_addr() } else { t.local_addr() });
        of.and_then(Result::ok).map_or(0, |a| a.port()).to_be_bytes()
    };
    let mut streams = vec![];
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let (what, len) = (input.byte(), usize::from(input.byte()));
        let mut payload = input.take(len).to_vec();
        if let Some((tcp, udp)) = &listener {
            // Source port and what follows are the fuzzer's.
            payload.resize(payload.len().max(20), 0);
            payload[0] = 0x10;
            payload[2..4].copy_from_slice(&port(what & 1 != 0));
            if what & 2 != 0 {
                payload[12] = 0x50;
            }
            let len = payload.len() as u16;
            if what & 1 != 0 {
                payload[4..6].copy_from_slice(&len.to_be_bytes());
            }
            wire.send(&v4(if what & 1 != 0 { 17 } else { 6 }, [10, 0, 2, 2], &payload));
            turn();
            streams.extend(tcp.accept().ok().map(|s| s.0));
            let mut buf = [0; 2048];
            if let Ok((n, from)) = udp.recv_from(&mut buf) {
                _ = udp.send_to(&buf[..n], from);
            }
            if what & 0x10 != 0 {
                streams.pop();
            }
            turn();
            continue;
        }
        let frame = match what % 8 {
            // ARP, IPv6, whatever there is.
            0 => [&HEAD[..], &[8, 6], &payload].concat(),
            1 => [&HEAD[..], &[0x86, 0xdd], &payload].concat(),
            2 => payload,
            // DHCP and TFTP, ICMP, any other protocol to the router or to somebody else.
            3 => {
                let long = ((8 + payload.len()) as u16).to_be_bytes();
                v4(17, [255; 4], &[&[0, 68, 0, 67, long[0], long[1], 0, 0], &payload[..]].concat())
            }
            4 => {
                let long = ((8 + payload.len()) as u16).to_be_bytes();
                v4(17, [10, 0, 2, 2], &[&[4, 1, 0, 69, long[0], long[1], 0, 0], &payload[..]].concat())
            }
            5 => v4(1, [10, 0, 2, 2], &payload),
            6 => v4(6, [10, 0, 2, 3], &payload),
            _ => {
                let mut frame = [&HEAD[..], &[8, 0], &payload].concat();
                repair(&mut frame);
                frame
            }
        };
        wire.send(&frame);
        turn();
    }
    drop(streams);
    turn();
}
