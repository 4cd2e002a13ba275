//! What boots by firmware and a boot loader of its own: discs and floppies with GRUB; and Debian's installer. An installed Debian on every
//! kind of disk is `cargo xtask soak debian`.

use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::debian::disc;
use tests::guest::Guest;
use tests::qmp::Qmp;
use tests::{packages, tools};

/// Longest wait for anything: the tests of a file run at once, on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(1000);

/// A machine with the serial console on its standard streams.
fn machine(args: &[&str]) -> Guest {
    let firmware = packages::seabios().expect("SeaBIOS can be fetched");
    let start = ["-display", "none", "-no-user-config", "-nic", "none", "-serial", "stdio", "-m", "512", "-L"];
    let all = start.iter().copied().chain([text(&firmware)]).chain(args.iter().copied());
    Guest::ours(&all.map(str::to_owned).collect::<Vec<_>>())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[track_caller]
fn prompt(guest: &mut Guest, text: &str) {
    guest.prompt(text, LIMIT).unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn a_disc_installs_a_system_that_boots() {
    let folder = tempfile::tempdir().unwrap();
    let (iso, disk) = (folder.path().join("iso"), folder.path().join("disk"));
    disc::disc(&tools::tools().unwrap(), &iso).unwrap_or_else(|e| panic!("{e:#}"));
    let peer = packages::peer().unwrap();
    let mut create = peer.command("qemu-img");
    assert!(create.args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("256M").status().unwrap().success());
    let drive = format!("file={},format=qcow2,if=virtio", disk.display());
    // The empty disk comes first, and does not boot.
    let guest = machine(&["-drive", &drive, "-cdrom", text(&iso)]);
    let (code, console) = guest.finish(LIMIT);
    assert!(code == Some(0) && console.contains("INSTALLATION COMPLETE"), "{console}");
    for start in ["1", "2"] {
        let mut guest = machine(&["-drive", &drive]);
        guest.line(&format!("SYSTEM STARTED {start} FROM BOOT_IMAGE=/boot/vmlinuz"), LIMIT);
        guest.say("poweroff").unwrap();
        let (code, console) = guest.finish(LIMIT);
        assert_eq!(code, Some(0), "{console}");
    }
    let mut check = peer.command("qemu-img");
    assert!(check.args(["check", "-q"]).arg(&disk).status().unwrap().success());
    let raw = folder.path().join("raw");
    assert!(peer.command("qemu-img").args(["convert", "-O", "raw"]).args([&disk, &raw]).status().unwrap().success());
    tools::tools().unwrap().check_ext4(&raw, 1 << 20).unwrap_or_else(|e| panic!("{e:#}"));
}

/// A floppy of our own with GRUB and a menu of two entries.
fn floppy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floppy");
    disc::floppy(&tools::tools().unwrap(), &path).unwrap_or_else(|e| panic!("{e:#}"));
    (folder, path)
}

#[test]
fn a_menu_on_a_floppy_takes_keys_from_the_serial_line() {
    let (_folder, floppy) = floppy();
    let mut guest = machine(&["-drive", &format!("file={},format=raw,if=floppy", floppy.display())]);
    prompt(&mut guest, "Choose by hand");
    guest.say("\x1b[B\r").unwrap();
    prompt(&mut guest, disc::CHOSEN);
}

/// Waits until the screen, 80 × 25 cells of a character and its colours, shows `text`.
fn screen(qmp: &mut Qmp, text: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let dump = qmp.run("human-monitor-command", json!({"command-line": "xp /4000xb 0xb8000"}));
        let bytes = dump.as_str().expect("text").split_whitespace().filter_map(|w| w.strip_prefix("0x"));
        let shown: String = bytes.filter_map(|b| u8::from_str_radix(b, 16).ok()).step_by(2).map(char::from).collect();
        if shown.contains(text) {
            return;
        }
        assert!(Instant::now() < end, "no '{text}' in {shown}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_menu_on_a_floppy_takes_keys_from_the_keyboard_and_shows_on_the_screen() {
    let (_folder, floppy) = floppy();
    let guest = machine(&["-drive", &format!("file={},format=raw,if=floppy", floppy.display())]);
    let mut qmp = guest.qmp();
    screen(&mut qmp, "Choose by hand");
    for key in ["down", "ret"] {
        qmp.run("send-key", json!({"keys": [{"type": "qcode", "data": key}]}));
    }
    screen(&mut qmp, disc::CHOSEN);
}

#[test]
fn debians_installer_asks_its_first_question() {
    let images = packages::installer().expect("the installer can be fetched");
    let (kernel, initrd) = (images.join("linux"), images.join("initrd.gz"));
    let start = ["-kernel", text(&kernel), "-initrd", text(&initrd), "-append", "console=ttyS0 ---"];
    let mut guest = machine(&[&start[..], &["-m", "1G"]].concat());
    prompt(&mut guest, "Select a language");
}
