//! A device of consoles and serial ports, type `virtio-serial-device`. Source: virtio 1.2 §5.3. The ports are on its bus, type
//! `virtio-serial-bus`, and are [`VirtioSerialPort`]s. Not modelled: sizes of consoles (`VIRTIO_CONSOLE_F_SIZE`).
//!
//! Port 0 has queues 0 (receive) and 1 (transmit), the control queues are 2 and 3, port *n* has 2*n*+2 and 2*n*+3. Messages for the
//! driver wait until it has a buffer for them.

use super::device::{VirtioDevice, VirtioDeviceClass, VirtioImpl, status};
use super::ring::{Chain, total};
use super::serial_control::{Control, LEN, event};
use super::serial_port::VirtioSerialPort;
use hw_core::{Bus, Category, Device, DeviceClass, DeviceImpl, HotplugHandler, Locked, MachineCell};
use parking_lot::RwLock;
use qom::{Class, Error, Handle, Level, Object, Prop, Ref, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Features. §5.3.3
mod f {
    pub const MULTIPORT: u64 = 1 << 1;
    pub const EMERG_WRITE: u64 = 1 << 2;
}

/// Entries of a port's queues, and of the control queues.
const PORT_SIZE: u16 = 128;
const CONTROL_SIZE: u16 = 32;
/// The control queues: to the driver, from it.
const TO_DRIVER: usize = 2;
const FROM_DRIVER: usize = 3;
/// Most ports: each has two queues, and there are two more.
const MAX_PORTS: u32 = super::device::MAX_QUEUES as u32 / 2 - 1;
/// Place of the emergency character in the configuration space. §5.3.4
const EMERG_WR: usize = 8;
/// Messages for a port that can wait at once: added, console, name, opened, closed, removed, and once more.
const WAITING: usize = 12;

/// All that the guest can observe besides rings and registers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SerialRegs {
    /// Messages that found no buffer, oldest first.
    waiting: VecDeque<Control>,
}

/// Type `virtio-serial-bus`.
#[derive(Object)]
#[qom(name = "virtio-serial-bus", parent = Bus)]
pub struct VirtioSerialBus {
    parent: Bus,
}

/// Type `virtio-serial-device`.
#[derive(Object)]
#[qom(name = "virtio-serial-device", parent = VirtioDevice, methods(DeviceClass, VirtioDeviceClass),
    class_init = VirtioSerial::class_init, interfaces(dyn HotplugHandler))]
pub struct VirtioSerial {
    parent: VirtioDevice,
    #[property(name = "max_ports", default = 31)]
    max_ports: Prop<u32>,
    #[state]
    regs: MachineCell<SerialRegs>,
    ports: RwLock<BTreeMap<u32, Handle<VirtioSerialPort>>>,
}

/// Queue by which the driver receives from a port; the next one transmits.
pub(super) fn receive_queue(port: u32) -> usize {
    if port == 0 { 0 } else { 2 * port as usize + 2 }
}

/// The port of a queue that is no control queue.
fn port_of(queue: usize) -> u32 {
    if queue < TO_DRIVER { 0 } else { (queue as u32 - 2) / 2 }
}

impl VirtioSerial {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Input];
        let v = c.edit::<VirtioDeviceClass>();
        (v.device_id, v.name) = (3, "virtio-serial");
    }

    fn port(&self, id: u32) -> Option<Ref<VirtioSerialPort>> {
        self.ports.read().get(&id)?.upgrade()
    }

    fn all(&self) -> Vec<Ref<VirtioSerialPort>> {
        self.ports.read().values().filter_map(Handle::upgrade).collect()
    }

    /// Whether the driver knows of more ports than the first, and of control messages.
    pub(super) fn is_multiport(&self, m: &Locked) -> bool {
        self.has_feature(m, f::MULTIPORT)
    }

    /// Whether the driver drives a queue.
    pub(super) fn is_up(&self, m: &Locked, queue: usize) -> bool {
        let regs = self.regs().ro(m);
        regs.status & status::DRIVER_OK != 0 && self.is_working(m) && regs.queues.get(queue).is_some_and(|q| q.enabled)
    }

    // ---- for ports ----

    /// Gives a port its number.
    ///
    /// # Errors
    /// The number or the name is taken, or there are no more.
    pub(super) fn add_port(&self, port: &VirtioSerialPort, wanted: Option<u32>, name: &str) -> Result<u32> {
        let mut ports = self.ports.write();
        if let Some(id) = wanted.filter(|id| ports.contains_key(id)) {
            return Err(Error::generic(format!("virtio-serial-bus: A port already exists at id {id}")));
        }
        let same = |p: &Handle<VirtioSerialPort>| p.upgrade().is_some_and(|p| p.port_name() == name);
        if !name.is_empty() && ports.values().any(same) {
            return Err(Error::generic(format!("virtio-serial-bus: A port already exists by name {name}")));
        }
        let max = self.max_ports.get();
        // The first number is a console's, for drivers that know no other.
        let first = if port.is_console() { 0 } else { 1 };
        let id = match wanted {
            Some(id) => id,
            None => (first..max).find(|id| !ports.contains_key(id)).ok_or_else(|| {
                Error::generic("virtio-serial-bus: Maximum port limit for this device reached".to_owned())
            })?,
        };
        if id >= max {
            return Err(Error::generic(format!(
                "virtio-serial-bus: Out-of-range port id specified, max. allowed: {}",
                max - 1
            )));
        }
        if id == 0 && !port.is_console() {
            return Err(Error::generic(
                "Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility.",
            ));
        }
        ports.insert(id, port.this());
        Ok(id)
    }

    /// A port is gone.
    pub(super) fn remove_port(&self, m: &mut Locked, id: u32) {
        if self.ports.write().remove(&id).is_some() {
            self.send(m, Control::new(id, event::DEVICE_REMOVE, 1));
        }
    }

    /// Tells the driver something, now or as soon as it has a buffer.
    pub(super) fn send(&self, m: &mut Locked, message: Control) {
        if !self.is_multiport(m) || !self.is_up(m, TO_DRIVER) {
            return; // it will ask when it is there
        }
        let limit = WAITING * self.max_ports.get() as usize;
        let waiting = &mut self.regs.rw(m).waiting;
        if waiting.len() < limit {
            waiting.push_back(message);
        }
        self.deliver(m);
    }

    fn deliver(&self, m: &mut Locked) {
        let mut done = false;
        while let Some(message) = self.regs.ro(m).waiting.front().cloned() {
            let Some(chain) = self.pop(m, TO_DRIVER) else { break };
            self.regs.rw(m).waiting.pop_front();
            let n = self.write_to(m, &chain.writable, 0, &message.bytes());
            self.push(m, TO_DRIVER, &chain, n as u32);
            done = true;
        }
        if done {
            self.interrupt(m, TO_DRIVER);
        }
    }

    // ---- what the driver says ----

    fn control(&self, m: &mut Locked, chain: &Chain) {
        let mut bytes = [0; LEN];
        if self.read_from(m, &chain.readable, 0, &mut bytes) == LEN {
            self.heard(m, &Control::parse(bytes));
        }
        self.push(m, FROM_DRIVER, chain, 0);
        self.interrupt(m, FROM_DRIVER);
    }

    fn heard(&self, m: &mut Locked, message: &Control) {
        let (id, yes) = (message.id, message.value != 0);
        if message.event == event::DEVICE_READY {
            if yes {
                let all: Vec<u32> = self.ports.read().keys().copied().collect();
                all.into_iter().for_each(|id| self.send(m, Control::new(id, event::DEVICE_ADD, 1)));
            } else {
                tracing::warn!(target: "guest_errors", device = self.label(), "the guest could not add the device");
            }
            return;
        }
        let Some(port) = self.port(id) else {
            tracing::warn!(target: "guest_errors", device = self.label(), id, "virtio-serial: there is no such port");
            return;
        };
        match message.event {
            event::PORT_READY if !yes => {
                tracing::warn!(target: "guest_errors", device = self.label(), id, "the guest could not add the port");
            }
            event::PORT_READY => {
                if port.is_console() {
                    self.send(m, Control::new(id, event::CONSOLE_PORT, 1));
                }
                let name = port.port_name();
                if !name.is_empty() {
                    self.send(m, Control { name, ..Control::new(id, event::PORT_NAME, 1) });
                }
                if port.is_host_connected(m) {
                    self.send(m, Control::new(id, event::PORT_OPEN, 1));
                }
            }
            event::PORT_OPEN => port.set_guest_connected(m, yes),
            _ => {}
        }
    }

    /// The driver is not there any more.
    fn forget(&self, m: &mut Locked) {
        self.regs.rw(m).waiting.clear();
        self.all().iter().for_each(|p| p.guest_reset(m));
    }
}

impl HotplugHandler for VirtioSerial {
    fn plug(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        let o = dev.object();
        if let Some(port) = o.cast::<VirtioSerialPort>() {
            self.send(m, Control::new(port.number(), event::DEVICE_ADD, 1));
            self.config_changed(m);
        }
        Ok(())
    }
}

impl VirtioImpl for VirtioSerial {
    fn features(&self, offered: u64) -> u64 {
        let several = if self.max_ports.get() > 1 { f::MULTIPORT } else { 0 };
        offered | several | f::EMERG_WRITE
    }

    /// §5.3.4; the size of the console is not known.
    fn config(&self, _m: &Locked) -> Vec<u8> {
        [0, self.max_ports.get(), 0].iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    /// A character of a driver that has nothing else yet. §5.3.4
    fn set_config(&self, m: &mut Locked, at: usize, bytes: &[u8]) {
        let emergency = EMERG_WR.checked_sub(at).and_then(|skip| bytes.get(skip)).filter(|b| **b != 0);
        let Some(byte) = emergency else { return };
        if let Some(console) = self.all().into_iter().find(|p| p.is_console() && p.is_host_connected(m)) {
            console.emergency(*byte);
        }
    }

    fn handle_queue(&self, m: &mut Locked, n: usize) {
        match n {
            TO_DRIVER => self.deliver(m),
            FROM_DRIVER => self.each_chain(m, n, |d: &Self, m, chain| d.control(m, &chain)),
            _ => match self.port(port_of(n)) {
                Some(port) if n & 1 == 0 => port.accept(m),
                Some(port) => port.transmit(m),
                // What nobody takes is lost, as with a port whose other end is not there.
                None if n & 1 != 0 => self.each_chain(m, n, move |d: &Self, m, chain| {
                    d.push(m, n, &chain, 0);
                    d.interrupt(m, n);
                }),
                None => {}
            },
        }
    }

    fn status_changed(&self, m: &mut Locked, new: u8) {
        if new & status::DRIVER_OK == 0 {
            return self.forget(m);
        }
        if !self.is_multiport(m)
            && let Some(port) = self.port(0)
        {
            // It cannot say that it opens its only port.
            port.open_only(m);
        }
    }

    fn stop(&self, m: &mut Locked, queue: Option<usize>) {
        match queue {
            None => self.forget(m),
            Some(TO_DRIVER | FROM_DRIVER) => {}
            Some(n) if n & 1 != 0 => {
                if let Some(port) = self.port(port_of(n)) {
                    port.forget_output(m);
                }
            }
            Some(_) => {}
        }
    }
}

impl DeviceImpl for VirtioSerial {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let max = self.max_ports.get();
        if max == 0 {
            return Err(Error::generic("Maximum number of serial ports not specified"));
        }
        if max > MAX_PORTS {
            return Err(Error::generic(format!("maximum ports supported: {MAX_PORTS}")));
        }
        let ports = std::iter::repeat_n(PORT_SIZE, 2 * max as usize - 2);
        let first = [PORT_SIZE, PORT_SIZE, CONTROL_SIZE, CONTROL_SIZE];
        self.set_queues(m, first.into_iter().chain(ports));
        self.parent_realize(m)?;
        // The bus carries the name that the user gave the function.
        let device: &Device = self;
        let function = device.bus().and_then(|b| b.parent_device()).and_then(|d| d.id());
        let name = function.map(|id| format!("{id}.0"));
        let bus: Result<Ref<VirtioSerialBus>> = Bus::create(self, "virtio-serial-bus", name.as_deref());
        let bus = bus.inspect_err(|_| self.parent_unrealize(m))?;
        bus.set_hotplug_handler(Some(&self.object()))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.parent_unrealize(m);
        for bus in self.child_buses() {
            bus.unparent();
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let waiting = &self.regs.ro(m).waiting;
        let max = self.max_ports.get();
        if waiting.len() > WAITING * max as usize || waiting.iter().any(|w| w.id >= max) {
            return Err(Error::generic("virtio-serial: impossible state"));
        }
        self.parent_post_load(m)
    }
}

/// Bytes that the first chain of a queue has room for, at most `limit`; chains without room go back.
pub(super) fn room(device: &VirtioSerial, m: &mut Locked, queue: usize, limit: u64) -> usize {
    // (A queue holds no more chains than entries.)
    for _ in 0..=PORT_SIZE {
        let Some(chain) = device.pop(m, queue) else { return 0 };
        let room = total(&chain.writable).min(limit);
        if room > 0 {
            device.unpop(m, queue, &chain);
            return room as usize;
        }
        device.push(m, queue, &chain, 0);
        device.interrupt(m, queue);
    }
    0
}
