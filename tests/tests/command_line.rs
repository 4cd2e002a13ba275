//! Options and bad input, through real processes: one line of error, status 1, nothing half started.

use tests::process::{self, run};

fn error(args: &[&str]) -> String {
    let out = run(args, "");
    assert_eq!(out.code, Some(1), "{args:?}: {out:?}");
    assert!(out.stdout.is_empty(), "{out:?}");
    let lines: Vec<&str> = out.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{args:?}: {}", out.stderr);
    lines[0].strip_prefix("qomet: ").unwrap_or_else(|| panic!("{}", out.stderr)).to_owned()
}

fn text(args: &[&str]) -> String {
    let out = run(args, "");
    assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""), "{args:?}");
    out.stdout
}

#[test]
fn version_and_help() {
    for spelling in ["-version", "--version"] {
        assert!(text(&[spelling]).starts_with("QEMU emulator version 11.1.3 (Qomet "));
    }
    for spelling in ["-h", "-help", "--help"] {
        let help = text(&[spelling]);
        assert!(help.starts_with("QEMU emulator version") && help.contains("usage: qomet [options]"));
    }
}

#[test]
fn lists() {
    assert!(text(&["-machine", "help"]).contains("\nnone                 empty machine\n"));
    assert!(text(&["-M", "?"]).starts_with("Supported machines are:\n"));
    assert!(text(&["-accel", "help"]).contains("tcg\n"));
    assert!(text(&["-chardev", "help"]).contains("  socket\n"));
    assert!(text(&["-object", "help"]).contains("  memory-backend-ram\n"));
    assert!(text(&["-object", "memory-backend-ram,help"]).contains("size=<"));
    assert!(text(&["-cpu", "help"]).starts_with("Available CPUs:\n"));
    assert!(text(&["-display", "help"]).contains("none\n"));
    assert!(text(&["-vga", "help"]).contains("std "));
    assert!(text(&["-d", "help"]).contains("guest_errors"));
    assert!(text(&["-L", "help"]).contains("/usr/share/seabios\n"));
    assert!(text(&["-machine", "none,help"]).contains("memory-backend=<"));
    let _ = text(&["-device", "help"]);
}

#[test]
fn unknown_names_come_with_the_nearest() {
    for (args, start, near) in [
        (&["-mahcine", "none"][..], "-mahcine: invalid option", "-machine"),
        (&["-machine", "nome"], "-machine nome: unsupported machine type: \"nome\"", "'none'"),
        (&["-machine", "none,kernl=x"], "-machine none,kernl=x: Property 'none-machine.kernl' not found", "'kernel'"),
        (
            &["-machine", "none", "-chardev", "sdtio,id=x"],
            "-chardev sdtio,id=x: 'sdtio' is not a valid char driver name",
            "'stdio'",
        ),
        (
            &["-machine", "none", "-object", "memory-backend-rma,id=m"],
            "-object memory-backend-rma,id=m: invalid object type",
            "'memory-backend-ram'",
        ),
        (&["-machine", "none", "-serial", "nul"], "-serial nul: 'nul' is not a valid char driver", "'null'"),
        (&["-machine", "none", "-d", "guest_error"], "Unknown log item 'guest_error'", "'guest_errors'"),
    ] {
        let e = error(args);
        assert!(e.starts_with(start) && e.contains(near), "{args:?}: {e}");
    }
    assert_eq!(
        error(&["-machine", "none", "-device", "nosuchdevice"]),
        "-device nosuchdevice: 'nosuchdevice' is not a valid device model name"
    );
}

#[test]
fn wrong_values_say_what_would_be_accepted() {
    for (args, expected) in [
        (&["-m"][..], "-m: requires an argument"),
        (&["-m", "lots"], "Parameter 'size' expects a non-negative number"),
        (&["-machine", "none,usb=maybe"], "on"),
        (&["-machine", "none", "-mon", "x,mode=y"], "expected readline, control"),
        (&["-machine", "none", "-rtc", "base=tomorrow"], "expected utc, localtime"),
        (&["-uuid", "1"], "8-4-4-4-12"),
        (&["-action", "panic=maybe"], "expected pause, shutdown, exit-failure, none"),
        (&["-machine", "none", "-append", "x"], "-append only allowed with -kernel option"),
        (&["-machine", "none", "-initrd", "x"], "-initrd only allowed with -kernel option"),
        (&["-machine", "none", "-device", "{'driver':1}"], "Invalid parameter type for 'driver', expected: string"),
        (&["-machine", "none", "-object", "{'qom-type':'memory-backend-ram'}"], "Parameter 'id' is missing"),
        (&["-icount", "shift=0,rr=record"], "not built yet"),
        (&["-drive", "file=x,if=scsi"], "not built yet"),
        (&["-drive", "file=/none,format=raw"], "Could not open '/none': No such file or directory"),
        (&["-nic", "vde"], "does not accept value 'vde'"),
        (&["-display", "gtk"], "expected none"),
        (&["/none/disk.raw"], "Could not open '/none/disk.raw': No such file or directory"),
    ] {
        let e = error(args);
        assert!(e.contains(expected), "{args:?}: {e}");
    }
}

#[test]
fn accelerators_are_passed_over_until_one_works() {
    let out = run(
        &["-machine", "none,accel=nope:kvm:tcg", "-qmp", "stdio"],
        "{'execute':'qmp_capabilities'}{'execute':'quit'}",
    );
    assert_eq!(out.code, Some(0));
    assert!(
        out.stderr.contains("invalid accelerator nope") && out.stderr.contains("falling back to tcg"),
        "{}",
        out.stderr
    );
    let out = run(
        &["-machine", "none", "-accel", "kvm", "-accel", "tcg", "-qmp", "stdio"],
        "{'execute':'qmp_capabilities'}{'execute':'quit'}",
    );
    assert_eq!(out.code, Some(0));
    let e = error(&["-machine", "none", "-accel", "kvm"]);
    assert!(e.contains("use tcg") && e.contains("-cpu max"), "{e}");
    assert!(error(&["-machine", "none", "-enable-kvm"]).contains("kvm"));
    let out = run(&["-machine", "none,accel=a:b"], "");
    assert_eq!((out.code, out.stderr.lines().last()), (Some(1), Some("qomet: no accelerator found")));
    assert!(error(&["-machine", "none,accel=tcg", "-accel", "tcg"]).contains("incompatible"));
    assert!(error(&["-machine", "none", "-accel", "tcg,tb-size=x"]).contains("tb-size"));
}

#[test]
fn globals_without_a_device_only_warn() {
    let quit = "{'execute':'qmp_capabilities'}{'execute':'quit'}";
    let out = run(&["-machine", "none", "-global", "kvm-pit.lost_tick_policy=delay", "-qmp", "stdio"], quit);
    assert_eq!(out.code, Some(0));
    assert!(out.stderr.contains("warning: global kvm-pit.lost_tick_policy has invalid class name"), "{}", out.stderr);
}

#[test]
fn duplicate_ids_are_refused() {
    assert!(
        error(&["-machine", "none", "-chardev", "null,id=a", "-chardev", "null,id=a"])
            .contains("Duplicate ID 'a' for chardev")
    );
    let twice = ["-object", "memory-backend-ram,id=m,size=4k"];
    let e = error(&[&["-machine", "none"][..], &twice, &twice].concat());
    assert!(e.contains("duplicate") && e.contains("'m'"), "{e}");
}

#[test]
fn files_that_cannot_be_opened_are_named() {
    assert_eq!(
        error(&["-machine", "none", "-serial", "file:/nowhere/x"]),
        "-serial file:/nowhere/x: Failed to open '/nowhere/x': No such file or directory"
    );
    assert!(
        error(&["-machine", "none", "-qmp", "unix:/nowhere/x,server=on,wait=off"]).contains("Failed to bind socket")
    );
    assert!(
        error(&["-machine", "none", "-chardev", "socket,id=x,path=/nowhere/x"])
            .contains("Failed to connect to 'unix:/nowhere/x'")
    );
    assert!(error(&["-machine", "none", "-pidfile", "/nowhere/x"]).contains("cannot create PID file /nowhere/x"));
    assert!(error(&["-machine", "none", "-fw_cfg", "opt/x,file=/nowhere/x"]).contains("can't load /nowhere/x"));
    assert!(
        error(&["-machine", "none", "-serial", "stdio", "-monitor", "stdio"]).contains("cannot use stdio by multiple")
    );
    assert!(error(&["-machine", "none", "-mon", "nosuch"]).contains("chardev 'nosuch' not found"));
    assert!(error(&["-machine", "none", "-qmp", "chardev:nosuch"]).contains("chardev 'nosuch' not found"));
    assert!(
        error(&["-machine", "none", "-D", "/nowhere/x", "-d", "guest_errors"])
            .contains("error opening logfile /nowhere/x")
    );
}

#[test]
fn message_format() {
    let out = run(
        &[
            "-machine",
            "none",
            "-msg",
            "timestamp=on,guest-name=on",
            "-name",
            "vm",
            "-global",
            "nosuch.x=1",
            "-S",
            "-qmp",
            "stdio",
        ],
        "{'execute':'qmp_capabilities'}{'execute':'quit'}",
    );
    let line = out.stderr.lines().next().unwrap();
    assert!(line.contains("Z vm qomet: warning: global nosuch.x"), "{line}");
    assert!(line.starts_with("20") && line.as_bytes()[10] == b'T', "{line}");
}

#[test]
fn input_that_ends_and_output_that_is_closed_hang_nothing() {
    use std::process::Stdio;
    // Standard input at its end: the machine goes on, a signal ends it.
    let mut child = std::process::Command::new(process::binary())
        .args(["-machine", "none", "-monitor", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    // A reader that leaves: output goes nowhere.
    drop(child.stdout.take());
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    assert_eq!(process::wait(&mut child).code(), Some(0));
    // All three closed from the start.
    let script = format!("exec {} -machine none -monitor stdio -S <&- >&- 2>&-", process::binary().display());
    let mut child = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    assert_eq!(process::wait(&mut child).code(), Some(0));
}
