//! The built-in guest runs where nothing can be fetched: it reports the machine on the serial port and powers it off.

use tests::{builtin_guest, process::run};

#[test]
fn it_reports_and_powers_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let image = dir.path().join("guest.rom");
    std::fs::write(&image, builtin_guest::rom().expect("assembles")).expect("write");
    let image = image.to_str().expect("UTF-8");
    let out = run(&["-display", "none", "-nodefaults", "-serial", "stdio", "-m", "64", "-bios", image], "");
    let said = &out.stdout;
    assert_eq!(out.code, Some(0), "{said}\n{}", out.stderr);
    for expected in [
        "CPU      AuthenticAMD",
        "Memory   0000000004000000 bytes",
        "devfn 00 id 12378086 class 060000",
        "devfn 0b id 71138086 class 068000",
        "Timers   in 1/20 s",
        builtin_guest::FAREWELL,
    ] {
        assert!(said.contains(expected), "'{expected}' is missing: {said}");
    }
}
