//! Frames over a stream socket, each after its length in four bytes, the most significant first: `stream`, `socket` with `connect=`,
//! `listen=` or a stream's `fd=`, and what a program does that is started for it (`passt`). One peer at a time, as on QEMU. Frames that
//! the host does not take at once wait in memory up to a limit; beyond it the sender waits (until there is a connection: they are lost).

use super::address::{Address, connect_stream, listen_stream, plain};
use super::passt::Program;
use crate::backend::BackendDef;
use crate::client::{Client, End, Frame, MAX_FRAME, Parcel};
use crate::join::Batch;
use crate::nets::Nets;
use hw_core::event_loop::{EventLoop, HostTimer, Ready, Watch};
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Most bytes that wait for the host.
const UNSENT: usize = 1 << 20;
/// When a server is asked again whose queue of connections is full.
const SOON: Duration = Duration::from_millis(10);
/// How long nobody is taken while the host has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// After what time a program that ended is started again.
const RESTART: Duration = Duration::from_millis(100);
/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// Splits a stream into frames.
#[derive(Default)]
pub(super) struct Splitter(Vec<u8>);

impl Splitter {
    /// Adds bytes; the frames that are complete. `None`: a length that no frame has, so the stream is lost.
    pub fn add(&mut self, bytes: &[u8]) -> Option<Vec<Frame>> {
        self.0.extend_from_slice(bytes);
        let (mut at, mut frames) = (0, vec![]);
        while let Some(head) = self.0.get(at..).and_then(|b| b.first_chunk::<4>()) {
            let len = u32::from_be_bytes(*head) as usize;
            if len > MAX_FRAME {
                return None;
            }
            let Some(frame) = self.0.get(at + 4..at + 4 + len) else { break };
            frames.push(frame.to_vec());
            at += 4 + len;
        }
        self.0.drain(..at);
        Some(frames)
    }
}

/// What the frames go to.
pub(super) enum Far {
    /// A socket.
    At(Address),
    /// A program that is started for it, and again when it ends.
    Program(Program),
}

impl Far {
    /// As `info network` shows it.
    fn show(&self) -> String {
        match self {
            Self::At(address) => address.show(),
            Self::Program(program) => program.show(),
        }
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Self::At(address) => connect_stream(address),
            Self::Program(program) => program.start(),
        }
    }

    /// It is there as soon as there is a descriptor.
    fn is_ready(&self) -> bool {
        matches!(self, Self::Program(_) | Self::At(Address::Fd(_)))
    }
}

struct Conn {
    fd: Arc<OwnedFd>,
    /// The host has not said yet that it is connected.
    pending: bool,
    watch: Watch,
    input: Splitter,
    output: VecDeque<u8>,
    /// There was no room in `output` for what came next.
    full: bool,
}

#[derive(Default)]
struct State {
    listener: Option<(Arc<OwnedFd>, Watch)>,
    conn: Option<Conn>,
    timer: Option<HostTimer>,
    paused: bool,
    closed: bool,
}

pub(super) struct Stream {
    client: Weak<Client>,
    nets: Weak<Nets>,
    events: EventLoop,
    far: Far,
    server: bool,
    reconnect: Option<Duration>,
    /// The type is `stream`: it has events.
    modern: bool,
    me: Weak<Stream>,
    state: Mutex<State>,
}

impl Stream {
    fn start(
        nets: &Arc<Nets>,
        client: &Arc<Client>,
        far: Far,
        server: bool,
        reconnect: Option<Duration>,
        modern: bool,
    ) -> Result<Arc<Self>> {
        let events = nets.events()?.clone();
        let new = Arc::new_cyclic(|me| Self {
            client: Arc::downgrade(client),
            nets: Arc::downgrade(nets),
            events,
            far,
            server,
            reconnect,
            modern,
            me: me.clone(),
            state: Mutex::default(),
        });
        if let (true, Far::At(address)) = (server, &new.far) {
            let shown = address.show();
            let fd =
                listen_stream(address).map_err(|e| Error::generic(format!("can't bind to {shown}: {}", plain(&e))))?;
            let fd = Arc::new(fd);
            let me = Arc::downgrade(&new);
            let watch = new.events.watch(fd.clone(), Ready::READ, move |_| {
                if let Some(s) = me.upgrade() {
                    s.accept();
                }
            });
            new.state.lock().listener = Some((fd, watch));
            client.set_info(format!("listening on {shown}"));
        } else if let Err(e) = new.connect()
            && (reconnect.is_none() || matches!(new.far, Far::Program(_)))
            && e.kind() != ErrorKind::WouldBlock
        {
            return Err(match &new.far {
                Far::At(address) => Error::generic(format!("can't connect to {}: {}", address.show(), plain(&e))),
                Far::Program(_) => Error::generic(plain(&e)),
            });
        }
        Ok(new)
    }

    fn connect(&self) -> io::Result<()> {
        let fd = match self.far.connect() {
            Ok(fd) => fd,
            // A program that cannot be started would not be the next time.
            Err(e) if matches!(self.far, Far::Program(_)) => return Err(e),
            Err(e) => {
                // A server whose queue is full takes us a little later.
                let soon = (e.kind() == ErrorKind::WouldBlock).then_some(SOON);
                self.retry(soon.or(self.reconnect));
                return Err(e);
            }
        };
        if let Some(client) = self.client.upgrade() {
            client.set_info(format!("connecting to {}", self.far.show()));
        }
        self.take(fd, !self.far.is_ready());
        Ok(())
    }

    /// Connects again. Starting a program takes its time: that is done beside the loop.
    fn connect_again(self: Arc<Self>) {
        if let Far::At(_) = self.far {
            _ = self.connect();
            return;
        }
        let start = move || {
            if let Err(e) = self.connect() {
                tracing::error!("{}", plain(&e));
            }
        };
        if let Err(e) = std::thread::Builder::new().name("passt".into()).spawn(start) {
            tracing::error!("no thread to start passt again: {e}");
        }
    }

    fn retry(&self, delay: Option<Duration>) {
        let Some(delay) = delay else { return };
        let me = self.me.clone();
        let timer = self.events.after(delay, move || {
            if let Some(s) = me.upgrade() {
                s.connect_again();
            }
        });
        let mut s = self.state.lock();
        if !s.closed {
            s.timer = Some(timer);
        }
    }

    fn accept(&self) {
        let Some(listener) = self.state.lock().listener.as_ref().map(|l| l.0.clone()) else { return };
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        let fd = match rustix::net::accept_with(&*listener, flags) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM) => {
                return self.pause_listener();
            }
            Err(_) => return,
        };
        _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
        // One peer: no more are taken until it goes.
        if let Some((_, watch)) = &self.state.lock().listener {
            watch.set_interest(Ready::empty());
        }
        self.take(fd, false);
        self.connected();
    }

    /// The host has no descriptor for who waits: looks again a little later.
    fn pause_listener(&self) {
        let me = self.me.clone();
        let timer = self.events.after(PAUSE, move || {
            if let Some(s) = me.upgrade()
                && let Some((_, watch)) = &s.state.lock().listener
            {
                watch.set_interest(Ready::READ);
            }
        });
        let mut s = self.state.lock();
        if let Some((_, watch)) = &s.listener {
            watch.set_interest(Ready::empty());
        }
        s.timer = Some(timer);
    }

    fn connected(&self) {
        let Some(client) = self.client.upgrade() else { return };
        let shown = self.far.show();
        client.set_info(match (&self.far, self.server) {
            (Far::Program(_), _) => format!("stream,connected to {shown}"),
            (_, true) => format!("connection on {shown}"),
            (_, false) => format!("connected to {shown}"),
        });
        if let (true, Some(nets), Far::At(address)) = (self.modern, self.nets.upgrade(), &self.far) {
            nets.emit("NETDEV_STREAM_CONNECTED", json!({"netdev-id": client.name(), "addr": address.qapi()}));
        }
    }

    fn take(&self, fd: OwnedFd, pending: bool) {
        let fd = Arc::new(fd);
        let me = self.me.clone();
        let interest = if pending { Ready::WRITE } else { Ready::READ };
        let watch = self.events.watch(fd.clone(), interest, move |_| {
            if let Some(s) = me.upgrade() {
                s.ready();
            }
        });
        let conn = Conn { fd, pending, watch, input: Splitter::default(), output: VecDeque::new(), full: false };
        let (old, closed) = {
            let mut s = self.state.lock();
            // (Closed while a program was starting: nobody would end that one.)
            if s.closed { (Some(conn), true) } else { (s.conn.replace(conn), false) }
        };
        drop(old);
        if closed {
            return self.end_program();
        }
        if !pending && !self.server {
            self.connected();
        }
    }

    fn end_program(&self) {
        if let Far::Program(program) = &self.far {
            program.end();
        }
    }

    /// The peer is gone.
    fn lost(&self) {
        let old = {
            let mut s = self.state.lock();
            if let Some((_, watch)) = &s.listener {
                watch.set_interest(Ready::READ);
            }
            s.conn.take()
        };
        let Some(old) = old else { return };
        let was_there = !old.pending;
        drop(old);
        self.end_program();
        if let Some(client) = self.client.upgrade() {
            // (What waited for room is lost.)
            client.flush();
            let shown = self.far.show();
            client.set_info(if self.server { format!("listening on {shown}") } else { "disconnected".into() });
            if let (true, true, Some(nets)) = (self.modern, was_there, self.nets.upgrade()) {
                nets.emit("NETDEV_STREAM_DISCONNECTED", json!({"netdev-id": client.name()}));
            }
        }
        if !self.server {
            self.retry(self.reconnect);
        }
    }

    fn ready(&self) {
        let pending = {
            let mut s = self.state.lock();
            let Some(c) = &mut s.conn else { return };
            let failed = c.pending && !matches!(rustix::net::sockopt::socket_error(&c.fd), Ok(Ok(())));
            if failed { None } else { Some(std::mem::take(&mut c.pending)) }
        };
        match pending {
            None => return self.lost(),
            Some(true) => self.connected(),
            Some(false) => {}
        }
        self.write();
        if !self.state.lock().paused {
            self.read();
        }
        self.choose_interest();
    }

    fn choose_interest(&self) {
        let s = self.state.lock();
        if let Some(c) = &s.conn {
            let mut interest = Ready::empty();
            interest.set(Ready::READ, !s.paused && !c.pending);
            interest.set(Ready::WRITE, c.pending || !c.output.is_empty());
            c.watch.set_interest(interest);
        }
    }

    fn write(&self) {
        let (mut gone, mut room) = (false, false);
        if let Some(c) = &mut self.state.lock().conn {
            while !c.pending && !c.output.is_empty() {
                let (front, _) = c.output.as_slices();
                match send(&c.fd, front, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(n) => drop(c.output.drain(..n)),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(_) => {
                        gone = true;
                        break;
                    }
                }
            }
            room = c.full && c.output.len() <= UNSENT / 2;
            c.full &= !room;
        }
        if room && let Some(client) = self.client.upgrade() {
            client.flush();
        }
        if gone {
            self.lost();
        }
    }

    fn read(&self) {
        let Some(client) = self.client.upgrade() else { return };
        let mut buf = vec![0; CHUNK];
        let mut batch = Batch::new(&client);
        let mut gone = false;
        // A fast peer must not keep the loop for itself.
        for _ in 0..16 {
            let frames = {
                let mut s = self.state.lock();
                let Some(c) = s.conn.as_mut() else { break };
                match recv(&c.fd, &mut buf[..], RecvFlags::DONTWAIT) {
                    Ok((0, _)) => None,
                    Ok((n, _)) => c.input.add(buf.get(..n).unwrap_or_default()),
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                    Err(_) => None,
                }
            };
            let Some(frames) = frames else {
                gone = true;
                break;
            };
            if !frames.into_iter().fold(true, |_, frame| batch.send(frame)) {
                break;
            }
        }
        if !batch.end() {
            self.state.lock().paused = true;
        }
        if gone {
            self.lost();
        }
    }
}

impl End for Stream {
    fn receive(&self, frames: &mut VecDeque<Parcel>) {
        match &mut self.state.lock().conn {
            None => frames.clear(),
            Some(c) => {
                while let Some(frame) = frames.pop_front() {
                    if c.output.len() + frame.len() <= UNSENT {
                        c.output.extend((frame.len() as u32).to_be_bytes());
                        c.output.extend(frame.frame);
                    } else if !c.pending {
                        frames.push_front(frame);
                        c.full = true;
                        break;
                    }
                }
            }
        }
        self.write();
        self.choose_interest();
    }

    fn peer_ready(&self) {
        self.state.lock().paused = false;
        self.choose_interest();
    }

    fn close(&self) {
        let mut s = self.state.lock();
        s.closed = true;
        let old = (s.listener.take(), s.conn.take(), s.timer.take());
        drop(s);
        drop(old);
        self.end_program();
        if let (true, Far::At(Address::Unix(path))) = (self.server, &self.far) {
            _ = std::fs::remove_file(path);
        }
    }
}

fn open(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    let address = Address::take(opts, "addr")?.ok_or_else(|| Error::generic("Parameter 'addr' is missing"))?;
    let server = opts.take_bool("server")?.unwrap_or(false);
    let reconnect = opts.take_number("reconnect-ms")?.filter(|n| *n > 0).map(Duration::from_millis);
    if server && reconnect.is_some() {
        return Err(Error::generic("'reconnect-ms' option is incompatible with socket in server mode"));
    }
    Ok(Stream::start(nets, client, Far::At(address), server, reconnect, true)?)
}

/// `socket,listen=` and `socket,connect=`.
pub(super) fn legacy(nets: &Arc<Nets>, client: &Arc<Client>, at: Address, server: bool) -> Result<Arc<dyn End>> {
    Ok(Stream::start(nets, client, Far::At(at), server, None, false)?)
}

/// `passt`: with a program, which is started again when it has ended.
pub(super) fn with_program(nets: &Arc<Nets>, client: &Arc<Client>, program: Program) -> Result<Arc<dyn End>> {
    Ok(Stream::start(nets, client, Far::Program(program), false, Some(RESTART), false)?)
}

inventory::submit! { BackendDef { name: "stream", open } }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_split_wherever_they_were_cut() {
        let stream = [&[0, 0, 0, 2, 7, 8][..], &[0, 0, 0, 0], &[0, 0, 0, 1, 9]].concat();
        for cut in 0..stream.len() {
            let mut s = Splitter::default();
            let mut frames = s.add(&stream[..cut]).unwrap();
            frames.extend(s.add(&stream[cut..]).unwrap());
            assert_eq!(frames, [vec![7, 8], vec![], vec![9]]);
        }
        assert!(Splitter::default().add(&[0xff; 4]).is_none());
    }

    struct Card;

    impl End for Card {
        fn receive(&self, frames: &mut VecDeque<Parcel>) {
            frames.clear();
        }
    }

    #[test]
    fn what_the_peer_has_no_room_for_waits() {
        const FRAMES: usize = 200;
        let (core, folder) = (hw_core::Core::new(), tempfile::tempdir().unwrap());
        let (nets, events) = (Nets::of(&core), EventLoop::new().unwrap());
        nets.set_events(events.clone());
        let at = folder.path().join("far");
        let server = std::os::unix::net::UnixListener::bind(&at).unwrap();
        let opts = json!({"type": "stream", "id": "n", "addr": {"type": "unix", "path": at.to_str()}});
        let stream = nets.netdev_add(Opts::json(opts.as_object().cloned().unwrap())).unwrap();
        let card = Client::new(&nets, "nic", "card".into());
        nets.add(&card, Arc::new(Card));
        nets.connect(&card, &stream);
        let (mut far, _) = server.accept().unwrap();
        // (The connection is there.)
        events.run_once(Some(Duration::from_millis(20)));
        for n in 0..FRAMES {
            card.send(vec![n as u8; 60_000]);
        }
        for _ in 0..3 {
            events.run_once(Some(Duration::from_millis(20)));
        }
        let reader = std::thread::spawn(move || {
            far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let (mut splitter, mut buf, mut got) = (Splitter::default(), [0; 65536], vec![]);
            while got.len() < FRAMES {
                let Ok(n @ 1..) = io::Read::read(&mut far, &mut buf) else { break };
                got.extend(splitter.add(&buf[..n]).unwrap());
            }
            got
        });
        while !reader.is_finished() {
            events.run_once(Some(Duration::from_millis(20)));
        }
        let got = reader.join().unwrap();
        assert_eq!(got.len(), FRAMES);
        assert!(got.iter().enumerate().all(|(n, f)| *f == vec![n as u8; 60_000]));
        nets.close();
    }
}
