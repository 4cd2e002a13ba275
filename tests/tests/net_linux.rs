//! Linux's own drivers on network cards, and what a guest reaches through the user-mode network.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;
use tests::guest::{Guest, Linux};
use tests::modules::{self, value};
use tests::network::{self, noise};

/// Longest run of a guest: on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(400);

/// A guest that loads `drivers`, asks for an address and then runs `script`.
fn linux(name: &str, drivers: &[&str], script: &str) -> Linux {
    let needed = modules::with_needs_686(drivers).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let script = format!(
        "{}\
         {}\
         {script}\n",
        // (An ISA card does not say where it is.)
        modules::commands(&needed).replace("/bin/ne.ko", "/bin/ne.ko io=0x300 irq=10"),
        network::lease_commands()
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

/// [`network::serve`] on the host's loopback.
fn serve(data: Vec<u8>) -> u16 {
    network::serve((Ipv4Addr::LOCALHOST, 0).into(), data).expect("a server")
}

fn md5(data: &[u8]) -> String {
    network::md5(data).expect("a sum")
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
