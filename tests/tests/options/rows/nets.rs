//! Network backends and cards.

use super::super::harness::*;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use tests::process::until;

rows! {
    netdev: ["-netdev", "user,id=n,net=192.168.7.0/24,restrict=on", "-netdev", "{\"type\":\"hubport\",\"id\":\"h\",\"hubid\":3}", "-device", "e1000,netdev=n,id=card,mac=52:54:00:00:00:01"] |r| {
        let mut q = r.pc();
        let text = q.hmp("info network");
        assert_eq!(text, "hub 3\r\n \\ h: \r\ncard: index=0,type=nic,model=e1000,macaddr=52:54:00:00:00:01\r\n \\ n: index=0,type=user,net=192.168.7.0,restrict=on\r\n");
        assert_eq!(get(&mut q, "/machine/peripheral/card", "netdev"), "n");
    }
    nic: ["-nic", "none"] |r| { assert!(!r.pc().hmp("info pci").contains("Ethernet")); }
    nic_user: ["-nic", "user,model=e1000-82545em,mac=52:54:00:00:00:02"] |r| {
        let mut q = r.pc();
        assert!(q.hmp("info pci").contains("Ethernet controller: PCI device 8086:100f"));
        assert!(q.hmp("info network").contains("e1000-82545em.0: index=0,type=nic,model=e1000-82545em,macaddr=52:54:00:00:00:02\r\n \\ #net0: index=0,type=user,net=10.0.2.0,restrict=off\r\n"));
    }
    nic_isa: ["-nic", "user,model=ne2k_isa", "-nic", "user,model=ne2k_isa,mac=52:54:00:00:00:09", "-nic", "user,model=ne2k_pci"] |r| {
        let mut q = r.pc();
        let text = q.hmp("info network");
        for (name, model, mac) in [("ne2k_isa.0", "ne2k_isa", "12:34:56"), ("ne2k_isa.1", "ne2k_isa", "00:00:09"), ("ne2k_pci.0", "ne2k_pci", "12:34:57")] {
            assert!(text.contains(&format!("{name}: index=0,type=nic,model={model},macaddr=52:54:00:{mac}\r\n")), "{text}");
        }
        let tree = q.hmp("info qtree");
        assert!(tree.contains("iobase = 768 (0x300)") && tree.contains("iobase = 800 (0x320)") && tree.contains("irq = 10 (0xa)"), "{tree}");
    }
    net: ["-net", "none"] |r| { assert!(!r.pc().hmp("info pci").contains("Ethernet")); }
    net_hub: ["-net", "nic", "-net", "user"] |r| {
        let text = r.pc().hmp("info network");
        assert!(text.starts_with("hub 0\r\n \\ hub0port0: e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\r\n \\ hub0port1: #net0: "), "{text}");
    }
    net_alone: ["-net", "user", "-netdev", "user,id=n"] |r| {
        let out = tests::process::run(&r.with(&["-machine", "none", "-accel", "qtest", "-display", "none", "-monitor", "stdio"]), "quit\n");
        assert!(out.stderr.contains("warning: hub 0 with no nics\n") && out.stderr.contains("warning: netdev n has no peer\n"), "{out:?}");
        let card = tests::process::run(&["-accel", "qtest", "-display", "none", "-nodefaults", "-L", firmware(), "-device", "e1000", "-monitor", "stdio"], "quit\n");
        assert_eq!(card.stderr, "", "a card may be without a cable");
    }
    netdev_ipv6: ["-netdev", "user,id=n,ipv6-net=fd00:1::/48,ipv6-host=fd00:1::9,dns=1.2.3.4"] |r| {
        assert!(r.none().hmp("info network").contains("n: index=0,type=user"));
    }
    netdev_stream: ["-netdev", "stream,id=n,server=on,addr.type=unix,addr.path={dir}/s", "-netdev", "hubport,id=a,hubid=0,netdev=n", "-netdev", "stream,id=m,server=on,addr.type=unix,addr.path={dir}/t", "-netdev", "hubport,id=b,hubid=0,netdev=m"] |r| {
        let mut q = r.pc();
        let connect = |name: &str| std::os::unix::net::UnixStream::connect(r.path(name)).unwrap();
        let (mut s, mut t) = (connect("s"), connect("t"));
        q.event("NETDEV_STREAM_CONNECTED");
        q.event("NETDEV_STREAM_CONNECTED");
        s.write_all(&[&[0, 0, 0, 60][..], &[7; 60]].concat()).unwrap();
        let mut got = [0; 64];
        t.read_exact(&mut got).unwrap();
        assert_eq!(got[..], [&[0, 0, 0, 60][..], &[7; 60]].concat());
    }
    netdev_passt: ["-netdev", "passt,id=p,path={dir}/passt,mtu=9000,dhcp=off,search=a.example,search=b.example,tcp-ports=2222:22,param=--trace", "-netdev", "hubport,id=a,hubid=0,netdev=p", "-netdev", "stream,id=n,server=on,addr.type=unix,addr.path={dir}/s", "-netdev", "hubport,id=b,hubid=0,netdev=n"] |r| {
        // One that notes its arguments, goes into the background and sends back what it gets.
        let script = "#!/bin/sh\necho \"$@\" > ${0%/*}/args\nfor last; do test \"$before\" = --pid && file=$last; before=$last; done\ncat <&3 >&3 3<&- 2>&1 &\necho $! > $file\n";
        r.put("passt", script);
        std::fs::set_permissions(r.path("passt"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut q = r.pc();
        let args = std::fs::read_to_string(r.path("args")).unwrap();
        let (given, rest) = args.split_once(" --pid ").unwrap();
        assert_eq!(given, "--quiet --mtu 9000 --no-dhcp --search a.example b.example --tcp-ports 2222:22 --trace");
        let (file, end) = rest.split_once(' ').unwrap();
        assert!(end == "--fd 3\n" && !std::path::Path::new(file).exists(), "{args}");
        let mut s = connect(&r.path("s"));
        let mut comes_back = |byte: u8| {
            let frame = [&[0, 0, 0, 60][..], &[byte; 60]].concat();
            s.write_all(&frame).unwrap();
            let mut got = [0; 64];
            s.read_exact(&mut got).unwrap();
            assert_eq!(got[..], frame);
        };
        let pid = |q: &mut tests::qmp::Qmp| {
            let text = q.hmp("info network");
            let (_, rest) = text.split_once("p: index=0,type=passt,stream,connected to pid ")?;
            rest.lines().next()?.parse::<i32>().ok()
        };
        comes_back(7);
        // It is started again when it ends by itself, and ends with the backend.
        let first = pid(&mut q).expect("it runs");
        assert!(std::process::Command::new("kill").arg(first.to_string()).status().unwrap().success());
        let mut second = None;
        until("another one", || { second = pid(&mut q).filter(|p| *p != first); second.is_some() });
        comes_back(9);
        q.run("netdev_del", json!({"id": "p"}));
        let there = format!("/proc/{}/cmdline", second.unwrap());
        until("its end", || std::fs::read_to_string(&there).is_ok_and(|s| s.is_empty()) || !std::path::Path::new(&there).exists());
    }
    netdev_dgram: ["-netdev", "dgram,id=n,local.type=unix,local.path={dir}/a,remote.type=unix,remote.path={dir}/b", "-netdev", "hubport,id=p,hubid=0,netdev=n", "-netdev", "dgram,id=m,local.type=unix,local.path={dir}/c,remote.type=unix,remote.path={dir}/d", "-netdev", "hubport,id=o,hubid=0,netdev=m"] |r| {
        let _q = r.pc();
        let bind = |name: &str| std::os::unix::net::UnixDatagram::bind(r.path(name)).unwrap();
        let (b, d) = (bind("b"), bind("d"));
        b.send_to(&[9; 64], r.path("a")).unwrap();
        let mut got = [0; 100];
        assert_eq!((d.recv(&mut got).unwrap(), &got[..64]), (64, &[9; 64][..]));
    }
    netdev_socket: ["-netdev", "socket,id=n,udp=127.0.0.1:1,localaddr=127.0.0.1:0", "-netdev", "socket,id=m,mcast=230.0.0.1:1234,localaddr=127.0.0.1"] |r| {
        assert!(r.none().hmp("info network").contains("m: index=0,type=socket,mcast=230.0.0.1:1234\r\n"));
    }
    netdev_errors: ["-netdev", "vde,id=n"] |r| {
        assert!(r.error().contains("-netdev vde,id=n: Parameter 'type' does not accept value 'vde' (accepted: dgram, hubport, passt, socket, stream, tap, user)"));
        for (option, text, message) in [
            ("-netdev", "user", "Parameter 'id' is missing"),
            ("-netdev", "user,id=n,speed=1", "Parameter 'speed' is unexpected"),
            ("-netdev", "socket,id=n", "exactly one of listen=, connect=, mcast= or udp= is required"),
            ("-netdev", "tap,id=n,fd=77", "File descriptor named '77' not found"),
            ("-netdev", "tap,id=n,script=/etc/x", "script= is not built yet"),
            ("-netdev", "passt,id=n,path=/nowhere/passt", "Error creating daemon: '/nowhere/passt' cannot be started"),
            ("-netdev", "passt,id=n,path=/bin/false", "'/bin/false' failed (exit status: 1)"),
            ("-netdev", "user,id=n,guestfwd=tcp::80-none", "Could not open guest forwarding device 'guestfwd.tcp.80': 'none' is no character device"),
            ("-netdev", "user,id=n,guestfwd=tcp::80-mon:null", "a monitor beside it (mon:) is not built yet"),
            ("-netdev", "user,id=n,guestfwd=tcp::80-xyz:1", "'xyz:1' is not a valid char driver"),
            ("-netdev", "user,id=n,guestfwd=tcp::80-null,guestfwd=tcp:10.0.2.9:80-null", "Could not open guest forwarding device 'guestfwd.tcp.80'"),
            ("-netdev", "passt,id=n,vhost-user=on", "vhost-user=on is not built yet"),
            ("-nic", "user,mac=1", "invalid syntax for ethernet address"),
            ("-nic", "user,model=vga", "Unsupported NIC model: vga"),
            ("-net", "nic,netdev=x", "netdev 'x' not found"),
            ("-netdev", "user,id=n,hostfwd=tcp::1", "Invalid host forwarding rule 'tcp::1' (Missing guest address separator)"),
            ("-device", "e1000,netdev=x", "Property 'e1000.netdev' can't find value 'x'"),
        ] {
            let out = tests::process::run(&[option, text, "-accel", "qtest", "-display", "none", "-L", firmware()], "");
            assert!(out.stderr.contains(message) && out.code == Some(1), "{option} {text}: {out:?}");
        }
    }
    netdev_guestfwd: ["-chardev", "null,id=c", "-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:80-unix:{dir}/s,,server=on,,wait=off,guestfwd=tcp::81-chardev:c"] |r| {
        let mut q = r.none();
        let all = q.run("query-chardev", json!({}));
        let device = |label: &str| all.as_array().unwrap().iter().find(|c| c["label"] == label).unwrap().clone();
        let name = format!("disconnected:unix:{},server=on", r.path("s").display());
        assert_eq!(device("guestfwd.tcp.80"), json!({"label": "guestfwd.tcp.80", "filename": name, "frontend-open": true}));
        assert_eq!(device("c")["frontend-open"], true);
        assert_eq!(get(&mut q, "/chardevs/guestfwd.tcp.80", "type"), "chardev-socket");
        // What the rule made goes with it, what it was lent does not.
        q.run("netdev_del", json!({"id": "n"}));
        let left = q.run("query-chardev", json!({})).to_string();
        assert!(!left.contains("guestfwd") && left.contains("\"c\"") && !r.path("s").exists(), "{left}");
        let text = format!("user,id=m,guestfwd=tcp::82-unix:{0},server=on,wait=off,guestfwd=tcp::83-unix:/nowhere/s", r.path("t").display());
        let out = q.hmp(&format!("netdev_add {}", text.replace(",server", ",,server").replace(",wait", ",,wait")));
        assert!(out.contains("Could not open guest forwarding device 'guestfwd.tcp.83'"), "{out}");
        let left = q.run("query-chardev", json!({})).to_string();
        assert!(!left.contains("guestfwd"), "nothing is left behind: {left}");
    }
    netdev_hostfwd: ["-nodefaults"] |r| {
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).unwrap().port();
        let rule = format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22");
        let _q = tests::qmp::Qmp::start(&r.with(&["-machine", "none", "-netdev", &rule]));
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}
