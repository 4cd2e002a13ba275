//! -daemonize, -pidfile, the terminal, the multiplexer's keys, inherited descriptors.

use serde_json::json;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use tests::process::{self, binary, until};
use tests::qmp::Qmp;

#[test]
fn daemonize_returns_when_the_monitor_listens_and_the_pid_file_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, pidfile) = (dir.path().join("qmp.monitor"), dir.path().join("qmp.pid"));
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let out = Command::new(binary())
        .args([
            "-S",
            "-no-user-config",
            "-nodefaults",
            "-nographic",
            "-machine",
            "none,accel=kvm:tcg",
            "-qmp",
            &monitor,
        ])
        .args(["-daemonize", "-pidfile"])
        .arg(&pidfile)
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let pid = std::fs::read_to_string(&pidfile).unwrap().trim().to_owned();
    let mut q = Qmp::connect(&socket);
    q.run("qmp_capabilities", json!({}));
    assert_eq!(q.run("query-status", json!({}))["status"], "prelaunch");
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    q.event("SHUTDOWN");
    until("the daemon is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!pidfile.exists() && !socket.exists());
}

#[test]
fn there_are_as_many_descriptors_as_there_may_be() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""]).arg(binary());
    shell.args(["-machine", "none", "-S", "-display", "none", "-monitor", "none"]);
    let mut child = process::start_command(shell);
    let limits = || std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    until("the limit is raised", || {
        let limits = limits();
        let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        words[3] == words[4] && words[3] != "256"
    });
    child.kill().unwrap();
    process::wait(&mut child);
}

#[test]
fn a_daemon_that_cannot_start_says_so() {
    let out = process::run(
        &["-daemonize", "-machine", "none", "-nodefaults", "-qmp", "unix:/nowhere/x,server=on,wait=off"],
        "",
    );
    assert_eq!(out.code, Some(1));
    assert!(out.stderr.contains("Failed to bind socket"), "{}", out.stderr);
    let out = process::run(&["-daemonize", "-machine", "none", "-nographic"], "");
    assert!(out.code == Some(1) && out.stderr.contains("-nographic cannot be used with -daemonize"), "{}", out.stderr);
    let out = process::run(&["-daemonize", "-machine", "none", "-nodefaults", "-serial", "stdio"], "");
    assert!(out.code == Some(1) && out.stderr.contains("cannot use stdio with -daemonize"), "{}", out.stderr);
}

#[test]
fn an_inherited_listening_socket_serves_the_monitor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let script = format!("exec {} \"$@\" 28<&{}", binary().display(), listener.as_raw_fd());
    let mut command = Command::new("bash");
    command.args(["-c", &script, "qomet", "-S", "-machine", "none", "-nodefaults"]);
    command.args([
        "-chardev",
        "socket,id=charmonitor,fd=28,server=on,wait=off",
        "-mon",
        "chardev=charmonitor,id=monitor,mode=control",
    ]);
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut q = Qmp::connect(&path);
    q.run("qmp_capabilities", json!({}));
    let list = q.run("query-chardev", json!({}));
    assert_eq!(list[0]["filename"], format!("unix:{},server=on", path.display()));
    q.run("quit", json!({}));
    assert_eq!(process::wait(&mut child).code(), Some(0));
    assert!(path.exists(), "the socket is the parent's");
}

/// A terminal of our own: the master, and the path of the slave.
fn terminal() -> (std::fs::File, String) {
    use rustix::pty::*;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().to_string_lossy().into_owned();
    (std::fs::File::from(master), name)
}

fn modes(tty: &std::fs::File) -> (bool, bool, bool) {
    use rustix::termios::LocalModes;
    let t = rustix::termios::tcgetattr(tty).unwrap();
    (
        t.local_modes.contains(LocalModes::ECHO),
        t.local_modes.contains(LocalModes::ICANON),
        t.local_modes.contains(LocalModes::ISIG),
    )
}

#[test]
fn nographic_gives_the_terminal_to_serial_and_monitor_and_puts_it_back() {
    let (mut master, name) = terminal();
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
    let before = modes(&slave);
    assert_eq!(before, (true, true, true));
    let tty = || Stdio::from(slave.try_clone().unwrap());
    let start = |args: &[&str]| {
        Command::new(binary())
            .args(args)
            .stdin(tty())
            .stdout(tty())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap()
    };
    // The default multiplexer of a machine with a serial port; `none` has none, so it is named here.
    let mut child = start(&["-machine", "none", "-nographic", "-serial", "mon:stdio"]);
    until("raw mode", || modes(&slave) == (false, false, false));
    let mut seen = String::new();
    let mut read_until = |master: &mut std::fs::File, text: &str| {
        let mut buf = [0; 4096];
        while !seen.contains(text) {
            let n = master.read(&mut buf).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buf[..n]));
        }
        std::mem::take(&mut seen)
    };
    read_until(&mut master, "(qemu) ");
    master.write_all(b"info status\r").unwrap();
    assert!(read_until(&mut master, "running\r").contains("VM status"));
    master.write_all(b"\x01h").unwrap();
    assert!(read_until(&mut master, "sends C-a").contains("C-a c    switch between console and monitor"));
    master.write_all(b"\x01x").unwrap();
    read_until(&mut master, "QEMU: Terminated");
    assert_eq!(process::wait(&mut child).code(), Some(0));
    assert_eq!(modes(&slave), before);
    // A fatal signal puts it back too.
    for signal in ["QUIT", "SEGV", "TERM", "HUP"] {
        let mut child = start(&["-machine", "none", "-nographic", "-serial", "mon:stdio"]);
        until("raw mode", || modes(&slave) == (false, false, false));
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        process::wait(&mut child);
        assert_eq!(modes(&slave), before, "{signal}");
    }
}

/// Reads the terminal until `text` comes; everything up to there.
fn read_until(master: &mut std::fs::File, text: &str) -> String {
    let (mut seen, mut buf) = (String::new(), [0; 4096]);
    while !seen.contains(text) {
        let n = master.read(&mut buf).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    seen
}

#[test]
fn the_keys_of_the_multiplexer() {
    let bios = tests::packages::seabios().expect("SeaBIOS can be fetched");
    let folder = if bios.is_dir() { bios.as_path() } else { bios.parent().expect("a folder") };
    let (mut master, name) = terminal();
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
    let tty = || Stdio::from(slave.try_clone().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("qmp");
    let mut child = Command::new(binary())
        .args(["-accel", "qtest", "-nographic", "-serial", "mon:stdio", "-echr", "0x02", "-L"])
        .arg(folder)
        .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
        .stdin(tty())
        .stdout(tty())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut q = Qmp::connect(&socket);
    q.run("qmp_capabilities", json!({}));
    until("raw mode", || !modes(&slave).0);
    let received = |q: &mut Qmp| q.hmp("i /b 0x3f8");
    // The serial port has the keyboard first: a key goes to the guest, the monitor has said nothing yet.
    master.write_all(b"k").unwrap();
    until("the key is there", || q.hmp("i /b 0x3fd").ends_with("61\r\n"));
    assert_eq!(received(&mut q), "portb[0x03f8] = 0x6b\r\n");
    q.hmp("o /b 0x3f8 0x21");
    assert_eq!(read_until(&mut master, "!"), "!");
    // Escape twice: the escape character itself. Escape b: a break.
    master.write_all(b"\x02\x02").unwrap();
    until("the escape key is there", || q.hmp("i /b 0x3fd").ends_with("61\r\n"));
    assert_eq!(received(&mut q), "portb[0x03f8] = 0x2\r\n");
    master.write_all(b"\x02b").unwrap();
    until("the break is there", || q.hmp("i /b 0x3fd").ends_with("71\r\n"));
    // Time stamps on what the guest writes, and off again.
    master.write_all(b"\x02t").unwrap();
    until("time stamps", || {
        q.hmp("o /b 0x3f8 0x40");
        read_until(&mut master, "@").starts_with("[00:00:")
    });
    q.hmp("o /b 0x3f8 0x0a");
    master.write_all(b"\x02t").unwrap();
    // The monitor greets at the first switch, and only then.
    master.write_all(b"\x02c").unwrap();
    let text = read_until(&mut master, "(qemu) ");
    assert!(text.contains("monitor - type 'help'"), "{text}");
    master.write_all(b"info name\r").unwrap();
    read_until(&mut master, "(qemu) ");
    // There and back: a prompt, no second greeting.
    master.write_all(b"\x02c\x02c").unwrap();
    let text = read_until(&mut master, "(qemu) ");
    assert!(!text.contains("monitor - type"), "{text}");
    master.write_all(b"\x02s\x02h").unwrap();
    assert!(read_until(&mut master, "sends C-b").contains("C-b x    exit emulator"));
    master.write_all(b"\x02x").unwrap();
    read_until(&mut master, "QEMU: Terminated");
    assert_eq!(process::wait(&mut child).code(), Some(0));
    assert!(modes(&slave).0);
}

#[test]
fn exit_with_parent_follows_the_parent() {
    let dir = tempfile::tempdir().unwrap();
    let pidfile = dir.path().join("pid");
    let script = format!(
        "{} -machine none -nodefaults -run-with exit-with-parent=on -pidfile {p} & while ! [ -s {p} ]; do sleep 0.05; done; cat {p}",
        binary().display(),
        p = pidfile.display()
    );
    let out = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let pid = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    assert!(!pid.is_empty());
    until("the child follows", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    let out = process::run(&["-machine", "none", "-nodefaults", "-run-with", "chroot=/nowhere"], "");
    assert!(out.code == Some(1) && out.stderr.contains("-run-with chroot=/nowhere: chroot failed: "), "{}", out.stderr);
}

#[test]
fn the_human_monitor_edits_lines_on_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hmp");
    let monitor = format!("unix:{},server=on,wait=off", path.display());
    let mut child = process::start(&["-machine", "none", "-S", "-monitor", &monitor], &[]);
    let mut stream = None;
    until("a connection", || {
        stream = std::os::unix::net::UnixStream::connect(&path).ok();
        stream.is_some()
    });
    let mut s = stream.unwrap();
    s.write_all(b"info stxatus\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[3~\nquit\n").unwrap();
    let mut text = String::new();
    s.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("QEMU 11.1.3 monitor - type 'help' for more information\r\n(qemu) "), "{text}");
    assert!(text.contains("VM status: paused (prelaunch)\r\n(qemu) "), "{text}");
    assert_eq!(process::wait(&mut child).code(), Some(0));
}

#[test]
fn two_processes_end_with_their_own_status_when_the_disk_under_a_log_is_full() {
    let out = process::run(
        &["-machine", "none", "-chardev", "stdio,id=c,logfile=/dev/full", "-mon", "c,mode=control"],
        "{'execute':'qmp_capabilities'}{'execute':'quit'}",
    );
    assert_eq!(out.code, Some(0));
    assert!(out.stdout.contains("host-qmp-quit"));
}
