//! JSON as QMP and the command line use it: read byte by byte, written in QEMU's layout.
//! Source: RFC 8259 and the QMP specification ("QEMU Machine Protocol", general conventions).

mod reader;
mod writer;

pub use reader::{JsonError, Reader, from_str};
pub use writer::{to_pretty, to_text};
