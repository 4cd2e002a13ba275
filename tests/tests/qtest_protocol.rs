//! The qtest protocol through a real socket.

use tests::qtest::Qtest;

#[test]
fn ports_and_memory_that_nobody_answers() {
    let mut q = Qtest::start(&["-machine", "none"]);
    assert_eq!((q.inb(0x80), q.inp(0x80, 2), q.inp(0x80, 4)), (0xff, 0xffff, 0xffff_ffff));
    q.outb(0x80, 1);
    q.store(0x1000, 8, 1);
    assert_eq!(q.ok("endianness"), "little");
    assert!(q.raw("readb").starts_with("FAIL"));
    assert!(q.raw("frobnicate 1").starts_with("FAIL Unknown command 'frobnicate'"));
    assert!(q.raw("readb x").starts_with("FAIL 'x' is not a number"));
    assert_eq!(q.raw(""), "FAIL empty command");
    assert!(q.raw("irq_intercept_in /nowhere").starts_with("FAIL Unknown device"));
}

#[test]
fn the_clock_stands_until_it_is_moved() {
    let mut q = Qtest::start(&["-machine", "none"]);
    assert_eq!(q.clock_step(1000), 1000);
    assert_eq!(q.clock_step(1), 1001);
    assert_eq!(q.ok("clock_set 5000"), "5000");
    assert_eq!(q.clock_step_next(), 5000); // nothing is armed
}

#[test]
fn the_conversation_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut q = Qtest::start(&["-machine", "none", "-qtest-log", log.to_str().unwrap()]);
    q.ok("endianness");
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("[R +0.") && lines[0].ends_with("] endianness"), "{text}");
    assert!(lines[1].starts_with("[S +0.") && lines[1].ends_with("] OK little"), "{text}");
}
