//! A panic of the program while it has the terminal: the terminal's modes come back before the message.
//!
//! Nothing a user can do reaches a panic, so this test brings an object that does: it starts itself again as an emulator with the
//! type `panics` linked in. Hence no test harness.

use qom::{Base, Object, Result, UserCreatable};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Type `panics`: waits a moment, so that the terminal's modes can be seen, then panics.
#[derive(Object)]
#[qom(name = "panics", parent = Base, interfaces(dyn UserCreatable))]
struct Panics {
    parent: Base,
}

impl UserCreatable for Panics {
    fn complete(&self) -> Result<()> {
        std::thread::sleep(Duration::from_millis(500));
        panic!("as it was asked to");
    }
}

const CHILD: &str = "QOMET_TEST_PANICS";

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return vl::main();
    }
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("a terminal");
    unlockpt(&master).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("a terminal").into_string().expect("its name");
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(name).expect("a terminal");
    let echo = || tcgetattr(&slave).expect("a terminal").local_modes.contains(LocalModes::ECHO | LocalModes::ICANON);
    assert!(echo());
    let tty = || Stdio::from(slave.try_clone().expect("a descriptor"));
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["-machine", "none", "-serial", "mon:stdio", "-object", "panics,id=p"])
        .env(CHILD, "1")
        .stdin(tty())
        .stdout(tty())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let end = Instant::now() + Duration::from_secs(20);
    let (mut raw, mut status) = (false, None);
    while status.is_none() {
        raw |= !echo();
        status = child.try_wait().expect("our child");
        assert!(Instant::now() < end, "it never ends");
        std::thread::sleep(Duration::from_millis(2));
    }
    let out = child.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("as it was asked to"), "{text}");
    assert!(raw, "it had the terminal");
    assert!(echo(), "the modes are back");
    assert_ne!(out.status.code(), Some(0));
    ExitCode::SUCCESS
}
