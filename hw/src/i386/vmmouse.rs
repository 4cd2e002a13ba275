//! VMware's pointer behind the backdoor, type `vmmouse`: words about positions or movements, announced by the PS/2 mouse.
//! Source: VMware's vmmouse driver for X.Org, `vmmouse_defs.h`; QEMU's device for what is not in it.

use super::vmport::{Command, Regs, Vmport, cmd};
use crate::input::{i8042::I8042, ps2_mouse_regs::button};
use hw_core::{Category, DeviceClass, DeviceImpl, IsaDevice, Locked, MachineCell, Phase};
use qom::{Error, Level, Link, Object, Ref, Result};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};
use ui::input::{Claim, Pointer, PointerEvent};

/// Words that wait for the guest.
const QUEUE: usize = 1024;
/// Words of an event.
const EVENT: usize = 4;
/// Most words a guest takes at once: as many as registers.
const MOST: u32 = 6;
/// Status: switched off, or wrongly used.
const ERROR: u16 = 0xffff;
/// Answer to READ_ID.
const VERSION: u32 = 0x3442_554a;
/// In the first word of an event: movements, not a position.
const RELATIVE: u32 = 1 << 16;
/// Buttons in the first word: left, right, middle.
const BUTTONS: [(u8, u32); 3] = [(button::LEFT, 0x20), (button::RIGHT, 0x10), (button::MIDDLE, 0x08)];

/// The port's commands that it answers.
const COMMANDS: [u8; 3] = [cmd::ABSPOINTER_DATA, cmd::ABSPOINTER_STATUS, cmd::ABSPOINTER_COMMAND];

/// Arguments of the command, in EBX.
mod request {
    pub const DISABLE: u32 = 0xf5;
    /// "REAE": switch on.
    pub const READ_ID: u32 = 0x4541_4552;
    /// "RREL".
    pub const RELATIVE: u32 = 0x4c45_5252;
    /// "RABS".
    pub const ABSOLUTE: u32 = 0x5342_4152;
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmmouseRegs {
    queue: VecDeque<u32>,
    status: u16,
    absolute: bool,
    /// It gets the pointer's events.
    active: bool,
    /// The last position.
    x: i32,
    y: i32,
}

impl Default for VmmouseRegs {
    fn default() -> Self {
        VmmouseRegs { queue: VecDeque::new(), status: ERROR, absolute: false, active: false, x: 0, y: 0 }
    }
}

impl VmmouseRegs {
    fn disable(&mut self) {
        (self.status, self.active) = (ERROR, false);
    }

    /// Switches the kind of events; nothing happens before READ_ID.
    fn request(&mut self, absolute: bool) {
        if self.status == 0 {
            (self.absolute, self.active) = (absolute, true);
        }
    }

    /// A command of the guest.
    fn command(&mut self, r: &mut Regs) {
        // Sixteen bits here, where the port looks at eight.
        match u8::try_from(r.ecx & 0xffff).unwrap_or(0) {
            cmd::ABSPOINTER_STATUS => {
                r.eax = u32::from(self.status) << 16 | u32::try_from(self.queue.len()).unwrap_or(0);
            }
            cmd::ABSPOINTER_COMMAND => match r.ebx {
                request::DISABLE => self.disable(),
                request::READ_ID if self.queue.len() < QUEUE => {
                    self.queue.push_back(VERSION);
                    self.status = 0;
                    self.request(self.absolute);
                }
                request::READ_ID => {}
                request::RELATIVE => self.request(false),
                request::ABSOLUTE => self.request(true),
                other => tracing::debug!(target: "guest_errors", "vmmouse: unknown request {other:#x}"),
            },
            cmd::ABSPOINTER_DATA => self.data(r),
            _ => tracing::debug!(target: "guest_errors", "vmmouse: unknown command {:#x}", r.ecx),
        }
    }

    /// Hands out EBX words; more than there are is an error that switches it off.
    fn data(&mut self, r: &mut Regs) {
        let n = r.ebx;
        if n == 0 || n > MOST || self.queue.len() < n as usize {
            tracing::debug!(target: "guest_errors", "vmmouse: {n} words wanted of {}", self.queue.len());
            return self.disable();
        }
        let to = [&mut r.eax, &mut r.ebx, &mut r.ecx, &mut r.edx, &mut r.esi, &mut r.edi];
        for (to, word) in to.into_iter().zip(self.queue.drain(..n as usize)) {
            *to = word;
        }
    }

    /// The pointer did something; true: the guest is to be told.
    fn event(&mut self, e: PointerEvent) -> bool {
        if e.absolute {
            (self.x, self.y) = (e.x, e.y);
        }
        if self.queue.len() + EVENT > QUEUE {
            return false;
        }
        let held = BUTTONS.iter().filter(|(b, _)| e.buttons & b != 0).fold(0, |all, (_, bit)| all | bit);
        let (kind, x, y) = if self.absolute { (0, self.x << 1, self.y << 1) } else { (RELATIVE, e.x, e.y) };
        self.queue.extend([held | kind, x as u32, y as u32, e.wheel as u32]);
        true
    }
}

/// Type `vmmouse`.
#[derive(Object)]
#[qom(name = "vmmouse", parent = IsaDevice, methods(DeviceClass), class_init = Vmmouse::class_init, interfaces(dyn Pointer))]
pub struct Vmmouse {
    parent: IsaDevice,
    #[property(link)]
    i8042: Link<I8042>,
    #[state]
    regs: MachineCell<VmmouseRegs>,
}

impl Vmmouse {
    fn port(&self) -> Option<Ref<Vmport>> {
        let mut port = None;
        self.scope().root().walk(&mut |o| port = port.take().or_else(|| Ref::new(o.clone())));
        port
    }

    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Input];
    }
}

impl Pointer for Vmmouse {
    fn name(&self) -> &'static str {
        "vmmouse"
    }

    fn claim(&self, m: &mut Locked) -> Claim {
        if self.regs.ro(m).active { Claim::First } else { Claim::None }
    }

    fn is_absolute(&self, m: &mut Locked) -> bool {
        self.regs.ro(m).absolute
    }

    fn pointer(&self, m: &mut Locked, event: PointerEvent) {
        if self.regs.rw(m).event(event) {
            self.i8042.with(|i| i.fake_mouse_event(m));
        }
    }
}

impl DeviceImpl for Vmmouse {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if self.i8042.get().is_none() {
            return Err(Error::generic("'i8042' link is not set"));
        }
        let port = self.port().ok_or("vmmouse needs a machine with vmport")?;
        let me = self.this();
        let answer: Command = Arc::new(move |m, r| {
            me.with(|d: &Vmmouse| d.regs.rw(m).command(r));
        });
        COMMANDS.into_iter().for_each(|n| port.register(n, answer.clone()));
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        if let Some(port) = self.port() {
            COMMANDS.into_iter().for_each(|n| port.unregister(n));
        }
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            *self.regs.rw(m) = VmmouseRegs::default();
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.regs.ro(m).queue.len() > QUEUE {
            return Err(Error::generic("vmmouse: queue too long"));
        }
        self.parent_post_load(m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(r: &mut VmmouseRegs, ecx: u8, ebx: u32) -> Regs {
        let mut regs = Regs { eax: 0x564d_5868, ebx, ecx: ecx.into(), edx: 9, esi: 9, edi: 9 };
        r.command(&mut regs);
        regs
    }

    #[test]
    fn it_is_switched_on_by_reading_its_id() {
        let mut r = VmmouseRegs::default();
        assert_eq!(command(&mut r, cmd::ABSPOINTER_STATUS, 0).eax, 0xffff_0000);
        command(&mut r, cmd::ABSPOINTER_COMMAND, request::ABSOLUTE);
        assert!(!r.active);
        command(&mut r, cmd::ABSPOINTER_COMMAND, request::READ_ID);
        assert!(r.active && !r.absolute);
        assert_eq!(command(&mut r, cmd::ABSPOINTER_STATUS, 0).eax, 1);
        let got = command(&mut r, cmd::ABSPOINTER_DATA, 1);
        assert_eq!((got.eax, got.ebx, got.edx), (VERSION, 1, 9));
        command(&mut r, cmd::ABSPOINTER_COMMAND, request::DISABLE);
        assert!(!r.active);
    }

    #[test]
    fn positions_movements_and_buttons() {
        let mut r = VmmouseRegs::default();
        command(&mut r, cmd::ABSPOINTER_COMMAND, request::READ_ID);
        command(&mut r, cmd::ABSPOINTER_DATA, 1);
        let moved = PointerEvent { x: -3, y: 5, buttons: button::LEFT | button::MIDDLE, ..PointerEvent::default() };
        assert!(r.event(moved));
        let got = command(&mut r, cmd::ABSPOINTER_DATA, 4);
        assert_eq!((got.eax, got.ebx, got.ecx, got.edx), (0x1_0028, -3i32 as u32, 5, 0));
        command(&mut r, cmd::ABSPOINTER_COMMAND, request::ABSOLUTE);
        r.event(PointerEvent { x: 0x7fff, y: 2, absolute: true, ..PointerEvent::default() });
        // Only a button: the position stays.
        r.event(PointerEvent { buttons: button::RIGHT, wheel: -1, ..PointerEvent::default() });
        command(&mut r, cmd::ABSPOINTER_DATA, 4);
        let got = command(&mut r, cmd::ABSPOINTER_DATA, 4);
        assert_eq!((got.eax, got.ebx, got.ecx, got.edx), (0x10, 0xfffe, 4, u32::MAX));
    }

    #[test]
    fn too_many_words_switch_it_off_and_a_full_queue_takes_none() {
        let mut r = VmmouseRegs::default();
        command(&mut r, cmd::ABSPOINTER_COMMAND, request::READ_ID);
        let taken = (0..1000).filter(|_| r.event(PointerEvent::default())).count();
        assert_eq!((taken, r.queue.len()), (255, 1021));
        command(&mut r, cmd::ABSPOINTER_DATA, 7);
        assert_eq!((r.status, r.active, r.queue.len()), (ERROR, false, 1021));
    }
}
