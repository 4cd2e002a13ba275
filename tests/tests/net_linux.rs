//! Linux's own drivers on network cards, and what a guest reaches through the user-mode network.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use tests::guest::{Guest, Linux};
use tests::modules::{self, value};

/// Longest run of a guest: on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(400);

/// A guest that loads `drivers`, asks for an address and then runs `script`.
fn linux(name: &str, drivers: &[&str], script: &str) -> Linux {
    let needed = modules::with_needs_686(drivers).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let script = format!(
        "{}\
         cat > /bin/lease <<'END'\n\
         [ \"$1\" = bound ] || exit 0\n\
         ip addr add $ip/24 dev eth0; ip route add default via $router\n\
         echo \"nameserver $dns\" > /etc/resolv.conf; echo LEASE $ip $router $dns $hostname\n\
         END\n\
         chmod +x /bin/lease; ip link set lo up; ip link set eth0 up || echo NO eth0\n\
         udhcpc -i eth0 -n -q -t 20 -T 2 -s /bin/lease -O hostname 2>/dev/null || echo NO lease\n\
         {script}\n",
        // (An ISA card does not say where it is.)
        modules::commands(&needed).replace("/bin/ne.ko", "/bin/ne.ko io=0x300 irq=10")
    );
    Linux::i686_with(name, &script, &files).expect("the packages")
}

fn start(linux: &Linux, args: &[&str]) -> Guest {
    let mut all = linux.args("");
    let none = all.windows(2).position(|w| w == ["-nic", "none"]).expect("no card by default");
    all.drain(none..none + 2);
    all.extend(["-m", "256", "-no-reboot"].iter().chain(args).map(|a| (*a).to_owned()));
    Guest::ours(&all)
}

/// Bytes that compress badly and repeat late.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Serves `data` to each connection that asks for anything, and keeps what is posted.
fn serve(data: Vec<u8>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), data) = (stream, data.clone()) else { break };
            std::thread::spawn(move || {
                let mut request = [0; 1024];
                let n = stream.read(&mut request).unwrap_or(0);
                if request[..n].starts_with(b"GET") {
                    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", data.len());
                    _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&data));
                } else {
                    // Everything comes back, until the guest sends no more.
                    _ = stream.write_all(&request[..n]);
                    let mut buf = vec![0; 65536];
                    while let Ok(n @ 1..) = stream.read(&mut buf) {
                        if stream.write_all(&buf[..n]).is_err() {
                            break;
                        }
                    }
                }
            });
        }
    });
    port
}

fn md5(data: &[u8]) -> String {
    use std::process::{Command, Stdio};
    let mut child =
        Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("md5sum of coreutils");
    child.stdin.take().expect("piped").write_all(data).expect("it reads");
    let out = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().expect("a sum").to_owned()
}

/// A guest with `device` gets an address, moves data both ways, is reached from the host; what it said.
fn reaches_the_host(name: &str, drivers: &[&str], device: &str) -> String {
    let data = noise(3 << 20);
    let port = serve(data.clone());
    let udp = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
    let udp_port = udp.local_addr().expect("an address").port();
    udp.set_read_timeout(Some(LIMIT)).expect("a time-out");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("boot.img"), &data[..100_000]).expect("a file");
    let script = format!(
        "echo DRIVER $(basename $(readlink /sys/class/net/eth0/device/driver)) $(cat /sys/class/net/eth0/address)\n\
         [ -e /sys/class/net/eth0/device/features ] && echo FEATURES $(cat /sys/class/net/eth0/device/features)\n\
         echo PING $(ping -c 3 10.0.2.2 | grep received)\n\
         wget -q -O /tmp/got http://10.0.2.2:{port}/ || echo NO wget\n\
         echo SUM $(md5sum < /tmp/got)\n\
         echo BACK $(nc 10.0.2.2 {port} < /tmp/got | md5sum)\n\
         syslogd -R 10.0.2.2:{udp_port}; sleep 1; logger over-udp\n\
         nc -w 5 10.0.2.2 1 < /dev/null && echo NO refusal\n\
         tftp -g -r boot.img -l /tmp/boot 10.0.2.2 || echo NO tftp\n\
         echo TFTP $(md5sum < /tmp/boot)\n\
         for i in 1 2 3 4 5 6 7 8 9 10; do ip -6 addr show dev eth0 | grep -q 'inet6 fec0.*scope' && break; sleep 1; done\n\
         echo PING6 $(ping -6 -c 3 fec0::2 | grep received)\n\
         nc -l -p 2222 -e cat & sleep 1; echo LISTENING\n\
         wait\n\
         grep -E 'eth0' /proc/net/dev"
    );
    let guest = linux(name, drivers, &script);
    let forwarded = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port").port();
    let netdev =
        format!("user,id=n,hostname=box,tftp={},hostfwd=tcp:127.0.0.1:{forwarded}-:2222", dir.path().display());
    let device = format!("{device},netdev=n,mac=52:54:00:ab:cd:ef,id=card");
    let mut guest = start(&guest, &["-netdev", &netdev, "-device", &device]);
    guest.line("LISTENING", LIMIT);
    let listed = guest.qmp().hmp("info usernet");
    let rule = listed.lines().find(|l| l.contains("TCP[HOST_FORWARD]")).unwrap_or_else(|| panic!("no rule: {listed}"));
    assert!(rule.contains("10.0.2.15  2222") && rule.contains(&forwarded.to_string()), "{rule}");
    let mut stream = TcpStream::connect(("127.0.0.1", forwarded)).expect("the forwarded port");
    stream.write_all(b"into the guest and back").expect("it takes it");
    stream.shutdown(std::net::Shutdown::Write).expect("an end");
    let mut back = String::new();
    stream.read_to_string(&mut back).expect("it comes back");
    assert_eq!(back, "into the guest and back");
    let (code, console) = guest.finish(LIMIT);
    assert_eq!(code, Some(0), "{console}");
    assert!(!console.contains("NO "), "{console}");
    let mut message = [0; 2048];
    let n = udp.recv(&mut message).expect("the datagram came");
    assert!(String::from_utf8_lossy(&message[..n]).contains("over-udp"));
    assert_eq!(value(&console, "LEASE"), "10.0.2.15 10.0.2.2 10.0.2.3 box");
    for ping in ["PING ", "PING6 "] {
        assert!(value(&console, ping).starts_with("3 packets transmitted, 3 packets received"), "{console}");
    }
    // (The shell joins words by one space.)
    let sum = format!("{} -", md5(&data));
    assert_eq!([value(&console, "SUM"), value(&console, "BACK")], [&sum, &sum]);
    assert_eq!(value(&console, "TFTP"), format!("{} -", md5(&data[..100_000])));
    console
}

/// A guest with `device` gets an address, pings and fetches a file; what it said of its driver.
fn pings(name: &str, drivers: &[&str], device: &str) -> String {
    let data = noise(200_000);
    let port = serve(data.clone());
    let script = format!(
        "echo DRIVER $(basename $(readlink /sys/class/net/eth0/device/driver)) $(cat /sys/class/net/eth0/address)\n\
         echo PING $(ping -c 3 10.0.2.2 | grep received)\n\
         wget -q -O /tmp/got http://10.0.2.2:{port}/ || echo NO wget\n\
         echo SUM $(md5sum < /tmp/got)\n\
         echo BACK $(nc 10.0.2.2 {port} < /tmp/got | md5sum)"
    );
    let guest = linux(name, drivers, &script);
    let device = format!("{device},netdev=n,mac=52:54:00:ab:cd:ef");
    let (code, console) = start(&guest, &["-netdev", "user,id=n", "-device", &device]).finish(LIMIT);
    assert!(code == Some(0) && !console.contains("NO "), "{console}");
    assert!(value(&console, "PING ").starts_with("3 packets transmitted, 3 packets received"), "{console}");
    let sum = format!("{} -", md5(&data));
    assert_eq!([value(&console, "SUM"), value(&console, "BACK")], [&sum, &sum], "{console}");
    value(&console, "DRIVER").to_owned()
}

#[test]
fn an_rtl8139_gets_an_address_and_reaches_the_host() {
    assert_eq!(pings("net-rtl8139.cpio", &["8139cp"], "rtl8139"), "8139cp 52:54:00:ab:cd:ef");
}

#[test]
fn ne2000_cards_get_an_address_and_reach_the_host() {
    assert_eq!(pings("net-ne2k-pci.cpio", &["ne2k_pci"], "ne2k_pci"), "ne2k-pci 52:54:00:ab:cd:ef");
    // (Line 9 is ACPI's.)
    assert_eq!(pings("net-ne.cpio", &["ne"], "ne2k_isa,irq=10"), "ne 52:54:00:ab:cd:ef");
}

#[test]
fn an_e1000_gets_an_address_and_reaches_the_host() {
    let console = reaches_the_host("net-e1000.cpio", &["e1000"], "e1000");
    assert_eq!(value(&console, "DRIVER"), "e1000 52:54:00:ab:cd:ef");
}

#[test]
fn a_virtio_card_gets_an_address_and_reaches_the_host() {
    let drivers = ["virtio_pci", "virtio_net"];
    let console = reaches_the_host("net-virtio.cpio", &drivers, "virtio-net-pci");
    assert_eq!(value(&console, "DRIVER"), "virtio_net 52:54:00:ab:cd:ef");
    // CSUM, HOST_TSO4, MRG_RXBUF, VERSION_1 were accepted.
    let features = value(&console, "FEATURES").as_bytes();
    assert!([0, 11, 15, 32].iter().all(|n| features[*n] == b'1'), "{console}");
}
