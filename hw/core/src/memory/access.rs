//! What an access carries, and how it ends.

/// Who makes an access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Index of the vCPU, for its own accesses.
    pub cpu: Option<u32>,
    /// PCI requester id (bus, device, function) of a device's DMA or message.
    pub requester: Option<u16>,
    /// The vCPU is in system management mode.
    pub smm: bool,
}

impl Attrs {
    /// An access of vCPU `cpu`.
    pub const fn cpu(cpu: u32) -> Self {
        Self { cpu: Some(cpu), requester: None, smm: false }
    }

    /// An access of the PCI function with this requester id.
    pub const fn requester(id: u16) -> Self {
        Self { cpu: None, requester: Some(id), smm: false }
    }
}

/// One access to a region, as a [`FreeOps`](super::FreeOps) handler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Byte offset in the region.
    pub off: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u32,
    /// Index of the vCPU, for its own accesses.
    pub cpu: Option<u32>,
    /// Requester id of a PCI device.
    pub requester: Option<u16>,
}

/// Why an access failed on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemTxError {
    /// Nobody answers.
    #[error("no device answers")]
    Decode,
    /// The device does not take accesses of this width or alignment.
    #[error("the device does not take this width or alignment")]
    Refused,
    /// The device does not answer because it is in the middle of an access itself.
    #[error("the device is busy")]
    Busy,
    /// The handler failed: a bug of ours, reported to the main loop.
    #[error("the device failed")]
    Device,
}

impl MemTxError {
    /// What a CPU reads: ones where nobody drives the bus, zero from a device that does not take the access, as in QEMU.
    pub fn read_value(self) -> u64 {
        if self == Self::Refused { 0 } else { u64::MAX }
    }
}

/// Result of an access.
pub type MemTxResult<T = ()> = Result<T, MemTxError>;
