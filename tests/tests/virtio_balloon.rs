//! A balloon by its registers and rings, and with Linux's own driver.

use serde_json::json;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::guest::{Guest, Linux};
use tests::modules::{self, value};
use tests::packages;
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::virtio::{Desc, VIRTIO_PCI, Virtio, WRITE};

/// Features.
const STATS: u64 = 1 << 1;
const POISON: u64 = 1 << 4;
const REPORTING: u64 = 1 << 5;
/// Where numbers of pages, statistics and pages are.
const NUMBERS: u64 = 0x10_0000;
const NEWS: u64 = 0x11_0000;
const PAGES: u64 = 0x20_0000;

struct Balloon {
    v: Virtio,
    qmp: Qmp,
    _dir: TempDir,
}

impl Balloon {
    fn new(device: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("qmp");
        let server = format!("unix:{},server=on,wait=off", socket.display());
        let firmware = packages::seabios().expect("SeaBIOS can be fetched");
        let firmware = firmware.to_str().expect("a plain path");
        let device = format!("virtio-balloon-pci,addr=4,id=b{device}");
        let q = Qtest::start(&["-nodefaults", "-m", "64", "-L", firmware, "-device", &device, "-qmp", &server]);
        let mut qmp = Qmp::connect(&socket);
        qmp.run("qmp_capabilities", json!({}));
        Self { v: Virtio::new(q, 4), qmp, _dir: dir }
    }

    fn actual(&mut self) -> u64 {
        self.qmp.run("query-balloon", json!({}))["actual"].as_u64().expect("a number")
    }

    fn first_bytes(&mut self, pages: std::ops::Range<u64>) -> Vec<u64> {
        pages.map(|p| self.v.q.load(PAGES + p * 4096 + 9, 1)).collect()
    }
}

fn numbers(pages: &[u32]) -> Vec<u8> {
    pages.iter().flat_map(|p| p.to_le_bytes()).collect()
}

#[test]
fn pages_go_to_the_host_and_nothing_else_does() {
    let mut b = Balloon::new("");
    assert_eq!((b.v.config(0, 4), b.v.config(0x2c, 4)), (0x1002_1af4, 0x0005_1af4));
    assert_eq!((b.v.common(0x12, 2), b.v.device(0, 8), b.v.device(8, 8)), (3, 0, 0));
    assert_eq!(b.v.offered() & 0xff, STATS | POISON);
    b.v.start(VIRTIO_PCI | STATS);
    let [mut inflate, mut deflate] = [0, 1].map(|n| b.v.queue(n, false));
    b.v.driver_ok();
    // The user wants the guest to have less.
    b.qmp.run("balloon", json!({"value": 48 << 20}));
    assert_eq!((b.v.isr(), b.v.device(0, 4)), (3, (16 << 20) / 4096));
    assert_eq!(b.actual(), 64 << 20);
    b.v.q.write(PAGES, &[0x5a; 8 * 4096]);
    let first = (PAGES / 4096) as u32;
    // Pages in any order, twice, beyond memory, a device's, the firmware's.
    let all = numbers(&[first + 3, first, first + 1, first, 0xffff_ffff, 0x4_0000, 0xfee00, 0xb8, 0xf0, 0xfffff]);
    b.v.q.write(NUMBERS, &all);
    let rom = b.v.q.load(0xf_0000, 4);
    inflate.offer(&mut b.v, &[(NUMBERS, 10, 0), (NUMBERS + 10, all.len() as u32 - 10, 0)]);
    inflate.wait(&mut b.v);
    assert_eq!(b.first_bytes(0..6), [0, 0, 0x5a, 0, 0x5a, 0x5a]);
    assert_eq!(b.v.q.load(0xf_0000, 4), rom);
    // The driver says what it has done: an event, at most one a second.
    b.v.set_device(4, 4, 3);
    assert_eq!(b.qmp.event("BALLOON_CHANGE")["data"]["actual"], (64 << 20) - 3 * 4096);
    let at = Instant::now();
    for n in 4..9 {
        b.v.set_device(4, 4, n);
    }
    b.v.set_device(4, 4, 8);
    assert_eq!(b.qmp.event("BALLOON_CHANGE")["data"]["actual"], (64 << 20) - 8 * 4096);
    assert!(at.elapsed() > Duration::from_millis(500));
    assert_eq!(b.actual(), (64 << 20) - 8 * 4096);
    assert_eq!(b.qmp.hmp("info balloon"), "balloon: actual=63\r\n");
    // And takes them out.
    deflate.offer(&mut b.v, &[(NUMBERS, 4, 0)]);
    deflate.wait(&mut b.v);
    assert_eq!(b.first_bytes(2..4), [0x5a, 0]);
    // What is wanted and what is there outlives the driver; more than there is, is a lie.
    b.v.reset();
    assert_eq!((b.v.device(0, 4), b.v.device(4, 4)), (4096, 8));
    b.v.set_device(4, 4, 0xffff_ffff);
    assert_eq!(b.actual(), 0);
    b.v.set_device(4, 4, 0);
    assert_eq!(b.qmp.hmp("balloon 100"), "");
    assert_eq!(b.v.device(0, 4), 0, "all there is");
    assert_eq!(b.qmp.error("balloon", json!({"value": -1})).1, "Parameter 'target' expects a size");
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let mut b = Balloon::new(",guest-stats-polling-interval=10");
    let path = json!({"path": "/machine/peripheral/b", "property": "guest-stats"});
    let none = b.qmp.run("qom-get", path.clone());
    assert_eq!((&none["last-update"], &none["stats"]["stat-oom-kills"]), (&json!(0), &json!(u64::MAX)));
    b.v.start(VIRTIO_PCI | STATS);
    let mut stats = b.v.queue(2, false);
    b.v.driver_ok();
    let entry = |tag: u16, v: u64| [&tag.to_le_bytes()[..], &v.to_le_bytes()].concat();
    // Tags that nobody knows, and half an entry.
    let news =
        [entry(4, 5 << 20), entry(5, 64 << 20), entry(77, 1), entry(0xffff, 1), entry(9, 3), vec![1, 0, 9]].concat();
    b.v.q.write(NEWS, &news);
    stats.offer(&mut b.v, &[(NEWS, news.len() as u32, 0)]);
    assert!(!stats.is_used(&mut b.v), "the device keeps the buffer until it wants to know more");
    let got = b.qmp.run("qom-get", path.clone());
    let s = &got["stats"];
    assert_eq!(
        (&s["stat-free-memory"], &s["stat-total-memory"], &s["stat-htlb-pgfail"], &s["stat-swap-in"]),
        (&json!(5 << 20), &json!(64 << 20), &json!(3), &json!(u64::MAX))
    );
    assert!(got["last-update"].as_u64().unwrap() > 1_700_000_000);
    b.v.q.clock_step(9_000_000_000);
    assert!(!stats.is_used(&mut b.v));
    b.v.q.clock_step(1_000_000_000);
    assert!(stats.is_used(&mut b.v));
    // Another interval; a second buffer sends the first one back.
    let interval =
        |v: i64| json!({"path": "/machine/peripheral/b", "property": "guest-stats-polling-interval", "value": v});
    assert_eq!(b.qmp.error("qom-set", interval(-1)).1, "timer value must be greater than zero");
    assert_eq!(b.qmp.error("qom-set", interval(1 << 32)).1, "timer value is too big");
    b.qmp.run("qom-set", interval(0));
    stats.offer(&mut b.v, &[(NEWS, 10, 0)]);
    b.v.q.clock_step(100_000_000_000);
    assert!(!stats.is_used(&mut b.v));
    b.qmp.run("qom-set", interval(1));
    b.v.q.clock_step(1);
    assert!(stats.is_used(&mut b.v), "the first look is at once");
    stats.offer(&mut b.v, &[(NEWS, 10, 0)]);
    let used = stats.used_count(&mut b.v);
    stats.offer(&mut b.v, &[(NEWS, 10, 0)]);
    assert_eq!(stats.used_count(&mut b.v), used + 1);
}

#[test]
fn reported_pages_go_to_the_host_unless_they_are_filled() {
    for poison in [None, Some(0), Some(0xaa)] {
        let mut b = Balloon::new(",free-page-reporting=on,deflate-on-oom=on");
        assert_eq!((b.v.offered() & 0xff, b.v.common(0x12, 2)), (STATS | 4 | POISON | REPORTING, 4));
        b.v.start(VIRTIO_PCI | REPORTING | if poison.is_some() { POISON } else { 0 });
        let mut reporting = b.v.queue(3, false);
        b.v.driver_ok();
        if let Some(p) = poison {
            b.v.set_device(12, 4, p);
        }
        b.v.q.write(PAGES, &[0x5a; 8 * 4096]);
        // The second one begins within a page.
        reporting.offer(&mut b.v, &[(PAGES, 0x2000, WRITE), (PAGES + 0x4800, 0x2000, WRITE)]);
        reporting.wait(&mut b.v);
        let want = if poison == Some(0xaa) { [0x5a; 8] } else { [0, 0, 0x5a, 0x5a, 0x5a, 0, 0x5a, 0x5a] };
        assert_eq!(b.first_bytes(0..8), want, "{poison:?}");
    }
}

#[test]
fn a_driver_that_errs_breaks_its_balloon_alone() {
    const FAR: u64 = 0x1_0000_0000;
    let mut b = Balloon::new(",free-page-reporting=on");
    for queue in 0..4 {
        let broken: [&[Desc]; 3] = [&[(FAR, 4, 0)], &[(NUMBERS, 0, 0)], &[(NUMBERS, 8, WRITE), (NUMBERS, 8, 0)]];
        for parts in broken {
            b.v.start(VIRTIO_PCI | STATS | REPORTING);
            let mut ring = b.v.queue(queue, false);
            b.v.driver_ok();
            ring.offer(&mut b.v, parts);
            assert_eq!(b.v.common(0x14, 1), 0x4f, "queue {queue}: {parts:?}");
        }
    }
    // Much more than anybody needs: it is worked through, or left alone, in time.
    b.v.start(VIRTIO_PCI | STATS | REPORTING);
    let mut rings = [0, 1, 2, 3].map(|n| b.v.queue(n, false));
    b.v.driver_ok();
    let huge: Vec<Desc> = vec![(0x100_0000, 0x200_0000, 0); 15];
    let at = Instant::now();
    rings[0].offer(&mut b.v, &huge);
    rings[0].wait(&mut b.v);
    rings[2].offer(&mut b.v, &huge);
    assert!(at.elapsed() < Duration::from_secs(20));
    assert_eq!(b.v.common(0x14, 1), 15);
    b.qmp.run("query-balloon", json!({}));
}

#[test]
fn there_is_one_balloon_and_what_is_not_built_says_so() {
    let refused = |args: &[&str]| {
        let out = tests::process::run(&[&["-nodefaults", "-display", "none", "-S"], args].concat(), "");
        assert_eq!(out.code, Some(1), "{args:?}");
        out.stderr
    };
    let two = refused(&["-device", "virtio-balloon-pci", "-device", "virtio-balloon-pci"]);
    assert!(two.contains("Only one balloon device is supported"), "{two}");
    let hint = refused(&["-device", "virtio-balloon-pci,free-page-hint=on"]);
    assert!(hint.contains("'free-page-hint' requires 'iothread' to be set"), "{hint}");
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let none = ("DeviceNotActive".to_owned(), "No balloon device has been activated".to_owned());
    assert_eq!(q.error("query-balloon", json!({})), none);
    assert_eq!(q.error("balloon", json!({"value": 1 << 20})), none);
}

/// Longest run of a guest: on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(120);

/// Half of the guest's memory goes and comes back.
#[test]
fn linux_gives_memory_back_to_the_host_and_takes_it_again() {
    let needed = modules::with_needs(&["virtio_pci", "virtio_balloon"]).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    // (It fills what it has once, so that the host has given it all.)
    let script = format!(
        "mount -t tmpfs -o size=90% none /tmp\n\
         dd if=/dev/urandom of=/tmp/fill bs=1M count=150 2>/dev/null; rm /tmp/fill\n\
         {}echo BOUND $(ls /sys/bus/virtio/drivers/virtio_balloon | grep -c virtio0)\n\
         read go\n\
         echo FREE $(grep MemTotal /proc/meminfo)\n\
         read go\n\
         dd if=/dev/urandom of=/tmp/again bs=1M count=100 2>/dev/null && echo FILLED $(wc -c < /tmp/again)\n",
        modules::commands(&needed)
    );
    let linux = Linux::amd64_with("virtio-balloon.cpio", &script, &files).expect("the packages");
    let mut args = linux.args("");
    let device = ["-m", "256", "-no-reboot", "-device", "virtio-balloon-pci,id=b,guest-stats-polling-interval=1"];
    args.extend(device.map(str::to_owned));
    let mut guest = Guest::ours(&args);
    guest.line("BOUND 1", LIMIT);
    let mut qmp = guest.qmp();
    // Bytes of the host that the process has for itself, most of them the guest's memory.
    let thread = qmp.run("query-cpus-fast", json!({}))[0]["thread-id"].clone();
    let spent = || {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).expect("its status");
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("what it has");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    };
    let before = spent();
    assert!(before > 150 << 20, "{before}");
    let reach = |qmp: &mut Qmp, wanted: u64| {
        qmp.run("balloon", json!({"value": wanted}));
        let end = Instant::now() + LIMIT;
        while qmp.run("query-balloon", json!({}))["actual"] != wanted {
            assert!(Instant::now() < end, "the guest does not reach {wanted}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    reach(&mut qmp, 128 << 20);
    qmp.event("BALLOON_CHANGE");
    let after = spent();
    assert!(after + (100 << 20) < before, "{after} of {before}");
    guest.say("go").unwrap();
    let total = guest.line("FREE", LIMIT).1;
    let kib: u64 = total.split_whitespace().nth(2).and_then(|n| n.parse().ok()).expect("a number");
    assert!(kib < 140 << 10, "{total}");
    reach(&mut qmp, 256 << 20);
    let path = json!({"path": "/machine/peripheral/b", "property": "guest-stats"});
    let end = Instant::now() + LIMIT;
    loop {
        // The driver answers when it gets to it.
        let stats = qmp.run("qom-get", path.clone())["stats"].clone();
        if stats["stat-total-memory"].as_u64().is_some_and(|n| (150 << 20..256 << 20).contains(&n)) {
            break;
        }
        assert!(Instant::now() < end, "{stats}");
        std::thread::sleep(Duration::from_millis(200));
    }
    guest.say("go").unwrap();
    let (code, console) = guest.finish(LIMIT);
    assert_eq!((code, value(&console, "FILLED")), (Some(0), "104857600"), "{console}");
    assert!(!console.contains("NO ") && !console.contains("Oops"), "{console}");
}
