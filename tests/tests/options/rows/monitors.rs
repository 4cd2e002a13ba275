//! Monitors and the qtest protocol.

use super::super::harness::*;
use serde_json::json;
use std::io::Write;
use tests::process::until;
use tests::qmp::Qmp;

rows! {
    monitor: ["-monitor", "unix:{dir}/m,server=on,wait=off"] |r| {
        let mut q = r.none();
        let mut s = connect(&r.path("m"));
        s.write_all(b"stop\n").unwrap();
        assert!(read_until(&mut s, "stop\r\n(qemu) ").contains("monitor - type 'help'"));
        q.event("STOP");
    }
    qmp: ["-qmp", "unix:{dir}/q,server=on,wait=off"] |r| {
        let mut q = r.none();
        let mut second = Qmp::connect(&r.path("q"));
        second.run("qmp_capabilities", json!({}));
        second.run("stop", json!({}));
        q.event("STOP");
    }
    qmp_pretty: ["-qmp-pretty", "unix:{dir}/q,server=on,wait=off"] |r| {
        let _q = r.none();
        let mut s = connect(&r.path("q"));
        assert!(read_until(&mut s, "\r\n}\r\n").starts_with("{\r\n    \"QMP\": {\r\n"));
    }
    mon: ["-chardev", "socket,id=a,path={dir}/a,server=on,wait=off", "-chardev", "socket,id=b,path={dir}/b,server=on,wait=off", "-mon", "chardev=a,mode=control,pretty=on", "-mon", "b,mode=readline"] |r| {
        let _q = r.none();
        assert!(read_until(&mut connect(&r.path("a")), "}\r\n}\r\n").contains("    \"QMP\""));
        read_until(&mut connect(&r.path("b")), "(qemu) ");
    }
    echr: ["-echr", "20", "-serial", "mon:unix:{dir}/s,server=on,wait=off"] |r| {
        let _q = r.pc();
        let mut s = connect(&r.path("s"));
        s.write_all(b"\x14h").unwrap();
        read_until(&mut s, "C-t C-t  sends C-t");
    }
    qtest: ["-qtest", "unix:{dir}/t,server=on,wait=off", "-qtest-log", "{dir}/log", "-accel", "qtest"] |r| {
        let _q = r.none();
        let mut s = connect(&r.path("t"));
        s.write_all(b"readb 0\n").unwrap();
        assert!(read_until(&mut s, "\n").starts_with("OK "));
        until("the log", || std::fs::read_to_string(r.path("log")).is_ok_and(|t| t.contains("] readb 0\n")));
    }
}
