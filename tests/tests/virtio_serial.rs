//! Consoles and serial ports by their registers and rings, and with Linux's own driver.

use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;
use tempfile::TempDir;
use tests::guest::{Guest, Linux};
use tests::modules::{self, value};
use tests::packages;
use tests::qmp::Qmp;
use tests::qtest::Qtest;
use tests::virtio::{Desc, Ring, VIRTIO_PCI, Virtio, WRITE};

/// Features.
const MULTIPORT: u64 = 1 << 1;
const EMERG_WRITE: u64 = 1 << 2;
/// Messages.
const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const DEVICE_REMOVE: u16 = 2;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;
/// Where buffers are: messages both ways, data both ways.
const NEWS: u64 = 0x10_0000;
const ORDER: u64 = 0x11_0000;
const IN: u64 = 0x20_0000;
const OUT: u64 = 0x30_0000;

struct Serial {
    v: Virtio,
    qmp: Qmp,
    dir: TempDir,
}

impl Serial {
    /// A device on which `ports` are, each `-device` or `-chardev` and its argument; `{}` is a folder for sockets.
    fn new(device: &str, ports: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self::in_folder(dir, device, ports)
    }

    fn in_folder(dir: TempDir, device: &str, ports: &[&str]) -> Self {
        let socket = dir.path().join("qmp");
        let server = format!("unix:{},server=on,wait=off", socket.display());
        let firmware = packages::seabios().expect("SeaBIOS can be fetched");
        let firmware = firmware.to_str().expect("a plain path");
        let device = format!("virtio-serial-pci,addr=4,id=s{device}");
        let ports: Vec<String> = ports.iter().map(|p| p.replace("{}", &dir.path().display().to_string())).collect();
        let mut args = vec!["-nodefaults", "-m", "64", "-L", firmware, "-device", &device, "-qmp", &server];
        args.extend(ports.iter().map(String::as_str));
        let q = Qtest::start(&args);
        let mut qmp = Qmp::connect(&socket);
        qmp.run("qmp_capabilities", json!({}));
        Self { v: Virtio::new(q, 4), qmp, dir }
    }

    /// Negotiates, makes the control queues and those of the first ports, and reports for duty.
    fn start(&mut self, ports: u16) -> (Control, Vec<[Ring; 2]>) {
        self.v.start(VIRTIO_PCI | MULTIPORT);
        let control = Control { news: self.v.queue(2, false), orders: self.v.queue(3, false), asked: false };
        let pair = |v: &mut Virtio, n: u16| {
            let first = if n == 0 { 0 } else { 2 * n + 2 };
            [v.queue(first, false), v.queue(first + 1, false)]
        };
        let ports = (0..ports).map(|n| pair(&mut self.v, n)).collect();
        self.v.driver_ok();
        (control, ports)
    }

    fn connect(&self, name: &str) -> UnixStream {
        let s = UnixStream::connect(self.dir.path().join(name)).expect("the port's socket");
        s.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        s
    }

    /// The driver sends bytes on a port.
    fn send(&mut self, ring: &mut Ring, bytes: &[u8]) {
        self.v.q.write(OUT, bytes);
        ring.offer(&mut self.v, &[(OUT, bytes.len() as u32, 0)]);
    }
}

/// The control queues.
struct Control {
    news: Ring,
    orders: Ring,
    /// A buffer waits for news.
    asked: bool,
}

impl Control {
    fn say(&mut self, s: &mut Serial, id: u32, event: u16, value: u16) {
        let mut b = id.to_le_bytes().to_vec();
        b.extend(event.to_le_bytes());
        b.extend(value.to_le_bytes());
        s.v.q.write(ORDER, &b);
        self.orders.offer(&mut s.v, &[(ORDER, 8, 0)]);
        self.orders.wait(&mut s.v);
    }

    /// The next message: port, event, value, name.
    fn hear(&mut self, s: &mut Serial) -> (u64, u16, u64, String) {
        if !self.asked {
            self.news.offer(&mut s.v, &[(NEWS, 64, WRITE)]);
        }
        self.asked = false;
        self.news.wait(&mut s.v);
        let len = self.news.used_len(&mut s.v);
        let b = s.v.q.read(NEWS, len as usize);
        let name = String::from_utf8_lossy(b[8..].strip_suffix(b"\0").unwrap_or_default()).into_owned();
        (s.v.q.load(NEWS, 4), s.v.q.load(NEWS + 4, 2) as u16, s.v.q.load(NEWS + 6, 2), name)
    }

    /// Whether there is no message.
    fn is_silent(&mut self, s: &mut Serial) -> bool {
        if !self.asked {
            self.news.offer(&mut s.v, &[(NEWS, 64, WRITE)]);
            self.asked = true;
        }
        !self.news.is_used(&mut s.v)
    }
}

fn plain(port: u64, event: u16, value: u64) -> (u64, u16, u64, String) {
    (port, event, value, String::new())
}

const CONSOLE: [&str; 4] =
    ["-chardev", "socket,id=c0,path={}/c0,server=on,wait=off", "-device", "virtconsole,chardev=c0"];
const PORT: [&str; 4] = [
    "-chardev",
    "socket,id=c1,path={}/c1,server=on,wait=off",
    "-device",
    "virtserialport,chardev=c1,name=org.test.1,id=p",
];

#[test]
fn the_driver_learns_of_each_port_and_says_who_is_there() {
    let mut s = Serial::new("", &[CONSOLE, PORT].concat());
    assert_eq!((s.v.config(0, 4), s.v.config(8, 4) >> 16, s.v.config(0x2c, 4)), (0x1003_1af4, 0x0780, 0x0003_1af4));
    assert_eq!((s.v.offered() & 0xff, s.v.common(0x12, 2)), (MULTIPORT | EMERG_WRITE, 64));
    assert_eq!((s.v.device(0, 4), s.v.device(4, 4), s.v.device(8, 4)), (0, 31, 0));
    let (mut c, _) = s.start(2);
    assert!(c.is_silent(&mut s), "nothing before it asks");
    c.say(&mut s, 0, DEVICE_READY, 1);
    assert_eq!(c.hear(&mut s), plain(0, DEVICE_ADD, 1));
    assert_eq!(c.hear(&mut s), plain(1, DEVICE_ADD, 1));
    c.say(&mut s, 0, PORT_READY, 1);
    assert_eq!(c.hear(&mut s), plain(0, CONSOLE_PORT, 1));
    assert_eq!(c.hear(&mut s), plain(0, PORT_OPEN, 1), "a console's other end counts as there");
    c.say(&mut s, 1, PORT_READY, 1);
    assert_eq!(c.hear(&mut s), (1, PORT_NAME, 1, "org.test.1".into()));
    assert!(c.is_silent(&mut s), "nobody is at the other end");
    let peer = s.connect("c1");
    assert_eq!(c.hear(&mut s), plain(1, PORT_OPEN, 1));
    // The guest's side: an event, and what the character device shows.
    let shown = |s: &mut Serial| {
        let all = s.qmp.run("query-chardev", json!({}));
        all.as_array().unwrap().iter().find(|c| c["label"] == "c1").unwrap()["frontend-open"].clone()
    };
    assert_eq!(shown(&mut s), false);
    c.say(&mut s, 1, PORT_OPEN, 1);
    assert_eq!(s.qmp.event("VSERPORT_CHANGE")["data"], json!({"id": "p", "open": true}));
    assert_eq!(shown(&mut s), true);
    drop(peer);
    assert_eq!(c.hear(&mut s), plain(1, PORT_OPEN, 0));
    s.v.reset();
    assert_eq!(s.qmp.event("VSERPORT_CHANGE")["data"], json!({"id": "p", "open": false}));
    assert_eq!(shown(&mut s), false);
    // Ports that there are not, failures, nonsense.
    let (mut c, _) = s.start(2);
    for (id, event, value) in
        [(9, PORT_OPEN, 1), (u32::MAX, PORT_READY, 1), (1, PORT_READY, 0), (0, DEVICE_READY, 0), (1, 99, 7)]
    {
        c.say(&mut s, id, event, value);
    }
    c.orders.offer(&mut s.v, &[(ORDER, 5, 0)]);
    c.orders.wait(&mut s.v);
    assert!(c.is_silent(&mut s));
    assert_eq!(s.v.common(0x14, 1), 15);
}

#[test]
fn bytes_go_both_ways_and_wait_where_nobody_takes_them() {
    let mut s = Serial::new("", &PORT);
    let (mut c, ports) = s.start(2);
    let [_, [mut rx, mut tx]] = <[[Ring; 2]; 2]>::try_from(ports).ok().expect("two");
    // Nobody is there: bytes are lost.
    s.send(&mut tx, b"lost");
    tx.wait(&mut s.v);
    let mut peer = s.connect("c1");
    assert_eq!(c.hear(&mut s), plain(1, PORT_OPEN, 1));
    s.send(&mut tx, b"out of the guest");
    tx.wait(&mut s.v);
    let mut got = [0; 16];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"out of the guest");
    // The port is not open in the guest, then has no buffers: the bytes stay with their sender.
    peer.write_all(b"into the guest").unwrap();
    rx.offer(&mut s.v, &[(IN, 5, WRITE)]);
    std::thread::sleep(Duration::from_millis(50));
    assert!(!rx.is_used(&mut s.v));
    c.say(&mut s, 1, PORT_OPEN, 1);
    rx.wait(&mut s.v);
    assert_eq!((s.v.q.read(IN, 5), rx.used_len(&mut s.v)), (b"into ".to_vec(), 5));
    rx.offer(&mut s.v, &[(IN, 2, WRITE), (IN + 0x100, 64, WRITE)]);
    rx.wait(&mut s.v);
    assert_eq!(
        (s.v.q.read(IN, 2), s.v.q.read(IN + 0x100, 7), rx.used_len(&mut s.v)),
        (b"th".to_vec(), b"e guest".to_vec(), 9)
    );
    // More than the socket takes: the rest waits in the driver's buffer, and nothing is lost.
    let all: Vec<u8> = (0..1_500_000u32).map(|n| (n * 7 + (n >> 8)) as u8).collect();
    for (n, piece) in all.chunks(0x10_0000).enumerate() {
        s.v.q.write(0x100_0000 + n as u64 * 0x10_0000, piece);
    }
    tx.offer(&mut s.v, &[(0x100_0000, all.len() as u32, 0)]);
    s.v.q.clock_step(1_000_000);
    assert!(!tx.is_used(&mut s.v));
    let mut got = vec![0; all.len()];
    let reader = std::thread::spawn(move || peer.read_exact(&mut got).map(|()| (peer, got)));
    let mut steps = 0;
    while !reader.is_finished() {
        s.v.q.clock_step(1_000_000);
        steps += 1;
        assert!(steps < 1_000_000);
    }
    let (peer, got) = reader.join().unwrap().unwrap();
    assert!(got == all);
    s.v.q.clock_step(1_000_000);
    tx.wait(&mut s.v);
    // The peer goes while bytes wait: the driver gets its buffer back.
    tx.offer(&mut s.v, &[(0x100_0000, all.len() as u32, 0)]);
    assert!(!tx.is_used(&mut s.v));
    drop(peer);
    tx.wait(&mut s.v);
    assert_eq!(c.hear(&mut s), plain(1, PORT_OPEN, 0));
}

#[test]
fn a_driver_of_one_port_and_a_character_in_an_emergency() {
    let mut s = Serial::new(",max_ports=1", &CONSOLE);
    let mut peer = s.connect("c0");
    assert_eq!((s.v.offered() & 0xff, s.v.device(4, 4), s.v.common(0x12, 2)), (EMERG_WRITE, 1, 4));
    // Before anything is set up
    for b in *b"sos" {
        s.v.set_device(8, 4, b.into());
    }
    s.v.set_device(4, 4, 0x41);
    let mut got = [0; 3];
    peer.read_exact(&mut got).unwrap();
    assert_eq!((&got, s.v.device(8, 4)), (b"sos", 0));
    s.v.start(VIRTIO_PCI);
    let [mut rx, mut tx] = [0, 1].map(|n| s.v.queue(n, false));
    s.v.driver_ok();
    s.send(&mut tx, b"one");
    tx.wait(&mut s.v);
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"one");
    rx.offer(&mut s.v, &[(IN, 8, WRITE)]);
    peer.write_all(b"key").unwrap();
    rx.wait(&mut s.v);
    assert_eq!(s.v.q.read(IN, 3), b"key");
    // A console that nobody reads takes a lot before it makes its driver wait.
    let mut sent = 0;
    for _ in 0..64 {
        tx.offer(&mut s.v, &[(0x100_0000, 0x10_0000, 0)]);
        s.v.q.clock_step(1_000_000);
        s.v.q.clock_step(1_000_000);
        if !tx.is_used(&mut s.v) {
            break;
        }
        sent += 1;
    }
    assert!((1..8).contains(&sent), "{sent} MiB");
}

#[test]
fn ports_come_and_go() {
    let mut s = Serial::new("", &["-chardev", "null,id=n1", "-chardev", "null,id=n2"]);
    let (mut c, _) = s.start(0);
    c.say(&mut s, 0, DEVICE_READY, 1);
    s.qmp.run("device_add", json!({"driver": "virtserialport", "id": "a", "chardev": "n1", "name": "a"}));
    assert_eq!(c.hear(&mut s), plain(1, DEVICE_ADD, 1));
    assert!(c.is_silent(&mut s), "more when it is asked for");
    c.say(&mut s, 1, PORT_READY, 1);
    assert_eq!([c.hear(&mut s), c.hear(&mut s)], [(1, PORT_NAME, 1, "a".into()), plain(1, PORT_OPEN, 1)]);
    s.qmp.run("device_add", json!({"driver": "virtconsole", "id": "b", "chardev": "n2", "bus": "s.0"}));
    assert_eq!(c.hear(&mut s), plain(0, DEVICE_ADD, 1));
    s.qmp.run("device_del", json!({"id": "a"}));
    assert_eq!(c.hear(&mut s), plain(1, DEVICE_REMOVE, 1));
    s.qmp.event("DEVICE_DELETED");
    // Its number and its character device are free again. Messages wait until the driver has room for them.
    for name in ["d", "e", "f"] {
        s.qmp.run("device_add", json!({"driver": "virtserialport", "id": name, "name": name}));
    }
    s.qmp.run("device_add", json!({"driver": "virtserialport", "id": "g", "nr": 9, "chardev": "n1"}));
    for n in [1, 2, 3, 9] {
        assert_eq!(c.hear(&mut s), plain(n, DEVICE_ADD, 1));
    }
    assert!(c.is_silent(&mut s));
    assert_eq!(s.qmp.run("qom-get", json!({"path": "/machine/peripheral/f", "property": "nr"})), 3);
    for (args, message) in [
        (json!({"nr": 9}), "virtio-serial-bus: A port already exists at id 9"),
        (json!({"name": "d"}), "virtio-serial-bus: A port already exists by name d"),
        (json!({"nr": 31}), "virtio-serial-bus: Out-of-range port id specified, max. allowed: 30"),
        (json!({"nr": 0}), "virtio-serial-bus: A port already exists at id 0"),
        (json!({"chardev": "n1"}), "Property 'virtserialport.chardev' can't take value 'n1', it's in use"),
    ] {
        let mut args = args;
        args["driver"] = "virtserialport".into();
        assert_eq!(s.qmp.error("device_add", args).1, message);
    }
    s.qmp.run("device_del", json!({"id": "b"}));
    let zero = s.qmp.error("device_add", json!({"driver": "virtserialport", "nr": 0})).1;
    assert!(zero.starts_with("Port number 0 on virtio-serial devices reserved for virtconsole"), "{zero}");
    // As many as there are, and one too many
    let mut s = Serial::new(",max_ports=3", &[]);
    for _ in 0..2 {
        s.qmp.run("device_add", json!({"driver": "virtserialport"}));
    }
    let full = s.qmp.error("device_add", json!({"driver": "virtserialport"})).1;
    assert_eq!(full, "virtio-serial-bus: Maximum port limit for this device reached");
    for (max, message) in [(0, "Maximum number of serial ports not specified"), (512, "maximum ports supported: 511")] {
        assert_eq!(s.qmp.error("device_add", json!({"driver": "virtio-serial-pci", "max_ports": max})).1, message);
    }
}

#[test]
fn a_driver_that_errs_breaks_its_device_alone() {
    const FAR: u64 = 0x1_0000_0000;
    let mut s = Serial::new("", &[CONSOLE, PORT].concat());
    let mut peer = s.connect("c0");
    for queue in [0u16, 1, 2, 3, 4, 5] {
        let parts: [&[Desc]; 2] = [&[(FAR, 64, if queue % 2 == 0 { WRITE } else { 0 })], &[(OUT, 0, 0)]];
        for parts in parts {
            let (mut c, ports) = s.start(2);
            let mut all: Vec<Ring> = ports.into_iter().flatten().collect();
            c.say(&mut s, 0, PORT_OPEN, 1);
            c.say(&mut s, 1, PORT_OPEN, 1);
            let Control { mut news, mut orders, .. } = c;
            match queue {
                2 => {
                    news.offer(&mut s.v, parts);
                    if s.v.common(0x14, 1) == 15 {
                        // It is looked at when there is something to say.
                        s.v.q.write(ORDER, &[0, 0, 0, 0, PORT_READY as u8, 0, 1, 0]);
                        orders.offer(&mut s.v, &[(ORDER, 8, 0)]);
                    }
                }
                3 => orders.offer(&mut s.v, parts),
                n => all[usize::from(if n < 2 { n } else { n - 2 })].offer(&mut s.v, parts),
            }
            if queue == 0 {
                peer.write_all(b"x").unwrap();
            }
            if queue == 4 {
                let mut other = s.connect("c1");
                other.write_all(b"x").unwrap();
            }
            s.v.until("the device is broken", |v| v.common(0x14, 1) == 0x4f);
            s.v.reset();
        }
    }
    // A driver that orders and never listens costs nothing but a bounded list.
    let (mut c, _) = s.start(2);
    for _ in 0..2000 {
        c.say(&mut s, 0, PORT_READY, 1);
    }
    assert_eq!(c.hear(&mut s), plain(0, CONSOLE_PORT, 1));
    assert_eq!(s.v.common(0x14, 1), 15);
}

/// Longest run of a guest: on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(400);

#[test]
fn linux_has_a_console_and_ports_that_lose_nothing() {
    let needed = modules::with_needs(&["virtio_pci", "virtio_console"]).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let script = format!(
        "{}\
         for i in $(seq 100); do [ -e /sys/class/virtio-ports/vport0p1/name ] && break; sleep 0.1; done\n\
         sleep 1; P=/dev/$(basename $(dirname $(grep -l org.test.1 /sys/class/virtio-ports/*/name)))\n\
         echo NAME $P; exec 3<>/dev/hvc0; stty raw -echo <&3\n\
         echo READY\n\
         read line <&3; echo \"said: $line\" >&3\n\
         head -c 1048576 $P > /tmp/got\n\
         echo SUM $(md5sum < /tmp/got)\n\
         cat /tmp/got /tmp/got > $P\n\
         echo SENT; read done; ls /dev/vport* | wc -l | sed 's/^/PORTS /'\n",
        modules::commands(&needed)
    );
    let linux = Linux::amd64_with("virtio-serial.cpio", &script, &files).expect("the packages");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let [console, port] = ["hvc", "port"].map(|n| UnixListener::bind(path(n)).unwrap());
    let mut args = linux.args("");
    let chardev = |id: &str| format!("socket,id={id},path={}", path(id).display());
    let more = ["-m", "256", "-no-reboot", "-chardev", &chardev("hvc"), "-chardev", &chardev("port")];
    let devices = [
        "-device",
        "virtio-serial-pci",
        "-device",
        "virtconsole,chardev=hvc",
        "-device",
        "virtserialport,chardev=port,name=org.test.1,id=p",
    ];
    args.extend(more.iter().chain(&devices).map(|a| (*a).to_owned()));
    let mut guest = Guest::ours(&args);
    let [mut console, mut port] = [console, port].map(|l| l.accept().unwrap().0);
    for s in [&console, &port] {
        s.set_read_timeout(Some(LIMIT)).unwrap();
    }
    guest.line("READY", LIMIT);
    let mut qmp = guest.qmp();
    console.write_all(b"hello\n").unwrap();
    let mut said = [0; 12];
    console.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"said: hello\n");
    let mut x = 1u32;
    let data: Vec<u8> = (0..1 << 20)
        .map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 24) as u8
        })
        .collect();
    port.write_all(&data).unwrap();
    assert_eq!(qmp.event("VSERPORT_CHANGE")["data"], json!({"id": "p", "open": true}));
    guest.line("SUM", LIMIT);
    // Slowly, so that the guest has to wait.
    std::thread::sleep(Duration::from_millis(500));
    let mut back = vec![0; 2 << 20];
    port.read_exact(&mut back).unwrap();
    assert!(back[..1 << 20] == data && back[1 << 20..] == data);
    guest.line("SENT", LIMIT);
    qmp.run("device_add", json!({"driver": "virtserialport", "id": "later"}));
    std::thread::sleep(Duration::from_secs(2));
    guest.say("done").unwrap();
    let (code, console) = guest.finish(LIMIT);
    assert_eq!((code, value(&console, "PORTS")), (Some(0), "3"), "{console}");
    assert!(!console.contains("NO ") && !console.contains("Oops"), "{console}");
}
