//! Folders of the host by the registers and rings of their device, and with Linux's own client.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tests::guest::{Guest, Linux};
use tests::modules::{self, value};
use tests::packages;
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::virtio::{Desc, Ring, VIRTIO_PCI, Virtio, WRITE};

/// Where messages and replies are.
const OUT: u64 = 0x10_0000;
const IN: u64 = 0x20_0000;
const ROOM: u32 = 0x1_0000;

fn start(dir: &Path, more: &[&str]) -> Virtio {
    let firmware = packages::seabios().expect("SeaBIOS can be fetched");
    let firmware = firmware.to_str().expect("a plain path");
    let fsdev = format!("local,id=f,path={},security_model=none", dir.display());
    let device = "virtio-9p-pci,addr=4,fsdev=f,mount_tag=shared,id=d";
    let args = ["-nodefaults", "-m", "64", "-L", firmware, "-fsdev", &fsdev, "-device", device];
    Virtio::new(Qtest::start(&[&args[..], more].concat()), 4)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&(7 + body.len() as u32).to_le_bytes()[..], &[kind, 9, 0], body].concat()
}

fn version() -> Vec<u8> {
    message(100, b"\0\0\x01\0\x08\x009P2000.L")
}

fn attach(fid: u8) -> Vec<u8> {
    message(104, &[fid, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// Sends a message; the reply.
fn ask(v: &mut Virtio, ring: &mut Ring, message: &[u8]) -> Vec<u8> {
    v.q.write(OUT, message);
    // In pieces, as drivers have them.
    let (first, rest) = (5.min(message.len() as u32), message.len() as u32 - 5.min(message.len() as u32));
    let parts: [Desc; 4] = [(OUT, first, 0), (OUT + 5, rest, 0), (IN, 11, WRITE), (IN + 11, ROOM - 11, WRITE)];
    ring.offer(v, if rest == 0 { &parts[..1] } else { &parts });
    ring.wait(v);
    let len = v.q.load(IN, 4) as usize;
    v.q.read(IN, len)
}

#[test]
fn requests_are_answered_by_every_kind_of_ring() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "text of a file").unwrap();
    for (more, features, packed) in [("", 0, false), (",packed=on", 1 << 34, true), (",event_idx=on", 1 << 29, false)] {
        let global = format!("virtio-9p-device.{}", more.trim_start_matches(','));
        let args = ["-global", global.as_str()];
        let mut v = start(dir.path(), if more.is_empty() { &[] } else { &args });
        assert_eq!((v.config(0, 4), v.config(8, 4) >> 8, v.config(0x2c, 4)), (0x1009_1af4, 0x200, 0x0009_1af4));
        assert_eq!((v.offered() & 0xff, v.common(0x12, 2)), (1, 1));
        let tag: Vec<u8> = (2..8).map(|n| v.device(n, 1) as u8).collect();
        assert_eq!((v.device(0, 2), tag.as_slice(), v.device(8, 1)), (6, &b"shared"[..], 0xff));
        v.start(VIRTIO_PCI | 1 | features);
        let mut ring = v.queue(0, packed);
        v.driver_ok();
        for _ in 0..20 {
            assert_eq!(ask(&mut v, &mut ring, &version()), message(101, b"\0\0\x01\0\x08\x009P2000.L"));
            assert_eq!(ask(&mut v, &mut ring, &attach(1))[4..8], [105, 9, 0, 0x80]);
            let walk = message(110, b"\x01\0\0\0\x02\0\0\0\x01\0\x04\0file");
            assert_eq!(ask(&mut v, &mut ring, &walk)[4..10], [111, 9, 0, 1, 0, 0]);
            assert_eq!(ask(&mut v, &mut ring, &message(12, &[2, 0, 0, 0, 0, 0, 0, 0]))[4], 13);
            let read = message(116, &[2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0]);
            assert_eq!(ask(&mut v, &mut ring, &read)[7..], *b"\x09\0\0\0of a file");
            assert_eq!(ask(&mut v, &mut ring, &message(120, &[7, 0, 0, 0]))[4..], [7, 9, 0, 2, 0, 0, 0]);
        }
        // A reset ends the session.
        v.start(VIRTIO_PCI | 1 | features);
        let mut ring = v.queue(0, packed);
        v.driver_ok();
        assert_eq!(ask(&mut v, &mut ring, &attach(1))[4..], [7, 9, 0, 22, 0, 0, 0]);
    }
}

#[test]
fn a_driver_that_errs_breaks_its_device_alone() {
    const FAR: u64 = 0x1_0000_0000;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), vec![7; 100_000]).unwrap();
    let mut v = start(dir.path(), &[]);
    let broken: [(&str, &[Desc]); 6] = [
        ("beyond memory", &[(FAR, 64, 0), (IN, 64, WRITE)]),
        ("empty", &[(OUT, 0, 0), (IN, 64, WRITE)]),
        ("the wrong order", &[(IN, 64, WRITE), (OUT, 64, 0)]),
        ("no header", &[(OUT, 6, 0), (IN, 64, WRITE)]),
        ("no room for a header", &[(OUT, 64, 0), (IN, 6, WRITE)]),
        ("no room for the reply", &[(OUT, 64, 0), (IN, 12, WRITE)]),
    ];
    for (what, parts) in broken {
        v.start(VIRTIO_PCI | 1);
        let mut ring = v.queue(0, false);
        v.driver_ok();
        v.q.write(OUT, &version());
        ring.offer(&mut v, parts);
        v.until(what, |v| v.common(0x14, 1) == 0x4f);
    }
    v.start(VIRTIO_PCI | 1);
    let mut ring = v.queue(0, false);
    v.driver_ok();
    ask(&mut v, &mut ring, &version());
    ask(&mut v, &mut ring, &attach(1));
    // Sizes that lie; a reply is never longer than its room, nor than what was agreed.
    let mut lies = message(120, &[1, 0, 0, 0]);
    for size in [0u32, 6, 12, 0xffff_ffff] {
        lies[..4].copy_from_slice(&size.to_le_bytes());
        let want: &[u8] = &[7, 9, 0, 22, 0, 0, 0];
        assert_eq!(ask(&mut v, &mut ring, &lies)[4..], *want, "{size:#x}");
    }
    ask(&mut v, &mut ring, &message(110, b"\x01\0\0\0\x02\0\0\0\x01\0\x04\0file"));
    ask(&mut v, &mut ring, &message(12, &[2, 0, 0, 0, 0, 0, 0, 0]));
    let read = message(116, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    assert_eq!(ask(&mut v, &mut ring, &read).len(), 65536);
    v.q.write(OUT, &read);
    ring.offer(&mut v, &[(OUT, 23, 0), (IN, 100, WRITE)]);
    ring.wait(&mut v);
    assert_eq!((v.q.load(IN, 4), ring.used_len(&mut v)), (100, 100));
    // Resets while requests are at work
    for _ in 0..50 {
        v.start(VIRTIO_PCI | 1);
        let mut ring = v.queue(0, false);
        v.driver_ok();
        v.q.write(OUT, &version());
        (0..8).for_each(|_| ring.offer(&mut v, &[(OUT, 21, 0), (IN, 64, WRITE)]));
    }
    assert_eq!(v.common(0x14, 1), 15);
}

#[test]
fn what_is_wrong_with_a_folder_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let refused = |args: &[&str]| {
        let out = tests::process::run(&[&["-nodefaults", "-display", "none", "-S"], args].concat(), "");
        assert_eq!(out.code, Some(1), "{args:?}");
        out.stderr
    };
    let fsdev = |path: &str| format!("local,id=f,path={path},security_model=none");
    for (folder, device, message) in [
        (fsdev("/nowhere/x"), "mount_tag=t,fsdev=f", "share path /nowhere/x does not exist".to_owned()),
        (fsdev(&format!("{path}/file")), "mount_tag=t,fsdev=f", format!("share path {path}/file is not a directory")),
        (fsdev("/"), "mount_tag=t", "9pfs device couldn't find fsdev with the id = NULL".into()),
        (fsdev("/"), "mount_tag=t,fsdev=g", "9pfs device couldn't find fsdev with the id = g".into()),
        (fsdev("/"), "fsdev=f", "fsdev with id f needs mount_tag arguments".into()),
        (
            fsdev("/"),
            "fsdev=f,mount_tag=12345678901234567890123456789012",
            "mount tag '12345678901234567890123456789012' (32 bytes) is longer than maximum (31 bytes)".into(),
        ),
    ] {
        let device = format!("virtio-9p-pci,{device}");
        let said = refused(&["-fsdev", &folder, "-device", &device]);
        assert!(said.contains(&message), "{said}");
    }
    let twice = refused(&["-fsdev", &fsdev("/"), "-fsdev", &fsdev("/")]);
    assert!(twice.contains("Duplicate ID 'f' for fsdev"), "{twice}");
    // By hot-plug, and away again
    let mut q = Qmp::start(&["-machine", "none", "-S", "-fsdev", &fsdev("/")]);
    let none = serde_json::json!({"driver": "virtio-9p-pci", "fsdev": "f", "mount_tag": "t"});
    assert!(q.error("device_add", none).1.contains("No 'PCI' bus found"));
}

/// Longest run of a guest: on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(300);

/// A guest that mounts the folder at `/m` and then runs `script`; what it said.
fn linux(name: &str, dir: &TempDir, model: &str, options: &str, script: &str) -> String {
    let dialect = if options.contains("version=") { "" } else { ",version=9p2000.L" };
    let needed = modules::with_needs_686(&["virtio_pci", "9pnet_virtio", "9p"]).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let script = format!(
        "{}mkdir /m; mount -t 9p -o trans=virtio{dialect}{options} tag /m || echo NO mount\n{script}\n",
        modules::commands(&needed)
    );
    let linux = Linux::i686_with(name, &script, &files).expect("the packages");
    let mut args = linux.args("");
    let virtfs = format!("local,path={},mount_tag=tag,security_model={model}", dir.path().join("shared").display());
    args.extend(["-m", "256", "-no-reboot", "-virtfs", &virtfs].map(str::to_owned));
    let (code, console) = Guest::ours(&args).finish(LIMIT);
    assert_eq!(code, Some(0), "{console}");
    assert!(!console.contains("NO ") && !console.contains("Oops"), "{console}");
    console
}

/// A folder to be shown, beside a secret.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("shared");
    std::fs::create_dir_all(shared.join("many")).unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    for n in 0..500 {
        std::fs::write(shared.join(format!("many/{n}")), "").unwrap();
    }
    symlink("../secret", shared.join("out")).unwrap();
    symlink("/etc/passwd", shared.join("abs")).unwrap();
    std::fs::write(shared.join("hello"), "from the host\n").unwrap();
    dir
}

const SCRIPT: &str = "\
    cd /m; echo HELLO $(cat hello)\n\
    dd if=/dev/urandom of=/tmp/data bs=64k count=128 2>/dev/null\n\
    cp /tmp/data data || echo NO cp\necho SUM $(md5sum < /tmp/data)\n\
    cd /; umount /m; mount -t 9p -o trans=virtio,version=9p2000.L tag /m; cd /m\n\
    echo AGAIN $(md5sum < data) $(stat -c %s data)\n\
    mkdir -p d/e; mv data d/e/moved || echo NO mv\necho MOVED $(md5sum < d/e/moved)\n\
    ln -s moved d/e/link; echo LINK $(readlink d/e/link) $(md5sum < d/e/link)\n\
    ln d/e/moved second; echo LINKS $(stat -c %h second); rm second\n\
    chmod 4711 d/e/moved; touch -d '2001-02-03 04:05:06' d/e/moved\n\
    echo STAT $(stat -c '%a %Y' d/e/moved)\n\
    truncate -s 1000 d/e/moved; echo more >> d/e/moved; echo SIZE $(stat -c %s d/e/moved)\n\
    echo MANY $(ls many | wc -l) $(ls many | sort -n | tail -1)\n\
    for i in $(seq 50); do echo $i > many/new$i; done; rm many/1??; echo LEFT $(ls many | wc -l)\n\
    rmdir d/e 2>/dev/null && echo NO refusal\n\
    [ -e out ] && echo NO escape; cat out ../secret 2>/dev/null && echo NO wall\n\
    echo ABS $(readlink abs) $(cat abs 2>/dev/null | wc -c)\n\
    echo text > open; (rm open; echo UNNAMED $(wc -c)) < open\n\
    mknod fifo p; (echo through > fifo &) ; echo FIFO $(cat fifo)\n\
    echo DF $(df /m | tail -1 | awk '{print ($2 > 0)}')\n";

#[test]
fn linux_works_in_a_folder_of_the_host() {
    let dir = folder();
    let console = linux("p9-none.cpio", &dir, "none", ",msize=262144", SCRIPT);
    assert_eq!(value(&console, "HELLO"), "from the host");
    let sum = value(&console, "SUM").to_owned();
    assert_eq!(value(&console, "AGAIN"), format!("{sum} 8388608"));
    assert_eq!((value(&console, "MOVED"), value(&console, "LINK ")), (sum.as_str(), format!("moved {sum}").as_str()));
    assert_eq!((value(&console, "LINKS"), value(&console, "STAT")), ("2", "4711 981173106"));
    assert_eq!((value(&console, "SIZE"), value(&console, "MANY")), ("1005", "500 499"));
    assert_eq!((value(&console, "LEFT"), value(&console, "ABS")), ("450", "/etc/passwd 0"));
    assert_eq!((value(&console, "UNNAMED"), value(&console, "FIFO"), value(&console, "DF")), ("5", "through", "1"));
    // What the host has of it
    let shared = dir.path().join("shared");
    assert_eq!(std::fs::metadata(shared.join("d/e/moved")).unwrap().len(), 1005);
    assert_eq!(std::fs::read_link(shared.join("d/e/link")).unwrap(), Path::new("moved"));
    assert_eq!(std::fs::read_to_string(shared.join("many/new7")).unwrap(), "7\n");
    assert!(!shared.join("open").exists());
    assert_eq!(std::fs::read_to_string(dir.path().join("secret")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn linux_owns_what_it_makes_where_owners_are_mapped() {
    let dir = folder();
    let script = "\
        cd /m; echo text > f; chown 12:34 f; chmod 2750 f; ln -s /etc/shadow l; mknod n c 1 3\n\
        cp -a f copy; mkdir -m 1777 t\n\
        cd /; umount /m; mount -t 9p -o trans=virtio,version=9p2000.L tag /m; cd /m\n\
        echo F $(stat -c '%u %g %a %F' f)\necho COPY $(stat -c '%u %g %a' copy)\n\
        echo L $(readlink l) $(stat -c %F l)\necho N $(stat -c '%F %t %T' n); echo x > n\n\
        echo T $(stat -c '%a %F' t)\nrm l n; echo LEFT $(ls -d f l n t 2>/dev/null)";
    let console = linux("p9-mapped.cpio", &dir, "mapped-xattr", "", script);
    assert_eq!((value(&console, "F "), value(&console, "COPY")), ("12 34 2750 regular file", "12 34 2750"));
    assert_eq!((value(&console, "L "), value(&console, "T ")), ("/etc/shadow symbolic link", "1777 directory"));
    assert_eq!((value(&console, "N "), value(&console, "LEFT")), ("character special file 1 3", "f t"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.path().join("shared/f")).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn linux_speaks_the_other_dialect() {
    let dir = folder();
    let script = "\
        cd /m; echo HELLO $(cat hello) $(ls many | wc -l)\n\
        dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null; cp /tmp/data d\n\
        echo SUM $(md5sum < /tmp/data)\nmv d e; echo AGAIN $(md5sum < e)\n\
        mkdir -m 750 dir; ln -s e link; chmod 640 e; echo more >> e; touch -d '2001-02-03 04:05:06' e\n\
        echo STAT $(stat -c '%a %s %Y' e) $(stat -c %a dir) $(readlink link)\n\
        echo GONE $(rm -r many dir && ls | wc -l)";
    let console = linux("p9-u.cpio", &dir, "none", ",version=9p2000.u", script);
    assert_eq!(value(&console, "HELLO"), "from the host 500");
    assert_eq!(value(&console, "AGAIN"), value(&console, "SUM"));
    assert_eq!((value(&console, "STAT"), value(&console, "GONE")), ("640 1048581 981173106 750 e", "5"));
}
