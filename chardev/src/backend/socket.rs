//! `socket`: TCP or Unix stream, server or client, optionally speaking telnet.
//!
//! A server has one client at a time; further ones wait in the kernel's queue. A client connects when the device is made and,
//! with `reconnect-ms`, again after every loss; later attempts run on a thread of their own so that a slow peer stops nobody.

use super::fd::{FdPair, Filter};
use super::{Backend, telnet};
use crate::channel::Channel;
use crate::config::{self, Address, Family};
use crate::frontend::Event;
use crate::{Error, Result, fdpass};
use hw_core::event_loop::{HostTimer, Job, Ready, Watch};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, accept_with, sockopt};
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

struct Socket {
    channel: Weak<Channel>,
    me: Weak<Socket>,
    config: config::Socket,
    /// `unix:/path` or `tcp:host:port`, after the kernel chose what was left open.
    address: Mutex<String>,
    s: Mutex<State>,
}

#[derive(Default)]
struct State {
    listener: Option<(Arc<OwnedFd>, Watch)>,
    pair: Option<Arc<FdPair>>,
    peer: String,
    retry: Option<HostTimer>,
    /// Telnet: the second 255 of a pair is still to be written.
    owed: bool,
    closed: bool,
    unlink: Option<String>,
}

pub(crate) fn open(channel: &Arc<Channel>, config: &config::Socket) -> Result<Box<dyn Backend>> {
    let socket = Arc::new_cyclic(|me| Socket {
        channel: Arc::downgrade(channel),
        me: me.clone(),
        config: config.clone(),
        address: Mutex::new(describe(&config.address)),
        s: Mutex::default(),
    });
    let owner = Owner(socket.clone());
    match (&config.address, config.server) {
        (Address::Fd(n), server) => {
            let fd = fdpass::take(*n)?;
            *socket.address.lock() = local_name(&fd);
            let listening = sockopt::socket_acceptconn(&fd).map_err(Error::host(format!("descriptor {n}")))?;
            match (server, listening) {
                (true, true) => socket.listen(channel, fd)?,
                (false, false) => socket.connected(fd)?,
                (true, false) => return Err(Error::Config(format!("descriptor {n} is not a listening socket"))),
                (false, true) => {
                    return Err(Error::Config(format!("descriptor {n} is a listening socket: server=on is missing")));
                }
            }
        }
        (address, true) => {
            let fd = bind(address)?;
            if let Address::Unix { path, is_abstract: false } = address {
                socket.s.lock().unlink = Some(path.clone());
            } else {
                *socket.address.lock() = local_name(&fd);
            }
            socket.listen(channel, fd)?;
        }
        (address, false) => match connect(address) {
            Ok(fd) => socket.connected(fd)?,
            Err(_) if config.reconnect_ms > 0 => socket.retry_later(),
            Err(source) => return Err(Error::Connect { address: describe(address), source }),
        },
    }
    Ok(Box::new(owner))
}

fn describe(address: &Address) -> String {
    match address {
        Address::Unix { path, is_abstract: true } => format!("unix:@{path}"),
        Address::Unix { path, .. } => format!("unix:{path}"),
        Address::Inet { host, port, .. } => format!("tcp:{host}:{port}"),
        Address::Fd(n) => format!("fd:{n}"),
    }
}

/// Address of this end as the kernel tells it.
fn local_name(fd: &OwnedFd) -> String {
    let Ok(copy) = fd.try_clone() else { return "unix:".into() };
    if sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX) {
        let addr = UnixListener::from(copy).local_addr().ok();
        return unix_name(addr.as_ref());
    }
    TcpListener::from(copy).local_addr().map_or_else(|_| "tcp:".into(), |a| format!("tcp:{a}"))
}

fn unix_name(addr: Option<&SocketAddr>) -> String {
    let path = addr.and_then(|a| a.as_pathname()).map(|p| p.to_string_lossy().into_owned());
    format!("unix:{}", path.unwrap_or_default())
}

fn unix_addr(path: &str, is_abstract: bool) -> io::Result<SocketAddr> {
    if is_abstract {
        return SocketAddr::from_abstract_name(path);
    }
    if path.len() >= 108 {
        let text = format!("UNIX socket path '{path}' is too long (it must be less than 108 bytes)");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    SocketAddr::from_pathname(path)
}

fn bind(address: &Address) -> Result<OwnedFd> {
    let fail = |source| Error::Bind { address: describe(address), source };
    match address {
        Address::Unix { path, is_abstract } => {
            let addr = unix_addr(path, *is_abstract).map_err(fail)?;
            if !is_abstract {
                unlink_stale(path);
            }
            UnixListener::bind_addr(&addr).map(Into::into).map_err(fail)
        }
        Address::Inet { host, port, to, family } => {
            let first = port_number(port).map_err(fail)?;
            let host = match (host.as_str(), family) {
                ("", Family::V6) => "::",
                ("", _) => "0.0.0.0",
                (host, _) => host,
            };
            let last = to.map_or(first, |t| t.max(first));
            let try_port = |p| TcpListener::bind(&*addresses(host, p, *family)?);
            let mut result = try_port(first);
            for p in first.saturating_add(1)..=last {
                if result.is_ok() {
                    break;
                }
                result = try_port(p);
            }
            result.map(Into::into).map_err(fail)
        }
        Address::Fd(_) => Err(fail(io::ErrorKind::InvalidInput.into())),
    }
}

/// A socket file that an earlier process left behind; anything else stays, and binding then fails.
fn unlink_stale(path: &str) {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
}

/// The addresses that a name stands for, of the family that is wanted.
fn addresses(host: &str, port: u16, family: Family) -> io::Result<Vec<std::net::SocketAddr>> {
    let fits = |a: &std::net::SocketAddr| match family {
        Family::Any => true,
        Family::V4 => a.is_ipv4(),
        Family::V6 => a.is_ipv6(),
    };
    let found: Vec<_> = (host, port).to_socket_addrs()?.filter(fits).collect();
    if found.is_empty() {
        let text = format!("address resolution failed for {host}:{port}: no address of the family asked for");
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
    }
    Ok(found)
}

fn port_number(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("port '{port}' is not a number from 0 to 65535"))
    })
}

fn connect(address: &Address) -> io::Result<OwnedFd> {
    match address {
        Address::Unix { path, is_abstract } => {
            UnixStream::connect_addr(&unix_addr(path, *is_abstract)?).map(Into::into)
        }
        Address::Inet { host, port, family, .. } => {
            let host = if host.is_empty() { "localhost" } else { host };
            TcpStream::connect(&*addresses(host, port_number(port)?, *family)?).map(Into::into)
        }
        Address::Fd(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

impl Socket {
    fn listen(&self, channel: &Arc<Channel>, fd: OwnedFd) -> Result<()> {
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(Error::host("socket"))?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK).map_err(Error::host("socket"))?;
        let fd = Arc::new(fd);
        let me = self.me.clone();
        let watch = channel.host().events.watch(fd.clone(), Ready::READ, move |_| {
            if let Some(socket) = me.upgrade() {
                socket.accept();
            }
        });
        self.s.lock().listener = Some((fd.clone(), watch));
        if self.config.wait {
            (channel.host().report)(&format!("info: waiting for connection on: {}", self.filename()));
            while self.s.lock().pair.is_none() {
                if (channel.host().interrupted)() {
                    return Err(Error::Config("interrupted while waiting for a connection".into()));
                }
                let mut p = [PollFd::new(&*fd, PollFlags::IN)];
                let _ = poll(&mut p, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 }));
                self.accept();
            }
        }
        Ok(())
    }

    fn accept(&self) {
        let listener = match &*self.s.lock() {
            State { pair: None, closed: false, listener: Some((fd, _)), .. } => fd.clone(),
            _ => return,
        };
        // Whoever gave up before being accepted is no error.
        if let Ok(fd) = accept_with(&*listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            let _ = self.connected(fd);
        }
    }

    /// A connection stands.
    fn connected(&self, fd: OwnedFd) -> Result<()> {
        let Some(channel) = self.channel.upgrade() else { return Ok(()) };
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(Error::host("socket"))?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK).map_err(Error::host("socket"))?;
        if self.config.nodelay && sockopt::socket_domain(&fd) != Ok(AddressFamily::UNIX) {
            let _ = sockopt::set_tcp_nodelay(&fd, true);
        }
        let peer = match fd.try_clone() {
            Ok(copy) if sockopt::socket_domain(&fd) != Ok(AddressFamily::UNIX) => {
                TcpStream::from(copy).peer_addr().map_or_else(|_| String::new(), |a| format!(" <-> {a}"))
            }
            _ => String::new(),
        };
        let state = Mutex::new(telnet::Telnet::default());
        let filter: Filter =
            if self.config.telnet { Some(Box::new(move |bytes| state.lock().filter(bytes))) } else { None };
        let fd = Some(Arc::new(fd));
        let me = self.me.clone();
        let pair = FdPair::new(&channel, fd.clone(), fd, true, filter, move || {
            if let Some(socket) = me.upgrade() {
                socket.lost();
            }
        });
        if self.config.telnet && self.config.server {
            pair.write(&telnet::HELLO);
        }
        {
            let mut s = self.s.lock();
            s.pair = Some(pair.clone());
            s.peer = peer;
            s.owed = false;
            if let Some((_, watch)) = &s.listener {
                watch.set_interest(Ready::empty());
            }
        }
        channel.event(Event::Opened);
        pair.accept_input();
        Ok(())
    }

    /// The peer went away.
    fn lost(&self) {
        let pair = {
            let mut s = self.s.lock();
            if let Some((_, watch)) = &s.listener {
                watch.set_interest(Ready::READ);
            }
            s.peer.clear();
            s.pair.take()
        };
        if let Some(pair) = pair {
            pair.close();
        }
        if let Some(channel) = self.channel.upgrade() {
            channel.event(Event::Closed);
        }
        if !self.config.server && self.config.reconnect_ms > 0 {
            self.retry_later();
        }
    }

    fn retry_later(&self) {
        let Some(channel) = self.channel.upgrade() else { return };
        let me = self.me.clone();
        let events = channel.host().events.clone();
        let timer = channel.host().events.after(Duration::from_millis(self.config.reconnect_ms), move || {
            let Some(socket) = me.upgrade() else { return };
            let address = socket.config.address.clone();
            let me = socket.me.clone();
            std::thread::spawn(move || {
                let result = connect(&address);
                events.post(move || {
                    let Some(socket) = me.upgrade() else { return };
                    if socket.s.lock().closed {
                        return;
                    }
                    match result {
                        Ok(fd) => drop(socket.connected(fd)),
                        Err(_) => socket.retry_later(),
                    }
                });
            });
        });
        let old = self.s.lock().retry.replace(timer);
        drop(old);
    }

    fn pair(&self) -> Option<Arc<FdPair>> {
        self.s.lock().pair.clone()
    }

    fn filename(&self) -> String {
        let s = self.s.lock();
        let address = self.address.lock();
        let address = match address.strip_prefix("tcp:") {
            Some(rest) if self.config.telnet => format!("telnet:{rest}"),
            _ => address.clone(),
        };
        let disconnected = if s.pair.is_some() { "" } else { "disconnected:" };
        let server = if self.config.server { ",server=on" } else { "" };
        format!("{disconnected}{address}{server}{}", s.peer)
    }

    /// Writes with each 255 doubled.
    fn write_telnet(&self, pair: &FdPair, bytes: &[u8]) -> usize {
        let mut done = 0;
        loop {
            if self.s.lock().owed {
                if pair.write(&[255]) == 0 {
                    return done;
                }
                self.s.lock().owed = false;
            }
            let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) else { return done };
            let upto = rest.iter().position(|b| *b == 255).map_or(rest.len(), |at| at + 1);
            let part = rest.get(..upto).unwrap_or_default();
            let n = pair.write(part);
            done += n;
            if n < part.len() {
                return done;
            }
            self.s.lock().owed = part.last() == Some(&255);
        }
    }
}

struct Owner(Arc<Socket>);

impl Backend for Owner {
    fn write(&self, bytes: &[u8]) -> usize {
        match self.0.pair() {
            None => bytes.len(),
            Some(pair) if self.0.config.telnet => self.0.write_telnet(&pair, bytes),
            Some(pair) => pair.write(bytes),
        }
    }
    fn on_writable(&self, job: Job) {
        match (self.0.pair(), self.0.channel.upgrade()) {
            (Some(pair), _) => pair.on_writable(job),
            (None, Some(c)) => c.host().events.post(job),
            (None, None) => {}
        }
    }
    fn accept_input(&self) {
        if let Some(pair) = self.0.pair() {
            pair.accept_input();
        }
    }
    fn filename(&self) -> String {
        self.0.filename()
    }
    fn close(&self) {
        let (pair, rest) = {
            let mut s = self.0.s.lock();
            s.closed = true;
            (s.pair.take(), (s.listener.take(), s.retry.take(), s.unlink.take()))
        };
        if let Some(pair) = pair {
            pair.close();
        }
        if let Some(path) = &rest.2 {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}
