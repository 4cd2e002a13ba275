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
    perf_files: ["-perfmap", "-jitdump", "-accel", "tcg,tier=jit"] |r| {
        let mut child = process::start_command({
            let mut c = std::process::Command::new(process::binary());
            c.args(r.with(&["-display", "none", "-nodefaults", "-L", firmware()])).current_dir(r.dir.path());
            c
        });
        let (map, dump) = (format!("/tmp/perf-{}.map", child.id()), r.path(&format!("jit-{}.dump", child.id())));
        let lines = || std::fs::read_to_string(&map).unwrap_or_default().matches(" guest-0x").count();
        until("twenty regions", || lines() >= 20);
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let (map_text, dump) = (std::fs::read_to_string(&map).expect("a map"), std::fs::read(dump).expect("a dump"));
        std::fs::remove_file(&map).expect("it is ours");
        let mut named = std::collections::BTreeSet::new();
        for line in map_text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| u64::from_str_radix(words[i], 16).expect("hexadecimal");
            named.insert((number(0), number(1), words[2].to_owned()));
        }
        let word = |at: usize, n: usize| dump[at..at + n].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        assert_eq!([word(0, 4), word(4, 4), word(8, 4), word(20, 4)], [0x4a69_5444, 1, 40, child.id().into()]);
        let (mut at, mut index) = (40, 0);
        while at + 56 <= dump.len() {
            let size = word(at + 4, 4) as usize;
            assert_eq!((word(at, 4), word(at + 16, 4), word(at + 48, 8)), (0, child.id().into(), index), "record {index}");
            let (start, len) = (word(at + 32, 8), word(at + 40, 8));
            assert_eq!(word(at + 24, 8), start);
            let name: Vec<u8> = dump[at + 56..].iter().take_while(|b| **b != 0).copied().collect();
            let name = String::from_utf8(name).expect("text");
            assert_eq!(size, 56 + name.len() + 1 + len as usize);
            // (The last ones may be in one file only: it was killed.)
            assert!(named.contains(&(start, len, name.clone())) || at + size + 4096 > dump.len(), "{start:x} {len:x} {name}");
            index += 1;
            at += size;
        }
        assert!(index >= 20, "{index} records");
    }
    dfilter: ["-dfilter", "0x1000..0x1fff,0x5000+0x10"] |r| {
        let mut q = r.none();
        q.run("quit", json!({}));
        assert_eq!(q.wait().code(), Some(0));
        let wrong = process::run(&["-dfilter", "0x1000"], "").stderr;
        assert!(wrong.ends_with("-dfilter 0x1000: Bad range specifier\n"), "{wrong}");
    }
    icount: ["-icount", "shift=2,align=off,sleep=on"] |r| {
        // The clock counts what is executed: nothing yet.
        let mut q = Qmp::start(&r.with(&["-S", "-smp", "2", "-display", "none", "-L", firmware()]));
        let cpus = q.run("query-cpus-fast", json!({}));
        assert_eq!(cpus[0]["thread-id"], cpus[1]["thread-id"]);
        for (args, error) in [
            (["-icount", "align=on", "-S"], "-icount: Please specify shift option when using align"),
            (["-icount", "11", "-S"], "-icount: icount: Invalid shift value"),
            (["-icount", "shift=-1", "-S"], "-icount: icount: Invalid shift value"),
            (["-icount", "shift=3,align=on,sleep=off", "-S"], "-icount: align=on and sleep=off are incompatible"),
            (["-icount", "auto,align=on", "-S"], "-icount: shift=auto and align=on are incompatible"),
            (["-icount", "auto,sleep=off", "-S"], "-icount: shift=auto and sleep=off are incompatible"),
            (["-icount", "3,rr=record", "-S"], "-icount 3,rr=record: parameter 'rr' of QEMU is not built yet"),
        ] {
            assert_eq!(process::run(&args, "").stderr, format!("qomet: {error}\n"));
        }
        let multi = process::run(&["-icount", "0", "-accel", "tcg,thread=multi"], "").stderr;
        assert_eq!(multi, "qomet: -accel tcg,thread=multi: No MTTCG when icount is enabled\n");
        let other = process::run(&["-icount", "0", "-accel", "qtest"], "").stderr;
        assert_eq!(other, "qomet: -accel qtest: -icount is not allowed with hardware virtualization\n");
    }
}
