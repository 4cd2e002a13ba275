//! Frames as datagrams: `dgram`, and `socket` with `udp=` or `mcast=`. Also the choice among the forms of `socket`.

use super::address::{Address, datagram, host_port, inherited, plain};
use super::stream;
use crate::backend::BackendDef;
use crate::client::{Client, End, MAX_FRAME, Parcel};
use crate::nets::Nets;
use hw_core::event_loop::{Ready, Watch};
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sendto, sockopt};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

struct Dgram {
    client: Weak<Client>,
    fd: Arc<OwnedFd>,
    to: Option<Address>,
    /// Removed at the end.
    path: Option<String>,
    watch: Mutex<Option<Watch>>,
    /// Nothing more can be received.
    gone: AtomicBool,
}

impl Dgram {
    fn start(
        nets: &Arc<Nets>,
        client: &Arc<Client>,
        fd: OwnedFd,
        local: Option<&Address>,
        to: Option<Address>,
    ) -> Result<Arc<Self>> {
        let path = match local {
            Some(Address::Unix(path)) => Some(path.clone()),
            _ => None,
        };
        let client = Arc::downgrade(client);
        let gone = AtomicBool::new(false);
        let new = Arc::new(Self { client, fd: Arc::new(fd), to, path, watch: Mutex::default(), gone });
        let me = Arc::downgrade(&new);
        let watch = nets.events()?.watch(new.fd.clone(), Ready::READ, move |_| {
            if let Some(d) = me.upgrade() {
                d.read();
            }
        });
        *new.watch.lock() = Some(watch);
        Ok(new)
    }

    fn read(&self) {
        let Some(client) = self.client.upgrade() else { return };
        let mut buf = vec![0; MAX_FRAME];
        let mut failed = None;
        for _ in 0..256 {
            if failed.is_some() {
                break;
            }
            match recv(&self.fd, &mut buf[..], RecvFlags::DONTWAIT) {
                Ok((n, _)) => {
                    if !client.send(buf.get(..n).unwrap_or_default().to_vec()) {
                        if let Some(watch) = &*self.watch.lock() {
                            watch.set_interest(Ready::empty());
                        }
                        return;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                // An error of an earlier datagram, which is over once it was reported, or one of the socket, which is not.
                Err(e) => failed = Some(e),
            }
        }
        let Some(e) = failed else { return };
        if !matches!(e, Errno::CONNREFUSED | Errno::CONNRESET | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NOBUFS)
        {
            tracing::warn!("{}: {e}; nothing more is received", client.name());
            if let Some(watch) = &*self.watch.lock() {
                watch.set_interest(Ready::empty());
            }
            self.gone.store(true, Ordering::Relaxed);
        }
    }
}

impl End for Dgram {
    fn receive(&self, frames: &mut VecDeque<Parcel>) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // What the host does not take is lost, as datagrams are.
        for frame in frames.drain(..) {
            _ = match &self.to {
                Some(Address::Inet(a)) => sendto(&self.fd, &frame, flags, a).map(drop),
                Some(Address::Unix(path)) => rustix::net::SocketAddrUnix::new(path.as_str())
                    .and_then(|a| sendto(&self.fd, &frame, flags, &a))
                    .map(drop),
                Some(Address::Fd(_)) | None => send(&self.fd, &frame, flags).map(drop),
            };
        }
    }

    fn peer_ready(&self) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        if let Some(watch) = &*self.watch.lock() {
            watch.set_interest(Ready::READ);
        }
    }

    fn close(&self) {
        drop(self.watch.lock().take());
        if let Some(path) = &self.path {
            _ = std::fs::remove_file(path);
        }
    }
}

fn bound(at: Option<&Address>, to: Option<&Address>) -> Result<OwnedFd> {
    let shown = at.or(to).map(Address::show).unwrap_or_default();
    datagram(at, to).map_err(|e| Error::generic(format!("can't bind to {shown}: {}", plain(&e))))
}

/// Joins a group; `local`: the interface's address.
fn join(fd: &OwnedFd, group: &SocketAddr, local: Option<IpAddr>) -> io::Result<()> {
    match (group.ip(), local) {
        (IpAddr::V4(group), local) => {
            let at = match local {
                Some(IpAddr::V4(a)) => a,
                _ => std::net::Ipv4Addr::UNSPECIFIED,
            };
            sockopt::set_ip_add_membership(fd, &group, &at)?;
            // The other machines of this host hear it too.
            sockopt::set_ip_multicast_loop(fd, true)?;
            if let Some(IpAddr::V4(a)) = local {
                sockopt::set_ip_multicast_if(fd, &a)?;
            }
        }
        (IpAddr::V6(group), _) => sockopt::set_ipv6_add_membership(fd, &group, 0)?,
    }
    Ok(())
}

fn multicast(nets: &Arc<Nets>, client: &Arc<Client>, group: SocketAddr, local: Option<IpAddr>) -> Result<Arc<dyn End>> {
    if !group.ip().is_multicast() {
        let text = format!("specified mcastaddr {} does not contain a multicast address", group.ip());
        return Err(Error::generic(text));
    }
    let at = Address::Inet(group);
    let fd = bound(Some(&at), None)?;
    join(&fd, &group, local)
        .map_err(|e| Error::generic(format!("can't add socket to multicast group: {}", plain(&e))))?;
    client.set_info(format!("mcast={group}"));
    Ok(Dgram::start(nets, client, fd, None, Some(at))?)
}

fn open(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    let (local, remote) = (Address::take(opts, "local")?, Address::take(opts, "remote")?);
    match (&local, &remote) {
        (local, Some(Address::Inet(group))) if group.ip().is_multicast() => {
            let at = match local {
                Some(Address::Inet(a)) => Some(a.ip()),
                Some(_) => return Err(Error::generic("dgram requires 'local' to be an inet address for multicast")),
                None => None,
            };
            multicast(nets, client, *group, at)
        }
        (None, _) => Err(Error::generic("dgram requires local= parameter")),
        (Some(Address::Fd(fd)), None) => {
            let fd = inherited(*fd).map_err(|e| Error::generic(format!("fd={fd}: {}", plain(&e))))?;
            client.set_info("fd");
            Ok(Dgram::start(nets, client, fd, None, None)?)
        }
        (Some(Address::Fd(_)), Some(_)) => Err(Error::generic("don't set remote with local.fd")),
        (Some(_), None) => Err(Error::generic("'remote' parameter is missing")),
        (Some(a), Some(b)) if std::mem::discriminant(a) != std::mem::discriminant(b) => {
            Err(Error::generic("'remote' type must be the same as 'local' type"))
        }
        (Some(a), Some(b)) => {
            client.set_info(format!("udp={}/{}", a.show(), b.show()));
            let fd = bound(Some(a), None)?;
            Ok(Dgram::start(nets, client, fd, Some(a), Some(b.clone()))?)
        }
    }
}

fn open_socket(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    let mut form = None;
    for key in ["fd", "listen", "connect", "mcast", "udp"] {
        if let Some(value) = opts.take_str(key)?
            && form.replace((key, value)).is_some()
        {
            let text = "exactly one of listen=, connect=, mcast= or udp= is required";
            return Err(Error::generic(text));
        }
    }
    let local = opts.take_str("localaddr")?;
    let (form, value) =
        form.ok_or_else(|| Error::generic("exactly one of listen=, connect=, mcast= or udp= is required"))?;
    if local.is_some() && !["mcast", "udp"].contains(&form) {
        return Err(Error::generic("localaddr= is only valid with mcast= or udp="));
    }
    match form {
        "listen" => stream::legacy(nets, client, Address::Inet(host_port(&value)?), true),
        "connect" => stream::legacy(nets, client, Address::Inet(host_port(&value)?), false),
        "mcast" => {
            let ip = local.map(|l| l.parse().map_err(|_| Error::generic(format!("localaddr '{l}' is not an address"))));
            multicast(nets, client, host_port(&value)?, ip.transpose()?)
        }
        "udp" => {
            let local = local.ok_or_else(|| Error::generic("localaddr= is mandatory with udp="))?;
            let (at, to) = (Address::Inet(host_port(&local)?), Address::Inet(host_port(&value)?));
            client.set_info(format!("udp={}", to.show()));
            let fd = bound(Some(&at), None)?;
            Ok(Dgram::start(nets, client, fd, None, Some(to))?)
        }
        _ => {
            let number: i32 =
                value.parse().map_err(|_| Error::generic(format!("File descriptor named '{value}' not found")))?;
            let fd = inherited(number).map_err(|e| Error::generic(format!("fd={number}: {}", plain(&e))))?;
            let kind = sockopt::socket_type(&fd).map_err(|e| Error::generic(format!("fd={number}: {e}")))?;
            client.set_info(format!("fd={number}"));
            if kind == rustix::net::SocketType::STREAM {
                return stream::legacy(nets, client, Address::Fd(number), false);
            }
            Ok(Dgram::start(nets, client, fd, None, None)?)
        }
    }
}

inventory::submit! { BackendDef { name: "dgram", open } }
inventory::submit! { BackendDef { name: "socket", open: open_socket } }
