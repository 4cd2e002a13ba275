//! Drives, images and jobs.

use crate::harness::*;
use serde_json::{Value, json};
use tests::process;
use tests::qmp::Qmp;

/// An image in a folder that stays as long as the machine.
fn disk(q: &Qmp, size: u64) -> String {
    let file = path(q, "disk");
    std::fs::File::create(&file).and_then(|f| f.set_len(size)).expect("an image");
    file
}

/// The CD drive gets an overlay on an image: names of both.
fn chain(q: &mut Qmp) -> (String, String) {
    let (base, top) = (disk(q, 4 << 20), path(q, "top"));
    let medium = json!({"device": "ide1-cd0", "filename": base, "format": "raw", "read-only-mode": "read-write"});
    q.run("blockdev-change-medium", medium);
    q.run("blockdev-snapshot-sync", json!({"device": "ide1-cd0", "snapshot-file": top}));
    (base, top)
}

/// A stream on [`chain`], job `j`, that makes a step and then waits for a long time.
fn slow_stream(q: &mut Qmp) {
    chain(q);
    q.run("block-stream", json!({"device": "ide1-cd0", "job-id": "j", "speed": 1}));
}

/// A commit of the top of [`chain`], job `j`, that is ready.
fn ready_commit(q: &mut Qmp) {
    chain(q);
    q.run("block-commit", json!({"device": "ide1-cd0", "job-id": "j"}));
    q.event("BLOCK_JOB_READY");
}

/// A stream on [`chain`], job `j`, that waits for what a user says at its end.
fn waiting_stream(q: &mut Qmp) {
    chain(q);
    let args = json!({"device": "ide1-cd0", "job-id": "j", "auto-finalize": false, "auto-dismiss": false});
    q.run("block-stream", args);
    q.event("BLOCK_JOB_PENDING");
}

/// The top of [`chain`] with an L2 table whose first entry leads to where no cluster can be, in the drive.
fn spoiled(q: &mut Qmp) {
    use std::os::unix::fs::FileExt;
    let (_, top) = chain(q);
    q.run("eject", json!({"device": "ide1-cd0", "force": true}));
    let file = std::fs::File::options().write(true).open(&top).expect("the image");
    let word = |at: u64, value: u64| file.write_all_at(&value.to_be_bytes(), at).expect("written");
    word(0x3_0000, 1 << 63 | 0x4_0000);
    word(0x4_0000, 1 << 63 | 0x5_0200);
    file.write_all_at(&[0; 65528], 0x4_0008).expect("written");
    file.write_all_at(&1u16.to_be_bytes(), 0x2_0008).expect("written");
    q.run(
        "blockdev-change-medium",
        json!({"device": "ide1-cd0", "filename": top, "format": "qcow2", "read-only-mode": "read-write"}),
    );
}

/// The path of the default CD drive.
fn q_device(q: &mut Qmp) -> String {
    find(&q.run("query-block", json!({})), "device", "ide1-cd0")["qdev"].as_str().expect("a path").to_owned()
}

fn status(q: &mut Qmp) -> Value {
    q.run("query-jobs", json!({}))[0]["status"].clone()
}

rows! { COMMANDS, q, pc(&["-smp", "1,maxcpus=2", "-chardev", "ringbuf,id=r,size=16", "-chardev", "null,id=n"]), Qmp::worked;
    query_block = "query-block": {
        let all = q.run("query-block", json!({}));
        let cd = find(&all, "device", "ide1-cd0");
        assert_eq!((&cd["removable"], &cd["tray_open"], &cd["io-status"]), (&json!(true), &json!(false), &json!("ok")));
        assert!(cd["inserted"].is_null() && cd["qdev"].as_str().unwrap().starts_with("/machine/unattached/device["));
    }
    query_named_block_nodes = "query-named-block-nodes": {
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n", "size": 4096}));
        let all = q.run("query-named-block-nodes", json!({"flat": true}));
        assert_eq!(find(&all, "node-name", "n")["image"]["virtual-size"], 4096);
    }
    query_blockstats = "query-blockstats": {
        let all = q.run("query-blockstats", json!({}));
        assert_eq!(find(&all, "device", "ide1-cd0")["stats"]["rd_bytes"], 0);
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n"}));
        assert_eq!(find(&q.run("query-blockstats", json!({"query-nodes": true})), "node-name", "n")["stats"]["wr_bytes"], 0);
    }
    blockdev_add = "blockdev-add": {
        let file = disk(q, 8192);
        q.run("blockdev-add", json!({"driver": "file", "filename": file, "node-name": "f", "read-only": true}));
        q.run("blockdev-add", json!({"driver": "raw", "file": "f", "offset": 512, "node-name": "w", "read-only": true}));
        let all = q.run("query-named-block-nodes", json!({}));
        assert_eq!(find(&all, "node-name", "w")["children"], json!([{"child": "file", "node-name": "f"}]));
        for (args, text) in [
            (json!({"driver": "qcow9", "node-name": "x"}), "does not accept value 'qcow9'"),
            (json!({"driver": "null-co", "node-name": "f"}), "Duplicate nodes with node-name='f'"),
            (json!({"driver": "file", "filename": "/none", "node-name": "x"}), "Could not open '/none': No such file or directory"),
            (json!({"driver": "null-co", "node-name": "x", "filename": "y"}), "Parameter 'filename' is unexpected"),
        ] {
            assert!(q.error("blockdev-add", args).1.contains(text), "{text}");
        }
    }
    block_resize = "block_resize": {
        let file = disk(q, 8192);
        q.run("blockdev-add", json!({"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": file}}));
        q.run("block_resize", json!({"node-name": "n", "size": 1 << 20}));
        assert_eq!(find(&q.run("query-named-block-nodes", json!({})), "node-name", "n")["image"]["virtual-size"], 1 << 20);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 1 << 20);
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "z"}));
        for (args, text) in [
            (json!({"node-name": "z", "size": 512}), "Could not resize 'z'"),
            (json!({"node-name": "n", "size": 513}), "The new size must be a multiple of 512"),
            (json!({"node-name": "n", "size": -1}), "Parameter 'size' expects a >0 size"),
            (json!({"device": "ide1-cd0", "size": 512}), "Device 'ide1-cd0' has no medium"),
            (json!({"size": 512}), "Need exactly one of 'device' and 'node-name'"),
        ] {
            assert!(q.error("block_resize", args).1.contains(text), "{text}");
        }
    }
    blockdev_snapshot_sync = "blockdev-snapshot-sync": {
        let (file, over) = (disk(q, 1 << 20), path(q, "over"));
        let mut more = pc(&["-drive", &format!("if=ide,id=d,format=raw,file={file}")]);
        let args = json!({"device": "d", "snapshot-file": over, "snapshot-node-name": "top"});
        more.run("blockdev-snapshot-sync", args.clone());
        let all = more.run("query-block", json!({}));
        let top = &find(&all, "device", "d")["inserted"];
        assert_eq!((&top["node-name"], &top["drv"], &top["backing_file_depth"]), (&json!("top"), &json!("qcow2"), &json!(1)));
        assert_eq!((&top["image"]["virtual-size"], &top["image"]["backing-filename-format"]), (&json!(1 << 20), &json!("raw")));
        assert!(more.error("blockdev-snapshot-sync", args).1.contains("Duplicate nodes with node-name='top'"));
        let all = more.run("query-block", json!({}));
        assert_eq!(find(&all, "device", "d")["inserted"]["node-name"], "top");
        more.run("block_resize", json!({"device": "d", "size": 2 << 20}));
        let vmdk = json!({"device": "d", "snapshot-file": over, "format": "vmdk"});
        assert!(more.error("blockdev-snapshot-sync", vmdk).1.contains("accepted: qcow2"));
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n"}));
        let loose = json!({"node-name": "n", "snapshot-file": path(q, "x")});
        assert!(q.error("blockdev-snapshot-sync", loose).1.contains("not the medium of a device"));
        let used = json!({"device": "d", "snapshot-file": over});
        assert!(more.error("blockdev-snapshot-sync", used).1.contains("lock"));
        let own = path(q, "own");
        std::fs::write(&own, [0; 4096]).unwrap();
        q.run("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": own, "format": "raw"}));
        let read_only = json!({"device": "ide1-cd0", "snapshot-file": path(q, "y")});
        assert!(q.error("blockdev-snapshot-sync", read_only).1.contains("read-only"));
        q.run("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": own, "read-only-mode": "read-write"}));
        q.run("blockdev-snapshot-sync", json!({"device": "ide1-cd0", "snapshot-file": path(q, "z")}));
    }
    blockdev_reopen = "blockdev-reopen": {
        let file = disk(q, 4096);
        q.run("blockdev-add", json!({"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": file, "node-name": "f"}}));
        let again = |more: Value| {
            let mut v = json!({"driver": "raw", "node-name": "n", "file": "f"});
            v.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"options": [v]})
        };
        q.run("blockdev-reopen", again(json!({"read-only": true, "cache": {"no-flush": true}})));
        let all = q.run("query-named-block-nodes", json!({}));
        assert_eq!((&find(&all, "node-name", "n")["ro"], &find(&all, "node-name", "f")["ro"]), (&json!(true), &json!(true)));
        assert_eq!(find(&all, "node-name", "f")["cache"]["no-flush"], true);
        assert!(q.error("blockdev-reopen", again(json!({"offset": 8192}))).1.contains("cannot be greater"));
        assert!(q.error("blockdev-reopen", again(json!({"x": 1}))).1.contains("'options[0].x' is unexpected"));
    }
    block_set_io_throttle = "block_set_io_throttle": {
        chain(q);
        let none = json!({"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0});
        let set = |more: Value| {
            let mut v = none.clone();
            v.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            v
        };
        q.run("block_set_io_throttle", set(json!({"device": "ide1-cd0", "bps": 1000, "bps_max": 2000, "bps_max_length": 3})));
        let all = q.run("query-block", json!({}));
        let i = &find(&all, "device", "ide1-cd0")["inserted"];
        assert_eq!((&i["bps"], &i["bps_max"], &i["bps_max_length"], &i["group"]), (&json!(1000), &json!(2000), &json!(3), &json!("ide1-cd0")));
        assert!(q.hmp("info block").contains("I/O throttling:   bps=1000 bps_rd=0 bps_wr=0 bps_max=2000 bps_rd_max=0"));
        q.run("block_set_io_throttle", set(json!({"device": "ide1-cd0"})));
        let all = q.run("query-block", json!({}));
        assert!(find(&all, "device", "ide1-cd0")["inserted"].get("group").is_none());
        let both = set(json!({"device": "ide1-cd0", "bps": 1, "bps_rd": 1}));
        assert!(q.error("block_set_io_throttle", both).1.contains("cannot be used at the same time"));
    }
    query_jobs = "query-jobs": {
        assert_eq!(q.run("query-jobs", json!({})), json!([]));
        slow_stream(q);
        let all = q.run("query-jobs", json!({}));
        assert_eq!((&all[0]["id"], &all[0]["type"], &all[0]["status"]), (&json!("j"), &json!("stream"), &json!("running")));
    }
    job_pause = "job-pause": {
        slow_stream(q);
        q.run("job-pause", json!({"id": "j"}));
        process::until("the pause", || status(q) == "paused");
        assert_eq!(q.error("job-pause", json!({"id": "j"})).1, "Job is already paused");
    }
    job_resume = "job-resume": {
        slow_stream(q);
        assert_eq!(q.error("job-resume", json!({"id": "j"})).1, "Can't resume a job that was not paused");
        q.run("job-pause", json!({"id": "j"}));
        q.run("job-resume", json!({"id": "j"}));
        assert_eq!(status(q), "running");
    }
    job_cancel = "job-cancel": {
        slow_stream(q);
        q.run("job-cancel", json!({"id": "j"}));
        q.event("BLOCK_JOB_CANCELLED");
        assert_eq!(q.error("job-cancel", json!({"id": "j"})).1, "Job not found");
    }
    job_complete = "job-complete": {
        ready_commit(q);
        q.run("job-complete", json!({"id": "j"}));
        assert!(q.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
        let all = q.run("query-block", json!({}));
        assert_eq!(find(&all, "device", "ide1-cd0")["inserted"]["drv"], "raw");
    }
    job_finalize = "job-finalize": {
        waiting_stream(q);
        q.run("job-finalize", json!({"id": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
        assert_eq!(status(q), "concluded");
    }
    job_dismiss = "job-dismiss": {
        waiting_stream(q);
        let error = q.error("job-dismiss", json!({"id": "j"})).1;
        assert_eq!(error, "Job 'j' in state 'pending' cannot accept command verb 'dismiss'");
        q.run("job-finalize", json!({"id": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
        q.run("job-dismiss", json!({"id": "j"}));
        assert_eq!(q.run("query-jobs", json!({})), json!([]));
    }
    query_block_jobs = "query-block-jobs": {
        slow_stream(q);
        let all = q.run("query-block-jobs", json!({}));
        assert_eq!((&all[0]["device"], &all[0]["len"], &all[0]["speed"]), (&json!("j"), &json!(4 << 20), &json!(1)));
    }
    block_job_set_speed = "block-job-set-speed": {
        slow_stream(q);
        q.run("block-job-set-speed", json!({"device": "j", "speed": 0}));
        q.event("BLOCK_JOB_COMPLETED");
        let (class, text) = q.error("block-job-set-speed", json!({"device": "j", "speed": 0}));
        assert_eq!((class.as_str(), text.as_str()), ("DeviceNotActive", "Block job 'j' not found"));
    }
    block_job_cancel = "block-job-cancel": {
        slow_stream(q);
        q.run("job-pause", json!({"id": "j"}));
        let error = q.error("block-job-cancel", json!({"device": "j"})).1;
        assert_eq!(error, "The block job for device 'j' is currently paused");
        q.run("block-job-cancel", json!({"device": "j", "force": true}));
        q.event("BLOCK_JOB_CANCELLED");
    }
    block_job_pause = "block-job-pause": {
        slow_stream(q);
        q.run("block-job-pause", json!({"device": "j"}));
        process::until("the pause", || status(q) == "paused");
    }
    block_job_resume = "block-job-resume": {
        slow_stream(q);
        q.run("block-job-pause", json!({"device": "j"}));
        q.run("block-job-resume", json!({"device": "j"}));
        assert_eq!(status(q), "running");
    }
    block_job_complete = "block-job-complete": {
        ready_commit(q);
        q.run("block-job-complete", json!({"device": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
    }
    block_job_finalize = "block-job-finalize": {
        waiting_stream(q);
        q.run("block-job-finalize", json!({"id": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
    }
    block_job_dismiss = "block-job-dismiss": {
        waiting_stream(q);
        q.run("job-finalize", json!({"id": "j"}));
        q.event("BLOCK_JOB_COMPLETED");
        q.run("block-job-dismiss", json!({"id": "j"}));
        assert_eq!(q.run("query-jobs", json!({})), json!([]));
    }
    block_stream = "block-stream": {
        let (_, top) = chain(q);
        q.run("block-stream", json!({"device": "ide1-cd0"}));
        let data = q.event("BLOCK_JOB_COMPLETED")["data"].clone();
        assert_eq!(data, json!({"type": "stream", "device": "ide1-cd0", "len": 4 << 20, "offset": 4 << 20, "speed": 0}));
        assert_eq!(std::fs::read(&top).unwrap()[8..20], [0; 12], "no backing file in the header");
        let all = q.run("query-block", json!({}));
        assert_eq!(find(&all, "device", "ide1-cd0")["inserted"]["backing_file_depth"], 0);
    }
    block_commit = "block-commit": {
        // (What libvirt looks for.)
        let (class, text) = q.error("block-commit", json!({"device": "no", "top": "x", "top-node": "y"}));
        assert_eq!((class.as_str(), text.as_str()), ("DeviceNotFound", "Device 'no' not found"));
        let (base, _) = chain(q);
        let itself = json!({"device": "ide1-cd0", "top": base, "base": base});
        assert_eq!(q.error("block-commit", itself).1, "cannot commit an image into itself");
        q.run("blockdev-snapshot-sync", json!({"device": "ide1-cd0", "snapshot-file": path(q, "over")}));
        let top = path(q, "top");
        q.run("block-commit", json!({"device": "ide1-cd0", "top": top}));
        assert!(q.event("BLOCK_JOB_COMPLETED")["data"].get("error").is_none());
        let all = q.run("query-block", json!({}));
        let i = &find(&all, "device", "ide1-cd0")["inserted"];
        assert_eq!((&i["backing_file_depth"], &i["image"]["backing-image"]["format"]), (&json!(1), &json!("raw")));
    }
    blockdev_del = "blockdev-del": {
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n"}));
        q.run("blockdev-add", json!({"driver": "raw", "file": "n", "node-name": "r"}));
        assert_eq!(q.error("blockdev-del", json!({"node-name": "n"})).1, "Node n is in use");
        q.run("blockdev-del", json!({"node-name": "r"}));
        q.run("blockdev-del", json!({"node-name": "n"}));
        assert_eq!(q.error("blockdev-del", json!({"node-name": "n"})).1, "Failed to find node with node-name='n'");
    }
    eject = "eject": {
        let file = disk(q, 8192);
        q.run("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": file, "format": "raw"}));
        q.run("eject", json!({"device": "ide1-cd0"}));
        let all = q.run("query-block", json!({}));
        assert_eq!((&find(&all, "device", "ide1-cd0")["tray_open"], find(&all, "device", "ide1-cd0")["inserted"].is_null()), (&json!(true), true));
        assert_eq!(q.error("eject", json!({"device": "no"})).1, "Device 'no' not found");
        *q = pc(&["-drive", "if=none,id=d,driver=null-co", "-device", "ide-hd,drive=d,bus=ide.0"]);
        assert_eq!(q.error("eject", json!({"device": "d"})).1, "Device 'd' is not removable");
        let file = disk(q, 8192);
        *q = pc(&["-cdrom", &file]);
        q.run("eject", json!({"device": "ide1-cd0"}));
    }
    blockdev_change_medium = "blockdev-change-medium": {
        let file = disk(q, 8192);
        q.run("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": file, "format": "raw"}));
        let all = q.run("query-block", json!({}));
        let cd = find(&all, "device", "ide1-cd0");
        assert_eq!((&cd["inserted"]["file"], &cd["inserted"]["ro"], &cd["tray_open"]), (&json!(file), &json!(true), &json!(false)));
        assert!(q.error("blockdev-change-medium", json!({"device": "ide1-cd0", "filename": "/none"})).1.contains("No such file"));
    }
    blockdev_open_tray = "blockdev-open-tray": {
        q.run("blockdev-open-tray", json!({"device": "ide1-cd0"}));
        assert_eq!(find(&q.run("query-block", json!({})), "device", "ide1-cd0")["tray_open"], true);
        assert_eq!(q.error("blockdev-open-tray", json!({})).1, "Need exactly one of 'device' and 'id'");
    }
    blockdev_close_tray = "blockdev-close-tray": {
        q.run("blockdev-open-tray", json!({"device": "ide1-cd0"}));
        q.run("blockdev-close-tray", json!({"device": "ide1-cd0"}));
        assert_eq!(find(&q.run("query-block", json!({})), "device", "ide1-cd0")["tray_open"], false);
    }
    blockdev_insert_medium = "blockdev-insert-medium": {
        *q = pc(&["-device", "ide-cd,id=cd,bus=ide.1"]);
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n", "read-only": true}));
        let insert = json!({"id": "cd", "node-name": "n"});
        assert_eq!(q.error("blockdev-insert-medium", insert.clone()).1, "Tray of device 'cd' is not open");
        q.run("blockdev-open-tray", json!({"id": "cd"}));
        q.run("blockdev-insert-medium", insert.clone());
        assert_eq!(q.error("blockdev-insert-medium", insert).1, "There already is a medium in device 'cd'");
        assert_eq!(q.error("blockdev-del", json!({"node-name": "n"})).1, "Node n is in use");
    }
    blockdev_remove_medium = "blockdev-remove-medium": {
        *q = pc(&["-device", "ide-cd,id=cd,bus=ide.1,drive=n", "-blockdev", "null-co,node-name=n,read-only=on"]);
        assert_eq!(q.error("blockdev-remove-medium", json!({"id": "cd"})).1, "Tray of device 'cd' is not open");
        q.run("blockdev-open-tray", json!({"id": "cd"}));
        q.run("blockdev-remove-medium", json!({"id": "cd"}));
        q.run("blockdev-del", json!({"node-name": "n"}));
    }
}

rows! { EVENTS, q, pc(&["-smp", "1,maxcpus=2"]), Qmp::came;
    event_block_io_error = "BLOCK_IO_ERROR": {
        // A guest that makes a guessed raw image look like another format.
        let file = disk(q, 8192);
        *q = pc(&["-hda", &file]);
        for write in ["o /b 0x1f2 1", "o /b 0x1f3 0", "o /b 0x1f4 0", "o /b 0x1f5 0", "o /b 0x1f6 0xe0", "o /b 0x1f7 0x30", "o /w 0x1f0 0x00444551"] {
            q.hmp(write);
        }
        (0..127).for_each(|_| _ = q.hmp("o /w 0x1f0 0"));
        let data = q.event("BLOCK_IO_ERROR")["data"].clone();
        assert_eq!((&data["device"], &data["operation"], &data["action"]), (&json!("ide0-hd0"), &json!("write"), &json!("report")));
        assert_eq!(data["reason"], "Operation not permitted");
        assert_eq!(q.hmp("i /b 0x1f7"), "portb[0x01f7] = 0x41\r\n");
    }
    event_block_image_corrupted = "BLOCK_IMAGE_CORRUPTED": {
        spoiled(q);
        q.run("block-stream", json!({"device": "ide1-cd0"}));
        let data = q.event("BLOCK_IMAGE_CORRUPTED")["data"].clone();
        assert_eq!((&data["device"], &data["fatal"]), (&json!("ide1-cd0"), &json!(true)));
        assert_eq!(data["msg"], "Cluster allocation offset 0x50200 unaligned (L2 offset: 0x40000, L2 index: 0x0)");
        let top = path(q, "top");
        assert_eq!(std::fs::read(&top).unwrap()[79], 2, "the image is marked");
        q.event("BLOCK_JOB_COMPLETED");
        q.run("eject", json!({"device": "ide1-cd0", "force": true}));
        let again = json!({"device": "ide1-cd0", "filename": top, "format": "qcow2", "read-only-mode": "read-write"});
        assert!(q.error("blockdev-change-medium", again).1.contains("Image is corrupt; cannot be opened read/write"));
    }
    event_block_job_error = "BLOCK_JOB_ERROR": {
        spoiled(q);
        q.run("block-stream", json!({"device": "ide1-cd0", "on-error": "stop"}));
        let data = q.event("BLOCK_JOB_ERROR")["data"].clone();
        assert_eq!(data, json!({"device": "ide1-cd0", "operation": "read", "action": "stop"}));
        process::until("the pause", || status(q) == "paused");
    }
    event_block_job_cancelled = "BLOCK_JOB_CANCELLED": {
        slow_stream(q);
        q.run("job-cancel", json!({"id": "j"}));
        let data = q.event("BLOCK_JOB_CANCELLED")["data"].clone();
        assert_eq!((&data["device"], &data["speed"]), (&json!("j"), &json!(1)));
    }
    event_block_job_completed = "BLOCK_JOB_COMPLETED": {
        chain(q);
        q.run("block-stream", json!({"device": "ide1-cd0", "job-id": "j"}));
        assert_eq!(q.event("BLOCK_JOB_COMPLETED")["data"]["device"], "j");
    }
    event_block_job_pending = "BLOCK_JOB_PENDING": {
        chain(q);
        q.run("block-stream", json!({"device": "ide1-cd0", "job-id": "j", "auto-finalize": false}));
        assert_eq!(q.event("BLOCK_JOB_PENDING")["data"], json!({"type": "stream", "id": "j"}));
    }
    event_block_job_ready = "BLOCK_JOB_READY": {
        chain(q);
        q.run("block-commit", json!({"device": "ide1-cd0", "job-id": "j"}));
        assert_eq!(q.event("BLOCK_JOB_READY")["data"]["type"], "commit");
        assert_eq!(status(q), "ready");
    }
    event_job_status_change = "JOB_STATUS_CHANGE": {
        chain(q);
        q.run("block-stream", json!({"device": "ide1-cd0", "job-id": "j"}));
        for status in ["created", "running", "waiting", "pending", "concluded", "null"] {
            assert_eq!(q.event("JOB_STATUS_CHANGE")["data"], json!({"id": "j", "status": status}));
        }
    }
    event_device_tray_moved = "DEVICE_TRAY_MOVED": {
        q.run("blockdev-open-tray", json!({"device": "ide1-cd0"}));
        assert_eq!(q.event("DEVICE_TRAY_MOVED")["data"], json!({"device": "ide1-cd0", "id": q_device(q), "tray-open": true}));
    }
}

rows! { HMP, q, pc(&["-smp", "1,maxcpus=2", "-chardev", "ringbuf,id=r,size=16", "-chardev", "null,id=n", "-serial", "null"]), printed;
    hmp_drive_add = "drive_add": {
        let file = disk(q, 1 << 20);
        assert_eq!(q.hmp(&format!("drive_add 0 if=none,id=d,format=raw,file={file}")), "OK\r\n");
        assert_eq!(q.hmp(&format!("drive_add 0:1 if=none,id=d,format=raw,file={file}")), "Error: Duplicate ID 'd' for drive\r\n");
        q.run("device_add", json!({"driver": "virtio-blk-pci", "drive": "d", "id": "disk"}));
        let all = q.run("query-block", json!({}));
        assert_eq!(find(&all, "device", "d")["qdev"], "/machine/peripheral/disk/virtio-backend");
        for (line, text) in [
            ("0", "expected: [-n] slot key=value"),
            ("0 if=virtio,driver=null-co", "Can't hot-add drive to type virtio"),
            ("0 if=none,file=/none", "Could not open '/none': No such file or directory"),
            ("-n 0 driver=null-co", "'node-name' needs to be specified"),
        ] {
            let out = q.hmp(&format!("drive_add {line}"));
            assert!(out.starts_with("Error: ") && out.contains(text), "{line}: {out}");
        }
        assert_eq!(q.hmp("drive_add -n 0 driver=null-co,node-name=n"), "");
        q.run("blockdev-del", json!({"node-name": "n"}));
        // With its device a drive goes: the name and the image are free.
        q.run("device_add", json!({"driver": "virtio-scsi-pci", "id": "s"}));
        let image = path(q, "unit");
        std::fs::write(&image, [0; 4096]).unwrap();
        for _ in 0..2 {
            assert_eq!(q.hmp(&format!("drive_add 0 if=none,id=u,format=raw,file={image}")), "OK\r\n");
            q.run("device_add", json!({"driver": "scsi-hd", "drive": "u", "id": "unit"}));
            q.run("device_del", json!({"id": "unit"}));
            process::until("the end of the drive", || !q.hmp("info block").contains("u (#"));
        }
    }
    hmp_drive_del = "drive_del": {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("disk").to_str().expect("a plain path").to_owned();
        std::fs::write(&file, [0; 4096]).unwrap();
        *q = pc(&["-drive", &format!("id=d,format=raw,file={file}")]);
        let device = find(&q.run("query-block", json!({})), "device", "d")["qdev"].clone();
        assert_eq!(q.hmp("drive_del none"), "Error: Device 'none' not found\r\n");
        assert_eq!(q.hmp("drive_del d"), "");
        // The name and the image are free, the device has nothing behind it.
        let all = q.run("query-block", json!({}));
        let left = find(&all, "qdev", device.as_str().unwrap());
        assert!(left["device"] == "" && left["inserted"].is_null() && left["io-status"].is_null(), "{left}");
        assert_eq!(q.hmp(&format!("drive_add 0 if=none,id=d,format=raw,file={file}")), "OK\r\n");
        for write in ["o /b 0x1f6 0xe0", "o /b 0x1f2 1", "o /b 0x1f7 0x20"] {
            q.hmp(write);
        }
        process::until("the error", || q.hmp("i /b 0x1f7").ends_with("41\r\n"));
        q.hmp("drive_add -n 0 driver=null-co,node-name=n");
        assert_eq!(q.hmp("drive_del n"), "");
        assert_eq!(q.hmp("drive_del n"), "Error: Device 'n' not found\r\n");
        // What a job works at stays.
        slow_stream(q);
        assert!(q.hmp("drive_del ide1-cd0").contains("busy"));
    }
    hmp_change = "change": {
        let (disc, spaced) = (disk(q, 4096), path(q, "a b"));
        std::fs::write(&spaced, [0; 8192]).unwrap();
        assert_eq!(q.hmp(&format!("change ide1-cd0 {disc}")), "");
        for open in [true, false] {
            assert_eq!(q.event("DEVICE_TRAY_MOVED")["data"]["tray-open"], open);
        }
        assert_eq!(q.hmp(&format!("change ide1-cd0 \"{spaced}\" raw read-only")), "");
        let all = q.run("query-block", json!({}));
        assert_eq!(find(&all, "device", "ide1-cd0")["inserted"]["file"], spaced);
        assert_eq!(q.hmp("change ide1-cd0"), "Error: expected: filename\r\n");
        assert_eq!(q.hmp("change none x"), "Error: Device 'none' not found\r\n");
        assert!(q.hmp("change ide1-cd0 -f /none").starts_with("Error: Could not open '/none': "));
    }
    hmp_eject = "eject": {
        let disc = disk(q, 4096);
        q.hmp(&format!("change floppy0 {disc} raw"));
        assert_eq!(q.hmp("eject floppy0"), "");
        assert_eq!(q.hmp("eject -f ide1-cd0"), "");
        assert_eq!(q.event("DEVICE_TRAY_MOVED")["data"]["tray-open"], true);
        let all = q.run("query-block", json!({}));
        assert!(find(&all, "device", "floppy0")["inserted"].is_null());
        assert_eq!(q.hmp("eject none"), "Error: Device 'none' not found\r\n");
    }
    hmp_block_resize = "block_resize": {
        let file = disk(q, 1 << 20);
        q.hmp(&format!("drive_add 0 if=none,id=d,format=raw,file={file}"));
        assert_eq!(q.hmp("block_resize d 2"), "");
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 2 << 20);
        assert_eq!(q.hmp("block_resize d 512K"), "");
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 512 << 10);
        assert_eq!(q.hmp("block_resize d x"), "Error: invalid size\r\n");
        assert_eq!(q.hmp("block_resize x 1"), "Error: Cannot find device='x' nor node-name=''\r\n");
    }
    hmp_block_stream = "block_stream": {
        let (base, _) = chain(q);
        assert_eq!(q.hmp("block_stream ide1-cd0 1B"), "");
        assert_eq!(q.hmp("block_stream ide1-cd0"), "Error: Job ID 'ide1-cd0' already in use\r\n");
        q.hmp("block_job_cancel -f ide1-cd0");
        q.event("BLOCK_JOB_CANCELLED");
        assert_eq!(q.hmp(&format!("block_stream ide1-cd0 1M {base}")), "");
        q.event("BLOCK_JOB_COMPLETED");
    }
    hmp_block_job_set_speed = "block_job_set_speed": {
        slow_stream(q);
        assert_eq!(q.hmp("block_job_set_speed j 1"), "");
        assert_eq!(q.run("query-block-jobs", json!({}))[0]["speed"], 1 << 20);
    }
    hmp_block_job_cancel = "block_job_cancel": {
        slow_stream(q);
        assert_eq!(q.hmp("block_job_cancel j"), "");
        q.event("BLOCK_JOB_CANCELLED");
        assert_eq!(q.hmp("block_job_cancel j"), "Error: Block job 'j' not found\r\n");
    }
    hmp_block_job_complete = "block_job_complete": {
        ready_commit(q);
        assert_eq!(q.hmp("block_job_complete j"), "");
        q.event("BLOCK_JOB_COMPLETED");
    }
    hmp_block_job_pause = "block_job_pause": {
        slow_stream(q);
        assert_eq!(q.hmp("block_job_pause j"), "");
        process::until("the pause", || status(q) == "paused");
    }
    hmp_block_job_resume = "block_job_resume": {
        slow_stream(q);
        assert_eq!(q.hmp("block_job_resume j"), "Error: Can't resume a job that was not paused\r\n");
        q.hmp("block_job_pause j");
        assert_eq!(q.hmp("block_job_resume j"), "");
    }
    hmp_block_set_io_throttle = "block_set_io_throttle": {
        chain(q);
        assert_eq!(q.hmp("block_set_io_throttle ide1-cd0 0 0 0 10 0 0"), "");
        assert!(q.hmp("info block").contains(" iops=10 iops_rd=0 "));
    }
}

rows! { INFO, q, pc(&["-name", "vm", "-smp", "2"]), printed;
    info_block = "block": {
        let text = q.hmp("info block");
        assert!(text.starts_with("ide1-cd0: [not inserted]\r\n") && text.contains("\r\n    Removable device: not locked, tray closed"), "{text}");
    }
    info_block_of = "block": {
        let (base, top) = chain(q);
        q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n", "read-only": true}));
        q.hmp("drive_add -n 0 driver=raw,node-name=z,detect-zeroes=on,file.driver=null-co,file.size=4096");
        let text = q.hmp("info block ide1-cd0");
        let lines = format!("): {top} (qcow2)\r\n    Attached to:      {}\r\n    Removable device: not locked, tray closed\r\n    Cache mode:       writeback\r\n    Backing file:     {base} (chain depth: 1)\r\n", q_device(q));
        assert!(text.starts_with("ide1-cd0 (#block") && text.ends_with(&lines), "{text}");
        let nodes = q.hmp("info block -n");
        assert!(nodes.contains("n: null-co:// (null-co, read-only)\r\n    Cache mode:       writeback\r\n") && !nodes.contains("Attached"), "{nodes}");
        assert!(q.hmp("info block z").contains("\r\n    Detect zeroes:    on\r\n"));
        let text = q.hmp("info block -v ide1-cd0");
        let (_, images) = text.split_once("\r\n\r\nImages:\r\n").unwrap();
        let (first, second) = images.split_once(&format!("image: {base}\r\n")).unwrap();
        assert!(first.starts_with(&format!("image: {top}\r\nfile format: qcow2\r\nvirtual size: 4 MiB (4194304 bytes)\r\ndisk size: ")), "{first}");
        assert!(first.contains(&format!("\r\ncluster_size: 65536\r\nbacking file: {base}\r\nbacking file format: raw\r\nFormat specific information:\r\n    compat: 1.1\r\n")), "{first}");
        assert!(second.starts_with("file format: raw\r\nvirtual size: 4 MiB"), "{second}");
        assert_eq!(q.hmp("info block none"), "");
        assert_eq!(q.hmp("info block -x"), "Error: unsupported option '-x'\r\n");
    }
    info_blockstats = "blockstats": {
        let text = q.hmp("info blockstats");
        let lines: Vec<&str> = text.split("\r\n").take(5).collect();
        assert_eq!(lines, [
            "ide1-cd0: idle_time_ns=0",
            "                          bytes       operations            total_time_ns     merged",
            "Read:                         0                0                        0          0",
            "Write:                        0                0                        0          0",
            "Flush:                                         0                        0",
        ]);
    }
    info_block_jobs = "block-jobs": {
        assert_eq!(q.hmp("info block-jobs"), "No active jobs\r\n");
        slow_stream(q);
        let text = q.hmp("info block-jobs");
        assert!(text.starts_with("Streaming device j: Completed ") && text.ends_with(" of 4194304 bytes, speed limit 1 bytes/s\r\n"), "{text}");
    }
}
