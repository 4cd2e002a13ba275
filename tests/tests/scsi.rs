//! SCSI disks and CD drives on a virtio adapter, by its rings: commands, task management, events, media.

use serde_json::json;
use std::path::{Path, PathBuf};
use tests::packages;
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::virtio::{Desc, Ring, VIRTIO_PCI, Virtio, WRITE};

fn firmware() -> String {
    packages::seabios().expect("SeaBIOS can be fetched").to_str().expect("a plain path").to_owned()
}

/// A folder with an image whose sectors of 512 bytes each hold their number.
fn image(sectors: u16) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("image");
    let bytes: Vec<u8> = (0..sectors).flat_map(|n| n.to_le_bytes().repeat(256)).collect();
    std::fs::write(&path, bytes).expect("an image");
    (dir, path)
}

/// Where requests, their data and their answers are.
const REQUEST: u64 = 0x10_0000;
const ANSWER: u64 = 0x10_1000;
const DATA: u64 = 0x20_0000;
/// Features: hotplug, change.
const FEATURES: u64 = 1 << 1 | 1 << 2;

/// An adapter whose driver is ready.
struct Scsi {
    v: Virtio,
    control: Ring,
    events: Ring,
    requests: Ring,
    /// Unit that is asked.
    unit: (u8, u8),
}

/// What a command came to.
#[derive(Debug, PartialEq)]
struct Answer {
    response: u8,
    status: u8,
    /// Key, code, qualifier.
    sense: [u8; 3],
    resid: u32,
    data: Vec<u8>,
}

impl Answer {
    /// It ended well, without data.
    fn done(self) {
        assert!(self.good().is_empty());
    }

    fn good(self) -> Vec<u8> {
        assert_eq!((self.response, self.status), (0, 0), "{self:?}");
        self.data
    }
}

impl Scsi {
    fn new(args: &[&str]) -> Self {
        let adapter = ["-nodefaults", "-m", "64", "-L", &firmware(), "-device", "virtio-scsi-pci,addr=4,id=s"];
        let mut v = Virtio::new(Qtest::start(&[&adapter[..], args].concat()), 4);
        v.start(VIRTIO_PCI | FEATURES);
        let (control, events, requests) = (v.queue(0, false), v.queue(1, false), v.queue(2, false));
        v.driver_ok();
        Self { v, control, events, requests, unit: (0, 0) }
    }

    fn disk(path: &Path, drive: &str, device: &str) -> Self {
        let drive = format!("if=none,id=d,file={},format=raw{drive}", path.display());
        let mut s = Self::new(&["-drive", &drive, "-device", &format!("scsi-hd,drive=d{device}")]);
        // Power on
        assert_eq!(s.ask(&[0; 6], &[], 0).sense, [6, 0x29, 0]);
        s
    }

    fn cd(path: &Path) -> Self {
        let drive = format!("if=none,id=d,file={},format=raw,media=cdrom", path.display());
        let mut s = Self::new(&["-drive", &drive, "-device", "scsi-cd,drive=d,id=cd"]);
        assert_eq!(s.ask(&[0; 6], &[], 0).sense, [6, 0x29, 0]);
        s
    }

    /// A command with data out, and room for data in.
    fn ask(&mut self, cdb: &[u8], out: &[u8], room: u32) -> Answer {
        let mut head = vec![1, self.unit.0, 0, self.unit.1, 0, 0, 0, 0];
        head.extend(77u64.to_le_bytes());
        head.extend([0; 3]);
        head.extend(cdb);
        head.resize(51, 0);
        let v = &mut self.v;
        v.q.write(REQUEST, &head);
        v.q.write(ANSWER, &[0xee; 108]);
        v.q.write(DATA, out);
        let out_part = [(DATA, out.len() as u32, 0)];
        let in_part = [(DATA, room, WRITE)];
        let parts = [
            &[(REQUEST, 51, 0)][..],
            if out.is_empty() { &[] } else { &out_part },
            &[(ANSWER, 108, WRITE)],
            if room == 0 { &[] } else { &in_part },
        ];
        self.requests.offer(v, &parts.concat());
        self.requests.wait(v);
        let a = v.q.read(ANSWER, 32);
        let resid = u32::from_le_bytes(a[4..8].try_into().unwrap());
        let got = room.saturating_sub(resid);
        let data = if got == 0 { vec![] } else { v.q.read(DATA, got as usize) };
        Answer { response: a[11], status: a[10], sense: [a[14] & 0xf, a[24], a[25]], resid, data }
    }

    fn inquiry(&mut self, page: Option<u8>) -> Vec<u8> {
        self.ask(&[0x12, page.is_some().into(), page.unwrap_or(0), 0, 255, 0], &[], 255).good()
    }

    /// A control request; the answer.
    fn control(&mut self, bytes: &[u8], room: u32) -> Vec<u8> {
        self.v.q.write(REQUEST, bytes);
        let parts: [Desc; 2] = [(REQUEST, bytes.len() as u32, 0), (ANSWER, room, WRITE)];
        self.control.offer(&mut self.v, &parts);
        self.control.wait(&mut self.v);
        self.v.q.read(ANSWER, room as usize)
    }

    fn manage(&mut self, subtype: u32) -> u8 {
        let mut b = [0, subtype].map(u32::to_le_bytes).concat();
        b.extend([1, self.unit.0, 0, self.unit.1, 0, 0, 0, 0]);
        b.extend(77u64.to_le_bytes());
        self.control(&b, 1)[0]
    }
}

#[test]
fn the_adapter_says_what_it_is() {
    let mut s = Scsi::new(&["-smp", "3"]);
    assert_eq!((s.v.config(0, 4), s.v.config(8, 4), s.v.config(0x2c, 4)), (0x1004_1af4, 0x0100_0000, 0x0008_1af4));
    assert_eq!(s.v.common(0x12, 2), 5, "queues");
    // queues, segments, sectors, commands, event, sense, command; channel, target, unit
    let words: Vec<u64> = (0..7).map(|n| s.v.device(4 * n, 4)).collect();
    assert_eq!(words, [3, 254, 0xffff, 128, 16, 96, 32]);
    assert_eq!((s.v.device(28, 2), s.v.device(30, 2), s.v.device(32, 4)), (0, 255, 16383));
    // There is nobody.
    assert_eq!(s.ask(&[0; 6], &[], 0).response, 3);
    assert_eq!(s.manage(5), 3);
    // A request that is too short breaks the device.
    s.requests.offer(&mut s.v, &[(REQUEST, 50, 0), (ANSWER, 108, WRITE)]);
    assert_eq!(s.v.common(0x14, 1), 0x4f);
    for (device, what) in [
        ("virtio-scsi-pci,num_queues=0", "Invalid number of queues"),
        ("virtio-scsi-pci,virtqueue_size=2", "must be > 2"),
        ("virtio-scsi-pci,virtqueue_size=100", "power of 2"),
        ("scsi-hd", "No 'SCSI' bus found"),
    ] {
        let bad = tests::process::run(&["-display", "none", "-L", &firmware(), "-device", device], "");
        assert!(bad.stderr.contains(what), "{device}: {}", bad.stderr);
    }
}

#[test]
fn a_disk_says_what_it_is() {
    let (_dir, path) = image(2048);
    let properties = ",serial=s1,wwn=0x5000c50015ea71aa,port_index=3,rotation_rate=1,ver=9.9,vendor=V,product=P";
    let mut s = Scsi::disk(&path, "", properties);
    let d = s.inquiry(None);
    assert_eq!((&d[..8], d.len()), (&[0, 0, 5, 0x12, 31, 0, 0, 2][..], 36));
    assert_eq!(&d[8..], b"V       P               9.9 ");
    assert_eq!(s.inquiry(Some(0)), [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    assert_eq!(s.inquiry(Some(0x80)), b"\0\x80\0\x02s1");
    let id = [&[0, 0x83, 0, 26, 2, 0, 0, 2][..], b"s1", &[1, 3, 0, 8, 0x50, 0, 0xc5, 0, 0x15, 0xea, 0x71, 0xaa]];
    assert_eq!(s.inquiry(Some(0x83)), [&id.concat()[..], &[0x61, 0x94, 0, 4, 0, 0, 0, 3]].concat());
    let limits = s.inquiry(Some(0xb0));
    let word = |at: usize| u32::from_be_bytes(limits[at..at + 4].try_into().unwrap());
    // transfer, UNMAP: blocks, ranges, granularity; WRITE SAME
    assert_eq!((word(8), word(20), word(24), word(28), word(40)), (0x3f_ffff, 0x20_0000, 255, 8, 0x3f_ffff));
    assert_eq!(s.inquiry(Some(0xb1))[..6], [0, 0xb1, 0, 60, 0, 1]);
    assert_eq!(s.inquiry(Some(0xb2)), [0, 0xb2, 0, 4, 0, 0xe0, 2, 0]);
    assert_eq!(s.ask(&[0x12, 1, 0x55, 0, 255, 0], &[], 255).sense, [5, 0x24, 0]);
    // Capacity, and how much of an answer is wanted
    assert_eq!(s.ask(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8).good(), [0, 0, 7, 0xff, 0, 0, 2, 0]);
    let long = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    let d = s.ask(&long, &[], 32).good();
    assert_eq!((&d[4..12], d[13], d[14]), (&[0, 0, 7, 0xff, 0, 0, 2, 0][..], 0, 0x80));
    let short = s.ask(&[0x12, 0, 0, 0, 5, 0], &[], 255);
    assert_eq!((short.resid, short.data.len()), (250, 5));
    assert_eq!(s.ask(&[0x12, 0, 0, 0, 255, 0], &[], 4).response, 1, "more than there is room for");
    // Units of the target; one that there is not
    assert_eq!(
        s.ask(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[], 16).good(),
        [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    s.unit.1 = 5;
    assert_eq!(s.inquiry(None)[0], 0x7f);
    assert_eq!(s.ask(&[0; 6], &[], 0).sense, [5, 0x25, 0]);
    assert_eq!(s.manage(5), 12);
    s.unit = (1, 0);
    assert_eq!(s.ask(&[0; 6], &[], 0).response, 3);
    // A command that there is not; both directions
    s.unit = (0, 0);
    assert_eq!(s.ask(&[0x04, 0, 0, 0, 0, 0], &[], 0).sense, [5, 0x20, 0]);
    assert_eq!(s.ask(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0; 512], 512).response, 9);
}

#[test]
fn blocks_are_read_written_compared_and_given_back() {
    let (_dir, path) = image(4096);
    let mut s = Scsi::disk(&path, ",discard=unmap", "");
    let sector = |n: u16| n.to_le_bytes().repeat(256);
    let file = |at: usize, n: usize| std::fs::read(&path).unwrap()[at * 512..(at + n) * 512].to_vec();
    let cdb = |code: u8, flags: u8, lba: u16, n: u8| -> Vec<u8> {
        let [h, l] = lba.to_be_bytes();
        match code >> 5 {
            0 => vec![code, 0, h, l, n, 0],
            4 => vec![code, flags, 0, 0, 0, 0, 0, 0, h, l, 0, 0, 0, n, 0, 0],
            5 => vec![code, flags, 0, 0, h, l, 0, 0, 0, n, 0, 0],
            _ => vec![code, flags, 0, 0, h, l, 0, 0, n, 0],
        }
    };
    for (n, code) in [0x08, 0x28, 0xa8, 0x88].into_iter().enumerate() {
        let at = 100 + n as u16;
        assert_eq!(s.ask(&cdb(code, 0, at, 2), &[], 1024).good(), [sector(at), sector(at + 1)].concat());
    }
    for (n, code) in [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e].into_iter().enumerate() {
        let data = vec![0x40 + n as u8; 1024];
        s.ask(&cdb(code, 0, 200 + 2 * n as u16, 2), &data, 0).done();
        assert_eq!(file(200 + 2 * n, 2), data, "{code:#x}");
    }
    // Stable before it is acknowledged, and read stable
    s.ask(&cdb(0x2a, 8, 300, 1), &[7; 512], 0).done();
    assert_eq!(s.ask(&cdb(0x28, 8, 300, 1), &[], 512).good(), [7; 512]);
    s.ask(&cdb(0x35, 0, 0, 0), &[], 0).done();
    // Compared
    s.ask(&cdb(0x2f, 2, 100, 1), &sector(100), 0).done();
    assert_eq!(s.ask(&cdb(0x2f, 2, 100, 1), &sector(101), 0).sense, [14, 0x1d, 0]);
    s.ask(&cdb(0x8f, 0, 100, 1), &[], 0).done();
    assert_eq!(s.ask(&cdb(0x8f, 4, 100, 1), &[], 0).sense, [5, 0x24, 0]);
    // One block again and again; zeros, kept and given back
    s.ask(&cdb(0x41, 0, 400, 8), &[0xab; 512], 0).done();
    assert_eq!((file(400, 8), file(408, 1)), (vec![0xab; 4096], sector(408)));
    s.ask(&cdb(0x93, 8, 400, 4), &[0; 512], 0).done();
    assert_eq!((file(400, 4), file(404, 1)), (vec![0; 2048], vec![0xab; 512]));
    s.ask(&cdb(0x93, 9, 404, 4), &[], 0).done();
    assert_eq!(file(404, 4), vec![0; 2048]);
    assert_eq!(s.ask(&cdb(0x93, 0, 400, 0), &[0; 512], 0).sense, [5, 0x24, 0]);
    // UNMAP of two ranges, of one beyond the end, of half a list
    let list = |ranges: &[(u64, u32)]| {
        let len = 16 * ranges.len() as u16;
        let mut l = [(len + 6).to_be_bytes(), len.to_be_bytes()].concat();
        l.extend([0; 4]);
        for (lba, n) in ranges {
            l.extend(lba.to_be_bytes());
            l.extend(n.to_be_bytes());
            l.extend([0; 4]);
        }
        l
    };
    let unmap = |n: u8| [0x42, 0, 0, 0, 0, 0, 0, 0, n, 0];
    s.ask(&unmap(40), &list(&[(512, 8), (1024, 8)]), 0).done();
    assert_eq!((file(512, 8), file(1024, 8), file(520, 1)), (vec![0; 4096], vec![0; 4096], sector(520)));
    assert_eq!(s.ask(&unmap(24), &list(&[(4096, 1)]), 0).sense, [5, 0x21, 0]);
    assert_eq!(s.ask(&unmap(23), &list(&[(512, 8)]), 0).sense, [5, 0x1a, 0]);
    // Beyond the end, protected, more than the driver gives
    assert_eq!(s.ask(&cdb(0x28, 0, 4095, 2), &[], 1024).sense, [5, 0x21, 0]);
    assert_eq!(s.ask(&cdb(0x28, 0x20, 1, 1), &[], 512).sense, [5, 0x24, 0]);
    assert_eq!(s.ask(&cdb(0x2a, 0, 1, 2), &[0; 512], 0).response, 1);
    // A long one, in many pieces
    let parts: Vec<Desc> = (0..32).map(|n| (DATA + n * 0x1_0000, 0x8000, WRITE)).collect();
    let mut head = vec![1, 0, 0, 0, 0, 0, 0, 0];
    head.resize(19, 0);
    head.extend(cdb(0x88, 0, 0, 0));
    head.resize(51, 0);
    head[19 + 12] = 8; // 2048 blocks
    s.v.q.write(REQUEST, &head);
    s.v.q.write(ANSWER, &[0xee; 12]);
    s.requests.offer(&mut s.v, &[&[(REQUEST, 51, 0), (ANSWER, 108, WRITE)][..], &parts].concat());
    s.requests.wait(&mut s.v);
    assert_eq!(s.v.q.read(ANSWER, 12), [0; 12]);
    assert_eq!(s.v.q.load(DATA + 31 * 0x1_0000, 2), 31 * 64);
    // Nobody writes what is read-only.
    drop(s);
    let mut s = Scsi::disk(&path, ",readonly=on", "");
    assert_eq!(s.ask(&cdb(0x2a, 0, 1, 1), &[0; 512], 0).sense, [7, 0x27, 0]);
    assert_eq!(s.ask(&[0x1a, 8, 0x3f, 0, 255, 0], &[], 255).good()[2], 0x90);
}

#[test]
fn modes_are_shown_and_the_write_cache_changes() {
    let (_dir, path) = image(2048);
    let mut s = Scsi::disk(&path, "", "");
    let d = s.ask(&[0x1a, 0, 8, 0, 255, 0], &[], 255).good();
    assert_eq!(
        (&d[..4], &d[4..12], &d[12..15]),
        (&[31, 0, 0x10, 8][..], &[0, 0, 8, 0, 0, 0, 2, 0][..], &[8, 18, 4][..])
    );
    let mut list = vec![0; 8];
    list.extend(&d[12..]);
    list[8 + 2] = 0;
    s.ask(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list, 0).done();
    assert_eq!(s.ask(&[0x5a, 8, 8, 0, 0, 0, 0, 0, 255, 0], &[], 255).good()[8 + 2], 0);
    // What can be changed; what cannot
    assert_eq!(s.ask(&[0x1a, 8, 0x48, 0, 255, 0], &[], 255).good()[4..], d[12..]);
    list[8 + 3] = 1;
    assert_eq!(s.ask(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list, 0).sense, [5, 0x26, 0]);
    assert_eq!(s.ask(&[0x15, 0x10, 0, 0, 3, 0], &[0; 3], 0).sense, [5, 0x1a, 0]);
    assert_eq!(s.ask(&[0x1a, 0, 0xc8, 0, 255, 0], &[], 255).sense, [5, 0x39, 0]);
    assert_eq!(s.ask(&[0x1a, 0, 0x2a, 0, 255, 0], &[], 255).sense, [5, 0x24, 0]);
    // A reset brings it back.
    assert_eq!(s.manage(5), 0);
    assert_eq!(s.ask(&[0x03, 0, 0, 0, 18, 0], &[], 18).good()[..14], [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0]);
    assert_eq!(s.ask(&[0x03, 1, 0, 0, 8, 0], &[], 8).good(), [0x72, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(s.ask(&[0x1a, 8, 8, 0, 255, 0], &[], 255).good()[4 + 2], 4);
    // Tasks that there are not; functions that there are not
    assert_eq!((s.manage(0), s.manage(1), s.manage(6), s.manage(7), s.manage(2)), (0, 0, 0, 0, 11));
    assert_eq!(s.control(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 5), [0; 5]);
}

#[test]
fn a_cd_has_a_table_of_contents_and_a_tray() {
    let (_dir, path) = image(400);
    let mut s = Scsi::cd(&path);
    assert_eq!(s.inquiry(None)[..3], [5, 0x80, 5]);
    assert_eq!(s.ask(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8).good(), [0, 0, 0, 99, 0, 0, 8, 0]);
    let d = s.ask(&[0x28, 0, 0, 0, 0, 3, 0, 0, 1, 0], &[], 2048).good();
    assert_eq!((d[0], d[512], d[1536]), (12, 13, 15));
    assert_eq!(s.ask(&[0xbe, 0, 0, 0, 0, 3, 0, 0, 1, 0x10, 0, 0], &[], 2048).good(), d);
    assert_eq!(s.ask(&[0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0], &[], 20).good()[16..], [0, 0, 0, 100]);
    assert_eq!(s.ask(&[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0], &[], 8).good()[6..], [0, 8]);
    assert_eq!(s.ask(&[0x2a, 0, 0, 0, 0, 3, 0, 0, 1, 0], &[0; 2048], 0).sense, [5, 0x20, 0]);
    s.ask(&[0x1b, 0, 0, 0, 2, 0], &[], 0).done();
    assert_eq!(s.ask(&[0; 6], &[], 0).sense, [2, 0x3a, 0]);
    s.ask(&[0x1b, 0, 0, 0, 3, 0], &[], 0).done();
    s.ask(&[0; 6], &[], 0).done();
    s.ask(&[0x1e, 0, 0, 0, 1, 0], &[], 0).done();
    assert_eq!(s.ask(&[0x1b, 0, 0, 0, 2, 0], &[], 0).sense, [5, 0x53, 2]);
}

#[test]
fn monitors_change_media_and_sizes_and_plug_units() {
    let (_dir, path) = image(400);
    let (_other, second) = image(64);
    let adapter = "virtio-scsi-pci,id=s";
    let cd = format!("if=none,id=d,file={},format=raw,media=cdrom", path.display());
    let hd = format!("if=none,id=h,file={},format=raw", second.display());
    let mut q = Qmp::start(&[
        "-accel",
        "qtest",
        "-display",
        "none",
        "-nodefaults",
        "-L",
        &firmware(),
        "-device",
        adapter,
        "-drive",
        &cd,
        "-device",
        "scsi-cd,drive=d,id=cd,bus=s.0,scsi-id=3",
        "-drive",
        &hd,
        "-device",
        "scsi-hd,drive=h,id=hd,bootindex=1",
    ]);
    q.run("blockdev-open-tray", json!({"id": "cd"}));
    assert_eq!(q.event("DEVICE_TRAY_MOVED")["data"], json!({"device": "d", "id": "cd", "tray-open": true}));
    q.run("blockdev-remove-medium", json!({"id": "cd"}));
    assert_eq!(q.run("query-block", json!({}))[0]["tray_open"], true);
    q.run("blockdev-add", json!({"driver": "null-co", "node-name": "n", "size": 1 << 20, "read-only": true}));
    q.run("blockdev-insert-medium", json!({"id": "cd", "node-name": "n"}));
    q.run("blockdev-close-tray", json!({"id": "cd"}));
    assert_eq!(q.event("DEVICE_TRAY_MOVED")["data"]["tray-open"], false);
    q.run("eject", json!({"id": "cd"}));
    q.run("block_resize", json!({"device": "h", "size": 65536}));
    // Units come and go; their addresses are their own.
    q.run("blockdev-add", json!({"driver": "null-co", "node-name": "m", "size": 1 << 20}));
    q.run("device_add", json!({"driver": "scsi-hd", "id": "new", "drive": "m", "scsi-id": 9, "lun": 2}));
    assert_eq!(q.run("qom-get", json!({"path": "/machine/peripheral/hd", "property": "scsi-id"})), 0);
    let (_, twice) = q.error("device_add", json!({"driver": "scsi-cd", "id": "x", "scsi-id": 9, "lun": 2}));
    assert!(twice.contains("lun already used by 'new'"), "{twice}");
    q.run("device_del", json!({"id": "new"}));
    assert_eq!(q.event("DEVICE_DELETED")["data"]["device"], "new");
    q.run("device_add", json!({"driver": "scsi-cd", "id": "x", "scsi-id": 9, "lun": 2}));
}

#[test]
fn the_driver_hears_of_changes() {
    let (_dir, path) = image(64);
    let qmp = tempfile::tempdir().unwrap();
    let socket = qmp.path().join("s");
    let chardev = format!("unix:{},server=on,wait=off", socket.display());
    let drive = format!("if=none,id=d,file={},format=raw", path.display());
    let mut s = Scsi::new(&["-qmp", &chardev, "-drive", &drive, "-device", "scsi-hd,drive=d,scsi-id=7"]);
    s.unit.0 = 7;
    s.ask(&[0; 6], &[], 0);
    let mut q = Qmp::connect(&socket);
    q.run("qmp_capabilities", json!({}));
    let event = |s: &mut Scsi| {
        s.events.wait(&mut s.v);
        s.v.q.read(DATA + 0x1000, 16)
    };
    s.events.offer(&mut s.v, &[(DATA + 0x1000, 16, WRITE)]);
    q.run("block_resize", json!({"device": "d", "size": 65536}));
    assert_eq!(event(&mut s), [3, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0x2a, 9, 0, 0]);
    assert_eq!(s.ask(&[0; 6], &[], 0).sense, [6, 0x2a, 9]);
    assert_eq!(s.ask(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8).good()[3], 127);
    // Without a buffer the event is missed, and that is told.
    q.run("blockdev-add", json!({"driver": "null-co", "node-name": "m", "size": 1 << 20}));
    q.run("device_add", json!({"driver": "scsi-hd", "id": "new", "drive": "m", "scsi-id": 9}));
    s.events.offer(&mut s.v, &[(DATA + 0x1000, 16, WRITE)]);
    assert_eq!(event(&mut s)[..4], [0, 0, 0, 0x80]);
    s.events.offer(&mut s.v, &[(DATA + 0x1000, 16, WRITE)]);
    q.run("device_del", json!({"id": "new"}));
    assert_eq!(event(&mut s), [1, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(s.ask(&[0; 6], &[], 0).sense, [6, 0x3f, 14]);
}

#[test]
fn memory_is_the_drivers_again_when_a_command_is_given_up() {
    let (_dir, path) = image(64);
    let mut s = Scsi::disk(&path, ",throttling.iops-total=1", "");
    let other = DATA + 0x1000;
    // READ(10) or WRITE(10) of one sector at `at`, not waited for
    let begin = |s: &mut Scsi, write: bool, sector: u8, at: u64| {
        let mut head = vec![1, 0, 0, 0, 0, 0, 0, 0];
        head.extend(77u64.to_le_bytes());
        head.extend([0; 3]);
        head.extend([if write { 0x2a } else { 0x28 }, 0, 0, 0, 0, sector, 0, 0, 1, 0]);
        head.resize(51, 0);
        s.v.q.write(REQUEST + 0x800, &head);
        let request = (REQUEST + 0x800, 51, 0);
        let parts = match write {
            true => [request, (at, 512, 0), (ANSWER, 108, WRITE)],
            false => [request, (ANSWER, 108, WRITE), (at, 512, WRITE)],
        };
        s.requests.offer(&mut s.v, &parts);
    };
    let slowly = |s: &mut Scsi| {
        let ring = &mut s.requests;
        s.v.until("a command", |v| {
            v.q.clock_step(100_000_000);
            ring.is_used(v)
        });
        ring.wait(&mut s.v);
    };
    // ABORT TASK and LOGICAL UNIT RESET
    for (n, (write, function)) in [(false, 0), (false, 5), (true, 0), (true, 5)].into_iter().enumerate() {
        let sector = 8 + 4 * n as u8;
        begin(&mut s, false, 1, other);
        slowly(&mut s);
        s.v.q.write(DATA, &[0x22; 512]);
        begin(&mut s, write, sector, DATA);
        assert!(!s.requests.is_used(&mut s.v), "the second of a second waits");
        assert_eq!(s.manage(function), 0);
        s.requests.wait(&mut s.v);
        s.v.q.write(DATA, &[0x44; 512]);
        s.v.q.clock_step(10_000_000_000);
        if function == 5 {
            assert_eq!(s.ask(&[0; 6], &[], 0).sense, [6, 0x29, 0]);
        }
        begin(&mut s, false, 2, other);
        slowly(&mut s);
        assert_eq!((s.v.q.load(other, 2), s.v.q.read(DATA, 512)), (2, vec![0x44; 512]), "{write} {function}");
        let there = &std::fs::read(&path).unwrap()[usize::from(sector) * 512..][..512];
        let want = if write { vec![0x22; 512] } else { u16::from(sector).to_le_bytes().repeat(256) };
        assert_eq!(there, want, "{write} {function}");
        s.v.q.clock_step(10_000_000_000);
    }
}
