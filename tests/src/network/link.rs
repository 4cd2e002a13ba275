//! Two machines whose cards are joined by sockets of the host's.

use super::services::{by_loader, net_programs, programs};
use super::{LIMIT, busybox, free_port, machine_args, said, start};
use crate::guest::Guest;
use crate::peer_bench::side::Run;
use anyhow::{Context, Result, bail, ensure};
use std::{path::Path, process::Command};

/// Kinds of links between machines.
pub const TRANSPORTS: [&str; 2] = ["socket", "dgram"];

/// The backends of both.
fn backends(transport: &str, folder: &Path) -> Result<[String; 2]> {
    match transport {
        "socket" => {
            let port = free_port()?;
            Ok(["listen", "connect"].map(|how| format!("socket,id=n,{how}=127.0.0.1:{port}")))
        }
        "dgram" => Ok([("a", "b"), ("b", "a")].map(|(own, other)| {
            let path = |name: &str| folder.join(name).display().to_string();
            let (own, other) = (path(own), path(other));
            format!("dgram,id=n,local.type=unix,local.path={own},remote.type=unix,remote.path={other}")
        })),
        _ => bail!("no link by {transport}"),
    }
}

/// Shell commands by which machine `n` gets its address.
fn own(n: u32) -> String {
    format!("ip link set lo up; ip link set eth0 up; ip addr add 192.168.7.{n}/24 dev eth0\n")
}

/// How long iperf3 takes to send `mebibytes` from one machine to another; processor time is that of both. `command` makes a machine's command
/// of its options.
///
/// # Errors
/// What went wrong, or is missing on this machine.
pub fn speed(mut command: impl FnMut(&[String]) -> Command, transport: &str, mebibytes: u64) -> Result<Run> {
    let (root, iperf) = (net_programs()?, by_loader("iperf3"));
    let first = format!("{}{iperf} -s -1 > /dev/null & sleep 1; echo READY; wait\n", own(1));
    let second = format!(
        "{}ping -c 2 192.168.7.1 > /dev/null; echo BEGINS\n\
         {iperf} -c 192.168.7.1 -n {mebibytes}M > /tmp/out || echo NO iperf: $(cat /tmp/out)\necho ENDS\n",
        own(2)
    );
    let folder = tempfile::tempdir()?;
    let [a, b] = backends(transport, folder.path())?;
    let mut machine = |name, script: &str, netdev: &str, mac| -> Result<Guest> {
        let linux = busybox(name, script, &programs(&root, &["iperf3"])?)?;
        Guest::start(command(&machine_args(&linux, netdev, mac)))
    };
    let mut one = machine("speed-first.cpio", &first, &a, "52:54:00:00:00:01")?;
    one.find_line(LIMIT, |l| l == "READY")?;
    let mut two = machine("speed-second.cpio", &second, &b, "52:54:00:00:00:02")?;
    let (from, _) = two.find_line(LIMIT, |l| l == "BEGINS").with_context(|| two.last_lines(20))?;
    let cpu = |two: &Guest| -> Result<f64> { Ok((one.cpu_time()? + two.cpu_time()?).as_secs_f64()) };
    let before = cpu(&two)?;
    let (to, _) = two.find_line(LIMIT, |l| l == "ENDS").with_context(|| two.last_lines(20))?;
    let cpu = cpu(&two)? - before;
    ensure!(!two.last_lines(20).contains("NO iperf"), "{}", two.last_lines(20));
    Ok(Run { cpu, wall: (to - from).as_secs_f64(), inside: 0.0, digest: "sent".to_owned() })
}

/// Two machines on a link send each other `mebibytes` of random bytes, one after the other: each gets what the other has sent.
///
/// # Errors
/// What went wrong, or is missing on this machine.
pub fn two_machines(qomet: &Path, transport: &str, mebibytes: u64) -> Result<()> {
    let send = |to: u32, port: u32| {
        format!(
            "rm -f /tmp/f; mkfifo /tmp/f; md5sum < /tmp/f > /tmp/sum & SUM=$!\n\
             dd if=/dev/urandom bs=64k count={} 2>/dev/null | tee /tmp/f | nc 192.168.7.{to} {port} || echo NO connection\n\
             wait $SUM; echo SENT $(cat /tmp/sum)\n",
            mebibytes * 16
        )
    };
    // (The input of one that receives must not end, or it says that it will send nothing, and the other one takes that for the end.)
    let get = |port: u32| {
        format!(
            "mkfifo /tmp/in; exec 9<> /tmp/in\n\
             (nc -l -p {port} < /tmp/in | md5sum > /tmp/got; echo GOT $(cat /tmp/got)) & GOT=$!\n"
        )
    };
    // (The kernel has to have a seed before it gives random bytes; that both have the same does not matter.)
    let seed = "echo seed > /dev/urandom\n";
    let first = format!("{}{seed}{}sleep 1; echo READY\nwait $GOT\n{}", own(1), get(5000), send(2, 5001));
    let pings = "echo PING $(ping -c 3 192.168.7.1 | grep received)\n";
    let second = format!("{}{seed}{pings}{}{}wait $GOT\n", own(2), get(5001), send(1, 5000));
    let folder = tempfile::tempdir()?;
    let [a, b] = backends(transport, folder.path())?;
    let mut one = start(qomet, &busybox("link-first.cpio", &first, &[])?, &a, "52:54:00:00:00:01")?;
    one.find_line(LIMIT, |l| l == "READY")?;
    let mut two = start(qomet, &busybox("link-second.cpio", &second, &[])?, &b, "52:54:00:00:00:02")?;
    for guest in [&mut two, &mut one] {
        let end = guest.find_line(LIMIT, |l| l.contains("GOT "));
        end.with_context(|| format!("{transport}: the guest said last:\n{}", guest.last_lines(20)))?;
    }
    let ((first_code, first), (second_code, second)) = (one.finish(LIMIT), two.finish(LIMIT));
    let all = || format!("{transport}; the first machine:\n{first}\nthe second:\n{second}");
    ensure!((first_code, second_code) == (Some(0), Some(0)), "{}", all());
    ensure!(!first.contains("NO ") && !second.contains("NO "), "{}", all());
    ensure!(said(&second, "PING ")?.starts_with("3 packets transmitted, 3 packets received"), "{}", all());
    ensure!(said(&first, "GOT ")? == said(&second, "SENT ")?, "{}", all());
    ensure!(said(&second, "GOT ")? == said(&first, "SENT ")?, "{}", all());
    // (The sum of nothing would be the same on both sides.)
    ensure!(!first.contains("d41d8cd98f00b204e9800998ecf8427e"), "{}", all());
    Ok(())
}
