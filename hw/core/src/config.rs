//! What the user chose for the board beyond the machine's properties: QEMU keeps these in globals, here the core has them.

use crate::clock::ClockType;

/// Display adapter of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vga {
    /// `-vga std`: type `VGA`.
    Std,
}

/// `-rtc base=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcBase {
    /// The host's clock, UTC.
    #[default]
    Utc,
    /// The host's clock, local time.
    Local,
    /// A date: seconds since 1970-01-01 UTC at start-up.
    Date(i64),
}

/// `-rtc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcConfig {
    /// What the clock shows at start.
    pub base: RtcBase,
    /// What makes it go on: `host`, `rt` or `vm`.
    pub clock: ClockType,
}

impl Default for RtcConfig {
    fn default() -> Self {
        Self { base: RtcBase::Utc, clock: ClockType::Host }
    }
}

/// The user's choices, set once before the board is built.
#[derive(Clone, Debug, Default)]
pub struct BoardConfig {
    /// Ids of the character devices of the serial ports, in order; `None`: that port is left out.
    pub serial: Vec<Option<String>>,
    /// The same for parallel ports.
    pub parallel: Vec<Option<String>>,
    /// Id of the character device of the debug console at port 0xe9.
    pub debugcon: Option<String>,
    /// Display adapter.
    pub vga: Option<Vga>,
    /// Real-time clock.
    pub rtc: RtcConfig,
    /// `-name`.
    pub name: Option<String>,
    /// `-uuid`, canonical text.
    pub uuid: Option<String>,
    /// `-fw_cfg`: file name and contents.
    pub fw_cfg: Vec<(String, Vec<u8>)>,
    /// `-nographic`.
    pub nographic: bool,
    /// `-no-reboot`.
    pub no_reboot: bool,
}
