//! The command line: QEMU's spelling, one or two dashes, one table of options.
//!
//! `table` is the data (names, argument, help text, what it fills in), [`parse`] walks the arguments, [`help`] prints the table,
//! [`opts`] is the `key=value,…` syntax inside an argument and [`desc`] the parameters each such list knows.

pub mod chardev;
mod command_line;
pub mod desc;
pub mod drive;
pub mod fsdev;
pub mod help;
pub mod nic;
pub mod opts;
mod parse;
pub mod size;
mod table;

pub use command_line::{Accel, Action, CommandLine, FwCfgArg, Located, MonitorArg, MonitorMode, PropArgs, PropInput};
pub use opts::{OptError, Opts};
pub use parse::{CommandLineError, Parsed, parse};
pub use table::{NOT_BUILT, OPTIONS, OptionDef};

/// The QEMU release whose interface this is; clients read it.
pub const QEMU_VERSION: (u8, u8, u8) = (11, 1, 3);

/// First line of `-version` and `-help`.
pub fn version_line() -> String {
    let (major, minor, micro) = QEMU_VERSION;
    format!("QEMU emulator version {major}.{minor}.{micro} (Qomet {})", env!("CARGO_PKG_VERSION"))
}
