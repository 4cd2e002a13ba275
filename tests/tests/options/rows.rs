//! The rows: options, and what they must have done.

use super::harness::*;
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use tests::process::{self, until};
use tests::qmp::Qmp;
use tests::qtest::Qtest;

macro_rules! rows {
    ($($test:ident: [$($arg:expr),*] |$r:ident| $run:block)*) => {
        pub const ROWS: &[&[&str]] = &[$(&[$($arg),*]),*];
        $(#[test]
        fn $test() {
            let row = Row::new(&[$($arg),*]);
            let $r = &row;
            $run
        })*
    };
}

rows! {
    h: ["-h"] |r| { assert!(r.text().contains("usage: qomet")); }
    help: ["-help"] |r| { assert!(r.text().contains("\n-version ")); }
    version: ["-version"] |r| { assert!(r.text().starts_with("QEMU emulator version 11.1.3 ")); }
    machine: ["-machine", "type=pc,memory-backend=ram0,kernel={dir}/k,initrd={dir}/i,append=a b,firmware={dir}/b", "-object", "memory-backend-ram,id=ram0,size=32M"] |r| {
        fake_kernel(r);
        r.put("b", vec![0x90; 65536]);
        let mut q = r.pc();
        assert_eq!(get(&mut q, "/machine", "append"), "a b");
        assert_eq!(get(&mut q, "/machine", "memory-backend"), "/objects/ram0");
        assert_eq!(q.hmp("xp /1xb 0xfffffff0"), "00000000fffffff0: 0x90\r\n");
    }
    machine_values: ["-machine", "pc,max-ram-below-4g=1G,max-fw-size=4M,x-oem-id=ABC,x-oem-table-id=TAB,phandle-start=5,dt-compatible=x,dtb=/x,smbios-entry-point-type=32,bus-lock-ratelimit=7,x-south-bridge=PIIX3,boot.order=d,memory.size=64M,smp.cpus=2"] |r| {
        let mut q = r.pc();
        for (key, value) in [
            ("max-ram-below-4g", json!(1 << 30)),
            ("max-fw-size", json!(4 << 20)),
            ("x-oem-id", json!("ABC")),
            ("x-oem-table-id", json!("TAB")),
            ("phandle-start", json!(5)),
            ("dt-compatible", json!("x")),
            ("dtb", json!("/x")),
            ("smbios-entry-point-type", json!("32")),
            ("bus-lock-ratelimit", json!(7)),
            ("x-south-bridge", json!("PIIX3")),
        ] {
            assert_eq!(get(&mut q, "/machine", key), value, "{key}");
        }
        assert_eq!(get(&mut q, "/machine", "boot")["order"], "d");
        assert_eq!(get(&mut q, "/machine", "memory")["size"], 64 << 20);
        assert_eq!(get(&mut q, "/machine", "smp")["cpus"], 2);
    }
    machine_not_built: ["-machine", "pc,shim=/x,dumpdtb=/x,memory-encryption=x"] |r| {
        for key in ["shim", "dumpdtb", "memory-encryption"] {
            let e = process::run(&["-machine", &format!("pc,{key}=x")], "").stderr;
            assert!(e.contains(&format!("'{key}' is not built yet")), "{e}");
        }
        r.error();
    }
    machine_absent: ["-machine", "pc,cxl-fmw=x,nvdimm-persistence=x,sgx-epc=x,pcspk-audiodev=x"] |_r| {
        for (value, why) in [
            ("cxl-fmw.0.size=4G", "CXL memory is not supported"),
            ("nvdimm-persistence=cpu", "NVDIMMs are not supported"),
            ("sgx-epc.0.memdev=x", "SGX is not supported"),
            ("pcspk-audiodev=x", "audiodev 'x' not found"),
        ] {
            let out = process::run(&["-machine", &format!("pc,{value}")], "");
            assert!(out.code == Some(1) && out.stderr.contains(why), "{value}: {}", out.stderr);
        }
    }
    machine_cache: ["-machine", "pc,smp-cache.0.cache=l2,smp-cache.0.topology=socket,smp-cache.1.cache=l3,smp-cache.1.topology=socket"] |r| {
        let caches = get(&mut r.pc(), "/machine", "smp-cache");
        assert_eq!([0, 1, 2, 3].map(|i| caches[i]["topology"].clone()), ["core", "core", "socket", "socket"]);
        for (value, why) in [
            ("0.cache=l1d,smp-cache.0.topology=thread", "thread level cache not supported by this machine"),
            ("0.cache=l2,smp-cache.0.topology=cluster", "Invalid topology level: cluster. "),
            ("0.cache=l2,smp-cache.0.topology=core,smp-cache.1.cache=l2,smp-cache.1.topology=core", "l2. The cache properties are duplicated"),
            ("0.cache=l1d,smp-cache.0.topology=socket", "L2 cache topology level shouldn't be lower than L1 cache"),
            ("0.cache=l1d,smp-cache.0.topology=near", "does not accept value 'near'"),
            ("0.cache=l4,smp-cache.0.topology=core", "does not accept value 'l4'"),
            ("0.cache=l1d", "'smp-cache.0.topology' is missing"),
        ] {
            let out = process::run(&["-machine", &format!("pc,smp-cache.{value}")], "");
            assert!(out.code == Some(1) && out.stderr.contains(why), "{value}: {}", out.stderr);
        }
        let out = process::run(&["-machine", "none,smp-cache.0.cache=l1d,smp-cache.0.topology=core"], "");
        assert!(out.stderr.contains("l1d cache topology not supported by this machine"), "{}", out.stderr);
    }
    machine_support: ["-machine", "pc,confidential-guest-support=x"] |r| { assert!(r.error().contains("Device 'x' not found")); }
    machine_lists: ["-M", "none,help"] |r| { assert!(r.text().contains("memory-backend=<")); }
    cpu: ["-cpu", "qemu64,-sse3,+rdtscp,model=9,xlevel=0x80000008"] |r| {
        let mut q = r.pc();
        let cpu = "/machine/unattached/device[0]";
        let got = ["sse3", "rdtscp", "model", "xlevel"].map(|p| get(&mut q, cpu, p));
        assert_eq!(got, [json!(false), json!(true), json!(9), json!(0x8000_0008u32)]);
    }
    accel: ["-accel", "accel=tcg,thread=single", "-S"] |r| {
        let mut q = r.none();
        assert_eq!(q.run("query-accelerators", json!({}))["enabled"], "tcg");
        assert_eq!(get(&mut q, "/machine", "type"), "none-machine");
    }
    accel_tier: ["-accel", "tcg,tier=jit,threshold=7,tb-size=8,split-wx=on", "-S"] |r| { r.none(); }
    accel_split: ["-accel", "tcg,split-wx=off"] |r| { assert!(r.error().contains("split-wx=off is not supported")); }
    enable_kvm: ["-enable-kvm"] |r| { assert!(r.error().contains("use tcg (and -cpu max)")); }
    smp: ["-smp", "cpus=2,drawers=1,books=1,sockets=1,dies=1,clusters=1,modules=1,cores=3,threads=2,maxcpus=6"] |r| {
        let smp = get(&mut r.pc(), "/machine", "smp");
        let got = ["cpus", "sockets", "dies", "modules", "cores", "threads", "maxcpus"].map(|k| smp[k].as_u64().unwrap_or(1));
        assert_eq!(got, [2, 1, 1, 1, 3, 2, 6], "{smp}");
    }
    m: ["-m", "size=64,slots=2,maxmem=1G"] |r| {
        let memory = get(&mut r.pc(), "/machine", "memory");
        assert_eq!(memory, json!({"size": 64 << 20, "slots": 2, "max-size": 1 << 30}));
    }
    m_zero: ["-m", "0"] |r| { assert_eq!(get(&mut r.pc(), "/machine", "memory")["size"], 128 << 20); }
    name: ["-name", "guest=g,,1,process=qomet-as-x,debug-threads=on"] |r| {
        let mut q = Qmp::start(&r.with(&["-S", "-display", "none", "-L", firmware()]));
        assert_eq!(q.run("query-name", json!({})), json!({"name": "g,1"}));
        let proc = PathBuf::from(format!("/proc/{}", q.child().id()));
        assert_eq!(std::fs::read_to_string(proc.join("comm")).unwrap(), "qomet-as-x\n");
        let tasks = std::fs::read_dir(proc.join("task")).unwrap();
        let names: Vec<String> = tasks.map(|t| std::fs::read_to_string(t.unwrap().path().join("comm")).unwrap()).collect();
        assert!(names.iter().any(|n| n.starts_with("CPU 0/TCG")), "{names:?}");
    }
    uuid: ["-uuid", "550E8400-e29b-41d4-a716-446655440000"] |r| {
        assert_eq!(r.none().run("query-uuid", json!({}))["UUID"], "550e8400-e29b-41d4-a716-446655440000");
    }
    rtc: ["-rtc", "base=2031-12-30T21:34:56,clock=vm,driftfix=slew"] |r| {
        let mut q = r.qtest();
        // BCD, 24 hours; the clock stands until it is moved.
        assert_eq!([4, 2, 0, 7, 8, 9, 0x32].map(|i| cmos(&mut q, i)), [0x21, 0x34, 0x56, 0x30, 0x12, 0x31, 0x20]);
        q.clock_step(2_000_000_000);
        assert_eq!(cmos(&mut q, 0), 0x58);
        assert!(r.pc().hmp("info qtree").contains("lost_tick_policy = \"slew\""));
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
    nodefaults: ["-nodefaults"] |r| {
        let mut q = r.pc();
        assert_eq!(q.run("query-chardev", json!({})).as_array().unwrap().len(), 1, "the test's own");
        assert!(!q.hmp("info pci").contains("VGA"));
        assert_eq!(q.hmp("i /b 0x3fd"), "portb[0x03fd] = 0xff\r\n");
    }
    no_user_config: ["-no-user-config"] |r| { r.none().run("query-status", json!({})); }
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
    display: ["-display", "none"] |r| {
        let ask = |args: &[&str]| {
            let all = [args, &["-accel", "qtest", "-L", firmware(), "-qmp", "stdio"]].concat();
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
    nic: ["-nic", "none"] |r| { assert!(!r.pc().hmp("info pci").contains("Ethernet")); }
    net: ["-net", "none"] |r| { assert!(!r.pc().hmp("info pci").contains("Ethernet")); }
    kernel: ["-kernel", "{dir}/k", "-initrd", "{dir}/i", "-append", "console=x y=z"] |r| {
        fake_kernel(r);
        let mut q = r.qtest();
        let mut item = |key: u16, len: usize| -> Vec<u8> {
            q.out(0x510, 2, key.into());
            (0..len).map(|_| q.inb(0x511)).collect()
        };
        assert_eq!(item(0x15, 14), b"console=x y=z\0", "the command line");
        assert_eq!(item(0x12, 6), b"initrd");
        assert_eq!(item(0x14, 4), 14u32.to_le_bytes(), "its length");
    }
    bios: ["-bios", "{dir}/b"] |r| {
        r.put("b", vec![0x91; 131_072]);
        let mut q = r.pc();
        assert_eq!(q.hmp("xp /1xb 0xfffffff0"), "00000000fffffff0: 0x91\r\n");
        assert_eq!(q.hmp("xp /1xb 0xffff0"), "00000000000ffff0: 0x91\r\n");
    }
    firmware_folder: ["-L", "{dir}"] |r| {
        r.put("bios-256k.bin", vec![0x92; 262_144]);
        let mut q = Qmp::start(&r.with(&["-accel", "qtest", "-vga", "none"]));
        assert_eq!(q.hmp("xp /1xb 0xfffffff0"), "00000000fffffff0: 0x92\r\n");
    }
    boot: ["-boot", "order=dc,once=n,menu=on,splash={dir}/s.bmp,splash-time=1234,reboot-timeout=4321,strict=on"] |r| {
        r.put("s.bmp", bitmap());
        let mut q = r.qtest();
        // Network once: CMOS 3Dh holds the first two devices, 38h the third.
        assert_eq!(cmos(&mut q, 0x3d) & 0xf, 4);
        assert_eq!(fw_cfg(&mut q, "etc/boot-fail-wait").unwrap(), 4321u32.to_le_bytes());
        assert_eq!(fw_cfg(&mut q, "etc/boot-menu-wait").unwrap(), 1234u16.to_le_bytes());
        assert_eq!(fw_cfg(&mut q, "bootsplash.bmp").unwrap(), bitmap());
        let boot = get(&mut r.pc(), "/machine", "boot");
        assert_eq!((&boot["order"], &boot["menu"], &boot["strict"]), (&json!("dc"), &json!(true), &json!(true)), "{boot}");
        // Without a kernel there is nothing to be strict about.
        assert_eq!(fw_cfg(&mut q, "bootorder").unwrap(), b"");
        fake_kernel(r);
        let kernel = r.path("k");
        let kernel = kernel.to_str().unwrap();
        let mut q = Qtest::start(&r.with(&["-L", firmware(), "-kernel", kernel]));
        assert_eq!(fw_cfg(&mut q, "bootorder").unwrap(), b"/rom@genroms/linuxboot_dma.bin\nHALT\0");
        let mut q = Qtest::start(&["-L", firmware(), "-kernel", kernel]);
        assert_eq!(fw_cfg(&mut q, "bootorder").unwrap(), b"/rom@genroms/linuxboot_dma.bin\0");
        let never = Row::new(&["-boot", "reboot-timeout=-1"]);
        assert_eq!(fw_cfg(&mut never.qtest(), "etc/boot-fail-wait").unwrap(), u32::MAX.to_le_bytes());
    }
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
    qtest: ["-qtest", "unix:{dir}/t,server=on,wait=off", "-qtest-log", "{dir}/log", "-accel", "qtest"] |r| {
        let _q = r.none();
        let mut s = connect(&r.path("t"));
        s.write_all(b"readb 0\n").unwrap();
        assert!(read_until(&mut s, "\n").starts_with("OK "));
        until("the log", || std::fs::read_to_string(r.path("log")).is_ok_and(|t| t.contains("] readb 0\n")));
    }
    icount: ["-icount", "shift=auto"] |r| { assert!(r.error().ends_with("-icount shift=auto: instruction counting is not built yet\n")); }

    chardev_null: ["-chardev", "backend=null,id=c"] |r| { assert_eq!(filename(&mut r.none(), "c"), "null"); }
    chardev_vc: ["-chardev", "vc,id=c,cols=80,rows=25", "-chardev", "vc,id=d,width=640,height=480"] |r| {
        assert_eq!(filename(&mut r.none(), "c"), "vc");
    }
    chardev_file: ["-chardev", "file,id=c,path={dir}/out,input-path={dir}/in,append=on", "-serial", "chardev:c"] |r| {
        r.put("out", "old ");
        r.put("in", "k");
        let mut q = r.pc();
        until("the byte", || q.hmp("i /b 0x3fd").ends_with("61\r\n"));
        q.hmp("o /b 0x3f8 0x41");
        until("it is appended", || std::fs::read(r.path("out")).is_ok_and(|d| d == b"old A"));
        // Without append it starts over.
        let _again = Qmp::start(&["-machine", "none", "-chardev", &format!("file,id=c,path={}", r.path("out").display())]);
        assert_eq!(std::fs::read(r.path("out")).unwrap(), b"");
    }
    chardev_log: ["-chardev", "null,id=c,logfile={dir}/log,logappend=on", "-serial", "chardev:c"] |r| {
        r.put("log", "old ");
        r.pc().hmp("o /b 0x3f8 0x41");
        until("it is logged", || std::fs::read(r.path("log")).is_ok_and(|d| d == b"old A"));
    }
    chardev_stdio: ["-chardev", "stdio,id=c,signal=off", "-mon", "chardev=c"] |r| {
        let out = process::run(&r.with(&["-machine", "none"]), "info version\nquit\n");
        assert!(out.code == Some(0) && out.stdout.contains("11.1.3Qomet"), "{out:?}");
    }
    chardev_pty: ["-chardev", "pty,id=c,path={dir}/link", "-serial", "chardev:c"] |r| {
        let mut q = r.pc();
        let device = filename(&mut q, "c").strip_prefix("pty:").expect("its name").to_owned();
        assert_eq!(std::fs::read_link(r.path("link")).unwrap(), Path::new(&device));
        let mut tty = std::fs::OpenOptions::new().read(true).write(true).open(r.path("link")).unwrap();
        tty.write_all(b"k").unwrap();
        until("the byte", || q.hmp("i /b 0x3fd").ends_with("61\r\n"));
        q.run("quit", json!({}));
        q.wait();
        assert!(!r.path("link").is_symlink());
    }
    chardev_ringbuf: ["-chardev", "ringbuf,id=c,size=8", "-chardev", "memory,id=d,size=4k"] |r| {
        let mut q = r.none();
        q.run("ringbuf-write", json!({"device": "c", "data": "0123456789"}));
        assert_eq!(q.run("ringbuf-read", json!({"device": "c", "size": 100})), "23456789");
        q.run("ringbuf-write", json!({"device": "d", "data": "x"}));
    }
    chardev_mux: ["-chardev", "socket,id=base,path={dir}/s,server=on,wait=off", "-chardev", "mux,id=c,chardev=base", "-serial", "chardev:c", "-mon", "c"] |r| {
        let mut q = r.pc();
        let mut s = connect(&r.path("s"));
        s.write_all(b"\x01c").unwrap();
        q.hmp("o /b 0x3f8 0x21");
        let mut text = read_until(&mut s, "(qemu) ");
        while !text.contains('!') {
            text += &read_until(&mut s, "!");
        }
        assert_eq!(filename(&mut q, "c"), "mux");
    }
    chardev_mux_on: ["-chardev", "socket,id=c,path={dir}/s,server=on,wait=off,mux=on", "-mon", "c", "-mon", "c"] |r| {
        let _q = r.none();
        let mut s = connect(&r.path("s"));
        s.write_all(b"\x01h").unwrap();
        read_until(&mut s, "C-a x    exit emulator");
    }
    chardev_unix_client: ["-chardev", "socket,id=c,path={dir}/s,reconnect-ms=20", "-serial", "chardev:c"] |r| {
        // Nobody listens at first: it tries again.
        let mut q = r.pc();
        let listener = UnixListener::bind(r.path("s")).unwrap();
        for _ in 0..2 {
            let (mut s, _) = listener.accept().unwrap();
            s.write_all(b"k").unwrap();
            until("the byte", || q.hmp("i /b 0x3fd").ends_with("61\r\n"));
            q.hmp("i /b 0x3f8");
        }
    }
    chardev_abstract: ["-chardev", "socket,id=c,path={dir}/s,abstract=on,server=on,wait=off"] |r| {
        use std::os::linux::net::SocketAddrExt;
        let _q = r.none();
        let name = r.path("s");
        let addr = std::os::unix::net::SocketAddr::from_abstract_name(name.to_str().unwrap()).unwrap();
        UnixStream::connect_addr(&addr).unwrap();
        assert!(!name.exists());
    }
    chardev_wait: ["-chardev", "socket,id=c,path={dir}/s,server=on,wait=on", "-mon", "c", "-S"] |r| {
        let mut child = process::start(&r.with(&["-machine", "none"]), &[]);
        process::until_exists(&r.path("s"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none());
        let mut s = connect(&r.path("s"));
        s.write_all(b"quit\n").unwrap();
        assert_eq!(process::wait(&mut child).code(), Some(0));
        assert!(process::finish(child).stderr.contains("waiting for connection on: disconnected:unix:"));
    }
    chardev_tcp: ["-chardev", "socket,id=c,host=127.0.0.1,port=0,to=10,server=on,wait=off,nodelay=on,ipv4=on,ipv6=off", "-mon", "c"] |r| {
        let mut q = r.none();
        let address = filename(&mut q, "c");
        let port: u16 = address.trim_end_matches(",server=on").rsplit(':').next().unwrap().parse().expect(&address);
        let mut s = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        read_until(&mut s, "(qemu) ");
        // The port is taken: the next one is tried, up to `to`.
        let list = format!("socket,id=c,host=127.0.0.1,port={port},to={},server=on,wait=off,delay=off", port.saturating_add(20));
        let mut second = Qmp::start(&["-machine", "none", "-chardev", &list]);
        assert_ne!(filename(&mut second, "c"), address);
        let e = process::run(&["-machine", "none", "-chardev", "socket,id=c,host=127.0.0.1,port=0,server=on,ipv4=off"], "").stderr;
        assert!(e.contains("127.0.0.1") && e.lines().count() == 1, "{e}");
    }
    chardev_telnet: ["-chardev", "socket,id=c,host=localhost,port=0,delay=off,telnet=on,server=on,wait=off", "-mon", "c"] |r| {
        let mut q = r.none();
        let address = filename(&mut q, "c");
        let port: u16 = address.trim_end_matches(",server=on").rsplit(':').next().unwrap().parse().expect(&address);
        let mut s = std::net::TcpStream::connect(("localhost", port)).unwrap();
        let mut first = [0; 3];
        s.read_exact(&mut first).unwrap();
        assert_eq!(first[0], 255, "IAC");
    }
    chardev_fd: ["-chardev", "socket,id=c,fd=9,server=off", "-mon", "c"] |r| {
        // Descriptor 9 is one end of a socket pair.
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut child = std::process::Command::new("bash")
            .args(["-c", "exec \"$@\" 9<&0 0</dev/null", "sh", process::binary().to_str().unwrap()])
            .args(r.with(&["-machine", "none", "-nodefaults"]))
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        ours.write_all(b"quit\n").unwrap();
        read_until(&mut ours, "quit");
        assert_eq!(process::wait(&mut child).code(), Some(0));
    }
}
