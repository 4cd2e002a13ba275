//! Block nodes and drives.

use super::super::harness::*;
use serde_json::{Value, json};
use tests::process::until;
use tests::qmp::Qmp;

fn drive(q: &mut Qmp, name: &str) -> Value {
    let all = q.run("query-block", json!({}));
    let found = all.as_array().expect("a list").iter().find(|d| d["device"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {all}")).clone()
}

/// A byte of the first disk's sector 0, by the data register.
fn first_byte(q: &mut Qmp) -> String {
    for write in [
        "o /b 0x3f6 4",
        "o /b 0x3f6 0",
        "o /b 0x1f2 1",
        "o /b 0x1f3 0",
        "o /b 0x1f4 0",
        "o /b 0x1f5 0",
        "o /b 0x1f6 0xe0",
        "o /b 0x1f7 0x20",
    ] {
        q.hmp(write);
    }
    until("the sector", || q.hmp("i /b 0x1f7").ends_with("58\r\n"));
    q.hmp("i /h 0x1f0")
}

/// Writes sector 0 of the first disk: zeros.
fn clear(q: &mut Qmp) {
    for write in [
        "o /b 0x3f6 4",
        "o /b 0x3f6 0",
        "o /b 0x1f2 1",
        "o /b 0x1f3 0",
        "o /b 0x1f4 0",
        "o /b 0x1f5 0",
        "o /b 0x1f6 0xe0",
        "o /b 0x1f7 0x30",
    ] {
        q.hmp(write);
    }
    (0..128).for_each(|_| _ = q.hmp("o /w 0x1f0 0"));
    until("it is written", || q.hmp("i /b 0x1f7").ends_with("50\r\n"));
}

rows! {
    short_forms: ["-hda", "{dir}/a", "-hdb", "{dir}/b", "-hdd", "{dir}/d", "-cdrom", "{dir}/c"] |r| {
        for name in ["a", "b", "c", "d"] {
            r.put(name, [b'a'; 4096]);
        }
        let mut q = r.pc();
        for (name, file, ro) in [("ide0-hd0", "a", false), ("ide0-hd1", "b", false), ("ide1-cd0", "c", true), ("ide1-hd1", "d", false)] {
            let d = drive(&mut q, name);
            assert_eq!((d["inserted"]["file"].as_str(), &d["inserted"]["ro"]), (r.path(file).to_str(), &json!(ro)));
        }
        assert!(first_byte(&mut q).ends_with("6161\r\n"));
        clear(&mut q);
        assert_eq!(std::fs::read(r.path("a")).unwrap()[..1024], [[0; 512], [b'a'; 512]].concat());
        // Another machine is kept out.
        let second = tests::process::run(&r.with(&["-machine", "pc", "-accel", "qtest", "-display", "none", "-L", firmware()]), "");
        assert!(second.stderr.contains("Failed to get \"write\" lock") && second.code == Some(1), "{second:?}");
    }
    floppies: ["-fda", "{dir}/a", "-fdb", "{dir}/b"] |r| {
        r.put("a", vec![1; 720 * 1024]);
        r.put("b", vec![2; 1440 * 1024]);
        let mut q = r.pc();
        for (name, file) in [("floppy0", "a"), ("floppy1", "b")] {
            let d = drive(&mut q, name);
            assert_eq!((d["inserted"]["file"].as_str(), &d["removable"]), (r.path(file).to_str(), &json!(true)));
        }
    }
    drive_floppy: ["-drive", "if=floppy,file={dir}/a,format=raw,index=1,read-only=on", "-global", "isa-fdc.fdtypeB=288"] |r| {
        r.put("a", vec![1; 720 * 1024]);
        let mut q = r.pc();
        assert_eq!(drive(&mut q, "floppy1")["inserted"]["ro"], true);
        let all = q.run("query-block", json!({}));
        assert!(all.as_array().unwrap().iter().all(|d| d["device"] != "floppy0"), "a global of the controller takes the default drive away");
    }
    hdc: ["-hdc", "{dir}/c", "-snapshot"] |r| {
        r.put("c", [7; 4096]);
        let mut q = r.pc();
        assert_eq!(drive(&mut q, "ide1-hd0")["inserted"]["ro"], false);
    }
    snapshot: ["-snapshot", "-hda", "{dir}/a"] |r| {
        r.put("a", [7; 4096]);
        let mut q = r.pc();
        clear(&mut q);
        let byte = first_byte(&mut q);
        assert!(byte.ends_with("0x0\r\n"), "{byte}");
        assert_eq!(std::fs::read(r.path("a")).unwrap(), [7; 4096]);
    }
    drive_keys: ["-drive", "file={dir}/a,if=ide,bus=0,unit=0,format=raw,media=disk,id=x,node-name=fmt,aio=threads,discard=unmap,detect-zeroes=unmap,werror=stop,rerror=ignore,snapshot=off,cache=none"] |r| {
        r.put("a", [7; 4096]);
        let mut q = r.pc();
        let d = drive(&mut q, "x");
        let i = &d["inserted"];
        assert_eq!((&i["node-name"], &i["drv"], &i["detect_zeroes"]), (&json!("fmt"), &json!("raw"), &json!("unmap")));
        assert_eq!(i["cache"], json!({"writeback": true, "direct": true, "no-flush": false}));
        clear(&mut q);
        assert_eq!(std::fs::read(r.path("a")).unwrap()[..513], [&[0; 512][..], &[7]].concat());
    }
    drive_limits: ["-drive", "file={dir}/a,if=none,id=x,format=raw,copy-on-read=on,throttling.bps-read=1000,throttling.bps-read-max=2000,throttling.bps-read-max-length=2,throttling.bps-write=3000,throttling.bps-write-max=4000,throttling.bps-write-max-length=3,throttling.iops-read=5,throttling.iops-read-max=6,throttling.iops-read-max-length=1,throttling.iops-write=7,throttling.iops-write-max=8,throttling.iops-write-max-length=4,throttling.iops-size=4096,throttling.group=g", "-drive", "file={dir}/b,if=none,id=y,format=raw,throttling.bps-total=9000,throttling.bps-total-max=9500,throttling.bps-total-max-length=5,throttling.iops-total=11,throttling.iops-total-max=12,throttling.iops-total-max-length=6"] |r| {
        r.put("a", [7; 4096]);
        r.put("b", [7; 4096]);
        let mut q = r.pc();
        let d = drive(&mut q, "x");
        let i = &d["inserted"];
        let numbers = ["bps", "bps_rd", "bps_rd_max", "bps_rd_max_length", "bps_wr", "bps_wr_max", "bps_wr_max_length", "iops_rd", "iops_rd_max", "iops_rd_max_length", "iops_wr", "iops_wr_max", "iops_wr_max_length", "iops_size", "group"];
        assert_eq!(numbers.map(|k| i[k].clone()), [json!(0), json!(1000), json!(2000), json!(2), json!(3000), json!(4000), json!(3), json!(5), json!(6), json!(1), json!(7), json!(8), json!(4), json!(4096), json!("g")]);
        let d = drive(&mut q, "y");
        let i = &d["inserted"];
        let numbers = ["bps", "bps_max", "bps_max_length", "iops", "iops_max", "iops_max_length", "group"];
        assert_eq!(numbers.map(|k| i[k].clone()), [json!(9000), json!(9500), json!(5), json!(11), json!(12), json!(6), json!("y")]);
    }
    object_throttle_group: ["-object", "throttle-group,id=g,limits.iops-total=10,x-bps-read=4096", "-drive", "file={dir}/a,if=none,id=x,format=raw,throttling.group=g"] |r| {
        r.put("a", [7; 4096]);
        let mut q = r.pc();
        let d = drive(&mut q, "x");
        assert_eq!((&d["inserted"]["iops"], &d["inserted"]["bps_rd"], &d["inserted"]["group"]), (&json!(10), &json!(4096), &json!("g")));
        assert_eq!(q.error("object-del", json!({"id": "g"})).1, "object 'g' is in use, can not be deleted");
        q.run("qom-set", json!({"path": "/objects/g", "property": "limits", "value": {"iops-total": 20}}));
        assert_eq!(drive(&mut q, "x")["inserted"]["iops"], 20);
    }
    drive_cache: ["-drive", "driver=raw,file={dir}/a,index=1,cache.direct=off,cache.no-flush=on,cache.writeback=off"] |r| {
        r.put("a", [7; 4096]);
        let cache = json!({"writeback": false, "direct": false, "no-flush": true});
        assert_eq!(drive(&mut r.pc(), "ide0-hd1")["inserted"]["cache"], cache);
    }
    drive_read_only: ["-drive", "file={dir}/a,if=none,id=x,format=raw,read-only=on,force-share=on", "-drive", "file={dir}/a,if=none,id=y,format=raw,auto-read-only=on,read-only=on"] |r| {
        r.put("a", [7; 4096]);
        let mut q = r.pc();
        assert_eq!(drive(&mut q, "x")["inserted"]["ro"], true);
        assert_eq!(drive(&mut q, "y")["inserted"]["ro"], true);
        let e = tests::process::run(&r.with(&["-device", "ide-hd,drive=x", "-accel", "qtest", "-display", "none", "-L", firmware()]), "").stderr;
        assert!(e.contains("Can't use a read-only drive"), "{e}");
    }
    blockdev: ["-blockdev", "driver=file,filename={dir}/a,node-name=f", "-blockdev", "{\"driver\":\"raw\",\"file\":\"f\",\"node-name\":\"r\"}", "-device", "ide-hd,drive=r,id=disk,bus=ide.0,serial=S1"] |r| {
        r.put("a", [7; 4096]);
        let mut q = r.pc();
        let all = q.run("query-block", json!({}));
        let d = all.as_array().unwrap().iter().find(|d| d["qdev"] == "disk").expect("the disk").clone();
        assert_eq!((&d["device"], &d["inserted"]["node-name"]), (&json!(""), &json!("r")));
        assert_eq!(get(&mut q, "/machine/peripheral/disk", "drive"), "r");
        assert_eq!(get(&mut q, "/machine/peripheral/disk", "serial"), "S1");
        assert_eq!(q.error("blockdev-del", json!({"node-name": "r"})).1, "Node r is in use");
        clear(&mut q);
    }
}
