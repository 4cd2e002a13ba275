//! Devices, and what they are connected to.

use super::super::harness::*;
use serde_json::json;
use std::io::Write;
use tests::process::{self, until};
use tests::qmp::Qmp;

rows! {
    fsdev: ["-fsdev", "local,id=f,path={dir},security_model=mapped-xattr,readonly=on,fmode=0640,dmode=0750,multidevs=remap,max_xattr=7", "-device", "virtio-9p-pci,fsdev=f,mount_tag=t,id=d"] |r| {
        let mut q = r.pc();
        assert_eq!((get(&mut q, "/machine/peripheral/d", "fsdev"), get(&mut q, "/machine/peripheral/d", "mount_tag")), (json!("f"), json!("t")));
        for (text, message) in [
            ("local,id=f,path=/", "security_model property not set (expected none, passthrough, mapped-xattr)"),
            ("local,id=f,security_model=none", "path property not set"),
            ("local,path=/,security_model=none", "Parameter 'id' is missing"),
            ("local,id=f,path=/,security_model=mapped-file", "security_model=mapped-file is not built yet (expected none, passthrough, mapped-xattr)"),
            ("local,id=f,path=/,security_model=none,dmode=0700", "dmode is only valid for mapped security modes"),
            ("synth,id=f", "fsdriver 'synth' is not built yet"),
            ("local,id=f,path=/,security_model=none,writeout=immediate", "parameter 'writeout' of QEMU is not built yet"),
        ] {
            assert!(Row::new(&["-fsdev", text]).error().ends_with(&format!("-fsdev {text}: {message}\n")), "{text}");
        }
    }
    virtfs: ["-virtfs", "local,path={dir},mount_tag=t,security_model=mapped,readonly=on,fmode=0600,dmode=0700,multidevs=forbid,max_xattr=7"] |r| {
        let mut q = r.pc();
        let tree = q.hmp("info qtree");
        assert!(tree.contains("dev: virtio-9p-pci, id \"\"") && tree.contains("mount_tag = \"t\""), "{tree}");
        let missing = Row::new(&["-virtfs", "local,path=/,security_model=none"]).error();
        assert!(missing.ends_with("Parameter 'mount_tag' is missing\n"), "{missing}");
    }
    device: ["-device", "driver=isa-debug-exit,id=x,iobase=0xf4", "-device", "{\"driver\":\"isa-debugcon\",\"id\":\"y\",\"iobase\":1026,\"chardev\":\"n\"}", "-chardev", "null,id=n"] |r| {
        let mut q = r.pc();
        assert_eq!(get(&mut q, "/machine/peripheral/x", "iobase"), 0xf4);
        assert_eq!(get(&mut q, "/machine/peripheral/y", "iobase"), 1026);
        assert!(process::run(&["-device", "VGA,help"], "").stdout.starts_with("VGA options:\n"));
    }
    object: ["-object", "qom-type=memory-backend-ram,id=a,size=8k", "-object", "{\"qom-type\":\"memory-backend-ram\",\"id\":\"b\",\"size\":4096}"] |r| {
        let mut q = r.none();
        assert_eq!((get(&mut q, "/objects/a", "size"), get(&mut q, "/objects/b", "size")), (json!(8192), json!(4096)));
    }
    global: ["-global", "isa-debug-exit.iobase=0x300", "-global", "driver=isa-debug-exit,property=iosize,value=4", "-device", "isa-debug-exit,id=x"] |r| {
        let mut q = r.pc();
        let x = "/machine/peripheral/x";
        assert_eq!((get(&mut q, x, "iobase"), get(&mut q, x, "iosize")), (json!(0x300), json!(4)));
    }
    usb: ["-usb"] |r| {
        let mut q = r.pc();
        assert!(q.hmp("info pci").contains("USB controller: PCI device 8086:7020"), "{}", q.hmp("info pci"));
        assert_eq!(get(&mut q, "/machine", "usb"), true);
    }
    nodefaults: ["-nodefaults"] |r| {
        let mut q = r.pc();
        assert_eq!(q.run("query-chardev", json!({})).as_array().unwrap().len(), 1, "the test's own");
        assert!(!q.hmp("info pci").contains("VGA"));
        assert_eq!(q.hmp("i /b 0x3fd"), "portb[0x03fd] = 0xff\r\n");
    }
    fw_cfg_entries: ["-fw_cfg", "name=opt/text,string=a,,b", "-fw_cfg", "opt/file,file={dir}/f"] |r| {
        r.put("f", [0, 1, 2]);
        let mut q = r.qtest();
        assert_eq!(fw_cfg(&mut q, "opt/text").as_deref(), Some(&b"a,b"[..]));
        assert_eq!(fw_cfg(&mut q, "opt/file").as_deref(), Some(&[0, 1, 2][..]));
        assert!(process::run(&["-machine", "none", "-fw_cfg", "opt/x,string=y"], "").stderr.contains("fw_cfg device not available"));
    }
    serial: ["-serial", "none", "-chardev", "pipe,id=p,path={dir}/p", "-serial", "chardev:p"] |r| {
        let status = std::process::Command::new("mkfifo").arg(r.path("p.in")).arg(r.path("p.out")).status().unwrap();
        assert!(status.success());
        let mut q = r.pc();
        let mut into = std::fs::OpenOptions::new().write(true).open(r.path("p.in")).unwrap();
        let mut from = std::fs::OpenOptions::new().read(true).open(r.path("p.out")).unwrap();
        into.write_all(b"k").unwrap();
        until("a byte in COM2", || q.hmp("i /b 0x2fd").ends_with("61\r\n"));
        assert_eq!(q.hmp("i /b 0x2f8"), "portb[0x02f8] = 0x6b\r\n");
        q.hmp("o /b 0x2f8 0x21");
        assert_eq!(read_until(&mut from, "!"), "!");
        assert_eq!(q.hmp("i /b 0x3fd"), "portb[0x03fd] = 0xff\r\n", "no COM1");
    }
    parallel: ["-parallel", "file:{dir}/p"] |r| {
        let mut q = r.pc();
        // Data, then a strobe.
        for write in ["o /b 0x378 0x41", "o /b 0x37a 0x0d", "o /b 0x37a 0x0c"] {
            q.hmp(write);
        }
        until("the printed byte", || std::fs::read(r.path("p")).is_ok_and(|d| d == b"A"));
    }
    debugcon: ["-debugcon", "file:{dir}/d"] |r| {
        let mut q = r.pc();
        assert_eq!(q.hmp("i /b 0xe9"), "portb[0x00e9] = 0xe9\r\n");
        q.hmp("o /b 0xe9 0x42");
        until("the byte", || std::fs::read(r.path("d")).is_ok_and(|d| d == b"B"));
    }
    display: ["-display", "none"] |r| {
        let ask = |args: &[&str]| {
            let all = [args, &["-accel", "qtest", "-nic", "none", "-L", firmware(), "-qmp", "stdio"]].concat();
            process::run(&all, "{'execute':'qmp_capabilities'}{'execute':'quit'}").stderr
        };
        assert_eq!(ask(&r.with(&[])), "");
        let told = ask(&[]);
        assert!(told.lines().count() == 1 && told.contains("-nographic") && told.contains("screendump"), "{told}");
    }
    nographic: ["-nographic", "-serial", "null", "-monitor", "none"] |r| {
        let mut q = r.pc();
        assert_eq!(get(&mut q, "/machine", "graphics"), false);
        assert!(q.hmp("info pci").contains("VGA"), "the card stays");
        assert_eq!(filename(&mut q, "parallel0"), "null");
    }
    vga: ["-vga", "std", "-nodefaults"] |r| {
        assert!(r.pc().hmp("info pci").contains("VGA controller"));
        assert!(!Qmp::start(&["-vga", "none", "-accel", "qtest", "-L", firmware()]).hmp("info pci").contains("VGA"));
    }
}
