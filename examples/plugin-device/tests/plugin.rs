//! The device of this crate in the binary of this crate: listed, created, seen by the guest's side and by QMP; and absent from
//! a binary that does not name it.

use serde_json::json;
use std::process::Command;
use tests::qmp::Qmp;
use tests::qtest::Qtest;

const BINARY: &str = env!("CARGO_BIN_EXE_qomet-with-plugin");

fn output(binary: &std::path::Path, args: &[&str]) -> String {
    let out = Command::new(binary).args(args).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// The folder of the board's firmware.
fn firmware() -> String {
    tests::packages::seabios().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn it_is_listed_where_it_is_linked_in_and_only_there() {
    let line = "name \"lab-dice\", bus ISA, desc \"Dice of the plugin example\"";
    assert!(output(BINARY.as_ref(), &["-device", "help"]).contains(line));
    assert!(output(BINARY.as_ref(), &["-device", "lab-dice,help"]).contains("iobase=<uint16>"));
    assert!(!output(&tests::process::binary(), &["-device", "help"]).contains("lab-dice"));
}

#[test]
fn the_guest_reaches_it_at_the_port_the_user_chose() {
    let firmware = firmware();
    let args = ["-M", "pc", "-L", &firmware, "-device", "lab-dice,iobase=0x240,id=d"];
    let mut q = Qtest::start_binary(BINARY.as_ref(), &args);
    assert_eq!((q.inb(0x240), q.inb(0x240), q.inb(0x240)), (3, 18, 93));
    q.outb(0x240, 1);
    assert_eq!((q.inb(0x240), q.inb(0x2f0)), (8, 0xff));
}

#[test]
fn qmp_sees_it() {
    let firmware = firmware();
    let args = ["-M", "pc", "-L", &firmware, "-accel", "qtest", "-display", "none", "-device", "lab-dice,id=d"];
    let mut q = Qmp::start_binary(BINARY.as_ref(), &args);
    let at = |p: &str| json!({"path": "/machine/peripheral/d", "property": p});
    assert_eq!(q.run("qom-get", at("type")), "lab-dice");
    assert_eq!(q.run("qom-get", at("iobase")), 0x2f0);
    assert_eq!(q.hmp("i /b 0x2f0"), "portb[0x02f0] = 0x3\r\n");
    assert_eq!(q.run("qom-get", at("state")), 3);
}
