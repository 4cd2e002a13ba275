//! Devices that write memory themselves, pointed at registers: those of others and their own.

use super::board::Board;
use super::rng::Rng;
use super::traffic::{Target, Traffic};
use super::types;

/// Where the descriptor is.
const DESCRIPTOR: u64 = 0x1000;
/// fw_cfg's DMA commands: read, skip, write, with and without selecting the file directory (item 19H) first.
const COMMANDS: [u32; 5] = [0x02, 0x04, 0x10, 0x0019_000a, 0x0019_0018];

/// Lets fw_cfg copy to and from every memory-mapped register of the board, and read its descriptor there.
///
/// # Errors
/// A panic in a device.
pub fn fw_cfg_meets_every_register(board: &Board) -> Result<(), String> {
    types::map_functions(board, &Target::Everything);
    let registers = Traffic::new(board, &Target::Everything, Rng::new(0)).registers();
    if registers.is_empty() {
        return Err("the board has no registers in memory".into());
    }
    for (start, len) in registers {
        for command in COMMANDS {
            let length = len.min(0x400) as u32;
            let words = [command, length, (start >> 32) as u32, start as u32];
            board.locked(|m| {
                for (i, w) in (0..).zip(words) {
                    _ = board.core().memory.store(m, DESCRIPTOR + 4 * i, 4, w.to_be().into());
                }
            });
            transfer(board, DESCRIPTOR);
            board.requests().map_err(|e| format!("command {command:#x} at {start:#x}: {e}"))?;
        }
        transfer(board, start);
        board.requests().map_err(|e| format!("descriptor at {start:#x}: {e}"))?;
    }
    Ok(())
}

/// Writes the address of a descriptor to fw_cfg's DMA register, big-endian, low half last.
fn transfer(board: &Board, descriptor: u64) {
    let io = &board.core().io;
    let half = |v: u64| u64::from((v as u32).swap_bytes());
    board.locked(|m| {
        _ = io.store(m, 0x514, 4, half(descriptor >> 32));
        _ = io.store(m, 0x518, 4, half(descriptor));
    });
}

/// Lets the HPET send the interrupt message of a timer to its own registers, and to every other.
///
/// # Errors
/// A panic in a device.
pub fn hpet_messages_meet_every_register(board: &Board) -> Result<(), String> {
    const HPET: u64 = 0xfed0_0000;
    let store = |off: u64, v: u64| board.locked(|m| _ = board.core().memory.store(m, HPET + off, 8, v));
    let registers = Traffic::new(board, &Target::Everything, Rng::new(0)).registers();
    let own = (0..0x20).map(|n| HPET + 0x10 * n);
    for addr in own.chain(registers.into_iter().map(|r| r.0)).filter(|a| *a >> 32 == 0) {
        store(0x10, 0);
        store(0xf0, 0);
        // Timer 0 (IA-PC HPET 1.0a, 2.3.8 and 2.3.10): message of value 1 to the address; periodic; then enable all.
        store(0x110, addr << 32 | 1);
        store(0x100, 1 << 14 | 1 << 6 | 1 << 3 | 1 << 2);
        store(0x108, 1000);
        store(0x10, 1);
        board.locked(|m| m.advance(100_000));
        board.requests().map_err(|e| format!("message to {addr:#x}: {e}"))?;
    }
    Ok(())
}
