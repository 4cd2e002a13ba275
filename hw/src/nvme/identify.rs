//! What IDENTIFY and GET LOG PAGE tell. Source: NVM Express 1.4 §5.15.2 (identify), §5.14.1 (log pages).

use super::ns::Namespace;
use super::spec::{admin, nvm};
use crate::scsi::put;

/// Bytes of an identify structure.
pub(super) const PAGE: usize = 4096;
/// Version 1.4.
pub(super) const VERSION: u32 = 0x0001_0400;
/// Temperature, and where warnings begin, kelvins.
pub(super) const TEMPERATURE: u16 = 0x143;
pub(super) const WARNING: u16 = 0x157;
const CRITICAL: u16 = 0x175;
/// Commands that ABORT may be asked for at once, zero-based.
const ACL: u8 = 3;

/// What a controller is.
#[derive(Clone, Debug, Default)]
pub(super) struct ControllerInfo {
    pub vendor: u16,
    pub subsystem_vendor: u16,
    pub serial: String,
    pub model: String,
    pub firmware: String,
    pub mdts: u8,
    pub aerl: u8,
    pub write_cache: bool,
}

fn padded(text: &str, n: usize) -> Vec<u8> {
    text.bytes().chain(std::iter::repeat(b' ')).take(n).collect()
}

/// Identify controller.
pub(super) fn controller(i: &ControllerInfo) -> Vec<u8> {
    let mut d = vec![0; PAGE];
    put(&mut d, 0, &i.vendor.to_le_bytes());
    put(&mut d, 2, &i.subsystem_vendor.to_le_bytes());
    put(&mut d, 4, &padded(&i.serial, 20));
    put(&mut d, 24, &padded(&i.model, 40));
    put(&mut d, 64, &padded(&i.firmware, 8));
    put(&mut d, 72, &[6, 0x00, 0x54, 0x52, 0, i.mdts]); // arbitration burst, IEEE OUI
    put(&mut d, 80, &VERSION.to_le_bytes());
    put(&mut d, 92, &(1u32 << 8).to_le_bytes()); // namespace attribute notices
    put(&mut d, 111, &[1]); // an I/O controller
    put(&mut d, 258, &[ACL, i.aerl, 7 << 1 | 1, 1 << 1 | 1 << 2, 0, 0]); // firmware slots; effects log, offsets of logs
    put(&mut d, 266, &WARNING.to_le_bytes());
    put(&mut d, 268, &CRITICAL.to_le_bytes());
    put(&mut d, 512, &[0x66, 0x44]); // sizes of queue entries
    put(&mut d, 516, &super::ns::MAX_NAMESPACES.to_le_bytes());
    // compare, dataset management, write zeroes, verify
    put(&mut d, 520, &(1u16 | 1 << 2 | 1 << 3 | 1 << 7).to_le_bytes());
    put(&mut d, 525, &[3 << 1 | u8::from(i.write_cache)]); // FLUSH may name all namespaces
    put(&mut d, 536, &1u32.to_le_bytes()); // scatter gather lists of any alignment
    put(&mut d, 768, format!("nqn.2019-08.org.qemu:{}", i.serial).as_bytes());
    put(&mut d, 2048, &0x9c4u16.to_le_bytes()); // 25 W
    put(&mut d, 2052, &0x10u32.to_le_bytes());
    put(&mut d, 2056, &4u32.to_le_bytes());
    d
}

/// Identify namespace.
pub(super) fn namespace(ns: &Namespace) -> Vec<u8> {
    let mut d = vec![0; PAGE];
    for at in [0, 8, 16] {
        put(&mut d, at, &ns.blocks().to_le_bytes()); // size, capacity, utilization
    }
    let blocks = |bytes: u64| ((bytes / ns.block).clamp(1, 0x1_0000) - 1) as u16;
    if ns.granularity != 0 {
        put(&mut d, 24, &[1 << 4]); // what follows means something
        let granularity = blocks(ns.granularity).to_le_bytes();
        put(&mut d, 68, &granularity); // preferred deallocation
        put(&mut d, 70, &granularity);
    }
    put(&mut d, 104, &ns.nguid);
    put(&mut d, 120, &ns.eui64.to_be_bytes());
    put(&mut d, 130, &[ns.block.trailing_zeros() as u8]);
    d
}

/// Namespace identification descriptors.
pub(super) fn descriptors(ns: &Namespace) -> Vec<u8> {
    let mut d = vec![];
    let mut add = |kind: u8, id: &[u8]| {
        if id.iter().any(|b| *b != 0) {
            d.extend([kind, id.len() as u8, 0, 0]);
            d.extend(id);
        }
    };
    add(1, &ns.eui64.to_be_bytes());
    add(2, &ns.nguid);
    add(3, &ns.uuid);
    d.resize(PAGE, 0);
    d
}

/// A list of namespaces.
pub(super) fn list(all: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut d: Vec<u8> = all.take(PAGE / 4).flat_map(|n| n.to_le_bytes()).collect();
    d.resize(PAGE, 0);
    d
}

/// Log page: firmware slots. The one there is.
pub(super) fn firmware_log(firmware: &str) -> Vec<u8> {
    let mut d = vec![0; 512];
    put(&mut d, 0, &[1]);
    put(&mut d, 8, &padded(firmware, 8));
    d
}

/// What was transferred, for the health log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub read: u64,
    pub written: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Log page: health. `threshold`: temperature above which there is a warning; `warnings`: what the user wants to be reported.
pub(super) fn health_log(t: Traffic, threshold: (u16, u16), warnings: u8) -> Vec<u8> {
    let (over, under) = threshold;
    let hot = TEMPERATURE >= over || TEMPERATURE <= under;
    let mut d = vec![0; 512];
    put(&mut d, 0, &[warnings | u8::from(hot) << 1]);
    put(&mut d, 1, &TEMPERATURE.to_le_bytes());
    put(&mut d, 3, &[100, 10]); // spare, threshold
    let units = |bytes: u64| bytes.div_ceil(512_000).to_le_bytes();
    put(&mut d, 32, &units(t.read));
    put(&mut d, 48, &units(t.written));
    put(&mut d, 64, &t.reads.to_le_bytes());
    put(&mut d, 80, &t.writes.to_le_bytes());
    d
}

/// Log page: what commands do.
pub(super) fn effects_log() -> Vec<u8> {
    const SUPPORTED: u32 = 1;
    const CHANGES: u32 = 1 << 1;
    let mut d = vec![0; PAGE];
    let all = [
        admin::DELETE_SQ,
        admin::CREATE_SQ,
        admin::GET_LOG_PAGE,
        admin::DELETE_CQ,
        admin::CREATE_CQ,
        admin::IDENTIFY,
        admin::ABORT,
        admin::SET_FEATURES,
        admin::GET_FEATURES,
        admin::ASYNC_EVENT,
    ];
    for code in all {
        put(&mut d, 4 * usize::from(code), &SUPPORTED.to_le_bytes());
    }
    for (code, effects) in [
        (nvm::FLUSH, SUPPORTED | CHANGES),
        (nvm::WRITE, SUPPORTED | CHANGES),
        (nvm::READ, SUPPORTED),
        (nvm::COMPARE, SUPPORTED),
        (nvm::WRITE_ZEROES, SUPPORTED | CHANGES),
        (nvm::DATASET_MANAGEMENT, SUPPORTED | CHANGES),
        (nvm::VERIFY, SUPPORTED),
    ] {
        put(&mut d, 1024 + 4 * usize::from(code), &effects.to_le_bytes());
    }
    d
}
