//! Channels through real files, sockets, pipes and pseudo-terminals.

use chardev::config::{Address, Backend, Family, Socket};
use chardev::{Channel, CharFrontend, Config, Event, Handlers, Host, Hub};
use hw_core::event_loop::EventLoop;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct World {
    hub: Hub,
    events: EventLoop,
    quits: Arc<AtomicUsize>,
    reports: Arc<Mutex<Vec<String>>>,
}

fn world() -> World {
    let events = EventLoop::new().unwrap();
    let (quits, reports) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(vec![])));
    let (q, r) = (quits.clone(), reports.clone());
    let hub = Hub::new(Host {
        events: events.clone(),
        quit: Box::new(move || {
            q.fetch_add(1, Ordering::SeqCst);
        }),
        report: Box::new(move |t| r.lock().unwrap().push(t.into())),
        interrupted: Box::new(|| false),
        escape: 1,
        daemonize: false,
    });
    World { hub, events, quits, reports }
}

impl World {
    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !done() {
            assert!(Instant::now() < end, "never: {what}");
            self.events.run_once(Some(Duration::from_millis(5)));
        }
    }
}

/// A front end that keeps what it gets.
struct Sink {
    front: CharFrontend,
    got: Arc<Mutex<Vec<u8>>>,
    events: Arc<Mutex<Vec<Event>>>,
    room: Arc<AtomicUsize>,
}

fn sink(channel: &Arc<Channel>) -> Sink {
    let s = Sink {
        front: CharFrontend::default(),
        got: Arc::default(),
        events: Arc::default(),
        room: Arc::new(AtomicUsize::new(usize::MAX)),
    };
    s.front.attach(channel).unwrap();
    let (got, events, room, left) = (s.got.clone(), s.events.clone(), s.room.clone(), s.room.clone());
    s.front.set_handlers(Handlers {
        can_receive: Box::new(move || room.load(Ordering::SeqCst)),
        receive: Box::new(move |b| {
            assert!(b.len() <= left.load(Ordering::SeqCst));
            left.fetch_sub(b.len(), Ordering::SeqCst);
            got.lock().unwrap().extend(b);
        }),
        event: Box::new(move |e| events.lock().unwrap().push(e)),
    });
    s
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.got.lock().unwrap()).into_owned()
    }
}

fn server(path: &Path) -> Backend {
    let address = Address::Unix { path: path.to_str().unwrap().into(), is_abstract: false };
    Backend::Socket(Socket { address, server: true, wait: false, nodelay: false, telnet: false, reconnect_ms: 0 })
}

#[test]
fn a_server_takes_one_client_after_the_other() {
    let (w, dir) = (world(), tempfile::tempdir().unwrap());
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // a stale socket is in the way
    let ch = w.hub.open(&Config::new("c0", server(&path))).unwrap();
    let s = sink(&ch);
    assert_eq!(ch.filename(), format!("disconnected:unix:{},server=on", path.display()));
    assert_eq!(s.front.write(b"nobody hears this"), 17);
    for text in ["first", "second"] {
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.write_all(text.as_bytes()).unwrap();
        w.until("text arrives", || s.text().ends_with(text));
        assert_eq!(s.front.write(b"hello"), 5);
        let mut answer = [0; 5];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        drop(peer);
        w.until("closed", || !ch.is_open());
    }
    assert_eq!(*s.events.lock().unwrap(), [Event::Opened, Event::Closed, Event::Opened, Event::Closed]);
    w.hub.close_all();
    assert!(!path.exists());
}

#[test]
fn input_waits_until_there_is_room() {
    let (w, dir) = (world(), tempfile::tempdir().unwrap());
    let path = dir.path().join("s");
    let ch = w.hub.open(&Config::new("c0", server(&path))).unwrap();
    let s = sink(&ch);
    s.room.store(3, Ordering::SeqCst);
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"abcdef").unwrap();
    w.until("three bytes", || s.text() == "abc");
    for _ in 0..5 {
        w.events.run_once(Some(Duration::from_millis(1)));
    }
    assert_eq!(s.text(), "abc");
    s.room.store(10, Ordering::SeqCst);
    s.front.accept_input();
    w.until("the rest", || s.text() == "abcdef");
}

#[test]
fn a_peer_that_does_not_read_blocks_nobody() {
    let (w, dir) = (world(), tempfile::tempdir().unwrap());
    let path = dir.path().join("s");
    let ch = w.hub.open(&Config::new("c0", server(&path))).unwrap();
    let s = sink(&ch);
    let mut peer = UnixStream::connect(&path).unwrap();
    w.until("open", || ch.is_open());
    let block = vec![b'x'; 1 << 20];
    let taken = s.front.write(&block);
    assert!(taken < block.len());
    let again = Arc::new(AtomicUsize::new(0));
    let a = again.clone();
    s.front.on_writable(move || {
        a.fetch_add(1, Ordering::SeqCst);
    });
    w.events.run_once(Some(Duration::from_millis(5)));
    assert_eq!(again.load(Ordering::SeqCst), 0);
    s.front.write_all(&block); // waits in memory
    assert!(s.front.queued() > 0);
    let mut seen = 0;
    let mut buf = vec![0; 1 << 16];
    while seen < taken + block.len() {
        w.events.run_once(Some(Duration::from_millis(1)));
        seen += peer.read(&mut buf).unwrap();
    }
    assert_eq!((seen, again.load(Ordering::SeqCst)), (taken + block.len(), 1));
}

#[test]
fn a_client_connects_again() {
    let (w, dir) = (world(), tempfile::tempdir().unwrap());
    let path = dir.path().join("s");
    let address = Address::Unix { path: path.to_str().unwrap().into(), is_abstract: false };
    let client = |reconnect_ms| {
        Backend::Socket(Socket {
            address: address.clone(),
            server: false,
            wait: false,
            nodelay: false,
            telnet: false,
            reconnect_ms,
        })
    };
    let e = w.hub.open(&Config::new("c1", client(0))).err().unwrap().to_string();
    assert_eq!(e, format!("Failed to connect to 'unix:{}': No such file or directory", path.display()));
    let ch = w.hub.open(&Config::new("c0", client(10))).unwrap();
    let _s = sink(&ch);
    for _ in 0..2 {
        let _ = std::fs::remove_file(&path);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        w.until("connected", || ch.is_open());
        drop(listener.accept().unwrap());
        drop(listener);
        let _ = std::fs::remove_file(&path);
        w.until("lost", || !ch.is_open());
    }
}

#[test]
fn telnet_offers_character_mode_and_doubles_255() {
    let w = world();
    let address = Address::Inet { host: "127.0.0.1".into(), port: "0".into(), to: None, family: Family::Any };
    let config = Socket { address, server: true, wait: false, nodelay: true, telnet: true, reconnect_ms: 0 };
    let ch = w.hub.open(&Config::new("c0", Backend::Socket(config))).unwrap();
    let s = sink(&ch);
    let name = ch.filename();
    let addr = name.strip_prefix("disconnected:telnet:").and_then(|n| n.strip_suffix(",server=on")).unwrap();
    let mut peer = std::net::TcpStream::connect(addr).unwrap();
    peer.write_all(b"a\xff\xf3b").unwrap();
    w.until("bytes", || s.text() == "ab");
    assert!(s.events.lock().unwrap().contains(&Event::Break));
    assert_eq!(s.front.write(b"x\xffy"), 3);
    let mut got = [0; 16];
    peer.read_exact(&mut got).unwrap();
    assert_eq!((&got[..3], &got[12..]), (&b"\xff\xfb\x01"[..], &b"x\xff\xffy"[..]));
}

#[test]
fn files_pipes_and_logs() {
    let (w, dir) = (world(), tempfile::tempdir().unwrap());
    let (out, log) = (dir.path().join("out"), dir.path().join("log"));
    let mut config = Config::new("f", Backend::File { path: out.clone(), input: None, append: false });
    config.logfile = Some(log.clone());
    let s = sink(&w.hub.open(&config).unwrap());
    s.front.write(b"to file");
    assert_eq!(
        (std::fs::read(&out).unwrap(), std::fs::read(&log).unwrap()),
        (b"to file".to_vec(), b"to file".to_vec())
    );

    let missing =
        w.hub.open(&Config::new("p", Backend::Pipe { path: dir.path().join("p") })).err().unwrap().to_string();
    assert!(missing.contains("Failed to open") && missing.ends_with("No such file or directory"));
    for suffix in [".in", ".out"] {
        let p = dir.path().join(format!("p{suffix}"));
        rustix::fs::mknodat(rustix::fs::CWD, &p, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
            .unwrap();
    }
    let s = sink(&w.hub.open(&Config::new("p", Backend::Pipe { path: dir.path().join("p") })).unwrap());
    std::fs::OpenOptions::new().write(true).open(dir.path().join("p.in")).unwrap().write_all(b"in").unwrap();
    w.until("pipe input", || s.text() == "in");
    s.front.write(b"out");
    let mut got = [0; 3];
    std::fs::File::open(dir.path().join("p.out")).unwrap().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"out");
}

#[test]
fn a_full_disk_is_reported_once_and_swallows_the_rest() {
    let w = world();
    let s = sink(
        &w.hub
            .open(&Config::new("full", Backend::File { path: "/dev/full".into(), input: None, append: true }))
            .unwrap(),
    );
    assert_eq!((s.front.write(b"abc"), s.front.write(b"defg")), (3, 4));
    assert_eq!(*w.reports.lock().unwrap(), ["warning: chardev 'full': output stopped: No space left on device"]);
}

#[test]
fn a_pty_is_connected_while_somebody_has_it_open() {
    let w = world();
    let ch = w.hub.open(&Config::new("p", Backend::Pty { path: None })).unwrap();
    let s = sink(&ch);
    let name = ch.filename().strip_prefix("pty:").unwrap().to_owned();
    assert_eq!(*w.reports.lock().unwrap(), [format!("char device redirected to {name} (label p)")]);
    w.events.run_once(Some(Duration::ZERO));
    assert!(!ch.is_open());
    assert_eq!(s.front.write(&[b'x'; 100_000]), 100_000);
    let mut tty = std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
    w.until("open", || ch.is_open());
    tty.write_all(b"hi\r").unwrap();
    w.until("typed", || s.text() == "hi\r");
    s.front.write(b"yo\n");
    let mut got = [0; 3];
    tty.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"yo\n");
    drop(tty);
    w.until("closed", || !ch.is_open());
}

#[test]
fn ringbuf_keeps_the_newest() {
    let w = world();
    assert!(w.hub.open(&Config::new("r", Backend::Ringbuf { size: 6 })).is_err());
    let ch = w.hub.open(&Config::new("r", Backend::Ringbuf { size: 8 })).unwrap();
    let s = sink(&ch);
    s.front.write(b"0123456789");
    assert_eq!(ch.ringbuf().unwrap().read(5), b"23456");
    assert_eq!(ch.ringbuf().unwrap().read(100), b"789");
}

#[test]
fn ids_are_unique_and_a_channel_has_one_owner() {
    let w = world();
    let ch = w.hub.open(&Config::new("n", Backend::Null)).unwrap();
    assert_eq!(w.hub.open(&Config::new("n", Backend::Null)).err().unwrap().to_string(), "Duplicate ID 'n' for chardev");
    let s = sink(&ch);
    assert_eq!(CharFrontend::default().attach(&ch).unwrap_err().to_string(), "chardev 'n' is already in use");
    assert!(w.hub.remove("n").is_err());
    drop(s);
    w.hub.remove("n").unwrap();
    assert_eq!(w.hub.remove("n").unwrap_err().to_string(), "chardev 'n' not found");
}

#[test]
fn the_multiplexer_switches_the_keyboard() {
    let (w, dir) = (world(), tempfile::tempdir().unwrap());
    let path = dir.path().join("s");
    let mut config = Config::new("m", server(&path));
    config.mux = true;
    let ch = w.hub.open(&config).unwrap();
    assert!(w.hub.find("m-base").is_some());
    let (monitor, serial) = (sink(&ch), sink(&ch));
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"a\x01cb\x01\x01\x01bx").unwrap(); // the newest has it, then the monitor
    w.until("keys", || monitor.text().ends_with('x'));
    assert_eq!((serial.text().as_str(), monitor.text().as_str()), ("a", "b\u{1}x"));
    assert!(monitor.events.lock().unwrap().ends_with(&[Event::MuxIn, Event::Break]));
    assert_eq!(serial.events.lock().unwrap().last(), Some(&Event::MuxOut));
    serial.room.store(0, Ordering::SeqCst);
    peer.write_all(b"\x01ckeep").unwrap();
    for _ in 0..5 {
        w.events.run_once(Some(Duration::from_millis(2)));
    }
    serial.room.store(100, Ordering::SeqCst);
    serial.front.accept_input();
    w.until("kept", || serial.text() == "akeep");
    // More than can be kept is pasted while nothing is taken, then sixteen bytes at a time: none is lost.
    serial.room.store(0, Ordering::SeqCst);
    let pasted: String = (0..2000).map(|n| format!("{n:04} ")).collect();
    peer.write_all(pasted.as_bytes()).unwrap();
    for _ in 0..5 {
        w.events.run_once(Some(Duration::from_millis(2)));
    }
    w.until("all that was pasted", || {
        serial.room.store(16, Ordering::SeqCst);
        serial.front.accept_input();
        serial.text().len() >= 5 + pasted.len()
    });
    assert_eq!(serial.text()[5..], pasted);
    serial.room.store(100, Ordering::SeqCst);
    peer.write_all(b"\x01h\x01x").unwrap();
    w.until("quit", || w.quits.load(Ordering::SeqCst) == 1);
    let mut buf = [0; 1024];
    let n = peer.read(&mut buf).unwrap();
    let text = String::from_utf8_lossy(&buf[..n]).into_owned();
    assert!(
        text.contains("C-a c    switch between console and monitor") && text.ends_with("QEMU: Terminated\n\r"),
        "{text}"
    );
}
