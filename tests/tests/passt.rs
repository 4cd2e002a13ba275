//! The `passt` backend with the program itself, from its package.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use tests::qmp::Qmp;

/// Addresses of the station that asks.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const IP: [u8; 4] = [192, 0, 2, 15];
/// The router that the program is told to be.
const ROUTER: [u8; 4] = [192, 0, 2, 1];

/// Sends a frame.
fn send(s: &mut UnixStream, frame: &[u8]) {
    s.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat()).expect("it is taken");
}

/// Frames until one that is looked for.
fn receive(s: &mut UnixStream, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    loop {
        let mut len = [0; 4];
        s.read_exact(&mut len).expect("an answer in time");
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        s.read_exact(&mut frame).expect("all of it");
        if wanted(&frame) {
            return frame;
        }
    }
}

#[test]
fn passt_itself_is_a_router_to_the_guest() {
    let (program, folder) = (tests::packages::passt().expect("passt can be fetched"), tempfile::tempdir().unwrap());
    let socket = folder.path().join("s");
    let passt = format!(
        "passt,id=p,path={},address=192.0.2.15,netmask=24,gateway=192.0.2.1,ipv6=off,param=--no-map-gw",
        program.display()
    );
    let stream = format!("stream,id=n,server=on,addr.type=unix,addr.path={}", socket.display());
    let ports = ["hubport,id=a,hubid=0,netdev=p", "hubport,id=b,hubid=0,netdev=n"];
    let args = ["-machine", "none", "-netdev", &passt, "-netdev", ports[0], "-netdev", &stream, "-netdev", ports[1]];
    let mut q = Qmp::start(&args);
    assert!(q.hmp("info network").contains("type=passt,stream,connected to pid "));
    let mut s = UnixStream::connect(&socket).unwrap();
    s.set_read_timeout(Some(tests::process::LIMIT)).unwrap();
    // Who has the router's address?
    let request = [&[0xff; 6][..], &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &MAC, &IP, &[0; 6], &ROUTER].concat();
    send(&mut s, &request);
    let answer = receive(&mut s, |f| f.get(12..14) == Some(&[8, 6]));
    assert_eq!((&answer[..6], &answer[20..22], &answer[28..32]), (&MAC[..], &[0, 2][..], &ROUTER[..]), "{answer:x?}");
    let id = q.hmp("info network");
    let id = id.split_once("connected to pid ").unwrap().1.lines().next().unwrap().to_owned();
    drop(q);
    let there = format!("/proc/{id}");
    tests::process::until("its end", || !std::path::Path::new(&there).exists());
}
