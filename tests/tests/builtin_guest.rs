//! The built-in guest runs where nothing can be fetched: it reports the machine on the serial port and the screen and powers it
//! off.

use serde_json::json;
use tests::{builtin_guest, builtin_screen, process::run, qmp::Qmp};

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

#[test]
fn the_screen_shows_what_the_serial_port_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(at("rom"), builtin_guest::rom().expect("assembles")).expect("write");
    let serial = format!("file:{}", at("serial"));
    let bios = at("rom");
    let args = ["-display", "none", "-nodefaults", "-vga", "std", "-m", "64", "-no-shutdown"];
    let mut q = Qmp::start(&[&args[..], &["-serial", &serial, "-bios", &bios]].concat());
    q.event("SHUTDOWN");
    q.event("STOP");
    q.run("pmemsave", json!({"val": 0xb_8000, "size": 4000, "filename": at("text")}));
    let cells = std::fs::read(at("text")).expect("saved");
    let line = |row: &[u8]| {
        let text: String = row.chunks(2).map(|c| char::from(c[0])).collect();
        text.trim_end().to_owned()
    };
    let shown: Vec<String> = cells.chunks(160).map(line).collect();
    let said = std::fs::read_to_string(at("serial")).expect("said");
    assert!(said.lines().count() <= 25 && said.contains(builtin_guest::FAREWELL), "{said}");
    let end = shown.iter().rposition(|l| !l.is_empty()).expect("text");
    assert_eq!(shown[..=end], said.lines().collect::<Vec<_>>());

    q.run("screendump", json!({"filename": at("ppm")}));
    let picture = std::fs::read(at("ppm")).expect("saved");
    let pixels = picture.strip_prefix(b"P6\n720 400\n255\n").expect("720 by 400");
    // Every line of the first character, light grey on black.
    let expected = builtin_screen::glyph(said.as_bytes()[0]);
    for y in 0..16 {
        let shown = (0..8).fold(0u8, |row, x| row << 1 | u8::from(pixels[(y * 720 + x) * 3..][..3] == [0xaa; 3]));
        assert_eq!(shown, expected[y / 2], "line {y}");
    }
}
