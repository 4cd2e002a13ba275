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

/// What waits for a client.
#[derive(Default)]
struct Inbox {
    frames: VecDeque<Parcel>,
    /// The owner has them in its hands: what it leaves comes back.
    lent: bool,
    /// Meanwhile the owner said that it can take frames again.
    flushed: bool,
    /// Meanwhile they were thrown away.
    purged: bool,
}

/// One end of a link.
pub struct Client {
    name: String,
    kind: &'static str,
    info: Mutex<String>,
    nets: Weak<Nets>,
    peer: RwLock<Weak<Client>>,
    link_down: AtomicBool,
    inbox: Mutex<Inbox>,
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

    /// Which segments may go to the peer joined: bits of [`takes`]. (Filters see what a wire would carry.)
    pub(crate) fn peer_joins(&self) -> u8 {
        let filtered = |c: &Client| c.filtered.load(Ordering::Relaxed);
        let peer = self.peer().filter(|peer| !filtered(self) && !filtered(peer));
        peer.map_or(0, |p| p.takes.load(Ordering::Relaxed))
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
            if inbox.frames.len() < INBOX {
                inbox.frames.push_back(frame);
            }
            let room = inbox.frames.len() < FULL;
            if !room {
                peer.waited_for.store(true, Ordering::Relaxed);
            }
            (inbox.frames.len() == 1, room)
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
        let room = inbox.frames.len() < FULL;
        if !room {
            peer.waited_for.store(true, Ordering::Relaxed);
        }
        room
    }

    /// The owner can take frames again.
    pub fn flush(self: &Arc<Self>) {
        let waiting = {
            let mut inbox = self.inbox.lock();
            inbox.flushed |= inbox.lent;
            !inbox.lent && !inbox.frames.is_empty()
        };
        if waiting && let Some(nets) = self.nets.upgrade() {
            nets.schedule(self);
        }
    }

    /// Throws away what waits. Whoever waits for room hears of it on the event loop's thread.
    pub fn purge(self: &Arc<Self>) {
        {
            let mut inbox = self.inbox.lock();
            inbox.frames.clear();
            inbox.purged |= inbox.lent;
        }
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

    /// Hands the inbox to the owner. What it leaves comes back, and is handed out again if it said meanwhile that it can take frames: a vCPU
    /// may make room after its last look.
    pub(crate) fn deliver(self: &Arc<Self>) {
        let mut frames = {
            let mut inbox = self.inbox.lock();
            (inbox.lent, inbox.flushed, inbox.purged) = (true, false, false);
            std::mem::take(&mut inbox.frames)
        };
        if let Some(end) = self.end() {
            end.receive(&mut frames);
        } else {
            frames.clear();
        }
        let (room, again) = {
            let mut inbox = self.inbox.lock();
            if inbox.purged {
                frames.clear();
            }
            // (What came meanwhile comes after what was left.)
            frames.append(&mut inbox.frames);
            inbox.frames = frames;
            inbox.lent = false;
            (inbox.frames.len() < FULL / 2, inbox.flushed && !inbox.frames.is_empty())
        };
        if again && let Some(nets) = self.nets.upgrade() {
            nets.schedule(self);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use hw_core::Core;
    use hw_core::event_loop::EventLoop;
    use std::time::Duration;

    /// A card without room for the first frame, which is emptied by a vCPU (or reset) right after it has said so.
    struct Late {
        meanwhile: fn(&Arc<Client>),
        client: Mutex<Weak<Client>>,
        taken: Mutex<Vec<Frame>>,
        full: AtomicBool,
    }

    impl End for Late {
        fn receive(&self, frames: &mut VecDeque<Parcel>) {
            if self.full.swap(false, Ordering::Relaxed) {
                (self.meanwhile)(&self.client.lock().upgrade().unwrap());
            } else {
                self.taken.lock().extend(frames.drain(..).map(|p| p.frame));
            }
        }
    }

    /// What arrives of a frame that there was no room for at first.
    fn arrives(meanwhile: fn(&Arc<Client>)) -> Vec<Frame> {
        let core = Core::new();
        let nets = Nets::of(&core);
        let events = EventLoop::new().unwrap();
        nets.set_events(events.clone());
        let (from, to) = (Client::new(&nets, "nic", "from".into()), Client::new(&nets, "nic", "to".into()));
        let client = Mutex::new(Arc::downgrade(&to));
        let late = Arc::new(Late { meanwhile, client, taken: Mutex::default(), full: AtomicBool::new(true) });
        for (client, end) in [(&from, late.clone()), (&to, late.clone())] {
            nets.add(client, end);
        }
        nets.connect(&from, &to);
        from.send(vec![1; 60]);
        for _ in 0..3 {
            events.run_once(Some(Duration::from_millis(2)));
        }
        std::mem::take(&mut *late.taken.lock())
    }

    #[test]
    fn a_frame_arrives_for_which_there_is_room_just_after_the_last_look() {
        assert_eq!(arrives(|_| ()), [[0; 60]; 0], "nobody says that there is room");
        assert_eq!(arrives(Client::flush), [[1; 60]]);
        // A reset throws it away, also between the card's hands and the inbox.
        assert_eq!(arrives(|client| (client.purge(), client.flush()).1), [[0; 60]; 0]);
    }
}
