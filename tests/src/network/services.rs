//! What the user-mode network offers besides connections, and programs that people use: DHCP, DNS, TFTP, pings, IPv6, wget, iperf3.

use super::host::{lease_commands, md5, noise, serve};
use super::{LIMIT, busybox, free_port, said, start};
use crate::packages::{self, Needs};
use crate::peer_bench::image;
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

/// Names that the host's name server is asked for: one that is there and one that is not, whatever network this is.
const NAMES: [&str; 2] = ["deb.debian.org", "no-such-name.invalid"];

/// Programs of packages with their libraries, as files of one folder of the guest's, where [`by_loader`] runs them.
pub(super) fn programs(root: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = vec![];
    for name in names {
        let program = program(root, name)?;
        files.push(((*name).to_owned() + ".bin", fs::read(&program)?));
        for (inside, library) in image::libraries(root, &program)? {
            let file = Path::new(&inside).file_name().context("a file")?.to_string_lossy().into_owned();
            if files.iter().all(|(n, _)| *n != file) {
                files.push((file, fs::read(library)?));
            }
        }
    }
    Ok(files)
}

/// The folder with the programs.
pub(super) fn net_programs() -> Result<PathBuf> {
    packages::together("net-programs", &["iperf3", "wget"], Needs::All)
}

fn program(root: &Path, name: &str) -> Result<PathBuf> {
    let places = ["usr/bin", "bin"].map(|d| root.join(d).join(name));
    places.into_iter().find(|p| p.exists()).with_context(|| format!("the packages hold no {name}"))
}

/// The command that runs such a program in the guest.
pub(super) fn by_loader(name: &str) -> String {
    format!("/bin/ld-linux-x86-64.so.2 --library-path /bin /bin/{name}.bin")
}

/// A server of iperf3's on the host.
struct Iperf(Child);

impl Iperf {
    fn start(root: &Path, port: u16) -> Result<Self> {
        let (loader, folders) = image::loader(root)?;
        let mut command = Command::new(loader);
        command.args(["--library-path", &folders]).arg(program(root, "iperf3")?);
        command.args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null());
        Ok(Self(command.spawn().context("iperf3")?))
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A server that says what it hears in capitals, and at the end what it heard; its port. It takes one connection.
fn shouter() -> Result<(JoinHandle<std::io::Result<String>>, u16)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let serve = move || {
        let (mut stream, _) = listener.accept()?;
        let (mut heard, mut buf) = (String::new(), [0; 100]);
        loop {
            let n = stream.read(&mut buf)?;
            if n == 0 {
                return Ok(heard);
            }
            let text = String::from_utf8_lossy(&buf[..n]);
            stream.write_all(text.to_uppercase().as_bytes())?;
            heard.push_str(&text);
        }
    };
    Ok((std::thread::spawn(serve), port))
}

/// What the host's name server says of a name: its IPv4 addresses; none: there is no such name.
fn resolve(name: &str) -> Result<BTreeSet<Ipv4Addr>> {
    let text = fs::read_to_string("/etc/resolv.conf").context("/etc/resolv.conf")?;
    let mut servers = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver")?.trim().parse::<Ipv4Addr>().ok());
    let server = servers.next().context("the host has no name server, DNS cannot be shown")?;
    let mut query = vec![0x51, 0x0e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(&query, (server, 53))?;
    let mut buf = [0; 1500];
    let n = socket.recv(&mut buf).context("the host's name server does not answer, DNS cannot be shown")?;
    let answer = &buf[..n];
    ensure!(n >= query.len() && answer[..2] == query[..2], "the host's name server answers something else");
    // Records behind the question: a name (here always a reference), type, class, life, length, data.
    let (mut at, mut found) = (query.len(), BTreeSet::new());
    while let Some([0xc0..=0xff, _, 0, kind, 0, 1, _, _, _, _, 0, len]) = answer.get(at..at + 12) {
        let data = answer.get(at + 12..at + 12 + usize::from(*len)).context("a record")?;
        if let (1, Some(a)) = (kind, data.first_chunk::<4>()) {
            found.insert(Ipv4Addr::from(*a));
        }
        at += 12 + usize::from(*len);
    }
    Ok(found)
}

/// Runs them in a guest of `qomet`; `mebibytes` by wget, by TFTP half of what its block numbers reach or, from 64 on, more than they reach.
///
/// # Errors
/// What went wrong, or is missing on this machine.
pub fn services(qomet: &Path, mebibytes: usize, mut say: impl FnMut(&str)) -> Result<()> {
    let root = net_programs()?;
    let data = noise(mebibytes << 20);
    let [four, six] =
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(|ip| serve((ip, 0).into(), data.clone()));
    let (four, six, port) = (four?, six?, free_port()?);
    let _iperf = Iperf::start(&root, port)?;
    let (shouter, device) = shouter()?;
    let folder = tempfile::tempdir()?;
    // Block numbers have 16 bits, blocks 512 bytes unless something else is agreed on.
    let file = noise(if mebibytes >= 64 { 65_540 * 512 + 7 } else { 30_000 * 512 / 8 + 7 });
    fs::write(folder.path().join("boot.img"), &file)?;
    let (wget, iperf) = (by_loader("wget"), by_loader("iperf3"));
    let look_up: String = NAMES
        .map(|n| format!("echo NAME {n} $(nslookup -type=a {n} 10.0.2.3 2>&1 | sed -n '/^Name/,$p' | grep ^Address)\n"))
        .concat();
    let script = format!(
        "{}\
         for i in 1 2 3 4 5 6 7 8 9 10; do ip -6 addr show dev eth0 | grep -q 'inet6 fec0.*scope' && break; sleep 1; done\n\
         echo PING4 $(ping -c 3 10.0.2.2 | grep received)\n\
         echo PING6 $(ping -6 -c 3 fec0::2 | grep received)\n\
         {look_up}\
         tftp -g -r boot.img -l /tmp/boot 10.0.2.2 || echo NO tftp\n\
         echo TFTP $(md5sum < /tmp/boot); rm -f /tmp/boot\n\
         echo CHARDEV $( (echo one; sleep 1) | nc 10.0.2.100 7) $( (echo two; sleep 1) | nc 10.0.2.100 7)\n\
         echo WGET4 $({wget} -q -O - http://10.0.2.2:{four}/ | md5sum)\n\
         echo WGET6 $({wget} -q -O - 'http://[fec0::2]:{six}/' | md5sum)\n\
         {iperf} -c 10.0.2.2 -p {port} -t 2 > /tmp/up || echo NO iperf up: $(cat /tmp/up)\n\
         echo UP $(grep receiver /tmp/up)\n\
         {iperf} -c 10.0.2.2 -p {port} -t 2 -R > /tmp/down || echo NO iperf down: $(cat /tmp/down)\n\
         echo DOWN $(grep receiver /tmp/down)\n\
         {iperf} -c 10.0.2.2 -p {port} -t 2 -u -b 5M > /tmp/udp || echo NO iperf udp: $(cat /tmp/udp)\n\
         echo UDP $(grep receiver /tmp/udp)\n",
        lease_commands()
    );
    let linux = busybox("soak-services.cpio", &script, &programs(&root, &["iperf3", "wget"])?)?;
    let netdev = format!(
        "user,id=n,hostname=box,tftp={},guestfwd=tcp:10.0.2.100:7-tcp:127.0.0.1:{device}",
        folder.path().display()
    );
    let mut guest = start(qomet, &linux, &netdev, "52:54:00:ab:cd:ef")?;
    let end = guest.find_line(LIMIT, |l| l.starts_with("UDP"));
    end.with_context(|| format!("the guest said last:\n{}", guest.last_lines(20)))?;
    let (code, console) = guest.finish(LIMIT);
    ensure!(code == Some(0) && !console.contains("NO "), "{console}");
    ensure!(said(&console, "LEASE ")? == "10.0.2.15 10.0.2.2 10.0.2.3 box", "{console}");
    // Connections that lead to a character device: one device for all of them.
    ensure!(said(&console, "CHARDEV ")? == "ONE TWO", "{console}");
    let heard = shouter.join().map_err(|_| anyhow::anyhow!("the device's server failed"))??;
    ensure!(heard == "one\ntwo\n", "the device heard {heard:?}");
    for ping in ["PING4 ", "PING6 "] {
        ensure!(said(&console, ping)?.starts_with("3 packets transmitted, 3 packets received"), "{console}");
    }
    for name in NAMES {
        let answer = said(&console, &format!("NAME {name}"))?;
        let there: BTreeSet<Ipv4Addr> = answer.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let here = resolve(name)?;
        ensure!(there == here, "{name}: {there:?} in the guest, {here:?} here\n{console}");
        say(&format!("{name}: {here:?}, there and here"));
    }
    let sum = format!("{} -", md5(&data)?);
    ensure!(said(&console, "TFTP ")? == format!("{} -", md5(&file)?), "{console}");
    ensure!(said(&console, "WGET4 ")? == sum && said(&console, "WGET6 ")? == sum, "{console}");
    for way in ["UP ", "DOWN ", "UDP "] {
        let line = said(&console, way)?;
        if !line.contains("bits/sec") {
            bail!("iperf3 measured nothing: {console}");
        }
        say(&format!("iperf3 {way}{line}"));
    }
    // (Datagrams are not lost at this rate by anything but a broken network.)
    ensure!(said(&console, "UDP ")?.contains("(0%)"), "datagrams were lost: {console}");
    Ok(())
}
