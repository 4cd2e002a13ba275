//! Descriptors by number, and the one request that makes a tap interface.
#![expect(unsafe_code, reason = "OS calls")]

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A copy of the descriptor `number` that this process was started with.
pub(crate) fn duplicate(number: i32) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from(rustix::io::Errno::BADF));
    }
    // SAFETY: the number is not -1, and the borrow ends with this function, which only asks the kernel about it: a number that
    // names nothing is answered with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let _: FdFlags = fcntl_getfd(fd)?;
    Ok(fcntl_dupfd_cloexec(fd, 3)?)
}

/// Makes `tun`, an open `/dev/net/tun`, the tap interface `name` (empty: the kernel chooses); its name.
pub(crate) fn make_tap(tun: &OwnedFd, name: &str) -> io::Result<String> {
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::other("interface name too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives on this stack frame for the whole call.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes: Vec<u8> = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
