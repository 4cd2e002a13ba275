//! I²C and SMBus: bus type `i2c-bus`, slaves `i2c-slave`, SMBus slaves `smbus-device`.
//! Sources: I²C-bus specification UM10204 §3.1 (start, address, acknowledge); SMBus 2.0 §5.5 (bus protocols).
//!
//! A transfer is a sequence of calls made by the master; nothing is asynchronous. Not modelled: arbitration, clock
//! stretching, ten-bit addresses, packet error codes.

use parking_lot::RwLock;
use qom::{Class, Error, Handle, Level, Object, Prop, Ref, Result};
use serde::{Deserialize, Serialize};

use crate::locked::{Locked, MachineCell};
use crate::qdev::{Bus, Device, DeviceClass, DeviceImpl, Phase};

/// What the master does at the start or end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum I2cEvent {
    /// Start (or repeated start), the slave will be read.
    StartRecv,
    /// Start, the slave will be written.
    StartSend,
    /// Stop.
    Finish,
    /// The master did not acknowledge the byte it read: the last one.
    Nack,
}

/// The slave does not acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not acknowledged")]
pub struct Nack;

/// Class struct of slaves.
#[derive(Clone)]
pub struct I2cSlaveClass {
    /// See [`I2cImpl::event`].
    pub event: fn(&dyn Object, &mut Locked, I2cEvent) -> Result<(), Nack>,
    /// See [`I2cImpl::send`].
    pub send: fn(&dyn Object, &mut Locked, u8) -> Result<(), Nack>,
    /// See [`I2cImpl::recv`].
    pub recv: fn(&dyn Object, &mut Locked) -> u8,
}

impl Default for I2cSlaveClass {
    fn default() -> Self {
        Self { event: |_, _, _| Ok(()), send: |_, _, _| Err(Nack), recv: |_, _| 0xff }
    }
}

/// What a slave does; enter it with `#[qom(methods(DeviceClass, I2cSlaveClass))]`.
pub trait I2cImpl: Level {
    /// A transfer to the slave's address starts or ends.
    ///
    /// # Errors
    /// The slave does not answer to its address now.
    fn event(&self, m: &mut Locked, event: I2cEvent) -> Result<(), Nack>;
    /// The master writes a byte.
    ///
    /// # Errors
    /// The slave does not acknowledge it.
    fn send(&self, m: &mut Locked, byte: u8) -> Result<(), Nack>;
    /// The master reads a byte.
    fn recv(&self, m: &mut Locked) -> u8;
}

impl I2cSlaveClass {
    /// Enters the methods of `T` into its class.
    pub fn implement<T: I2cImpl>(&mut self) {
        self.event = |o, m, e| qom::of_class::<T>(o).event(m, e);
        self.send = |o, m, b| qom::of_class::<T>(o).send(m, b);
        self.recv = |o, m| qom::of_class::<T>(o).recv(m);
    }
}

/// Type `i2c-slave`.
#[derive(qom::Object)]
#[qom(name = "i2c-slave", parent = Device, abstract, class_init = I2cSlave::class_init)]
pub struct I2cSlave {
    parent: Device,
    /// Seven-bit address.
    #[property(default = 0)]
    pub address: Prop<u8>,
}

impl I2cSlave {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().bus_type = Some("i2c-bus");
        c.edit::<I2cSlaveClass>();
    }

    fn slave_class(&self) -> &'static I2cSlaveClass {
        self.class().get().expect("classes below 'i2c-slave' have an I2cSlaveClass")
    }
}

/// Whom the current transfer addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Transfer {
    address: Option<u8>,
    reading: bool,
}

/// Type `i2c-bus`.
#[derive(qom::Object)]
#[qom(name = "i2c-bus", parent = Bus)]
pub struct I2cBus {
    parent: Bus,
    #[state]
    transfer: MachineCell<Transfer>,
}

/// Address that every slave hears.
const GENERAL_CALL: u8 = 0;

impl I2cBus {
    /// A bus below `master`.
    ///
    /// # Errors
    /// The name is taken.
    pub fn create(master: &Device, name: &str) -> Result<Ref<I2cBus>> {
        Bus::create(master, "i2c-bus", Some(name))
    }

    /// Slaves that hear `address`.
    fn hearers(&self, address: u8) -> Vec<Ref<I2cSlave>> {
        let all = self.devices().into_iter().filter_map(|(_, d)| Ref::<I2cSlave>::new(d));
        all.filter(|s| address == GENERAL_CALL || s.address.get() == address).collect()
    }

    fn current(&self, m: &Locked) -> Vec<Ref<I2cSlave>> {
        self.transfer.ro(m).address.map(|a| self.hearers(a)).unwrap_or_default()
    }

    /// Whether a transfer is in progress.
    pub fn is_busy(&self, m: &Locked) -> bool {
        self.transfer.ro(m).address.is_some()
    }

    /// Start, or repeated start, with the address byte.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn start(&self, m: &mut Locked, address: u8, reading: bool) -> Result<(), Nack> {
        let slaves = self.hearers(address);
        if slaves.is_empty() {
            return Err(Nack);
        }
        *self.transfer.rw(m) = Transfer { address: Some(address), reading };
        let event = if reading { I2cEvent::StartRecv } else { I2cEvent::StartSend };
        for s in &slaves {
            let r = (s.slave_class().event)(&**Ref::object(s), m, event);
            if r.is_err() && address != GENERAL_CALL {
                self.end(m);
                return r;
            }
        }
        Ok(())
    }

    /// Stop.
    pub fn end(&self, m: &mut Locked) {
        for s in self.current(m) {
            _ = (s.slave_class().event)(&**Ref::object(&s), m, I2cEvent::Finish);
        }
        *self.transfer.rw(m) = Transfer::default();
    }

    /// The master does not acknowledge the byte it read last.
    pub fn nack(&self, m: &mut Locked) {
        for s in self.current(m) {
            _ = (s.slave_class().event)(&**Ref::object(&s), m, I2cEvent::Nack);
        }
    }

    /// Writes a byte to the addressed slaves.
    ///
    /// # Errors
    /// None of them acknowledges.
    pub fn send(&self, m: &mut Locked, byte: u8) -> Result<(), Nack> {
        let mut result = Err(Nack);
        for s in self.current(m) {
            if (s.slave_class().send)(&**Ref::object(&s), m, byte).is_ok() {
                result = Ok(());
            }
        }
        result
    }

    /// Reads a byte; all ones where nobody drives the bus.
    pub fn recv(&self, m: &mut Locked) -> u8 {
        if !self.transfer.ro(m).reading {
            return 0xff;
        }
        match self.current(m).first() {
            Some(s) => (s.slave_class().recv)(&**Ref::object(s), m),
            None => 0xff,
        }
    }

    // ---- SMBus protocols of the master, SMBus 2.0 §5.5 ----

    fn transfer_out(&self, m: &mut Locked, address: u8, bytes: &[u8]) -> Result<(), Nack> {
        self.start(m, address, false)?;
        let sent = bytes.iter().try_for_each(|b| self.send(m, *b));
        self.end(m);
        sent
    }

    /// Reads as many bytes as `len` says, which may read the first itself. `command`: written first, if given.
    fn transfer_in(
        &self,
        m: &mut Locked,
        address: u8,
        command: Option<u8>,
        len: impl FnOnce(&mut Locked) -> usize,
    ) -> Result<Vec<u8>, Nack> {
        if let Some(c) = command {
            self.start(m, address, false)?;
            if self.send(m, c).is_err() {
                self.end(m);
                return Err(Nack);
            }
        }
        self.start(m, address, true).inspect_err(|_| self.end(m))?;
        let n = len(m);
        let bytes = (0..n).map(|_| self.recv(m)).collect();
        self.nack(m);
        self.end(m);
        Ok(bytes)
    }

    /// Quick command: an address byte and nothing else.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn quick(&self, m: &mut Locked, address: u8, reading: bool) -> Result<(), Nack> {
        self.start(m, address, reading)?;
        self.end(m);
        Ok(())
    }

    /// Receive byte.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn receive_byte(&self, m: &mut Locked, address: u8) -> Result<u8, Nack> {
        Ok(self.transfer_in(m, address, None, |_| 1)?.first().copied().unwrap_or(0xff))
    }

    /// Send byte.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn send_byte(&self, m: &mut Locked, address: u8, byte: u8) -> Result<(), Nack> {
        self.transfer_out(m, address, &[byte])
    }

    /// Read byte.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn read_byte(&self, m: &mut Locked, address: u8, command: u8) -> Result<u8, Nack> {
        Ok(self.transfer_in(m, address, Some(command), |_| 1)?.first().copied().unwrap_or(0xff))
    }

    /// Write byte.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn write_byte(&self, m: &mut Locked, address: u8, command: u8, data: u8) -> Result<(), Nack> {
        self.transfer_out(m, address, &[command, data])
    }

    /// Read word, low byte first.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn read_word(&self, m: &mut Locked, address: u8, command: u8) -> Result<u16, Nack> {
        let bytes = self.transfer_in(m, address, Some(command), |_| 2)?;
        Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u16::from(*b)))
    }

    /// Write word, low byte first.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn write_word(&self, m: &mut Locked, address: u8, command: u8, data: u16) -> Result<(), Nack> {
        let [low, high] = data.to_le_bytes();
        self.transfer_out(m, address, &[command, low, high])
    }

    /// Block read: with `count` the slave says how many bytes come, otherwise `max` are read (I²C block read).
    /// `command`: written first, if given.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn read_block(
        &self,
        m: &mut Locked,
        address: u8,
        command: Option<u8>,
        max: usize,
        count: bool,
    ) -> Result<Vec<u8>, Nack> {
        self.transfer_in(m, address, command, |m| if count { usize::from(self.recv(m)).min(max) } else { max })
    }

    /// Block write: with `count` the length is sent first.
    ///
    /// # Errors
    /// No slave acknowledges.
    pub fn write_block(&self, m: &mut Locked, address: u8, command: u8, data: &[u8], count: bool) -> Result<(), Nack> {
        let mut bytes = vec![command];
        if count {
            bytes.push(data.len() as u8);
        }
        bytes.extend_from_slice(data);
        self.transfer_out(m, address, &bytes)
    }

    /// Creates and realizes a slave on this bus.
    ///
    /// # Errors
    /// As [`Device::qdev_realize`].
    pub fn create_slave(&self, m: &mut Locked, type_name: &str, address: u8) -> Result<Ref<I2cSlave>> {
        let s: Ref<I2cSlave> = self.scope().object_new_as(type_name)?;
        s.address.set(address);
        let bus: Ref<Bus> = Ref::new(self.object()).ok_or("not a bus")?;
        s.realize_on(m, &bus)?;
        Ok(s)
    }
}

/// What an SMBus slave does; enter it with `#[qom(methods(DeviceClass, SmbusClass))]`.
pub trait SmbusImpl: Level {
    /// Quick command, the read-write bit as data.
    fn quick(&self, _m: &mut Locked, _reading: bool) {}
    /// The master wrote these bytes: command code first.
    ///
    /// # Errors
    /// The slave does not acknowledge them.
    fn write_data(&self, m: &mut Locked, bytes: &[u8]) -> Result<(), Nack>;
    /// The master reads the next byte.
    fn receive_byte(&self, m: &mut Locked) -> u8;
}

/// Class struct of SMBus slaves.
#[derive(Clone)]
pub struct SmbusClass {
    quick: fn(&dyn Object, &mut Locked, bool),
    write_data: fn(&dyn Object, &mut Locked, &[u8]) -> Result<(), Nack>,
    receive_byte: fn(&dyn Object, &mut Locked) -> u8,
}

impl Default for SmbusClass {
    fn default() -> Self {
        Self { quick: |_, _, _| (), write_data: |_, _, _| Err(Nack), receive_byte: |_, _| 0xff }
    }
}

impl SmbusClass {
    /// Enters the methods of `T` into its class.
    pub fn implement<T: SmbusImpl>(&mut self) {
        self.quick = |o, m, reading| qom::of_class::<T>(o).quick(m, reading);
        self.write_data = |o, m, bytes| qom::of_class::<T>(o).write_data(m, bytes);
        self.receive_byte = |o, m| qom::of_class::<T>(o).receive_byte(m);
    }
}

/// Where an SMBus slave is in a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    #[default]
    Idle,
    /// Being written.
    Write,
    /// Being read.
    Read,
    /// The last byte was read.
    Done,
    /// Out of step with the master until the next stop.
    Confused,
}

/// Transfer of an SMBus slave: what was written so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SmbusState {
    mode: Mode,
    data: Vec<u8>,
}

/// Command, count, 32 bytes (SMBus 2.0 §5.5.7).
const SMBUS_MAX: usize = 34;

/// Type `smbus-device`: turns bus events into the SMBus protocols of a slave.
#[derive(qom::Object)]
#[qom(name = "smbus-device", parent = I2cSlave, abstract, methods(DeviceClass, I2cSlaveClass), class_init = |c: &mut Class| { c.edit::<SmbusClass>(); })]
pub struct SmbusDevice {
    parent: I2cSlave,
    #[state]
    transfer: MachineCell<SmbusState>,
}

impl DeviceImpl for SmbusDevice {
    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            *self.transfer.rw(m) = SmbusState::default();
        }
        self.parent_reset(m, phase);
    }
}

impl SmbusDevice {
    fn smbus_class(&self) -> &'static SmbusClass {
        self.class().get().expect("classes below 'smbus-device' have an SmbusClass")
    }

    /// Hands over what was written.
    fn deliver(&self, m: &mut Locked) -> Result<(), Nack> {
        let data = std::mem::take(&mut self.transfer.rw(m).data);
        if data.is_empty() { Ok(()) } else { (self.smbus_class().write_data)(&*self.object(), m, &data) }
    }
}

impl I2cImpl for SmbusDevice {
    fn event(&self, m: &mut Locked, event: I2cEvent) -> Result<(), Nack> {
        let mode = self.transfer.ro(m).mode;
        let next = match (event, mode) {
            (I2cEvent::StartSend, Mode::Idle) => Mode::Write,
            (I2cEvent::StartRecv, Mode::Idle) => Mode::Read,
            (I2cEvent::StartRecv, Mode::Write) => {
                if self.transfer.ro(m).data.is_empty() {
                    Mode::Confused
                } else {
                    self.deliver(m)?;
                    Mode::Read
                }
            }
            (I2cEvent::Finish, Mode::Write) => {
                if self.transfer.ro(m).data.is_empty() {
                    (self.smbus_class().quick)(&*self.object(), m, false);
                } else {
                    self.deliver(m)?;
                }
                Mode::Idle
            }
            (I2cEvent::Finish, Mode::Read) => {
                (self.smbus_class().quick)(&*self.object(), m, true);
                Mode::Idle
            }
            (I2cEvent::Finish, _) => Mode::Idle,
            (I2cEvent::Nack, Mode::Read | Mode::Done) => Mode::Done,
            (I2cEvent::Nack, mode) => mode,
            _ => Mode::Confused,
        };
        let s = self.transfer.rw(m);
        s.mode = next;
        if next != Mode::Write {
            s.data.clear();
        }
        if next == Mode::Confused { Err(Nack) } else { Ok(()) }
    }

    fn send(&self, m: &mut Locked, byte: u8) -> Result<(), Nack> {
        let s = self.transfer.rw(m);
        if s.mode != Mode::Write || s.data.len() >= SMBUS_MAX {
            return Err(Nack);
        }
        s.data.push(byte);
        Ok(())
    }

    fn recv(&self, m: &mut Locked) -> u8 {
        match self.transfer.ro(m).mode {
            Mode::Read => (self.smbus_class().receive_byte)(&*self.object(), m),
            _ => 0xff,
        }
    }
}

/// The bus as a master keeps it.
#[derive(Default)]
pub struct I2cMaster(RwLock<Handle<I2cBus>>);

impl I2cMaster {
    /// Keeps `bus`.
    pub fn set(&self, bus: &Ref<I2cBus>) {
        *self.0.write() = Handle::new(Ref::object(bus)).unwrap_or_default();
    }

    /// The bus.
    ///
    /// # Errors
    /// Before it was set.
    pub fn bus(&self) -> Result<Ref<I2cBus>> {
        self.0.read().clone().upgrade().ok_or_else(|| Error::generic("there is no i2c bus yet"))
    }
}
