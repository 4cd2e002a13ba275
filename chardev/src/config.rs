//! What a character device is to be: `-chardev` and its short forms, parsed.

use std::path::PathBuf;

/// One character device.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its id.
    pub id: String,
    /// Which kind.
    pub backend: Backend,
    /// Put a multiplexer in front, so that several front ends share it.
    pub mux: bool,
    /// Copy what the guest writes into this file.
    pub logfile: Option<PathBuf>,
    /// Keep what is in the log file.
    pub logappend: bool,
}

impl Config {
    /// `backend` under `id`, without multiplexer or log.
    pub fn new(id: impl Into<String>, backend: Backend) -> Self {
        Self { id: id.into(), backend, mux: false, logfile: None, logappend: false }
    }
}

/// The kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum Backend {
    /// Takes everything, gives nothing.
    Null,
    /// The terminal, or whatever standard input and output are.
    Stdio {
        /// Let the terminal turn ^C and friends into signals.
        signal: bool,
    },
    /// A file of the host.
    File {
        /// Written to.
        path: PathBuf,
        /// Read from.
        input: Option<PathBuf>,
        /// Keep what is there.
        append: bool,
    },
    /// A stream socket.
    Socket(Socket),
    /// A pseudo-terminal.
    Pty {
        /// Symbolic link to make to it.
        path: Option<PathBuf>,
    },
    /// A buffer that the monitor reads.
    Ringbuf {
        /// Bytes; a power of two.
        size: u64,
    },
    /// Two named pipes `path.in` and `path.out`, or one `path`.
    Pipe {
        /// Without suffix.
        path: PathBuf,
    },
    /// A text console; without a display it takes everything and gives nothing.
    Vc {
        /// Its size was given; otherwise it follows the window.
        fixed: bool,
    },
    /// A multiplexer in front of another character device.
    Mux {
        /// Id of that device.
        chardev: String,
    },
}

/// A stream socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Socket {
    /// Where.
    pub address: Address,
    /// Listen instead of connecting.
    pub server: bool,
    /// As a server: wait for the first client before the machine is made.
    pub wait: bool,
    /// Send small packets at once (TCP_NODELAY).
    pub nodelay: bool,
    /// Speak the telnet protocol.
    pub telnet: bool,
    /// As a client: connect again this many milliseconds after the connection was lost; 0: never.
    pub reconnect_ms: u64,
}

/// Which of a host's addresses are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// The first that works.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Where a socket is.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// A path.
    Unix {
        /// The path, or the abstract name.
        path: String,
        /// In the abstract name space.
        is_abstract: bool,
    },
    /// TCP.
    Inet {
        /// Name or address; empty: any.
        host: String,
        /// Number or name.
        port: String,
        /// Highest port to try as a server.
        to: Option<u16>,
        /// Which addresses of the host.
        family: Family,
    },
    /// A descriptor this process was started with.
    Fd(i32),
}
