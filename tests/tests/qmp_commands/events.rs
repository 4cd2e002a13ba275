//! Events of QMP that are not about drives.

use crate::harness::*;
use serde_json::json;
use tests::qmp::Qmp;

rows! { EVENTS, q, pc(&["-smp", "1,maxcpus=2"]), Qmp::came;
    event_acpi_device_ost = "ACPI_DEVICE_OST": {
        // `_OST` of CPU 1: event 1, status 0x80.
        for write in ["o /w 0xaf00 0", "o /w 0xaf00 1", "o /b 0xaf05 1", "o /w 0xaf08 1", "o /b 0xaf05 2", "o /w 0xaf08 0x80"] {
            q.hmp(write);
        }
        let info = json!({"slot": "1", "slot-type": "CPU", "source": 1, "status": 0x80});
        assert_eq!(q.event("ACPI_DEVICE_OST")["data"], json!({ "info": info }));
    }
    event_device_deleted = "DEVICE_DELETED": {
        q.run("device_add", second_cpu());
        q.run("device_del", json!({"id": "c1"}));
        // What the DSDT does for the guest: the modern register block, CPU 1, eject.
        for write in ["o /w 0xaf00 0", "o /w 0xaf00 1", "o /b 0xaf04 8"] {
            q.hmp(write);
        }
        assert_eq!(q.event("DEVICE_DELETED")["data"], json!({"device": "c1", "path": "/machine/peripheral/c1"}));
    }
    event_guest_panicked = "GUEST_PANICKED": {
        *q = pc(&["-device", "pvpanic"]);
        assert_eq!(q.hmp("i /b 0x505"), "portb[0x0505] = 0x7\r\n");
        q.run("set-action", json!({"panic": "pause"}));
        q.hmp("o /b 0x505 1");
        assert_eq!(q.event("GUEST_PANICKED")["data"], json!({"action": "pause"}));
        q.event("STOP");
        assert_eq!(q.run("query-status", json!({}))["status"], "guest-panicked");
        q.run("cont", json!({}));
        q.run("set-action", json!({"panic": "none"}));
        q.hmp("o /b 0x505 1");
        assert_eq!(q.event("GUEST_PANICKED")["data"], json!({"action": "run"}));
        q.run("set-action", json!({"panic": "exit-failure"}));
        q.hmp("o /b 0x505 1");
        assert_eq!(q.event("GUEST_PANICKED")["data"], json!({"action": "poweroff"}));
        assert_eq!(q.event("SHUTDOWN")["data"]["reason"], "guest-panic");
        assert_eq!(q.wait().code(), Some(1));
    }
    event_guest_crashloaded = "GUEST_CRASHLOADED": {
        *q = pc(&["-device", "pvpanic,ioport=0x600"]);
        q.hmp("o /b 0x600 2");
        assert_eq!(q.event("GUEST_CRASHLOADED")["data"], json!({"action": "run"}));
    }
    event_guest_pvshutdown = "GUEST_PVSHUTDOWN": {
        *q = pc(&["-device", "pvpanic,events=4"]);
        assert_eq!(q.hmp("i /b 0x505"), "portb[0x0505] = 0x4\r\n");
        q.hmp("o /b 0x505 4");
        q.event("GUEST_PVSHUTDOWN");
        assert_eq!(q.event("SHUTDOWN")["data"]["reason"], "guest-shutdown");
    }
    event_powerdown = "POWERDOWN": {
        q.hmp("system_powerdown");
        q.event("POWERDOWN");
    }
    event_reset = "RESET": {
        q.run("system_reset", json!({}));
        assert_eq!(q.event("RESET")["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
        q.hmp("o /b 0x92 1");
        assert_eq!(q.event("RESET")["data"], json!({"guest": true, "reason": "guest-reset"}));
    }
    event_resume = "RESUME": {
        q.run("stop", json!({}));
        q.run("cont", json!({}));
        assert!(q.event("RESUME").get("data").is_none());
    }
    event_netdev_stream_connected = "NETDEV_STREAM_CONNECTED": {
        let file = path(q, "s");
        let addr = json!({"type": "unix", "path": file});
        q.run("netdev_add", json!({"type": "stream", "id": "n", "server": true, "addr": addr}));
        let _peer = std::os::unix::net::UnixStream::connect(&file).unwrap();
        assert_eq!(q.event("NETDEV_STREAM_CONNECTED")["data"], json!({"netdev-id": "n", "addr": addr}));
    }
    event_netdev_stream_disconnected = "NETDEV_STREAM_DISCONNECTED": {
        let file = path(q, "s");
        let listener = std::os::unix::net::UnixListener::bind(&file).unwrap();
        let addr = json!({"type": "unix", "path": file});
        q.run("netdev_add", json!({"type": "stream", "id": "n", "reconnect-ms": 1, "addr": addr}));
        for _ in 0..2 {
            let peer = listener.accept().unwrap();
            q.event("NETDEV_STREAM_CONNECTED");
            drop(peer);
            assert_eq!(q.event("NETDEV_STREAM_DISCONNECTED")["data"], json!({"netdev-id": "n"}));
        }
    }
    event_nic_rx_filter_changed = "NIC_RX_FILTER_CHANGED": {
        // An old driver that sets the address in the configuration, by the I/O window.
        q.run("device_add", json!({"driver": "virtio-net-pci", "id": "card", "addr": "7", "disable-modern": true}));
        for write in ["o /w 0xcf8 0x80003810", "o /w 0xcfc 0xd000", "o /w 0xcf8 0x80003804", "o /w 0xcfc 5", "o /b 0xd014 2"] {
            q.hmp(write);
        }
        let data = q.event("NIC_RX_FILTER_CHANGED")["data"].clone();
        assert_eq!(data, json!({"name": "card", "path": "/machine/peripheral/card/virtio-backend"}));
    }
    event_balloon_change = "BALLOON_CHANGE": {
        // An old driver says what the balloon holds, by the I/O window.
        q.run("device_add", json!({"driver": "virtio-balloon-pci", "addr": "7", "disable-modern": true}));
        for write in ["o /w 0xcf8 0x80003810", "o /w 0xcfc 0xd000", "o /w 0xcf8 0x80003804", "o /w 0xcfc 5", "o /w 0xd018 256"] {
            q.hmp(write);
        }
        assert_eq!(q.event("BALLOON_CHANGE")["data"], json!({"actual": 127 << 20}));
    }
    event_vserport_change = "VSERPORT_CHANGE": {
        // An old driver has its one port open as soon as it is there, and no more when it goes.
        q.run("device_add", json!({"driver": "virtio-serial-pci", "addr": "7", "disable-modern": true}));
        q.run("device_add", json!({"driver": "virtconsole", "id": "port"}));
        for write in ["o /w 0xcf8 0x80003810", "o /w 0xcfc 0xd000", "o /w 0xcf8 0x80003804", "o /w 0xcfc 5", "o /b 0xd012 7"] {
            q.hmp(write);
        }
        q.hmp("o /b 0xd012 0");
        assert_eq!(q.event("VSERPORT_CHANGE")["data"], json!({"id": "port", "open": false}));
    }
    event_rtc_change = "RTC_CHANGE": {
        // The hour register; update in progress is not observed by qtest's clock.
        q.hmp("o /b 0x70 4");
        q.hmp("o /b 0x71 0x01");
        let data = q.event("RTC_CHANGE")["data"].clone();
        assert!(data["qom-path"].as_str().unwrap().starts_with("/machine/"), "{data}");
    }
    event_shutdown = "SHUTDOWN": {
        pm_config(q, 0x40, "w", 0x601);
        pm_config(q, 0x80, "b", 1);
        q.hmp("o /h 0x604 0x2000");
        assert_eq!(q.event("SHUTDOWN")["data"], json!({"guest": true, "reason": "guest-shutdown"}));
        assert_eq!(q.wait().code(), Some(0));
    }
    event_stop = "STOP": {
        q.run("stop", json!({}));
        assert!(q.event("STOP").get("data").is_none());
    }
    event_suspend = "SUSPEND": { suspend(q); }
    event_suspend_disk = "SUSPEND_DISK": {
        pm_config(q, 0x40, "w", 0x601);
        pm_config(q, 0x80, "b", 1);
        q.hmp("o /h 0x604 0x2800"); // SLP_TYP 2 (S4) and SLP_EN
        q.event("SUSPEND_DISK");
    }
    event_watchdog = "WATCHDOG": {
        for (word, after) in [("reset", "RESET"), ("shutdown", "POWERDOWN"), ("pause", "STOP"), ("debug", ""), ("none", ""), ("inject-nmi", "")] {
            // (Time goes by for real.)
            let (folder, action) = (firmware(), format!("watchdog={word}"));
            *q = Qmp::start(&["-display", "none", "-L", &folder, "-nic", "none", "-device", "ib700", "-action", &action]);
            q.hmp("o /b 0x443 0xf");
            assert_eq!(q.event("WATCHDOG")["data"], json!({"action": word}));
            if !after.is_empty() {
                q.event(after);
            }
        }
    }
    event_wakeup = "WAKEUP": {
        suspend(q);
        q.run("system_wakeup", json!({}));
        q.event("WAKEUP");
    }
}
