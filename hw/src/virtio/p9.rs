//! A folder of the host, type `virtio-9p-device`. Source: Linux's `virtio_9p.h`; the protocol: [`crate::p9`].
//!
//! Requests are served one after the other by a thread of the device's own, so that the host's files make nobody wait who holds the
//! machine. Chains at work are part of the state; what the driver's fids stand for is not: a state with a session cannot be loaded.

use super::device::{VirtioDevice, VirtioDeviceClass, VirtioImpl};
use super::ring::{Chain, total};
use crate::fsdev::{FsDev, FsDevs, Tree};
use crate::p9::server::{MAX_MSIZE, Server};
use crate::p9::wire::HEADER;
use hw_core::{Category, DeviceClass, DeviceImpl, Locked, MachineCell};
use parking_lot::Mutex;
use qom::{Class, Error, Handle, Level, Object, Prop, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The feature that there is a tag in the configuration.
const MOUNT_TAG: u64 = 1;
/// Entries of the queue.
const SIZE: u16 = 128;
/// Most bytes of a tag.
const MAX_TAG: usize = 31;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct P9Regs {
    /// The requests at work, by number.
    pending: BTreeMap<u64, Chain>,
    /// The driver has begun a session.
    session: bool,
}

/// Something for the thread.
enum Work {
    /// A request, by number.
    Request(u64),
    /// The session ends.
    Reset,
}

/// Type `virtio-9p-device`.
#[derive(Object)]
#[qom(name = "virtio-9p-device", parent = VirtioDevice, methods(DeviceClass, VirtioDeviceClass),
    class_init = Virtio9p::class_init)]
pub struct Virtio9p {
    parent: VirtioDevice,
    /// What the guest mounts.
    #[property(name = "mount_tag")]
    mount_tag: Prop<String>,
    /// Id of the folder.
    #[property]
    fsdev: Prop<String>,
    #[state]
    regs: MachineCell<P9Regs>,
    /// Where the thread takes its work from; it ends when this goes.
    work: Mutex<Option<Sender<Work>>>,
    /// Number of the next request; none comes twice, also after a reset.
    next: AtomicU64,
}

/// The thread: serves what comes, until nobody can send any more.
fn serve(device: &Handle<Virtio9p>, work: &Receiver<Work>, mut server: Server) {
    while let Ok(next) = work.recv() {
        match next {
            Work::Reset => server.reset(),
            Work::Request(number) => {
                let found = device.with(|d| d.message(&mut d.core().lock(), number)).flatten();
                let Some((message, room)) = found else { continue };
                let reply = server.handle(&message, room);
                let (used, warning) = (server.is_used(), server.take_warning());
                device.with(|d| {
                    let m = &mut d.core().lock();
                    warning.iter().for_each(|w| d.core().events.warning.notify(m, w));
                    d.done(m, number, reply.as_deref(), used);
                });
            }
        }
    }
}

impl Virtio9p {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Storage];
        let v = c.edit::<VirtioDeviceClass>();
        (v.device_id, v.name) = (9, "virtio-9p");
    }

    fn send(&self, work: Work) {
        if let Some(to) = &*self.work.lock() {
            _ = to.send(work);
        }
    }

    fn begin(&self, m: &mut Locked, chain: Chain) {
        let len = total(&chain.readable);
        if len < HEADER as u64 || total(&chain.writable) < HEADER as u64 {
            return self.set_broken(m, "wrong size for a 9P message");
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.regs.rw(m).pending.insert(number, chain);
        self.send(Work::Request(number));
    }

    /// The message of a request, and bytes of room for the reply.
    fn message(&self, m: &mut Locked, number: u64) -> Option<(Vec<u8>, u64)> {
        let chain = self.regs.ro(m).pending.get(&number)?.clone();
        let mut message = vec![0; total(&chain.readable).min(MAX_MSIZE.into()) as usize];
        let n = self.read_from(m, &chain.readable, 0, &mut message);
        message.truncate(n);
        Some((message, total(&chain.writable)))
    }

    /// A request is done. One that the driver has forgotten meanwhile is for nobody.
    fn done(&self, m: &mut Locked, number: u64, reply: Option<&[u8]>, used: bool) {
        let r = self.regs.rw(m);
        let Some(chain) = r.pending.remove(&number) else { return };
        r.session = used;
        let room = total(&chain.writable);
        let Some(reply) = reply.filter(|b| b.len() as u64 <= room) else {
            return self.set_broken(m, "no room for a 9P reply");
        };
        self.write_to(m, &chain.writable, 0, reply);
        self.push(m, 0, &chain, reply.len() as u32);
        self.interrupt(m, 0);
    }

    fn folder(&self) -> Result<std::sync::Arc<FsDev>> {
        let (id, tag) = (self.fsdev.get(), self.mount_tag.get());
        let shown = if id.is_empty() { "NULL" } else { &id };
        let found = self.core().service::<FsDevs>().find(&id);
        let found =
            found.ok_or_else(|| Error::generic(format!("9pfs device couldn't find fsdev with the id = {shown}")))?;
        if tag.is_empty() {
            return Err(Error::generic(format!("fsdev with id {id} needs mount_tag arguments")));
        }
        if tag.len() > MAX_TAG {
            return Err(Error::generic(format!(
                "mount tag '{tag}' ({} bytes) is longer than maximum ({MAX_TAG} bytes)",
                tag.len()
            )));
        }
        Ok(found)
    }
}

impl VirtioImpl for Virtio9p {
    fn features(&self, offered: u64) -> u64 {
        offered | MOUNT_TAG
    }

    /// Length of the tag, and the tag.
    fn config(&self, _m: &Locked) -> Vec<u8> {
        let tag = self.mount_tag.get();
        let mut c = u16::try_from(tag.len()).unwrap_or(u16::MAX).to_le_bytes().to_vec();
        c.extend(tag.as_bytes());
        c
    }

    fn handle_queue(&self, m: &mut Locked, n: usize) {
        self.each_chain(m, n, |d: &Self, m, chain| d.begin(m, chain));
    }

    fn stop(&self, m: &mut Locked, queue: Option<usize>) {
        let r = self.regs.rw(m);
        r.pending.clear();
        if queue.is_none() {
            r.session = false;
            self.send(Work::Reset);
        }
    }
}

impl DeviceImpl for Virtio9p {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let folder = self.folder()?;
        let path = folder.path.display();
        let tree = Tree::open(&folder).map_err(|e| match e {
            rustix::io::Errno::NOENT => Error::generic(format!("share path {path} does not exist")),
            rustix::io::Errno::NOTDIR => Error::generic(format!("share path {path} is not a directory")),
            e => Error::generic(format!("cannot open share path {path}: {}", std::io::Error::from(e))),
        })?;
        self.set_queues(m, [SIZE]);
        self.parent_realize(m)?;
        let (to, from) = channel();
        let (me, server) = (self.this(), Server::new(tree));
        let thread = std::thread::Builder::new().name("9p".into()).spawn(move || serve(&me, &from, server));
        if let Err(e) = thread {
            self.parent_unrealize(m);
            return Err(Error::generic(format!("cannot start a thread: {e}")));
        }
        *self.work.lock() = Some(to);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.parent_unrealize(m);
        *self.work.lock() = None;
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let r = self.regs.ro(m);
        if r.session || !r.pending.is_empty() {
            return Err(Error::generic("virtio-9p: a state with a mounted folder cannot be loaded"));
        }
        self.send(Work::Reset);
        self.parent_post_load(m)
    }
}
