//! Commands of the human monitor that are not about drives.

use crate::harness::*;
use tests::process;
use tests::qmp::Qmp;

rows! { HMP, q, pc(&["-smp", "1,maxcpus=2", "-chardev", "ringbuf,id=r,size=16", "-chardev", "null,id=n", "-serial", "null"]), printed;
    hmp_help = "help": {
        assert_eq!(q.hmp("help xp"), "xp /fmt addr -- physical memory dump starting at 'addr'\r\n");
        assert_eq!(q.hmp("? xp"), q.hmp("help xp"));
    }
    hmp_info = "info": { assert!(q.hmp("info").contains("info status -- ")); }
    hmp_quit = "quit": {
        q.hmp("q");
        assert_eq!(q.wait().code(), Some(0));
    }
    hmp_log = "log": {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("log");
        assert_eq!(q.hmp(&format!("logfile {}", file.display())), "");
        let resets = || std::fs::read_to_string(&file).expect("a log").matches("CPU Reset (CPU 0)").count();
        for (items, expected) in [("cpu_reset", 1), ("none", 1), ("unimp,cpu_reset", 2)] {
            assert_eq!(q.hmp(&format!("log {items}")), "");
            q.hmp("system_reset");
            q.event("RESET");
            assert_eq!(resets(), expected, "{items}");
        }
        let help = q.hmp("log cpu_rest");
        assert!(help.starts_with("log item1[,...] -- ") && help.contains("\r\ncpu_reset "), "{help}");
    }
    hmp_logfile = "logfile": {
        assert!(q.hmp("logfile /nowhere/x").starts_with("Error: error opening logfile /nowhere/x: "));
    }
    hmp_stop = "stop": {
        q.hmp("s");
        q.event("STOP");
    }
    hmp_cont = "cont": {
        q.hmp("stop");
        q.hmp("c");
        q.event("RESUME");
    }
    hmp_system_reset = "system_reset": {
        q.hmp("system_reset");
        q.event("RESET");
    }
    hmp_system_powerdown = "system_powerdown": {
        q.hmp("system_powerdown");
        q.event("POWERDOWN");
    }
    hmp_system_wakeup = "system_wakeup": {
        assert_eq!(q.hmp("system_wakeup"), "Error: Unable to wake up: guest is not in suspended state\r\n");
        suspend(q);
        q.hmp("system_wakeup");
        q.event("WAKEUP");
    }
    hmp_x = "x": { assert_eq!(q.hmp("x /2xb 0xffff0"), "00000000000ffff0: 0xea 0x5b\r\n"); }
    hmp_xp = "xp": { assert_eq!(q.hmp("xp /1xh 0xffff0"), "00000000000ffff0: 0x5bea\r\n"); }
    hmp_i = "i": { assert_eq!(q.hmp("i /b 0x64"), "portb[0x0064] = 0x18\r\n"); }
    hmp_o = "o": {
        q.hmp("o /w 0xcf8 0x80000000");
        assert_eq!(q.hmp("i /w 0xcfc"), "portl[0x0cfc] = 0x12378086\r\n");
    }
    hmp_cpu = "cpu": {
        assert_eq!(q.hmp("cpu 0"), "");
        assert_eq!(q.hmp("cpu 7"), "Error: invalid CPU index\r\n");
    }
    hmp_pmemsave = "pmemsave": {
        let file = path(q, "m");
        assert_eq!(q.hmp(&format!("pmemsave 0xffff0 16 \"{file}\"")), "");
        assert_eq!(std::fs::read(&file).unwrap().len(), 16);
    }
    hmp_memsave = "memsave": {
        let file = path(q, "m");
        assert_eq!(q.hmp(&format!("memsave 0xffff0 16 {file}")), "");
        assert_eq!(std::fs::read(&file).unwrap()[0], 0xea);
    }
    hmp_sendkey = "sendkey": {
        q.hmp("sendkey a 1");
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x1c\r\n");
        assert_eq!(q.hmp("sendkey"), "Error: expected: keys [hold_ms]\r\n");
    }
    hmp_mouse_move = "mouse_move": {
        mouse_on(q);
        assert_eq!(q.hmp("mouse_move 1 2"), "");
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x28\r\n");
        assert_eq!(q.hmp("mouse_move 1"), "Error: expected: dx dy [dz]\r\n");
    }
    hmp_mouse_set = "mouse_set": {
        assert_eq!(q.hmp("mouse_set 2"), "");
        assert_eq!(q.hmp("mouse_set 0"), "Error: Mouse at index '0' not found\r\n");
        assert_eq!(q.hmp("mouse_set 1"), "Error: Input device 'QEMU PS/2 Keyboard' is not a mouse\r\n");
        // vmmouse takes nothing before its guest asks for it.
        assert_eq!(q.hmp("mouse_set 3"), "Error: Mouse at index '3' not found\r\n");
    }
    hmp_mouse_button = "mouse_button": {
        mouse_on(q);
        assert_eq!(q.hmp("mouse_button 1"), "");
        assert_eq!(q.hmp("i /b 0x60"), "portb[0x0060] = 0x9\r\n");
    }
    hmp_screendump = "screendump": {
        let file = path(q, "s");
        assert_eq!(q.hmp(&format!("screendump {file}")), "");
        assert!(std::fs::read(&file).unwrap().starts_with(b"P6\n"));
    }
    hmp_device_add = "device_add": {
        assert_eq!(q.hmp(PLUG), "");
        assert!(q.hmp("info cpus").contains("CPU #1"));
        assert!(q.hmp("device_add isa-debug-exti").contains("did you mean 'isa-debug-exit'"));
    }
    hmp_device_del = "device_del": {
        q.hmp(PLUG);
        assert_eq!(q.hmp("device_del c1"), "");
        assert!(q.hmp("device_del nope").contains("'nope' not found"));
    }
    hmp_object_add = "object_add": {
        assert_eq!(q.hmp("object_add memory-backend-ram,id=m,size=4k"), "");
        assert_eq!(q.hmp("qom-get /objects/m size"), "4096\r\n");
    }
    hmp_object_del = "object_del": {
        q.hmp("object_add memory-backend-ram,id=m,size=4k");
        assert_eq!(q.hmp("object_del m"), "");
        assert_eq!(q.hmp("object_del m"), "Error: object 'm' not found\r\n");
    }
    hmp_qom_list = "qom-list": { assert!(q.hmp("qom-list /chardevs").contains("r (child<chardev-ringbuf>)\r\n")); }
    hmp_qom_get = "qom-get": { assert_eq!(q.hmp("qom-get /machine type"), "\"pc-i440fx-11.1-machine\"\r\n"); }
    hmp_qom_set = "qom-set": {
        assert_eq!(q.hmp("qom-set /machine dump-guest-core off"), "");
        assert_eq!(q.hmp("qom-get /machine dump-guest-core"), "false\r\n");
    }
    hmp_netdev_add = "netdev_add": {
        assert_eq!(q.hmp("netdev_add user,id=n"), "");
        assert_eq!(q.hmp("netdev_add user,id=n"), "Error: Duplicate ID 'n' for netdev\r\n");
    }
    hmp_netdev_del = "netdev_del": {
        q.hmp("netdev_add user,id=n");
        assert_eq!(q.hmp("netdev_del n"), "");
        assert_eq!(q.hmp("netdev_del n"), "Error: Device 'n' not found\r\n");
    }
    hmp_set_link = "set_link": {
        q.hmp("netdev_add user,id=n");
        assert_eq!(q.hmp("set_link n off"), "");
        assert_eq!(q.hmp("set_link n"), "Error: expected: name on|off\r\n");
    }
    hmp_hostfwd_add = "hostfwd_add": {
        *q = pc(&["-nic", "none"]);
        assert_eq!(q.hmp("hostfwd_add tcp::1-:2"), "Error: user mode network stack not in use\r\n");
        q.hmp("netdev_add user,id=n");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        assert_eq!(q.hmp(&format!("hostfwd_add n tcp:127.0.0.1:{port}-:22")), "");
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let again = q.hmp(&format!("hostfwd_add tcp:127.0.0.1:{port}-:22"));
        assert!(again.starts_with("Error: Could not set up host forwarding rule"), "{again}");
    }
    hmp_hostfwd_remove = "hostfwd_remove": {
        q.hmp("netdev_add user,id=n");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        q.hmp(&format!("hostfwd_add tcp:127.0.0.1:{port}-:22"));
        let rule = format!("tcp:127.0.0.1:{port}");
        assert_eq!(q.hmp(&format!("hostfwd_remove {rule}")), format!("host forwarding rule for {rule} removed\r\n"));
        assert_eq!(q.hmp(&format!("hostfwd_remove n {rule}")), format!("host forwarding rule for {rule} not found\r\n"));
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
    hmp_balloon = "balloon": {
        assert_eq!(q.hmp("balloon 64"), "Error: No balloon device has been activated\r\n");
        q.hmp("device_add virtio-balloon-pci");
        assert_eq!(q.hmp("balloon 64"), "");
        assert_eq!(q.hmp("balloon 0"), "Error: Parameter 'target' expects a size\r\n");
    }
    hmp_chardev_remove = "chardev-remove": {
        assert_eq!(q.hmp("chardev-remove n"), "");
        assert_eq!(q.hmp("chardev-remove n"), "Error: chardev 'n' not found\r\n");
    }
    hmp_chardev_send_break = "chardev-send-break": {
        assert_eq!(q.hmp("chardev-send-break serial0"), "");
        assert_eq!(q.hmp("i /b 0x3fd"), "portb[0x03fd] = 0x71\r\n");
    }
    hmp_ringbuf_read = "ringbuf_read": {
        q.hmp("ringbuf_write r abc");
        assert_eq!(q.hmp("ringbuf_read r 2"), "ab\r\n");
    }
    hmp_ringbuf_write = "ringbuf_write": {
        assert_eq!(q.hmp("ringbuf_write r abc"), "");
        assert_eq!(q.hmp("ringbuf_write n abc"), "Error: n is not a ringbuf device\r\n");
    }
}

rows! { INFO, q, pc(&["-name", "vm", "-smp", "2"]), printed;
    info_iothreads = "iothreads": {
        assert_eq!(q.hmp("info iothreads"), "");
        assert_eq!(q.hmp("object_add iothread,id=t"), "");
        let text = q.hmp("info iothreads");
        let rest = "\r\n  poll-max-ns=32768\r\n  poll-grow=2\r\n  poll-shrink=2\r\n  poll-weight=3\r\n  aio-max-batch=0\r\n";
        assert!(text.starts_with("t:\r\n  thread_id=") && text.ends_with(rest), "{text}");
    }
    info_balloon = "balloon": {
        assert_eq!(q.hmp("info balloon"), "Error: No balloon device has been activated\r\n");
        q.hmp("device_add virtio-balloon-pci");
        assert_eq!(q.hmp("info balloon"), "balloon: actual=128\r\n");
    }
    info_chardev = "chardev": { assert!(q.hmp("info chardev").contains("serial0: filename=vc\r\n")); }
    info_network = "network": {
        *q = pc(&["-nic", "none"]);
        assert_eq!(q.hmp("info network"), "");
        q.hmp("netdev_add user,id=n");
        assert_eq!(q.hmp("info network"), "n: index=0,type=user,net=10.0.2.0,restrict=off\r\n");
    }
    info_usernet = "usernet": {
        *q = pc(&["-nic", "none"]);
        q.hmp("netdev_add user,id=n,hostfwd=udp:127.0.0.1:0-:53");
        let text = q.hmp("info usernet");
        assert!(text.starts_with("Hub -1 (n):\r\n  Protocol[State] ") && text.contains("\r\n  UDP[HOST_FORWARD]"), "{text}");
        // The port that the host has chosen.
        let port = text.split_once(" 127.0.0.1 ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u16>().ok());
        assert!(port.is_some_and(|p| p > 0), "{text}");
    }
    info_cpus = "cpus": {
        let text = q.hmp("info cpus");
        assert!(text.starts_with("* CPU #0: thread_id=") && text.contains("\r\n  CPU #1: thread_id="), "{text}");
    }
    info_jit = "jit": {
        assert_eq!(q.hmp("info jit"), "Error: JIT information is only available with accel=tcg\r\n");
        let mut tcg = Qmp::start(&["-display", "none", "-L", &firmware()]);
        let counted = |text: String| {
            let line = text.lines().find_map(|l| l.trim().strip_prefix("instructions "));
            line.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or_else(|| panic!("{text}"))
        };
        process::until("instructions", || counted(tcg.hmp("info jit")) > 100_000);
        let text = tcg.hmp("info jit");
        for line in ["one-insn-per-tb: off", "gen code size       ", "TB count            ", "TLB full flushes    ", "  TLB", "tier 1"] {
            assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
        }
        // As QEMU 11, which has none any more.
        assert!(tcg.hmp("info opcount").starts_with("unknown command: 'info opcount'"));
    }
    info_kvm = "kvm": { assert_eq!(q.hmp("info kvm"), "kvm support: not compiled\r\n"); }
    info_lapic = "lapic": {
        assert!(q.hmp("info lapic").starts_with("APIC 0x0 base 0xfee00900"));
        assert!(q.hmp("info lapic 1").starts_with("APIC 0x1 base 0xfee00800"));
    }
    info_mice = "mice": {
        assert_eq!(q.hmp("info mice"), "* Mouse #2: QEMU PS/2 Mouse\r\n");
        assert_eq!(Qmp::start(&["-machine", "none"]).hmp("info mice"), "No mouse devices connected\r\n");
    }
    info_mtree = "mtree": { assert!(q.hmp("info mtree").contains("00000000000003f8-00000000000003ff (prio 0, i/o): serial\r\n")); }
    info_name = "name": { assert_eq!(q.hmp("info name"), "vm\r\n"); }
    info_pci = "pci": { assert!(q.hmp("info pci").contains("VGA controller: PCI device 1234:1111")); }
    info_pic = "pic": { assert!(q.hmp("info pic").contains("pic1: irr=")); }
    info_irq = "irq": {
        q.hmp("sendkey a 1");
        assert!(q.hmp("info irq").lines().all(|l| l.contains(':')));
    }
    info_qom_tree = "qom-tree": { assert!(q.hmp("info qom-tree").contains("/fw_cfg (fw_cfg_io)\r\n")); }
    info_qtree = "qtree": { assert!(q.hmp("info qtree").contains("dev: isa-serial, id \"\"\r\n")); }
    info_registers = "registers": {
        let mut tcg = Qmp::start(&["-S", "-display", "none", "-L", &firmware()]);
        let text = tcg.hmp("info registers");
        assert!(text.contains("EIP=0000fff0 EFL=00000002"), "{text}");
        let text = q.hmp("info registers -a");
        assert!(text.contains("CPU#0\r\n") && text.contains("CPU#1\r\n"), "{text}");
        assert!(!q.hmp("info registers").contains("CPU#1"));
    }
    info_roms = "roms": { assert!(q.hmp("info roms").contains("bios-256k.bin")); }
    info_status = "status": { assert_eq!(q.hmp("info status"), "VM status: running\r\n"); }
    info_uuid = "uuid": { assert_eq!(q.hmp("info uuid"), "00000000-0000-0000-0000-000000000000\r\n"); }
    info_version = "version": { assert!(q.hmp("info version").starts_with("11.1.3")); }
}
