//! Addresses of host sockets, and sockets that never block.

use hw_core::opts::Opts;
use qom::{Error, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

/// Where a socket is: QAPI's `SocketAddress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Inet(SocketAddr),
    Unix(String),
    Fd(i32),
}

impl Address {
    /// Takes an object of type `SocketAddress`.
    pub fn take(opts: &mut Opts, key: &str) -> Result<Option<Self>> {
        let Some(mut o) = opts.take_object(key)? else { return Ok(None) };
        let kind = o.require_str("type")?;
        let address = match kind.as_str() {
            "inet" => {
                let (host, port) = (o.require_str("host")?, o.require_str("port")?);
                let (v4, v6) = (o.take_bool("ipv4")?, o.take_bool("ipv6")?);
                let want = |a: &SocketAddr| match (v4, v6) {
                    (Some(true), None) | (None | Some(true), Some(false)) => a.is_ipv4(),
                    (None, Some(true)) | (Some(false), None | Some(true)) => a.is_ipv6(),
                    _ => true,
                };
                Self::Inet(resolve(&host, &port, want)?)
            }
            "unix" => {
                let path = o.require_str("path")?;
                if o.take_bool("abstract")? == Some(true) {
                    return Err(Error::generic("abstract socket addresses are not built for network backends yet"));
                }
                Self::Unix(path)
            }
            "fd" => {
                let text = o.require_str("str")?;
                Self::Fd(text.parse().map_err(|_| Error::generic(format!("File descriptor named '{text}' not found")))?)
            }
            "vsock" => return Err(Error::generic("socket address type vsock is not built yet")),
            other => {
                let text = format!("Parameter '{key}.type' does not accept value '{other}' (accepted: inet, unix, fd)");
                return Err(Error::generic(text));
            }
        };
        o.finish()?;
        Ok(Some(address))
    }

    /// As QMP's events show it.
    pub fn qapi(&self) -> Value {
        match self {
            Self::Inet(a) => json!({"type": "inet", "host": a.ip().to_string(), "port": a.port().to_string()}),
            Self::Unix(path) => json!({"type": "unix", "path": path}),
            Self::Fd(fd) => json!({"type": "fd", "str": fd.to_string()}),
        }
    }

    /// As `info network` shows it.
    pub fn show(&self) -> String {
        match self {
            Self::Inet(a) => a.to_string(),
            Self::Unix(path) => format!("unix:{path}"),
            Self::Fd(fd) => format!("fd:{fd}"),
        }
    }
}

/// The first address of `host` and `port` that `want` likes; an empty host is any.
pub(super) fn resolve(host: &str, port: &str, want: impl Fn(&SocketAddr) -> bool) -> Result<SocketAddr> {
    let number: u16 = port.parse().map_err(|_| Error::generic(format!("invalid port number '{port}'")))?;
    let host = if host.is_empty() { "0.0.0.0" } else { host.trim_matches(['[', ']']) };
    let found = (host, number)
        .to_socket_addrs()
        .map_err(|e| Error::generic(format!("address resolution failed for {host}:{port}: {}", plain(&e))))?;
    let mut found = found.filter(|a| want(a));
    found.next().ok_or_else(|| Error::generic(format!("address resolution failed for {host}:{port}: no such address")))
}

/// `host:port`, `:port`.
pub(super) fn host_port(text: &str) -> Result<SocketAddr> {
    let (host, port) =
        text.rsplit_once(':').ok_or_else(|| Error::generic(format!("host address '{text}' doesn't contain ':'")))?;
    resolve(host, port, |_| true)
}

/// What the host says, without Rust's "(os error N)".
pub(super) fn plain(e: &io::Error) -> String {
    e.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn family(a: &SocketAddr) -> AddressFamily {
    if a.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// A stream socket that is, or soon will be, connected.
pub(super) fn connect_stream(to: &Address) -> io::Result<OwnedFd> {
    let done = |r: rustix::io::Result<()>| match r {
        // (Of a path, "again" says that the server's queue is full: nothing is in progress then.)
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(()),
        Err(e) => Err(io::Error::from(e)),
    };
    match to {
        Address::Inet(a) => {
            let fd = socket_with(family(a), SocketType::STREAM, FLAGS, None)?;
            done(connect(&fd, a))?;
            _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
            Ok(fd)
        }
        Address::Unix(path) => {
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
            done(connect(&fd, &rustix::net::SocketAddrUnix::new(path.as_str())?))?;
            Ok(fd)
        }
        Address::Fd(fd) => inherited(*fd),
    }
}

/// A copy of a descriptor that this process was started with, made non-blocking.
pub(super) fn inherited(fd: i32) -> io::Result<OwnedFd> {
    let fd = crate::hostfd::duplicate(fd)?;
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(fd)
}

/// Makes room for a socket at `path`, where an earlier one may lie.
fn clear(path: &str) {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        _ = std::fs::remove_file(path);
    }
}

/// A socket that waits for one client.
pub(super) fn listen_stream(at: &Address) -> io::Result<OwnedFd> {
    match at {
        Address::Inet(a) => {
            let fd = socket_with(family(a), SocketType::STREAM, FLAGS, None)?;
            rustix::net::sockopt::set_socket_reuseaddr(&fd, true)?;
            rustix::net::bind(&fd, a)?;
            rustix::net::listen(&fd, 1)?;
            Ok(fd)
        }
        Address::Unix(path) => {
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
            clear(path);
            rustix::net::bind(&fd, &rustix::net::SocketAddrUnix::new(path.as_str())?)?;
            rustix::net::listen(&fd, 1)?;
            Ok(fd)
        }
        Address::Fd(fd) => inherited(*fd),
    }
}

/// A datagram socket; `at`: where it is bound.
pub(super) fn datagram(at: Option<&Address>, family_of: Option<&Address>) -> io::Result<OwnedFd> {
    match at.or(family_of) {
        Some(Address::Fd(fd)) => inherited(*fd),
        Some(Address::Unix(_)) => {
            let fd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, FLAGS, None)?;
            if let Some(Address::Unix(path)) = at {
                clear(path);
                rustix::net::bind(&fd, &rustix::net::SocketAddrUnix::new(path.as_str())?)?;
            }
            Ok(fd)
        }
        Some(Address::Inet(a)) => {
            let fd = socket_with(family(a), SocketType::DGRAM, FLAGS, None)?;
            rustix::net::sockopt::set_socket_reuseaddr(&fd, true)?;
            if let Some(Address::Inet(a)) = at {
                rustix::net::bind(&fd, a)?;
            }
            Ok(fd)
        }
        None => Err(io::Error::other("no address")),
    }
}
