//! Ports of a virtio serial device, types `virtserialport` and `virtconsole`. Source: virtio 1.2 §5.3.6.
//!
//! Output waits in the driver's own buffers while the host does not take it; a console's may also wait with the host, because drivers
//! stand still until a console has taken a character. Input is read from the host as far as the driver has buffers. A serial port carries
//! nothing while the other end is not there, a console does not care.

use super::ring::{Chain, MAX_SIZE, total};
use super::serial::{VirtioSerial, VirtioSerialBus, receive_queue, room};
use super::serial_control::{Control, event};
use chardev::{CharFrontend, DeviceHandlers, Event};
use hw_core::{Category, Device, DeviceClass, DeviceImpl, Locked, MachineCell, Timer};
use qom::{Class, Error, Object, Prop, PropertyField, Ref, Result, TypeInfo};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// `nr` without a value.
const ANY: u32 = u32::MAX;
/// Most bytes that are taken from the host at a time.
const PIECE: u64 = 4096;
/// Most bytes that are sent at a time, and most chains: others must get the machine.
const BURST: usize = 1 << 20;
const CHAINS: usize = 256;
/// Bytes read out of guest memory at once.
const CHUNK: usize = 64 << 10;
/// Most bytes of a console that wait with the host.
const BACKLOG: usize = 1 << 20;

/// A chain whose bytes are not all sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pending {
    chain: Chain,
    sent: u64,
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct PortRegs {
    /// Somebody has the port open in the guest.
    guest_connected: bool,
    /// The other end is there.
    host_connected: bool,
    pending: Option<Pending>,
    /// Taken from the host when the driver's buffers went away.
    inbox: Vec<u8>,
}

/// Class struct of ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtioSerialPortClass {
    /// The driver makes a terminal of it.
    pub is_console: bool,
}

/// Type `virtio-serial-port`.
#[derive(Object)]
#[qom(name = "virtio-serial-port", parent = Device, abstract, methods(DeviceClass),
    class_init = VirtioSerialPort::class_init, instance_init = VirtioSerialPort::instance_init)]
pub struct VirtioSerialPort {
    parent: Device,
    /// Number; [`ANY`]: the first free one.
    #[property(default = ANY)]
    nr: Prop<u32>,
    /// Name in the guest.
    #[property]
    name: Prop<String>,
    #[state]
    regs: MachineCell<PortRegs>,
    /// `chardev`, of the types that have it.
    chardev: CharFrontend,
    /// The number it has.
    id: AtomicU32,
    /// The host takes nothing: it says when it does.
    throttled: AtomicBool,
    /// Output goes on where it let others have the machine.
    again: Timer,
}

qom::register!(|r| {
    r.add(TypeInfo::of::<VirtioSerialPort>("virtserialport").class_init(|c| {
        c.property(CharFrontend::property::<VirtioSerialPort>("chardev", |p| &p.chardev));
    }));
    let console = TypeInfo::of::<VirtioSerialPort>("virtconsole").parent("virtserialport");
    r.add(console.class_init(|c| c.edit::<VirtioSerialPortClass>().is_console = true));
});

impl VirtioSerialPort {
    fn class_init(c: &mut Class) {
        c.edit::<VirtioSerialPortClass>();
        let d = c.edit::<DeviceClass>();
        d.bus_type = Some("virtio-serial-bus");
        d.categories = vec![Category::Input];
    }

    fn instance_init(&self) -> Result<()> {
        self.again.init(self, Self::transmit);
        Ok(())
    }

    /// Whether the driver makes a terminal of it.
    pub fn is_console(&self) -> bool {
        self.class().get::<VirtioSerialPortClass>().is_some_and(|c| c.is_console)
    }

    /// Name in the guest; empty if it has none.
    pub fn port_name(&self) -> String {
        self.name.get()
    }

    /// The number it has.
    pub fn number(&self) -> u32 {
        self.id.load(Ordering::Relaxed)
    }

    /// Whether the other end is there.
    pub fn is_host_connected(&self, m: &Locked) -> bool {
        self.regs.ro(m).host_connected
    }

    fn device(&self) -> Option<Ref<VirtioSerial>> {
        let bus: Ref<VirtioSerialBus> = self.bus_as()?;
        Ref::new(Ref::into_object(bus.parent_device()?))
    }

    // ---- to the host ----

    /// Sends what the driver has, as far as the host takes it.
    pub(super) fn transmit(&self, m: &mut Locked) {
        let Some(d) = self.device() else { return };
        let queue = receive_queue(self.number()) + 1;
        if !d.is_working(m) || self.throttled.load(Ordering::Relaxed) {
            return;
        }
        let mut done = false;
        let mut left = BURST;
        for turn in 0.. {
            if left == 0 || turn == CHAINS {
                let now = m.clock.now();
                self.again.arm(m, Some(now));
                break;
            }
            let pending = self.regs.rw(m).pending.take();
            let next = match pending {
                Some(p) => Some(p),
                None => d.pop(m, queue).map(|chain| Pending { chain, sent: 0 }),
            };
            let Some(mut p) = next else { break };
            if !self.send(m, &d, &mut p, &mut left) {
                self.regs.rw(m).pending = Some(p);
                if self.throttled.load(Ordering::Relaxed) {
                    break;
                }
                continue;
            }
            d.push(m, queue, &p.chain, 0);
            done = true;
        }
        if done {
            d.interrupt(m, queue);
        }
    }

    /// Sends of a chain as much as the host takes and `left` allows; whether that was all.
    fn send(&self, m: &mut Locked, d: &VirtioSerial, p: &mut Pending, left: &mut usize) -> bool {
        let all = total(&p.chain.readable);
        while p.sent < all && self.regs.ro(m).host_connected {
            let want = (all - p.sent).min(CHUNK as u64).min(*left as u64) as usize;
            if want == 0 {
                return false;
            }
            let mut bytes = vec![0; want];
            let n = d.read_from(m, &p.chain.readable, p.sent, &mut bytes);
            bytes.truncate(n);
            if n == 0 {
                break; // the memory is gone
            }
            let taken = self.give(&bytes);
            p.sent += taken as u64;
            *left -= taken;
            if taken < n {
                self.throttle();
                return false;
            }
        }
        true
    }

    /// Gives bytes to the host; how many it took.
    fn give(&self, bytes: &[u8]) -> usize {
        if !self.chardev.is_attached() {
            return bytes.len();
        }
        if !self.is_console() {
            return self.chardev.write(bytes);
        }
        let room = BACKLOG.saturating_sub(self.chardev.queued());
        let part = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.chardev.write_all(part);
        part.len()
    }

    fn throttle(&self) {
        if !self.throttled.swap(true, Ordering::Relaxed) {
            self.chardev.on_writable_for(self, |p: &Self, m| {
                p.throttled.store(false, Ordering::Relaxed);
                p.transmit(m);
            });
        }
    }

    /// A character of a driver that has no queues yet; what the host does not take is lost.
    pub(super) fn emergency(&self, byte: u8) {
        self.give(&[byte]);
    }

    /// The queue that transmits starts again.
    pub(super) fn forget_output(&self, m: &mut Locked) {
        self.regs.rw(m).pending = None;
    }

    // ---- to the guest ----

    fn can_receive(&self, m: &mut Locked) -> usize {
        let Some(d) = self.device() else { return 0 };
        let queue = receive_queue(self.number());
        let r = self.regs.ro(m);
        if !r.inbox.is_empty() || !r.host_connected || !r.guest_connected || !d.is_up(m, queue) {
            return 0;
        }
        room(&d, m, queue, PIECE)
    }

    fn receive(&self, m: &mut Locked, bytes: &[u8]) {
        self.regs.rw(m).inbox.extend_from_slice(bytes);
        self.fill(m);
    }

    /// The driver has buffers.
    pub(super) fn accept(&self, m: &mut Locked) {
        self.fill(m);
        if self.regs.ro(m).inbox.is_empty() {
            self.chardev.accept_input();
        }
    }

    fn fill(&self, m: &mut Locked) {
        let Some(d) = self.device() else { return };
        let queue = receive_queue(self.number());
        let (mut done, mut turns) = (false, 0);
        while !self.regs.ro(m).inbox.is_empty() && d.is_up(m, queue) && self.regs.ro(m).guest_connected {
            // (A driver may add chains without room as fast as they are used.)
            if turns == MAX_SIZE {
                d.look_later(m, queue);
                break;
            }
            turns += 1;
            let Some(chain) = d.pop(m, queue) else { break };
            let n = total(&chain.writable).min(self.regs.ro(m).inbox.len() as u64) as usize;
            let bytes: Vec<u8> = self.regs.rw(m).inbox.drain(..n).collect();
            d.write_to(m, &chain.writable, 0, &bytes);
            d.push(m, queue, &chain, n as u32);
            done = true;
        }
        if done {
            d.interrupt(m, queue);
        }
    }

    // ---- who is there ----

    /// Whether the other end is there now; a console's always counts as there.
    fn is_host_there(&self) -> bool {
        self.chardev.channel().is_some_and(|c| self.is_console() || c.is_open())
    }

    fn set_host_connected(&self, m: &mut Locked, on: bool) {
        if std::mem::replace(&mut self.regs.rw(m).host_connected, on) == on {
            return;
        }
        if let Some(d) = self.device() {
            if !on {
                // Nobody will take what waits.
                self.throttled.store(false, Ordering::Relaxed);
                self.transmit(m);
            }
            d.send(m, Control::new(self.number(), event::PORT_OPEN, on.into()));
        }
    }

    fn changed(&self, m: &mut Locked, event: Event) {
        match event {
            Event::Opened => self.set_host_connected(m, true),
            Event::Closed => self.set_host_connected(m, false),
            _ => {}
        }
    }

    /// A console's other end counts as there.
    fn console_changed(&self, _m: &mut Locked, _event: Event) {}

    /// The driver says whether somebody has the port open.
    pub(super) fn set_guest_connected(&self, m: &mut Locked, on: bool) {
        self.regs.rw(m).guest_connected = on;
        if !self.is_console() {
            self.chardev.set_open(on);
        }
        if let Some(id) = Device::id(self) {
            self.core().emit("VSERPORT_CHANGE", json!({"id": id, "open": on}));
        }
        if on {
            self.accept(m);
        }
    }

    /// The driver, which knows of one port only, is there.
    pub(super) fn open_only(&self, m: &mut Locked) {
        self.regs.rw(m).guest_connected = true;
        self.accept(m);
    }

    /// The driver is not there any more.
    pub(super) fn guest_reset(&self, m: &mut Locked) {
        let r = self.regs.rw(m);
        (r.pending, r.inbox) = (None, vec![]);
        if r.guest_connected {
            self.set_guest_connected(m, false);
        }
    }
}

impl DeviceImpl for VirtioSerialPort {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let d = self.device();
        let d = d.ok_or_else(|| Error::generic(format!("'{}' needs a virtio-serial-bus", self.type_name())))?;
        let wanted = Some(self.nr.get()).filter(|n| *n != ANY);
        self.parent_realize(m)?;
        let id = d.add_port(self, wanted, &self.name.get()).inspect_err(|_| self.parent_unrealize(m))?;
        self.id.store(id, Ordering::Relaxed);
        self.nr.set(id);
        if self.chardev.is_attached() {
            let event = if self.is_console() { Self::console_changed } else { Self::changed };
            let (can_receive, receive) = (Self::can_receive, Self::receive);
            self.chardev.set_device_handlers(self, DeviceHandlers { can_receive, receive, event });
            self.regs.rw(m).host_connected = self.is_host_there();
            if !self.is_console() {
                self.chardev.set_open(false);
            }
        }
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.chardev.detach();
        self.throttled.store(false, Ordering::Relaxed);
        self.again.arm(m, None);
        if let Some(d) = self.device() {
            // The driver gets back what it had given.
            self.regs.rw(m).host_connected = false;
            self.transmit(m);
            self.guest_reset(m);
            d.remove_port(m, self.number());
        }
        self.parent_unrealize(m);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let r = self.regs.ro(m);
        let possible = r.pending.as_ref().is_none_or(|p| p.sent <= total(&p.chain.readable));
        if !possible || r.inbox.len() as u64 > PIECE {
            return Err(Error::generic("virtio-serial-port: impossible state"));
        }
        // The other end may be another than the one that the state knew.
        let there =
            self.chardev.is_attached() && (self.is_console() || self.chardev.channel().is_some_and(|c| c.is_open()));
        self.set_host_connected(m, there);
        if !self.is_console() {
            let open = self.regs.ro(m).guest_connected;
            self.chardev.set_open(open);
        }
        let now = m.clock.now();
        self.again.arm(m, Some(now));
        self.parent_post_load(m)
    }
}
