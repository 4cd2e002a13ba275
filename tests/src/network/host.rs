//! The host's end: servers, data, sums; and how a guest asks for its address.

use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

/// Bytes that compress badly and repeat late.
pub fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Serves `data` to each connection to `at` that begins with `GET`; others get back what they send. The port.
///
/// # Errors
/// The host gives no port.
pub fn serve(at: SocketAddr, data: Vec<u8>) -> Result<u16> {
    let listener = TcpListener::bind(at).with_context(|| format!("a port at {at}"))?;
    let port = listener.local_addr()?.port();
    let data: Arc<[u8]> = data.into();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), data) = (stream, data.clone()) else { break };
            thread::spawn(move || {
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
    Ok(port)
}

/// What `md5sum` says of `data`.
///
/// # Errors
/// There is no such program.
pub fn md5(data: &[u8]) -> Result<String> {
    let mut child =
        Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("md5sum of coreutils")?;
    child.stdin.take().context("piped")?.write_all(data)?;
    let out = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&out.stdout).split_whitespace().next().context("a sum")?.to_owned())
}

/// Shell commands by which a busybox guest gets its address: `LEASE address router name-server host-name`, or `NO …`.
pub fn lease_commands() -> &'static str {
    "cat > /bin/lease <<'END'\n\
     [ \"$1\" = bound ] || exit 0\n\
     ip addr add $ip/24 dev eth0; ip route add default via $router\n\
     echo \"nameserver $dns\" > /etc/resolv.conf; echo LEASE $ip $router $dns $hostname\n\
     END\n\
     chmod +x /bin/lease; ip link set lo up; ip link set eth0 up || echo NO eth0\n\
     udhcpc -i eth0 -n -q -t 20 -T 2 -s /bin/lease -O hostname 2>/dev/null || echo NO lease\n"
}
