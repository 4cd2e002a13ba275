//! An NE2000 whose ring is full, driven from outside; its far end is a socket of the test's.

use std::os::unix::net::UnixDatagram;
use tests::process;
use tests::qtest::Qtest;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// Interrupt status register of page 0, and its bits PRX and OVW.
const ISR: u16 = 0x307;
const PRX: u8 = 0x01;
const OVW: u8 = 0x10;

/// CURR, the page after the last frame.
fn curr(q: &mut Qtest) -> u8 {
    q.outb(0x300, 0x62);
    let page = q.inb(0x307);
    q.outb(0x300, 0x22);
    page
}

/// What waits for room is told by an interrupt, again and again: Linux's driver takes ten frames at one, acknowledges, and hears of the others
/// by the next.
#[test]
fn a_frame_that_finds_no_room_is_told_after_each_acknowledgement() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    let wire = UnixDatagram::bind(path("wire")).expect("a socket");
    let (local, remote) = (path("n").display().to_string(), path("wire").display().to_string());
    let netdev = format!("dgram,id=n,local.type=unix,local.path={local},remote.type=unix,remote.path={remote}");
    let device = "ne2k_isa,netdev=n,mac=52:54:00:12:34:56";
    let mut q = Qtest::start(&["-machine", "pc", "-nodefaults", "-netdev", &netdev, "-device", device]);
    wire.connect(path("n")).expect("its socket");
    // A ring of ten pages from 46H on, nothing read so far; words.
    for (at, v) in [(0, 0x21), (1, 0x46), (2, 0x50), (3, 0x46), (14, 0x49), (15, 0x7f), (0, 0x61)] {
        q.outb(0x300 + at, v);
    }
    for (at, byte) in (0x301..).zip(MAC) {
        q.outb(at, byte);
    }
    for (at, v) in [(7, 0x46), (0, 0x22)] {
        q.outb(0x300 + at, v);
    }
    let frame = [&MAC[..], &[7; 994]].concat();
    wire.send(&frame).expect("it goes");
    wire.send(&frame).expect("it goes");
    process::until("two frames of four pages arrive", || curr(&mut q) == 0x4e);
    assert_eq!(q.inb(ISR) & (PRX | OVW), PRX);
    q.outb(ISR, 0x7f);
    wire.send(&frame).expect("it goes");
    for _ in 0..3 {
        process::until("the third is told of", || q.inb(ISR) & OVW != 0);
        q.outb(ISR, 0x7f);
    }
    // Software has read the first.
    q.outb(0x303, 0x4a);
    process::until("the third is there", || q.inb(ISR) & PRX != 0);
    assert_eq!(curr(&mut q), 0x48);
}
