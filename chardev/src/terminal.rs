//! The process's own terminal: raw while a `stdio` channel uses it, as it was at every end of the process.
//!
//! Standard input and its modes belong to the process, not to a machine, so this is one of the two process-wide states (the
//! other are signals). Whoever ends the process calls [`restore`]; it only makes system calls, so a signal handler and a
//! panic hook may call it as well.

use crate::{Error, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// How things were at the first use.
struct Saved {
    modes: Option<Termios>,
    stdin_flags: Option<OFlags>,
    stdout_flags: Option<OFlags>,
}

static SAVED: OnceLock<Saved> = OnceLock::new();
static IN_USE: AtomicBool = AtomicBool::new(false);
static ECHO: AtomicBool = AtomicBool::new(true);
static SIGNALS: AtomicBool = AtomicBool::new(true);

/// The right to use standard input and output; ends with [`Terminal::release`] or when dropped.
pub(crate) struct Terminal {
    held: AtomicBool,
}

/// Takes standard input and output for one channel: not blocking, not echoing.
pub(crate) fn claim(signal: bool) -> Result<Terminal> {
    if IN_USE.swap(true, Ordering::SeqCst) {
        return Err(Error::Config("cannot use stdio by multiple character devices".into()));
    }
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let saved = SAVED.get_or_init(|| Saved {
        modes: rustix::termios::tcgetattr(stdin).ok(),
        stdin_flags: rustix::fs::fcntl_getfl(stdin).ok(),
        stdout_flags: rustix::fs::fcntl_getfl(stdout).ok(),
    });
    for (fd, flags) in [(stdin, saved.stdin_flags), (stdout, saved.stdout_flags)] {
        if let Some(flags) = flags {
            let set = rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK);
            set.or_else(|e| if e == Errno::BADF { Ok(()) } else { Err(e) }).map_err(Error::host("stdio"))?;
        }
    }
    SIGNALS.store(signal, Ordering::SeqCst);
    let terminal = Terminal { held: AtomicBool::new(true) };
    terminal.set_echo(false);
    Ok(terminal)
}

impl Terminal {
    /// Line editing and echo by the terminal (`true`), or bytes as they are typed.
    pub(crate) fn set_echo(&self, on: bool) {
        ECHO.store(on, Ordering::SeqCst);
        apply();
    }

    /// Puts everything back and lets another channel have it.
    pub(crate) fn release(&self) {
        if self.held.swap(false, Ordering::SeqCst) {
            restore();
            IN_USE.store(false, Ordering::SeqCst);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.release();
    }
}

/// Sets the modes that the current use asks for.
fn apply() {
    let Some(saved) = SAVED.get() else { return };
    let Some(mut t) = saved.modes.clone() else { return };
    if !ECHO.load(Ordering::SeqCst) {
        t.input_modes &= !(InputModes::IGNBRK
            | InputModes::BRKINT
            | InputModes::PARMRK
            | InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON);
        t.output_modes |= OutputModes::OPOST;
        t.local_modes &= !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN);
        t.control_modes &= !(ControlModes::CSIZE | ControlModes::PARENB);
        t.control_modes |= ControlModes::CS8;
        t.special_codes[SpecialCodeIndex::VMIN] = 1;
        t.special_codes[SpecialCodeIndex::VTIME] = 0;
    }
    t.local_modes.set(LocalModes::ISIG, SIGNALS.load(Ordering::SeqCst));
    let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &t);
}

/// Sets the modes again after the process was stopped and continued (SIGCONT).
pub fn resume() {
    if IN_USE.load(Ordering::SeqCst) {
        apply();
    }
}

/// Puts the terminal back as it was found. Callable from a signal handler: two or three system calls, no lock, no memory.
pub fn restore() {
    if !IN_USE.load(Ordering::SeqCst) {
        return;
    }
    let Some(saved) = SAVED.get() else { return };
    if let Some(modes) = &saved.modes {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, modes);
    }
    for (fd, flags) in [(rustix::stdio::stdin(), saved.stdin_flags), (rustix::stdio::stdout(), saved.stdout_flags)] {
        if let Some(flags) = flags {
            let _ = rustix::fs::fcntl_setfl(fd, flags);
        }
    }
}
