//! The process: help, run states, files, logs.

use super::super::harness::*;
use serde_json::json;
use std::path::PathBuf;
use tests::process::{self, until};
use tests::qmp::Qmp;

rows! {
    h: ["-h"] |r| { assert!(r.text().contains("usage: qomet")); }
    help: ["-help"] |r| { assert!(r.text().contains("\n-version ")); }
    version: ["-version"] |r| { assert!(r.text().starts_with("QEMU emulator version 11.1.3 ")); }
    name: ["-name", "guest=g,,1,process=qomet-as-x,debug-threads=on"] |r| {
        let mut q = Qmp::start(&r.with(&["-S", "-display", "none", "-L", firmware()]));
        assert_eq!(q.run("query-name", json!({})), json!({"name": "g,1"}));
        let proc = PathBuf::from(format!("/proc/{}", q.child().id()));
        assert_eq!(std::fs::read_to_string(proc.join("comm")).unwrap(), "qomet-as-x\n");
        let tasks = std::fs::read_dir(proc.join("task")).unwrap();
        let names: Vec<String> = tasks.map(|t| std::fs::read_to_string(t.unwrap().path().join("comm")).unwrap()).collect();
        assert!(names.iter().any(|n| n.starts_with("CPU 0/TCG")), "{names:?}");
    }
    no_user_config: ["-no-user-config"] |r| { r.none().run("query-status", json!({})); }
    stopped: ["-S"] |r| { assert_eq!(r.none().run("query-status", json!({}))["status"], "prelaunch"); }
    no_reboot: ["-no-reboot"] |r| {
        let mut q = r.none();
        q.run("system_reset", json!({}));
        assert_eq!(q.event("SHUTDOWN")["data"]["reason"], "host-qmp-system-reset");
        assert_eq!(q.wait().code(), Some(0));
    }
    no_shutdown: ["-no-shutdown", "-action", "reboot=shutdown"] |r| {
        let mut q = r.none();
        q.run("system_reset", json!({}));
        q.event("STOP");
        assert_eq!(q.run("query-status", json!({}))["status"], "shutdown");
    }
    action: ["-action", "reboot=shutdown,shutdown=pause,panic=exit-failure,watchdog=pause"] |r| {
        let mut q = r.none();
        q.run("system_reset", json!({}));
        q.event("STOP");
        for (key, words) in [("reboot", "reset, shutdown"), ("shutdown", "poweroff, pause"), ("panic", "pause, shutdown, exit-failure, none"), ("watchdog", "reset, shutdown, poweroff, pause, debug, none, inject-nmi")] {
            let e = process::run(&["-action", &format!("{key}=x")], "").stderr;
            assert!(e.contains(&format!("does not accept value 'x' (expected {words})")), "{e}");
        }
    }
    watchdog_action: ["-watchdog-action", "poweroff"] |r| { r.none().run("query-status", json!({})); }
    pidfile: ["-pidfile", "{dir}/pid"] |r| {
        let mut q = r.none();
        let pid = q.child().id();
        until("the pid file", || std::fs::read_to_string(r.path("pid")).is_ok_and(|t| t == format!("{pid}\n")));
        q.run("quit", json!({}));
        q.wait();
        assert!(!r.path("pid").exists());
    }
    daemonize: ["-daemonize", "-pidfile", "{dir}/pid", "-qmp", "unix:{dir}/q,server=on,wait=off"] |r| {
        let out = process::run(&r.with(&["-machine", "none", "-nodefaults"]), "");
        assert_eq!(out.code, Some(0), "{out:?}");
        assert!(r.path("pid").exists(), "written before the parent ends");
        let mut q = Qmp::connect(&r.path("q"));
        q.run("qmp_capabilities", json!({}));
        q.run("quit", json!({}));
        until("the daemon's pid file is gone", || !r.path("pid").exists());
    }
    run_with: ["-run-with", "exit-with-parent=on,chroot={dir}"] |r| {
        // Only the superuser may change the root.
        let root = rustix::process::geteuid().is_root();
        if root {
            let mut q = r.none();
            let link = format!("/proc/{}/root", q.child().id());
            until("the new root", || std::fs::read_link(&link).is_ok_and(|t| t == r.dir.path()));
            q.run("quit", json!({}));
        } else {
            assert!(process::run(&r.with(&["-machine", "none", "-nodefaults"]), "").stderr.contains("chroot failed"));
        }
    }
    msg: ["-msg", "timestamp=on,guest-name=on", "-name", "vm"] |r| {
        let out = process::run(&r.with(&["-machine", "none", "-device", "nope"]), "");
        assert!(out.stderr.contains("Z vm qomet: -device nope"), "{}", out.stderr);
    }
    log: ["-D", "{dir}/log", "-d", "cpu_reset,guest_errors", "-trace", "enable=nothing*,events={dir}/events,file={dir}/trace"] |r| {
        r.put("events", "# a comment\nmore*\n");
        let mut q = Qmp::start(&r.with(&["-S", "-display", "none", "-L", firmware()]));
        q.run("system_reset", json!({}));
        until("the reset in the log", || std::fs::read_to_string(r.path("log")).is_ok_and(|t| t.contains("CPU Reset (CPU 0)") && t.contains("EIP=0000fff0")));
    }
    dfilter: ["-dfilter", "0x1000..0x1fff,0x5000+0x10"] |r| {
        let mut q = r.none();
        q.run("quit", json!({}));
        assert_eq!(q.wait().code(), Some(0));
        let wrong = process::run(&["-dfilter", "0x1000"], "").stderr;
        assert!(wrong.ends_with("-dfilter 0x1000: Bad range specifier\n"), "{wrong}");
    }
    icount: ["-icount", "shift=auto"] |r| { assert!(r.error().ends_with("-icount shift=auto: instruction counting is not built yet\n")); }
}
