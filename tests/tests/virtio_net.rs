//! A virtio network card by its registers and rings; the other end of its cable is a socket of the test's.

use serde_json::json;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use tempfile::TempDir;
use tests::packages;
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::virtio::{Desc, Ring, VIRTIO_PCI, Virtio, WRITE};

/// Features.
const CSUM: u64 = 1;
const GUEST_CSUM: u64 = 2;
const TSO4: u64 = 1 << 11;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
/// The control queue, what it sets about reception, the address.
const CONTROL: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23;
/// Bytes of the header before a frame, for modern drivers.
const HEADER: usize = 12;
/// Where buffers are.
const OUT: u64 = 0x10_0000;
const IN: u64 = 0x20_0000;
const COMMAND: u64 = 0x30_0000;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0xab, 0xcd, 0xef];

struct Card {
    v: Virtio,
    /// The cable: what is written is received.
    wire: UnixDatagram,
    dir: TempDir,
}

impl Card {
    fn new(device: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let wire = UnixDatagram::bind(path("wire")).expect("a socket");
        wire.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        let netdev = format!(
            "dgram,id=n,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            path("card"),
            path("wire")
        );
        let device = format!("virtio-net-pci,netdev=n,addr=4,mac=52:54:00:ab:cd:ef,id=card{device}");
        let qmp = format!("unix:{},server=on,wait=off", path("qmp"));
        let firmware = packages::seabios().expect("SeaBIOS can be fetched");
        let firmware = firmware.to_str().expect("a plain path");
        let args = ["-nodefaults", "-m", "64", "-L", firmware, "-netdev", &netdev, "-device", &device, "-qmp", &qmp];
        let v = Virtio::new(Qtest::start(&args), 4);
        wire.connect(path("card")).expect("the card's socket");
        Self { v, wire, dir }
    }

    fn qmp(&self) -> Qmp {
        let mut q = Qmp::connect(&self.dir.path().join("qmp"));
        q.run("qmp_capabilities", json!({}));
        q
    }

    /// Negotiates and makes the queues.
    fn start(&mut self, features: u64) -> [Ring; 3] {
        self.v.start(features | VIRTIO_PCI);
        let rings = [0, 1, 2].map(|n| self.v.queue(n, features >> 34 & 1 != 0));
        self.v.driver_ok();
        rings
    }

    fn come(&self, frame: &[u8]) {
        self.wire.send(frame).expect("it is taken");
    }

    fn sent(&self) -> Vec<u8> {
        let mut bytes = vec![0; 70_000];
        let n = self.wire.recv(&mut bytes).expect("a frame comes");
        bytes.truncate(n);
        bytes
    }

    /// Sends a frame with a header.
    fn send(&mut self, tx: &mut Ring, header: &[u8], frame: &[u8]) {
        self.v.q.write(OUT, header);
        self.v.q.write(OUT + 0x1000, frame);
        let parts = [(OUT, header.len() as u32, 0), (OUT + 0x1000, frame.len() as u32, 0)];
        tx.offer(&mut self.v, if frame.is_empty() { &parts[..1] } else { &parts });
    }

    /// Gives a command; the answer.
    fn command(&mut self, ctrl: &mut Ring, class: u8, command: u8, data: &[u8]) -> u64 {
        self.v.q.write(COMMAND, &[&[class, command], data].concat());
        self.v.q.store(COMMAND + 0x1000, 1, 0xee);
        ctrl.offer(&mut self.v, &[(COMMAND, 2 + data.len() as u32, 0), (COMMAND + 0x1000, 1, WRITE)]);
        ctrl.wait(&mut self.v);
        self.v.q.load(COMMAND + 0x1000, 1)
    }
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    [&to[..], &MAC, &[0x08, 0x06], &vec![7; len - 14]].concat()
}

/// A TCP packet over IPv4 whose checksum field is the pseudo-header's sum.
fn tcp(payload: usize) -> Vec<u8> {
    let mut f = [&[2; 6][..], &MAC, &[8, 0, 0x45, 0]].concat();
    f.extend(((40 + payload) as u16).to_be_bytes());
    f.extend([0, 7, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    net::checksum::insert(&mut f, 24, 14, 33);
    let pseudo = net::checksum::fold(u64::from(net::checksum::sum(&f[26..34])) + 6 + 20 + payload as u64);
    f.extend([0, 80, 0, 81, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 0x18, 1, 0]);
    f.extend((pseudo as u16).to_be_bytes());
    f.extend([0, 0]);
    f.extend((0..payload).map(|n| n as u8));
    f
}

#[test]
fn features_and_configuration() {
    let mut c = Card::new("");
    assert_eq!((c.v.config(0, 4), c.v.config(8, 4), c.v.config(0x2c, 4)), (0x1000_1af4, 0x0200_0000, 0x0001_1af4));
    // CSUM GUEST_CSUM CTRL_GUEST_OFFLOADS MAC GSO, all TSO and UFO, MRG_RXBUF … GUEST_ANNOUNCE, CTRL_MAC_ADDR
    assert_eq!(c.v.offered() & 0xff_ffff, 0xbf_ffe7);
    assert_eq!(c.v.offered() >> 24, 0x0130 | 1 << 16 | 7 << 30, "indirect, event index, version 1, queue reset, USO");
    assert_eq!((c.v.common(0x12, 2), c.v.config(0x9a, 2) & 0x7ff), (3, 3), "queues, vectors less one");
    assert_eq!((c.v.device(0, 4), c.v.device(4, 2), c.v.device(6, 2)), (0xab00_5452, 0xefcd, 1));
    assert_eq!(c.v.device(8, 2), 0xffff, "beyond its end");
    let sizes = [0, 1, 2].map(|n| {
        c.v.set_common(0x16, 2, n);
        c.v.common(0x18, 2)
    });
    assert_eq!(sizes, [256, 256, 64]);
    let mut c = Card::new(",mq=on,host_mtu=9000,speed=1000,duplex=half,csum=off,guest_uso4=off,rx_queue_size=1024");
    assert_eq!(c.v.offered() & 0xff_ffff, 0xff_ffee);
    assert_eq!(c.v.offered() >> 54, 0x200 | 6, "SPEED_DUPLEX, GUEST_USO6, HOST_USO");
    assert_eq!((c.v.device(8, 2), c.v.device(10, 2), c.v.device(12, 4), c.v.device(16, 1)), (1, 9000, 1000, 0));
    c.v.set_common(0x16, 2, 0);
    assert_eq!(c.v.common(0x18, 2), 1024);
    for (property, message) in [
        ("rss=on", "rss=on is not built yet"),
        ("failover=on", "failover=on is not built yet"),
        ("hash-tcp4=on", "hashes of received packets"),
        ("duplex=x", "'duplex' must be 'half' or 'full'"),
        ("speed=-2", "'speed' must be between 0 and INT_MAX"),
        ("rx_queue_size=300", "Invalid rx_queue_size (= 300), must be a power of 2 between 256 and 1024"),
        ("tx_queue_size=512", "Invalid tx_queue_size (= 512)"),
        ("mac=01:00:00:00:00:00", "NIC cannot have multicast MAC address"),
        ("netdev=x", "Property 'virtio-net-device.netdev' can't find value 'x'"),
    ] {
        let device = format!("virtio-net-pci,{property}");
        let firmware = packages::seabios().expect("SeaBIOS can be fetched");
        let firmware = firmware.to_str().expect("a plain path");
        let args = ["-accel", "qtest", "-display", "none", "-L", firmware, "-nodefaults", "-device", &device];
        let out = tests::process::run(&args, "");
        assert!(out.stderr.contains(message) && out.code == Some(1), "{property}: {out:?}");
    }
}

#[test]
fn frames_go_out_by_every_kind_of_ring() {
    for (device, features) in [("", 0), (",packed=on", 1 << 34), (",tx=timer", 0), (",x-txburst=1", 0)] {
        let mut c = Card::new(device);
        let [_, mut tx, _] = c.start(features);
        for n in 0..40u8 {
            let f = [&frame([9; 6], 100)[..], &[n]].concat();
            c.send(&mut tx, &[0; HEADER], &f);
            if device.contains("timer") {
                assert!(!tx.is_used(&mut c.v), "it waits for more");
                c.v.q.clock_step(150_000);
            }
            tx.wait(&mut c.v);
            assert_eq!(c.sent(), f, "{device} {n}");
        }
        // Without a cable they are lost, and done.
        c.qmp().run("set_link", json!({"name": "card", "up": false}));
        c.send(&mut tx, &[0; HEADER], &frame([9; 6], 60));
        if device.contains("timer") {
            c.v.q.clock_step(150_000);
        }
        tx.wait(&mut c.v);
        c.wire.set_nonblocking(true).unwrap();
        assert!(c.wire.recv(&mut [0; 100]).is_err());
    }
    // An old driver: a shorter header.
    let mut c = Card::new(",disable-modern=on");
    c.v.start(0);
    let mut tx = c.v.queue(1, false);
    c.v.driver_ok();
    c.send(&mut tx, &[0; 10], &frame([9; 6], 64));
    tx.wait(&mut c.v);
    assert_eq!(c.sent(), frame([9; 6], 64));
}

#[test]
fn checksums_and_segmentation_are_the_cards_work() {
    let mut c = Card::new("");
    let [_, mut tx, _] = c.start(CSUM | TSO4);
    let header = |flags: u8, kind: u8, size: u16, start: u16| {
        let mut h = vec![flags, kind, 0, 0];
        h.extend([size, start, 16].iter().flat_map(|w| w.to_le_bytes()));
        h.extend([0, 0]);
        h
    };
    c.send(&mut tx, &header(1, 0, 0, 34), &tcp(100));
    let out = c.sent();
    assert_eq!((out.len(), net::checksum::check(&out).upper), (154, Some(true)));
    // Without the flag nothing is touched.
    c.send(&mut tx, &header(0, 0, 0, 34), &tcp(100));
    assert_eq!(c.sent(), tcp(100));
    let whole = tcp(3000);
    c.send(&mut tx, &header(1, 1, 1448, 34), &whole);
    let mut data = vec![];
    for n in 0..3 {
        let out = c.sent();
        let found = net::checksum::check(&out);
        assert_eq!((found.ip, found.upper), (Some(true), Some(true)), "segment {n}");
        assert_eq!(net::checksum::long(&out, 38), Some(100 + n * 1448));
        data.extend_from_slice(&out[54..]);
    }
    assert_eq!(data, whole[54..]);
    // A kind that was not negotiated is not looked at; what does not fit is lost. Both are done, and the device works on.
    c.send(&mut tx, &header(0, 5, 10, 0), &tcp(60));
    assert_eq!(c.sent(), tcp(60));
    for bad in [header(1, 1, 0, 34), header(1, 0, 0, 60_000), header(1, 1 | 0x80, 100, 0)] {
        c.send(&mut tx, &bad, &frame([9; 6], 60));
        tx.wait(&mut c.v);
    }
    c.send(&mut tx, &header(0, 0, 0, 0), &[1; 200]);
    assert_eq!(c.sent(), [1; 200]);
}

#[test]
fn frames_come_into_buffers_of_any_shape() {
    let mut c = Card::new("");
    let [mut rx, ..] = c.start(GUEST_CSUM);
    // No buffer yet: it waits.
    let mut good = tcp(100);
    let plain = frame(MAC, 60);
    c.come(&plain);
    c.v.q.write(IN, &[0xee; 256]);
    rx.offer(&mut c.v, &[(IN, 5, WRITE), (IN + 0x100, 30, WRITE), (IN + 0x200, 2000, WRITE)]);
    rx.wait(&mut c.v);
    assert_eq!(rx.used_len(&mut c.v), (HEADER + 60) as u64);
    let got = [c.v.q.read(IN, 5), c.v.q.read(IN + 0x100, 30), c.v.q.read(IN + 0x200, 37)].concat();
    assert_eq!((&got[..HEADER], &got[HEADER..]), (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], &plain[..]));
    // A checksum that is right is said to be; a wrong one is left to the driver.
    net::checksum::insert(&mut good, 50, 34, 0);
    for (flip, flags) in [(0, 2), (1, 0)] {
        good[60] ^= flip;
        rx.offer(&mut c.v, &[(IN, 2000, WRITE)]);
        c.come(&good);
        rx.wait(&mut c.v);
        assert_eq!((c.v.q.load(IN, 1), c.v.q.read(IN + HEADER as u64, good.len())), (flags, good.clone()));
    }
    // What does not fit into one buffer is lost, and the buffer is used for the next one.
    let before = rx.used_count(&mut c.v);
    rx.offer(&mut c.v, &[(IN, 100, WRITE)]);
    c.come(&frame(MAC, 1000));
    c.come(&plain);
    rx.wait(&mut c.v);
    assert_eq!((rx.used_count(&mut c.v) - before, rx.used_len(&mut c.v)), (1, (HEADER + 60) as u64));

    for packed in [false, true] {
        let mut c = Card::new(if packed { ",packed=on" } else { "" });
        let [mut rx, ..] = c.start(MRG_RXBUF | if packed { 1 << 34 } else { 0 });
        let long: Vec<u8> = [frame(MAC, 14), (0..2500).map(|n| n as u8).collect()].concat();
        for round in 0..8u64 {
            // Three buffers where there is room in two: the third waits for the next.
            let parts: Vec<Desc> = (0..3).map(|n| (IN + n * 0x1000, 1500, WRITE)).collect();
            rx.offer(&mut c.v, &parts[..1]);
            c.come(&long);
            rx.offer(&mut c.v, &parts[1..2]);
            rx.wait(&mut c.v);
            assert_eq!(c.v.q.load(IN + 10, 2), 2, "buffers of this frame");
            let got = [c.v.q.read(IN + HEADER as u64, 1500 - HEADER), c.v.q.read(IN + 0x1000, long.len() - 1488)];
            assert!(got.concat() == long, "{packed} {round}");
            if !packed {
                let lens = [0, 1].map(|n| rx.used_len_of(&mut c.v, 2 * round + n));
                assert_eq!(lens, [1500, (long.len() + HEADER - 1500) as u64]);
            }
        }
    }
}

#[test]
fn the_driver_says_what_is_received() {
    let mut c = Card::new("");
    let [mut rx, _, mut ctrl] = c.start(CONTROL | STATUS);
    let mut qmp = c.qmp();
    let shown = qmp.run("query-rx-filter", json!({"name": "card"}));
    assert_eq!(
        shown,
        json!([{"name": "card", "promiscuous": true, "multicast": "normal", "unicast": "normal", "vlan": "normal",
            "broadcast-allowed": true, "multicast-overflow": false, "unicast-overflow": false,
            "main-mac": "52:54:00:ab:cd:ef", "vlan-table": [], "unicast-table": [], "multicast-table": []}])
    );
    assert_eq!(c.command(&mut ctrl, 0, 0, &[0]), 0);
    let event = qmp.event("NIC_RX_FILTER_CHANGED");
    assert_eq!(event["data"], json!({"name": "card", "path": "/machine/peripheral/card/virtio-backend"}));
    let group = [1, 0, 0x5e, 0, 0, 1];
    let tables = [&[0, 0, 0, 0, 1, 0, 0, 0][..], &group].concat();
    assert_eq!(c.command(&mut ctrl, 1, 0, &tables), 0);
    assert_eq!(c.command(&mut ctrl, 2, 0, &[9, 0]), 0);
    assert_eq!(c.command(&mut ctrl, 1, 1, &[2, 0, 0, 0, 0, 5]), 0);
    assert_eq!(c.command(&mut ctrl, 4, 0, &[1, 0]), 1, "several queues were not negotiated");
    assert_eq!(c.v.device(0, 4), 2);
    // Nobody asked since: one event was enough.
    let shown = qmp.run("query-rx-filter", json!({}));
    assert_eq!(shown[0]["main-mac"], "02:00:00:00:00:05");
    assert_eq!((&shown[0]["vlan-table"], &shown[0]["multicast-table"]), (&json!([9]), &json!(["01:00:5e:00:00:01"])));
    assert!(qmp.events().iter().all(|e| e != "NIC_RX_FILTER_CHANGED"));
    // Frames for others do not come.
    rx.offer(&mut c.v, &[(IN, 2000, WRITE)]);
    let tagged = |id: u8| [&[0xff; 6][..], &MAC, &[0x81, 0, 0, id], &[id; 60]].concat();
    for other in [frame(MAC, 60), frame([3; 6], 60), tagged(8)] {
        c.come(&other);
    }
    for own in [frame(group, 61), tagged(9), frame([2, 0, 0, 0, 0, 5], 62)] {
        c.come(&own);
        rx.wait(&mut c.v);
        assert_eq!(c.v.q.read(IN + HEADER as u64, own.len()), own);
        rx.offer(&mut c.v, &[(IN, 2000, WRITE)]);
    }
    // A reset takes it all back.
    c.v.reset();
    let shown = qmp.run("query-rx-filter", json!({"name": "card"}));
    assert_eq!((&shown[0]["promiscuous"], &shown[0]["main-mac"]), (&json!(true), &json!("52:54:00:ab:cd:ef")));
    assert_eq!(shown[0]["vlan"], "all");
}

#[test]
fn the_cable_is_seen_and_interrupts() {
    let mut c = Card::new("");
    _ = c.start(STATUS);
    let mut qmp = c.qmp();
    for up in [0u64, 1] {
        let generation = c.v.common(0x15, 1);
        qmp.run("set_link", json!({"name": "n", "up": up == 1}));
        c.v.until("the interrupt", |v| v.isr() & 2 != 0);
        assert_eq!((c.v.device(6, 2), c.v.common(0x15, 1)), (up, generation + 1));
    }
    // A backend that is taken away.
    qmp.run("netdev_del", json!({"id": "n"}));
    c.v.until("the interrupt", |v| v.isr() & 2 != 0);
    assert_eq!(c.v.device(6, 2), 0);
}

#[test]
fn a_driver_that_errs_breaks_its_card() {
    let mut c = Card::new("");
    let bad: [(usize, &[Desc]); 5] = [
        (0, &[(IN, 8, WRITE)]),
        (0, &[(IN, 64, 0)]),
        (1, &[(OUT, 11, 0)]),
        (2, &[(COMMAND, 1, 0), (COMMAND + 8, 1, WRITE)]),
        (2, &[(COMMAND, 16, 0)]),
    ];
    for (queue, parts) in bad {
        let mut rings = c.start(CONTROL);
        rings[queue].offer(&mut c.v, parts);
        if queue == 0 {
            c.come(&frame(MAC, 60));
        }
        c.v.until("the mark", |v| v.common(0x14, 1) == 0x4f);
    }
    // A frame longer than any is lost; the device works on.
    let [_, mut tx, _] = c.start(0);
    let parts: Vec<Desc> = (0..40).map(|n| (OUT + n * 0x1000, 4096, 0)).collect();
    tx.offer(&mut c.v, &parts);
    tx.wait(&mut c.v);
    c.send(&mut tx, &[0; HEADER], &frame([9; 6], 60));
    assert_eq!(c.sent(), frame([9; 6], 60));
}
