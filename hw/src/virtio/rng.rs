//! A source of random bytes for the guest, type `virtio-rng-device`. Source: virtio 1.2 §5.4.
//! A source that has no bytes now is asked again a little later, while the guest waits.

use super::device::{VirtioDevice, VirtioDeviceClass, VirtioImpl};
use super::ring::total;
use crate::backends::rng::{RngBackend, builtin};
use hw_core::{Category, DeviceClass, DeviceImpl, Locked, MachineCell, Timer};
use qom::{Class, Error, Link, ObjRef, Object, Prop, Result};
use serde::{Deserialize, Serialize};

/// Entries of the queue.
const QUEUE: u16 = 8;
/// Bytes asked for at a time.
const PIECE: u64 = 4096;
/// How long a source without bytes is left alone, ns.
const AGAIN: u64 = 10_000_000;
/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

/// What is left of the guest's ration, and when there is a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Quota {
    used: u64,
    renewed_at: Option<u64>,
    /// The source had nothing: when it is asked again.
    again_at: Option<u64>,
}

/// Type `virtio-rng-device`.
#[derive(Object)]
#[qom(name = "virtio-rng-device", parent = VirtioDevice, methods(DeviceClass, VirtioDeviceClass),
    class_init = VirtioRng::class_init, instance_init = VirtioRng::instance_init)]
pub struct VirtioRng {
    parent: VirtioDevice,
    /// Bytes that the guest gets in a period.
    #[property(name = "max-bytes", default = i64::MAX as u64)]
    max_bytes: Prop<u64>,
    /// Length of a period, ms.
    #[property(default = 1 << 16)]
    period: Prop<u32>,
    #[property(link)]
    rng: Link<RngBackend>,
    #[state]
    quota: MachineCell<Quota>,
    renew: Timer,
    again: Timer,
}

impl VirtioRng {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Misc];
        let v = c.edit::<VirtioDeviceClass>();
        (v.device_id, v.name) = (4, "virtio-rng");
    }

    fn instance_init(&self) -> Result<()> {
        self.renew.init(self, Self::renewed);
        self.again.init(self, Self::ask_again);
        Ok(())
    }

    fn arm(&self, m: &mut Locked) {
        let q = *self.quota.ro(m);
        self.renew.arm(m, q.renewed_at);
        self.again.arm(m, q.again_at);
    }

    fn renewed(&self, m: &mut Locked) {
        let q = self.quota.rw(m);
        (q.used, q.renewed_at) = (0, None);
        self.notified(m, 0);
    }

    fn ask_again(&self, m: &mut Locked) {
        self.quota.rw(m).again_at = None;
        self.notified(m, 0);
    }

    /// Fills buffers as long as there are buffers, bytes and a ration.
    fn fill(&self, m: &mut Locked) {
        let Some(source) = self.rng.get() else { return };
        let mut filled = false;
        // (A guest may add buffers as fast as they are filled: others must get the lock.)
        for turn in 0.. {
            if turn == QUEUE {
                self.quota.rw(m).again_at = Some(m.clock.now());
                break;
            }
            let Some(chain) = self.pop(m, 0) else { break };
            let left = self.max_bytes.get().saturating_sub(self.quota.ro(m).used);
            let want = total(&chain.writable).min(PIECE).min(left);
            let mut bytes = vec![0; want as usize];
            let n = if want == 0 { 0 } else { source.read(&mut bytes) };
            bytes.truncate(n);
            if n == 0 && !chain.writable.is_empty() {
                self.unpop(m, 0, &chain);
                if left > 0 {
                    self.quota.rw(m).again_at = Some(m.clock.now().saturating_add(AGAIN));
                }
                break;
            }
            self.write_to(m, &chain.writable, 0, &bytes);
            self.push(m, 0, &chain, n as u32);
            self.quota.rw(m).used += n as u64;
            filled = true;
        }
        if filled && self.quota.ro(m).renewed_at.is_none() {
            let at = m.clock.now().saturating_add(u64::from(self.period.get()) * MS);
            self.quota.rw(m).renewed_at = Some(at);
        }
        self.arm(m);
        if filled {
            self.interrupt(m, 0);
        }
    }
}

impl VirtioImpl for VirtioRng {
    fn handle_queue(&self, m: &mut Locked, _n: usize) {
        self.fill(m);
    }

    fn stop(&self, m: &mut Locked, queue: Option<usize>) {
        if queue.is_none() {
            *self.quota.rw(m) = Quota::default();
            self.arm(m);
        }
    }
}

impl DeviceImpl for VirtioRng {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        if self.period.get() == 0 {
            return Err(Error::generic("'period' parameter expects a positive integer"));
        }
        if self.max_bytes.get() > i64::MAX as u64 {
            return Err(Error::generic("'max-bytes' parameter must be non-negative, and less than 2^63"));
        }
        let made: Option<ObjRef> = if self.rng.get().is_none() { Some(builtin(self)?) } else { None };
        if let Some(source) = &made {
            self.rng.set(Some(source))?;
        }
        self.set_queues(m, [QUEUE]);
        self.parent_realize(m).inspect_err(|_| self.drop_source())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.parent_unrealize(m);
        self.drop_source();
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.arm(m);
        self.parent_post_load(m)
    }
}

impl VirtioRng {
    fn drop_source(&self) {
        if let Some(source) = self.child("default-backend") {
            source.unparent();
        }
    }
}
