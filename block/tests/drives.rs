//! Nodes and drives over real files.

use block::{
    Backend, Blocks, Data, DriveConfig, Edge, GuestMemory, Interface, Loans, Op, Opts, Outcome, Perm, Request,
};
use hw_core::memory::{RamBlock, RamRanges};
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

fn image(bytes: usize) -> tempfile::NamedTempFile {
    let f = tempfile::NamedTempFile::new().unwrap();
    let pattern: Vec<u8> = (0..bytes).map(|i| (i / 512) as u8 ^ i as u8).collect();
    f.as_file().write_all_at(&pattern, 0).unwrap();
    f
}

fn path(f: &tempfile::NamedTempFile) -> String {
    f.path().to_str().unwrap().to_owned()
}

fn opts(v: Value) -> Opts {
    Opts::json(v.as_object().unwrap().clone())
}

fn drive(blocks: &Blocks, file: &str, pairs: &[(&str, &str)]) -> qom::Result<Arc<Backend>> {
    blocks.add_drive(DriveConfig {
        file: Some(file.into()),
        write_cache: true,
        interface: Interface::None,
        opts: Opts::keyval(pairs.iter().copied())?,
        ..DriveConfig::default()
    })
}

fn text<T>(r: qom::Result<T>) -> String {
    r.err().map_or_else(|| "no error".into(), |e| e.to_string())
}

/// What `aio` can be on this host, which may refuse to give rings: then opening says so.
fn ways() -> Vec<&'static str> {
    let f = image(512);
    match drive(&Blocks::default(), &path(&f), &[("driver", "raw"), ("file.aio", "io_uring")]) {
        Ok(_) => vec!["threads", "io_uring"],
        Err(e) => {
            assert!(e.to_string().starts_with("Unable to use io_uring: failed to init linux io_uring ring: "), "{e}");
            vec!["threads"]
        }
    }
}

/// Submits and waits.
fn run(blocks: &Blocks, b: &Arc<Backend>, request: Request) -> Outcome {
    let slot = Arc::new(Mutex::new(None));
    let to = slot.clone();
    b.submit(request, Box::new(move |o| *to.lock().unwrap() = Some(o)));
    blocks.drain();
    slot.lock().unwrap().take().unwrap()
}

fn errno(o: &Outcome) -> Option<i32> {
    o.result.as_ref().err().and_then(std::io::Error::raw_os_error)
}

#[test]
fn what_is_written_is_read_and_in_the_file() {
    ways().into_iter().for_each(written_and_read);
}

fn written_and_read(aio: &str) {
    let (blocks, f) = (Blocks::default(), image(4096));
    let b = drive(&blocks, &path(&f), &[("driver", "raw"), ("file.aio", aio)]).unwrap();
    assert!(run(&blocks, &b, Request::write(512, vec![7; 1024])).result.is_ok());
    let o = run(&blocks, &b, Request::read(0, 4096));
    assert_eq!((o.data[511], &o.data[512..1536], o.data[1536]), (0xff, &[7; 1024][..], 3));
    assert_eq!(std::fs::read(f.path()).unwrap(), o.data);
    assert!(run(&blocks, &b, Request::flush()).result.is_ok());
    assert_eq!(errno(&run(&blocks, &b, Request::read(4096, 1))), Some(libc::EIO));
    assert_eq!(errno(&run(&blocks, &b, Request::read(u64::MAX, 2))), Some(libc::EIO));
    let s = b.stats();
    assert_eq!((s.wr.bytes, s.rd.operations, s.flush.operations, s.rd.invalid), (1024, 1, 1, 2));
    b.set_root(None).unwrap();
    assert_eq!(errno(&run(&blocks, &b, Request::read(0, 1))), Some(libc::ENOMEDIUM));
}

#[test]
fn overlapping_requests_keep_their_order() {
    for aio in ways() {
        let (blocks, f) = (Blocks::default(), image(1 << 20));
        let b = drive(&blocks, &path(&f), &[("driver", "raw"), ("file.aio", aio)]).unwrap();
        for n in 0..200u8 {
            b.submit(Request::write(u64::from(n % 3) * 512, vec![n; 64 << 10]), Box::new(|o| o.result.unwrap()));
        }
        let last = run(&blocks, &b, Request::read(1024, 512));
        assert_eq!(last.data, vec![199; 512]);
        assert_eq!(blocks.in_flight(), 0);
    }
}

#[test]
fn a_size_that_is_no_multiple_of_a_sector_is_rounded_up() {
    for (cache, aio) in ["off", "on"].into_iter().flat_map(|c| ways().into_iter().map(move |w| (c, w))) {
        let (blocks, f) = (Blocks::default(), image(1000));
        let pairs = [("driver", "raw"), ("cache.direct", cache), ("file.aio", aio)];
        let b = drive(&blocks, &path(&f), &pairs).unwrap();
        assert_eq!(b.len(), 1024);
        let o = run(&blocks, &b, Request::read(512, 512));
        assert!(o.data[..488].iter().any(|b| *b != 0) && o.data[488..] == [0; 24]);
        assert!(run(&blocks, &b, Request::write(512, vec![1; 512])).result.is_ok());
        assert_eq!(std::fs::metadata(f.path()).unwrap().len(), 1024);
    }
}

#[test]
fn direct_access_takes_any_range() {
    for aio in ways() {
        let (blocks, f) = (Blocks::default(), image(20_000));
        let mut want = std::fs::read(f.path()).unwrap();
        let pairs = [("driver", "raw"), ("cache.direct", "on"), ("file.aio", aio)];
        let b = drive(&blocks, &path(&f), &pairs).unwrap();
        for (at, len) in [(0, 512), (4096, 4096), (4000, 200), (512, 9000), (19_968, 32)] {
            assert!(run(&blocks, &b, Request::write(at, vec![len as u8; len])).result.is_ok());
            want[at as usize..at as usize + len].fill(len as u8);
            assert_eq!(run(&blocks, &b, Request::read(at, len)).data, vec![len as u8; len]);
        }
        assert_eq!(std::fs::read(f.path()).unwrap(), want);
    }
}

/// Guest memory of 64 KiB, and ranges of it.
fn guest(parts: &[(u64, u64)]) -> (Arc<RamBlock>, RamRanges) {
    let block = RamBlock::new(&Arc::default(), "guest", 64 << 10).unwrap();
    let mut ranges = RamRanges::default();
    assert!(parts.iter().all(|(off, len)| ranges.push(&block, *off, *len)));
    (block, ranges)
}

#[test]
fn guest_memory_is_read_into_and_written_from_whatever_its_alignment() {
    ways().into_iter().for_each(guest_memory_is_moved);
}

fn guest_memory_is_moved(aio: &str) {
    let shapes: [&[(u64, u64)]; 4] =
        [&[(4096, 8192)], &[(8192, 4096), (0, 4096)], &[(0, 512), (1024, 7680)], &[(5, 8191), (9000, 1)]];
    for (cache, driver) in [("on", "raw"), ("off", "raw"), ("on", "throttle"), ("on", "copy-on-read")] {
        let (blocks, f) = (Blocks::default(), image(20_000));
        let mut want = std::fs::read(f.path()).unwrap();
        let file = json!({"driver": "file", "filename": path(&f), "aio": aio, "cache": {"direct": cache == "on"}});
        let raw = json!({"driver": "raw", "node-name": "raw", "cache": {"direct": cache == "on"}, "file": file});
        blocks.blockdev_add(opts(raw)).unwrap();
        let mut group = None;
        if driver == "throttle" {
            group = Some(blocks.group("g"));
        }
        let filter = json!({"driver": driver, "node-name": "top", "file": "raw"});
        let mut filter = filter.as_object().unwrap().clone();
        if driver == "throttle" {
            filter.insert("throttle-group".into(), "g".into());
        }
        let node = match driver {
            "raw" => blocks.find_node("raw").unwrap(),
            _ => blocks.blockdev_add(Opts::json(filter)).unwrap(),
        };
        let b = blocks.anonymous(Some(&node)).unwrap();
        for (n, parts) in shapes.iter().enumerate() {
            for at in [0, 4096, 512] {
                let (_block, ranges) = guest(parts);
                let bytes: Vec<u8> = (0..8192).map(|i| (i / 100) as u8 ^ n as u8).collect();
                ranges.copy_in(&bytes);
                let o = run(&blocks, &b, Request::write_from(at, &GuestMemory::new(ranges.clone()), false));
                assert!(o.result.is_ok() && o.data.is_empty(), "{cache} {driver} {n} {at}: {o:?}");
                want[at as usize..at as usize + 8192].copy_from_slice(&bytes);
                assert_eq!(std::fs::read(f.path()).unwrap(), want);
                ranges.copy_in(&[0xee; 8192]);
                assert!(run(&blocks, &b, Request::read_into(at, &GuestMemory::new(ranges.clone()))).result.is_ok());
                assert_eq!(ranges.to_vec(), bytes, "{cache} {driver} {n} {at}");
            }
            // The end of the file lies within the last sector: zeros beyond.
            let (_block, ranges) = guest(parts);
            ranges.copy_in(&[0xee; 8192]);
            let tail = ranges.part(0, 512);
            assert!(run(&blocks, &b, Request::read_into(19_968, &GuestMemory::new(tail))).result.is_ok());
            assert_eq!(ranges.to_vec()[..512], [&want[19_968..], &[0; 480]].concat());
            assert_eq!(ranges.to_vec()[512..], [0xee; 7680]);
        }
        drop(group);
        let s = b.stats();
        assert_eq!((s.wr.bytes, s.wr.operations, s.rd.operations), (12 * 8192, 12, 16));
        assert_eq!(
            errno(&run(&blocks, &b, Request::read_into(16_384, &GuestMemory::new(guest(shapes[0]).1)))),
            Some(libc::EIO)
        );
    }
}

#[test]
fn memory_that_was_taken_back_is_left_alone() {
    for aio in ways() {
        let (blocks, f) = (Blocks::default(), image(16384));
        let b = drive(&blocks, &path(&f), &[("driver", "raw"), ("file.aio", aio)]).unwrap();
        let (_block, ranges) = guest(&[(0, 512)]);
        ranges.copy_in(&[1; 512]);
        let (reads, writes) = (GuestMemory::new(ranges.clone()), GuestMemory::new(ranges.clone()));
        reads.take_back(false);
        writes.take_back(true);
        ranges.copy_in(&[2; 512]);
        assert!(run(&blocks, &b, Request::write_from(0, &writes, false)).result.is_ok());
        assert!(run(&blocks, &b, Request::read_into(512, &reads)).result.is_ok());
        assert_eq!((ranges.to_vec(), &std::fs::read(f.path()).unwrap()[..512]), (vec![2; 512], &[1; 512][..]));
    }
}

#[test]
fn loans_end_with_their_request_or_are_taken_back_by_name() {
    let (blocks, f) = (Blocks::default(), image(16384));
    let b = drive(&blocks, &path(&f), &[("driver", "raw")]).unwrap();
    let (loans, (_block, ranges)) = (Loans::default(), guest(&[(0, 512)]));
    let want = &std::fs::read(f.path()).unwrap()[512..1024];
    let (first, second) = (loans.read(1, 512, ranges.clone()), loans.read(2, 1024, ranges.clone()));
    loans.take_back(|name| *name == 2);
    assert!(run(&blocks, &b, first).result.is_ok() && run(&blocks, &b, second).result.is_ok());
    assert_eq!(ranges.to_vec(), want);
    // What has ended is nobody's: taking it back changes nothing.
    let write = loans.write(3, 2048, ranges.clone(), true);
    loans.end(&3);
    loans.take_all_back();
    ranges.copy_in(&[5; 512]);
    assert!(run(&blocks, &b, write).result.is_ok());
    assert_eq!(std::fs::read(f.path()).unwrap()[2048..2560], [5; 512]);
}

/// Memory is taken back while its bytes may be moved: it is whole afterwards, read or not, and stays so.
#[test]
fn memory_taken_back_in_the_midst_stays_as_it_is() {
    for aio in ways() {
        let (blocks, f) = (Blocks::default(), image(64 << 10));
        let want = std::fs::read(f.path()).unwrap();
        let b = drive(&blocks, &path(&f), &[("driver", "raw"), ("file.aio", aio)]).unwrap();
        for _ in 0..200 {
            let (loans, (_block, ranges)) = (Loans::default(), guest(&[(0, 64 << 10)]));
            b.submit(loans.read(0, 0, ranges.clone()), Box::new(|o| o.result.unwrap()));
            loans.take_all_back();
            let then = ranges.to_vec();
            assert!(then == want || then.iter().all(|b| *b == 0), "half of it");
            blocks.drain();
            assert!(ranges.to_vec() == then, "moved later");
        }
    }
}

#[test]
fn a_guessed_raw_image_cannot_become_another_format() {
    let (blocks, f) = (Blocks::default(), image(4096));
    let warnings = Arc::new(Mutex::new(String::new()));
    let to = warnings.clone();
    blocks.set_report(move |t| to.lock().unwrap().push_str(t));
    let b = drive(&blocks, &path(&f), &[]).unwrap();
    assert!(warnings.lock().unwrap().contains("Image format was not specified for"));
    let mut head = vec![0; 512];
    head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    assert_eq!(errno(&run(&blocks, &b, Request::write(0, head.clone()))), Some(libc::EPERM));
    assert!(run(&blocks, &b, Request::write(512, head.clone())).result.is_ok());
    assert!(run(&blocks, &b, Request::write(0, vec![0x55; 512])).result.is_ok());
}

#[test]
fn an_image_of_an_unknown_format_is_not_taken_for_raw() {
    let f = image(4096);
    f.as_file().write_all_at(b"QED\0", 0).unwrap();
    assert!(text(drive(&Blocks::default(), &path(&f), &[])).contains("it is a qed image"));
}

#[test]
fn images_are_locked_against_other_users() {
    let (a, b, f) = (Blocks::default(), Blocks::default(), image(4096));
    let others = Perm::READ | Perm::WRITE_UNCHANGED;
    let first = drive(&a, &path(&f), &[("driver", "raw")]).unwrap();
    let second = drive(&b, &path(&f), &[("driver", "raw")]).unwrap();
    first.set_perms(Perm::READ | Perm::WRITE, others).unwrap();
    let e = text(second.set_perms(Perm::READ | Perm::WRITE, others));
    assert_eq!(e, format!("Failed to get \"write\" lock\nIs another process using the image [{}]?", path(&f)));
    assert!(second.set_perms(Perm::READ, others).is_err());
    first.set_root(None).unwrap();
    second.set_perms(Perm::READ | Perm::WRITE, others).unwrap();
    // In one process the nodes know of each other.
    let node = second.root().unwrap();
    let third = b.anonymous(Some(&node)).unwrap();
    assert!(text(third.set_perms(Perm::WRITE, others)).contains("which does not allow 'write' on #block"));
    // Read-only users share.
    let (x, y) = (Blocks::default(), Blocks::default());
    let g = image(4096);
    for blocks in [&x, &y] {
        let d = drive(blocks, &path(&g), &[("driver", "raw"), ("read-only", "on")]).unwrap();
        d.set_perms(Perm::READ, others).unwrap();
        assert_eq!(errno(&run(blocks, &d, Request::write(0, vec![0; 512]))), Some(libc::EPERM));
    }
}

#[test]
fn parts_of_a_page_written_at_once_past_the_page_cache_are_all_there() {
    ways().into_iter().for_each(parts_of_a_page);
}

fn parts_of_a_page(aio: &str) {
    let (blocks, f) = (Blocks::default(), image(8192));
    let pairs = [("driver", "raw"), ("cache.direct", "on"), ("file.aio", aio)];
    let b = drive(&blocks, &path(&f), &pairs).unwrap();
    for round in 0..200u8 {
        for sector in 0..16u64 {
            b.submit(Request::write(sector * 512, vec![round ^ sector as u8; 512]), Box::new(|o| o.result.unwrap()));
        }
        blocks.drain();
        let all = run(&blocks, &b, Request::read(0, 8192)).data;
        let wrong = (0..16u8).find(|s| all[usize::from(*s) * 512..][..512].iter().any(|v| *v != round ^ s));
        assert_eq!(wrong, None, "round {round}");
    }
}

#[test]
fn nodes_on_top_of_each_other_are_bounded_and_names_are_unique() {
    let (blocks, f) = (Blocks::default(), image(512));
    let add = |v: Value| blocks.blockdev_add(opts(v));
    add(json!({"driver": "file", "filename": path(&f), "node-name": "n0"})).unwrap();
    let last = (1..1000).find(|n| {
        let node = json!({"driver": "raw", "node-name": format!("n{n}"), "file": format!("n{}", n - 1)});
        text(add(node)).contains("Too many nodes on top of each other")
    });
    assert_eq!(last, Some(200));
    let inner = json!({"driver": "file", "filename": path(&f), "node-name": "same"});
    let e = text(add(json!({"driver": "raw", "node-name": "same", "file": inner})));
    assert_eq!(e, "Duplicate nodes with node-name='same'");
    let deep = vec!["a"; 100_000].join(".");
    assert!(text(Opts::keyval([(deep.as_str(), "1")])).contains("too many parts"));
}

#[test]
fn the_end_of_a_request_ends_its_use_of_the_node() {
    for aio in ways() {
        let (blocks, f) = (Blocks::default(), image(512));
        // The worker is slow to return from the announcement of the end.
        blocks.set_wake(|| std::thread::sleep(std::time::Duration::from_millis(50)));
        let node = json!({"driver": "file", "filename": path(&f), "node-name": "f", "aio": aio});
        blocks.blockdev_add(opts(node)).unwrap();
        let b = blocks.anonymous(blocks.find_node("f").as_ref()).unwrap();
        assert!(run(&blocks, &b, Request::read(0, 512)).result.is_ok());
        drop(b);
        blocks.blockdev_del("f").unwrap();
        assert!(blocks.nodes().is_empty());
        // Not even its locks are left.
        let all = json!({"driver": "file", "filename": path(&f), "node-name": "g"});
        let node = Blocks::default().blockdev_add(opts(all)).unwrap();
        Edge::new(&node, "alone", Perm::all(), Perm::empty()).unwrap();
    }
}

/// The host refuses: what it says comes back, whichever way it was asked, and file and size are what they were.
#[test]
fn errors_of_the_host_come_back_with_their_number() {
    use rustix::fs::{MemfdFlags, SealFlags};
    for (direct, aio) in ["off", "on"].into_iter().flat_map(|c| ways().into_iter().map(move |w| (c, w))) {
        let what = format!("cache.direct={direct} aio={aio}");
        let fd = rustix::fs::memfd_create("image", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let file = std::fs::File::from(fd);
        file.write_all_at(&[7; 10_000], 0).unwrap();
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let pairs = [("driver", "raw"), ("cache.direct", direct), ("file.aio", aio)];
        let blocks = Blocks::default();
        let b = drive(&blocks, &name, &pairs).unwrap();
        let all = || [file.metadata().unwrap().len() as usize, usize::from(read_all(&file) == [7; 10_000])];
        // It may not grow: the last sector goes beyond its end. Then it may not be written at all.
        for (seal, ranges) in
            [(SealFlags::GROW, &[(9728u64, 512usize)][..]), (SealFlags::WRITE, &[(0, 4096), (512, 700)])]
        {
            rustix::fs::fcntl_add_seals(&file, seal).unwrap();
            for (at, len) in ranges {
                let write = Request::write(*at, vec![1; *len]);
                let (_block, memory) = guest(&[(4096, *len as u64)]);
                let from = Request::write_from(*at, &GuestMemory::new(memory), true);
                for request in [write, from] {
                    assert_eq!(errno(&run(&blocks, &b, request)), Some(libc::EPERM), "{what} {at}");
                    assert_eq!(all(), [10_000, 1], "{what} {at}");
                }
            }
        }
        // What can be read is read.
        assert_eq!(run(&blocks, &b, Request::read(4096, 4096)).data, vec![7; 4096], "{what}");
        assert_eq!(b.stats().wr.failed, 6, "{what}");
    }
    // Where there is no memory the host cannot read any; a device that is full.
    for aio in ways() {
        let blocks = Blocks::default();
        let add = |v: Value| blocks.blockdev_add(opts(v)).unwrap();
        let memory = add(
            json!({"driver": "file", "filename": "/proc/self/mem", "node-name": "mem", "read-only": true, "aio": aio}),
        );
        assert_eq!(memory.read(0, &mut [0; 512]).unwrap_err().raw_os_error(), Some(libc::EIO), "{aio}");
        let full = add(json!({"driver": "host_device", "filename": "/dev/full", "node-name": "full", "aio": aio}));
        assert_eq!(full.write(0, &[1; 512]).unwrap_err().raw_os_error(), Some(libc::ENOSPC), "{aio}");
    }
}

fn read_all(file: &std::fs::File) -> Vec<u8> {
    let mut all = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

#[test]
fn nodes_are_added_used_and_deleted() {
    let (blocks, f) = (Blocks::default(), image(8192));
    let add = |v: Value| blocks.blockdev_add(opts(v));
    add(json!({"driver": "file", "filename": path(&f), "node-name": "f"})).unwrap();
    add(json!({"driver": "raw", "file": "f", "offset": 512, "size": 1024, "node-name": "window"})).unwrap();
    assert_eq!(text(blocks.blockdev_del("f")), "Node f is in use");
    assert_eq!(text(blocks.blockdev_del("g")), "Failed to find node with node-name='g'");
    let b = blocks.anonymous(blocks.find_node("window").as_ref()).unwrap();
    assert_eq!(b.len(), 1024);
    assert!(run(&blocks, &b, Request::write(0, vec![9; 1024])).result.is_ok());
    assert_eq!(std::fs::read(f.path()).unwrap()[512..1536], [9; 1024]);
    assert_eq!(text(blocks.blockdev_del("window")), "Node window is in use");
    drop(b);
    blocks.blockdev_del("window").unwrap();
    blocks.blockdev_del("f").unwrap();
    assert!(blocks.nodes().is_empty());
    for (v, message) in [
        (json!({"driver": "raw", "file": "f", "node-name": "x"}), "Cannot find device='f' nor node-name='f'"),
        (json!({"driver": "raw", "node-name": "x"}), "A block device must be specified for \"file\""),
        (json!({"driver": "null-co"}), "'node-name' must be specified for the root node"),
        (json!({"driver": "null-co", "node-name": "1"}), "Invalid node-name: '1'"),
        (json!({"driver": "null-co", "node-name": "n", "x": 1}), "Parameter 'x' is unexpected"),
        (
            json!({"driver": "null-co", "node-name": "n", "read-only": 1}),
            "Invalid parameter type for 'read-only', expected: boolean",
        ),
        (
            json!({"driver": "file", "filename": "/none", "node-name": "n"}),
            "Could not open '/none': No such file or directory",
        ),
        (
            json!({"driver": "file", "filename": "/", "read-only": true, "node-name": "n"}),
            "'file' driver requires '/' to be a regular file",
        ),
        (
            json!({"driver": "host_device", "filename": path(&f), "node-name": "n"}),
            "to be either a character or block device",
        ),
        (
            json!({"driver": "raw", "file": {"driver": "file", "filename": path(&f)}, "offset": 9000, "node-name": "n"}),
            "Offset (9000) cannot be greater",
        ),
    ] {
        assert!(text(add(v)).contains(message), "{message}");
    }
    assert!(blocks.nodes().is_empty());
    add(json!({"driver": "null-co", "node-name": "n"})).unwrap();
    assert_eq!(text(add(json!({"driver": "null-co", "node-name": "n"}))), "Duplicate nodes with node-name='n'");
}

#[test]
fn a_snapshot_leaves_the_image_alone() {
    let (blocks, f) = (Blocks::default(), image(200_000));
    let before = std::fs::read(f.path()).unwrap();
    let b = blocks
        .add_drive(DriveConfig {
            file: Some(path(&f)),
            snapshot: true,
            opts: Opts::keyval([("driver", "raw")]).unwrap(),
            ..DriveConfig::default()
        })
        .unwrap();
    assert_eq!(b.name(), "ide0-hd0");
    let mut want = before.clone();
    for (at, len) in [(1000, 70_000), (0, 512), (131_072, 65_536), (199_000, 1000)] {
        assert!(run(&blocks, &b, Request::write(at, vec![0xee; len])).result.is_ok());
        want[at as usize..at as usize + len].fill(0xee);
    }
    assert_eq!(run(&blocks, &b, Request::read(0, 200_000)).data, want);
    assert_eq!(std::fs::read(f.path()).unwrap(), before);
}

#[test]
fn zeros_are_found_and_given_back() {
    let f = image(1 << 20);
    for aio in ways() {
        let (blocks, f) = (Blocks::default(), image(1 << 20));
        let pairs = [("driver", "raw"), ("discard", "unmap"), ("detect-zeroes", "unmap"), ("file.aio", aio)];
        let b = drive(&blocks, &path(&f), &pairs).unwrap();
        assert!(run(&blocks, &b, Request::write(65_536, vec![0; 65_536])).result.is_ok());
        assert!(run(&blocks, &b, Request::discard(262_144, 65_536)).result.is_ok());
        assert_eq!(run(&blocks, &b, Request::read(65_536, 65_536)).data, vec![0; 65_536]);
        let zeroes = Op::WriteZeroes { len: 4096, unmap: false, fua: true };
        let zeroes = Request { op: zeroes, offset: 512, data: Data::default() };
        assert!(run(&blocks, &b, zeroes).result.is_ok() && run(&blocks, &b, Request::flush()).result.is_ok());
        assert_eq!(std::fs::read(f.path()).unwrap()[512..4608], [0; 4096]);
    }
    let e = text(drive(&Blocks::default(), &path(&f), &[("driver", "raw"), ("detect-zeroes", "unmap")]));
    assert!(e.starts_with("setting detect-zeroes to unmap is not allowed"), "{e}");
}

/// What takes no time is done where it is asked for; all else comes back untouched.
#[test]
fn what_takes_no_time_is_done_at_once() {
    let (blocks, f) = (Blocks::default(), image(4096));
    let add = |v: Value| blocks.blockdev_add(opts(v)).unwrap();
    let null = add(json!({"driver": "null-co", "node-name": "null", "size": 1 << 20}));
    let b = blocks.anonymous(Some(&null)).unwrap();
    assert!(b.takes_no_time());
    let o = b.do_now(Request::read(512, 1024)).unwrap();
    assert_eq!((o.result.is_ok(), o.data.into_vec()), (true, vec![0; 1024]));
    let (_block, ranges) = guest(&[(0, 512), (4096, 512)]);
    ranges.copy_in(&[3; 1024]);
    let o = b.do_now(Request::write_from(0, &GuestMemory::new(ranges.clone()), false)).unwrap();
    assert!(o.result.is_ok() && ranges.to_vec() == [3; 1024]);
    let o = b.do_now(Request::read_into(0, &GuestMemory::new(ranges.clone()))).unwrap();
    assert!(o.result.is_ok() && ranges.to_vec() == [0; 1024]);
    assert!(b.do_now(Request::flush()).unwrap().result.is_ok());
    let s = b.stats();
    assert_eq!((s.rd.operations, s.rd.bytes, s.wr.bytes, s.flush.operations), (2, 2048, 1024, 1));
    // Beyond the end: refused as always, which counts it.
    let beyond = b.do_now(Request::read((1 << 20) - 512, 1024)).unwrap_err();
    assert_eq!(errno(&run(&blocks, &b, beyond)), Some(libc::EIO));
    assert_eq!((b.stats().rd.invalid, b.stats().rd.operations), (1, 2));
    // A request is under way: the next waits its turn.
    b.submit(Request::write(0, vec![1; 512]), Box::new(|_| ()));
    while !b.takes_no_time() {
        std::thread::yield_now();
    }
    blocks.drain();
    // Limits, copying up, a medium that takes time, and none
    let request = || Request::read(0, 512);
    b.set_group(Some(blocks.group("g")));
    assert!(b.do_now(request()).is_err() && !b.takes_no_time());
    b.set_group(None);
    b.set_copy_on_read(true);
    assert!(b.do_now(request()).is_err());
    b.set_copy_on_read(false);
    assert!(b.do_now(request()).is_ok());
    let slow = add(json!({"driver": "null-co", "node-name": "slow", "latency-ns": 1000}));
    b.set_root(Some(&slow)).unwrap();
    assert_eq!(b.do_now(Request::write(0, vec![9; 512])).unwrap_err().data, vec![9; 512]);
    b.set_root(None).unwrap();
    assert!(b.do_now(request()).is_err());
    let file = drive(&blocks, &path(&f), &[("driver", "raw")]).unwrap();
    assert!(file.do_now(request()).is_err());
}

#[test]
fn drives_have_places_and_names() {
    let blocks = Blocks::default();
    let add = |index: Option<u32>, bus: Option<u32>, unit: Option<u32>, cdrom| {
        blocks.add_drive(DriveConfig { index, bus, unit, cdrom, ..DriveConfig::default() }).map(|b| b.name().to_owned())
    };
    assert_eq!(add(Some(2), None, None, true).unwrap(), "ide1-cd0");
    assert_eq!(add(None, None, None, false).unwrap(), "ide0-hd0");
    assert_eq!(add(None, None, None, false).unwrap(), "ide0-hd1");
    assert_eq!(add(None, None, None, false).unwrap(), "ide1-hd1");
    assert_eq!(text(add(Some(0), None, None, false)), "drive with bus=0, unit=0 (index=0) exists");
    assert_eq!(text(add(None, Some(5), Some(2), false)), "unit 2 too big (max is 1)");
    assert_eq!(text(add(Some(7), Some(1), None, false)), "index cannot be used with bus and unit");
    for (file, message) in [("nbd:x:1", "Unknown protocol 'nbd'"), ("json:{", "Could not parse the JSON options")] {
        assert!(text(drive(&blocks, file, &[])).contains(message));
    }
    assert!(drive(&blocks, "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"null-co\",\"size\":4096}}", &[]).is_ok());
    assert!(text(drive(&blocks, "/none", &[("driver", "rwa")])).starts_with("Unknown driver 'rwa'"));
}
