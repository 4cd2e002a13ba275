//! What `guestfwd=` leads to besides programs: character devices, which the program around has.

use qom::Result;
use std::io;
use std::os::fd::OwnedFd;

/// A character device to which a guest's connections lead. Dropped with the rule.
pub trait GuestPort: Send + Sync {
    /// A new connection of the guest's: a stream socket that does not block, whose other end leads to the device. Never waits, and calls nothing
    /// of the network's.
    ///
    /// # Errors
    /// The host has no room for it.
    fn connect(&self) -> io::Result<OwnedFd>;
}

/// Opens a character device: its id, and what it is, as `-serial` takes it.
pub type OpenGuestPort = Box<dyn Fn(&str, &str) -> Result<Box<dyn GuestPort>> + Send + Sync>;
