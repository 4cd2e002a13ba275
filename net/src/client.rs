//! One end of a link.

use crate::filter::{self, Filter};
use crate::nets::Nets;
use crate::offload::VnetHeader;
use parking_lot::{Mutex, RwLock};
use qom::Result;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

/// An Ethernet frame without checksum.
pub type Frame = Vec<u8>;

/// What is sent: a frame, or one at which something is still to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// The bytes.
    pub frame: Frame,
    /// What is to be done: a checksum, segmentation. It comes only to those who say that they take it ([`Client::set_takes`]).
    pub rest: Option<VnetHeader>,
}

impl From<Frame> for Parcel {
    fn from(frame: Frame) -> Self {
        Self { frame, rest: None }
    }
}

impl std::ops::Deref for Parcel {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.frame
    }
}

/// Unfinished frames that a client takes, as bits.
pub mod takes {
    /// The checksum of TCP or UDP is missing.
    pub const CHECKSUM: u8 = 1;
    /// TCP over IPv4 that is to be cut.
    pub const TCPV4: u8 = 2;
    /// TCP over IPv6 that is to be cut.
    pub const TCPV6: u8 = 4;
}
/// Most frames that wait for a client.
pub const INBOX: usize = 1024;
/// From this many waiting frames on a sender is asked to pause.
const FULL: usize = 256;
/// Longest frame: what a TSO-sized packet of a peer needs. Longer ones are lost.
pub const MAX_FRAME: usize = 68 * 1024;

/// The owner of a client. Called on the event loop's thread with no lock held.
pub trait End: Send + Sync {
    /// Takes frames off the front, as many as it can now.
    fn receive(&self, frames: &mut VecDeque<Parcel>);
    /// The peer's inbox has room again after [`Client::send`] said that it was full.
    fn peer_ready(&self) {}
    /// The link went up or down.
    fn link_changed(&self, _up: bool) {}
    /// `query-rx-filter`'s answer without the name; `None`: there is no filter to show.
    fn rx_filter(&self) -> Option<Value> {
        None
    }
    /// What `query-rx-filter` shows has changed.
    fn rx_filter_changed(&self, _nets: &Nets) {}
    /// Gives back what the host lent.
    fn close(&self) {}
    /// The user-mode network behind it.
    fn user(&self) -> Option<&crate::user::User> {
        None
    }
    /// The hub it is a port of.
    fn hub(&self) -> Option<i64> {
        None
    }
}

/// One end of a link.
pub struct Client {
    name: String,
    kind: &'static str,
    info: Mutex<String>,
    nets: Weak<Nets>,
    peer: RwLock<Weak<Client>>,
    link_down: AtomicBool,
    inbox: Mutex<VecDeque<Parcel>>,
    /// [`takes`].
    takes: AtomicU8,
    /// A sender was told to pause.
    waited_for: AtomicBool,
    end: RwLock<Option<Arc<dyn End>>>,
    filters: RwLock<Vec<Arc<Filter>>>,
    /// Whether there are any.
    filtered: AtomicBool,
}

impl Client {
    pub(crate) fn new(nets: &Arc<Nets>, kind: &'static str, name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            kind,
            info: Mutex::default(),
            nets: Arc::downgrade(nets),
            peer: RwLock::default(),
            link_down: AtomicBool::new(false),
            inbox: Mutex::default(),
            takes: AtomicU8::new(0),
            waited_for: AtomicBool::new(false),
            end: RwLock::default(),
            filters: RwLock::default(),
            filtered: AtomicBool::new(false),
        })
    }

    /// The user's name for it, or a made one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `nic`, `user`, `socket` …
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether it is a card's end.
    pub fn is_nic(&self) -> bool {
        self.kind == "nic"
    }

    /// What `info network` says about it after its name and type.
    pub fn info(&self) -> String {
        self.info.lock().clone()
    }

    /// Sets [`Client::info`].
    pub fn set_info(&self, text: impl Into<String>) {
        *self.info.lock() = text.into();
    }

    /// The other end.
    pub fn peer(&self) -> Option<Arc<Client>> {
        self.peer.read().upgrade()
    }

    pub(crate) fn set_peer(&self, peer: Option<&Arc<Client>>) {
        *self.peer.write() = peer.map(Arc::downgrade).unwrap_or_default();
    }

    /// Its owner.
    pub fn end(&self) -> Option<Arc<dyn End>> {
        self.end.read().clone()
    }

    pub(crate) fn set_end(&self, end: Option<Arc<dyn End>>) {
        *self.end.write() = end;
    }

    /// Whether frames pass.
    pub fn is_link_up(&self) -> bool {
        !self.link_down.load(Ordering::Relaxed)
    }

    /// Plugs the cable in or out; the owner is told if that is new.
    pub(crate) fn set_link(&self, up: bool) {
        if self.link_down.swap(!up, Ordering::Relaxed) == up
            && let Some(end) = self.end()
        {
            end.link_changed(up);
        }
    }

    /// Says which unfinished frames it takes, [`takes`].
    pub fn set_takes(&self, bits: u8) {
        self.takes.store(bits, Ordering::Relaxed);
    }

    fn takes(&self, rest: &VnetHeader) -> bool {
        let bit = match rest.gso_type & !VnetHeader::ECN {
            VnetHeader::NONE if matches!(rest.csum_offset, 6 | 16) => takes::CHECKSUM,
            VnetHeader::TCPV4 => takes::TCPV4,
            VnetHeader::TCPV6 => takes::TCPV6,
            _ => return false,
        };
        self.takes.load(Ordering::Relaxed) & bit != 0
    }

    /// Sends a frame to the peer; false: pause until [`End::peer_ready`]. A frame that cannot go anywhere is lost; one that is unfinished
    /// goes as it is to a peer that takes it, and is finished for others. From any thread, with or without the machine lock.
    pub fn send(&self, parcel: impl Into<Parcel>) -> bool {
        let parcel = parcel.into();
        let Some(peer) = self.peer().filter(|p| self.is_link_up() && p.is_link_up()) else { return true };
        if parcel.len() > MAX_FRAME || parcel.is_empty() {
            return true;
        }
        let filtered = self.filtered.load(Ordering::Relaxed) || peer.filtered.load(Ordering::Relaxed);
        match parcel.rest {
            // (Filters see what a wire would carry.)
            Some(rest) if filtered || !peer.takes(&rest) || !rest.describes(&parcel.frame) => {
                let frames = rest.frames(parcel.frame).unwrap_or_default();
                frames.into_iter().fold(true, |_, frame| self.send(frame))
            }
            _ if filtered => self.send_behind(&peer, parcel.frame, None),
            _ => self.put(&peer, parcel),
        }
    }

    /// Leads a frame through the filters between this client and `peer`, from behind one of them on.
    pub(crate) fn send_behind(&self, peer: &Arc<Client>, frame: Frame, behind: Option<&Filter>) -> bool {
        filter::through(self, peer, frame, behind).is_none_or(|frame| self.put(peer, frame.into()))
    }

    /// Puts a frame into the peer's inbox.
    fn put(&self, peer: &Arc<Client>, frame: Parcel) -> bool {
        let (first, room) = {
            let mut inbox = peer.inbox.lock();
            if inbox.len() < INBOX {
                inbox.push_back(frame);
            }
            let room = inbox.len() < FULL;
            if !room {
                peer.waited_for.store(true, Ordering::Relaxed);
            }
            (inbox.len() == 1, room)
        };
        if first && let Some(nets) = self.nets.upgrade() {
            nets.schedule(peer);
        }
        room
    }

    /// The filters, first to last.
    pub(crate) fn filters(&self) -> Vec<Arc<Filter>> {
        self.filters.read().clone()
    }

    /// Changes the list of filters.
    pub(crate) fn change_filters(&self, f: impl FnOnce(&mut Vec<Arc<Filter>>) -> Result<()>) -> Result<()> {
        let mut list = self.filters.write();
        f(&mut list)?;
        self.filtered.store(!list.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether [`Client::send`] would say to go on.
    pub fn can_send(&self) -> bool {
        let Some(peer) = self.peer() else { return true };
        let inbox = peer.inbox.lock();
        let room = inbox.len() < FULL;
        if !room {
            peer.waited_for.store(true, Ordering::Relaxed);
        }
        room
    }

    /// The owner can take frames again.
    pub fn flush(self: &Arc<Self>) {
        if !self.inbox.lock().is_empty()
            && let Some(nets) = self.nets.upgrade()
        {
            nets.schedule(self);
        }
    }

    /// Throws away what waits. Whoever waits for room hears of it on the event loop's thread.
    pub fn purge(self: &Arc<Self>) {
        self.inbox.lock().clear();
        if self.waited_for.load(Ordering::Relaxed)
            && let Some(nets) = self.nets.upgrade()
        {
            nets.schedule(self);
        }
    }

    /// What `query-rx-filter` shows has changed.
    pub(crate) fn rx_filter_changed(&self) {
        if let (Some(end), Some(nets)) = (self.end(), self.nets.upgrade()) {
            end.rx_filter_changed(&nets);
        }
    }

    fn wake_sender(&self) {
        if self.waited_for.swap(false, Ordering::Relaxed)
            && let Some(end) = self.peer().and_then(|p| p.end())
        {
            end.peer_ready();
        }
    }

    /// Hands the inbox to the owner.
    pub(crate) fn deliver(&self) {
        let mut frames = std::mem::take(&mut *self.inbox.lock());
        if let Some(end) = self.end() {
            end.receive(&mut frames);
        } else {
            frames.clear();
        }
        let room = {
            let mut inbox = self.inbox.lock();
            // (What came meanwhile comes after what was left.)
            frames.append(&mut inbox);
            *inbox = frames;
            inbox.len() < FULL / 2
        };
        if room {
            self.wake_sender();
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}
