//! Operating-system calls, as safe functions. Source: the Linux manual pages of section 2.
#![expect(unsafe_code, reason = "system calls")]

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{FromRawFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a call until no signal comes between (a process that is stopped and goes on gets such).
fn again(mut call: impl FnMut() -> libc::c_long) -> io::Result<libc::c_long> {
    loop {
        match check_long(call()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Lets this process have `n` files open, if it has not the right already.
pub fn allow_files(n: u64) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to a local of ours.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut now) })?;
    let new = libc::rlimit { rlim_cur: now.rlim_cur.max(n), rlim_max: now.rlim_max.max(n) };
    // SAFETY: reads a local of ours.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &new) }).map(drop)
}

/// getppid(2), straight to the kernel.
pub fn parent_id() -> i64 {
    // SAFETY: takes nothing, touches no memory.
    unsafe { libc::syscall(libc::SYS_getppid) }
}

/// Pages that are mapped for as long as the value lives.
pub struct Pages {
    at: *mut u8,
    len: usize,
}

impl Pages {
    /// `len` bytes of zeros: readable, writable, and executable if asked.
    pub fn map(len: usize, executable: bool) -> Self {
        let prot = libc::PROT_READ | libc::PROT_WRITE | if executable { libc::PROT_EXEC } else { 0 };
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        assert!(at != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self { at: at.cast(), len }
    }

    /// Makes the pages writable or not.
    pub fn protect(&mut self, writable: bool) {
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a mapping of ours; nothing refers into it, since `bytes` borrows the value.
        let result = unsafe { libc::mprotect(self.at.cast(), self.len, prot) };
        check(result).expect("mprotect");
    }

    /// The bytes. They must be writable ([`Pages::protect`]), or a store to them ends the process.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` readable bytes of ours, borrowed with the value.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }

    /// Some of the bytes, as [`Pages::bytes`]; others may be in the kernel's hands meanwhile.
    fn slice(&mut self, from: usize, len: usize) -> &mut [u8] {
        assert!(from.checked_add(len).is_some_and(|end| end <= self.len), "within the mapping");
        // SAFETY: bytes of ours, borrowed with the value.
        unsafe { std::slice::from_raw_parts_mut(self.at.wrapping_add(from), len) }
    }

    /// Calls the code at `offset` with `x`.
    ///
    /// # Safety
    /// There must be a function of the System V ABI, from u64 to u64, that touches no memory of Rust's.
    pub unsafe fn call(&self, offset: usize, x: u64) -> u64 {
        assert!(offset < self.len);
        // SAFETY: the caller's promise. Processors see stores to code they are about to run (SDM vol. 3, 13.6).
        let function: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(self.at.wrapping_add(offset)) };
        function(x)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, which nothing refers to any more.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// Requests to a file in flight (io_submit(2)), each with a buffer of its own. Source: `linux/aio_abi.h`.
pub struct Aio<'a> {
    file: &'a File,
    context: libc::c_ulong,
    size: usize,
    buffers: Pages,
    busy: Vec<bool>,
    /// What the kernel reads when requests are submitted.
    blocks: Vec<ControlBlock>,
}

/// `struct iocb`, little-endian.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    block: u64,
    result: i64,
    more: i64,
}

impl<'a> Aio<'a> {
    /// Room for `depth` requests of `size` bytes, whole pages.
    pub fn new(file: &'a File, depth: usize, size: usize) -> io::Result<Self> {
        assert!(size.is_multiple_of(4096), "whole pages");
        let mut context: libc::c_ulong = 0;
        // SAFETY: the call writes one word.
        check_long(unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) })?;
        let blocks = vec![ControlBlock::default(); depth];
        Ok(Self { file, context, size, buffers: Pages::map(depth * size, false), busy: vec![false; depth], blocks })
    }

    /// The buffer of a slot that is not in flight.
    pub fn buffer(&mut self, slot: usize) -> &mut [u8] {
        assert!(!self.busy[slot], "slot {slot} is in flight");
        let size = self.size;
        self.buffers.slice(slot * size, size)
    }

    /// Starts reading or writing the buffers of slots at these offsets.
    pub fn submit(&mut self, requests: &[(usize, u64)], writes: bool) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        const PREAD: u16 = 0;
        const PWRITE: u16 = 1;
        for (slot, offset) in requests {
            assert!(!self.busy[*slot], "slot {slot} is in flight");
            self.busy[*slot] = true;
            self.blocks[*slot] = ControlBlock {
                data: *slot as u64,
                opcode: if writes { PWRITE } else { PREAD },
                fd: self.file.as_raw_fd() as u32,
                buf: self.buffers.at.wrapping_add(slot * self.size) as u64,
                len: self.size as u64,
                offset: *offset as i64,
                ..ControlBlock::default()
            };
        }
        let mut list: Vec<*mut ControlBlock> = requests.iter().map(|(slot, _)| &raw mut self.blocks[*slot]).collect();
        let mut rest = list.as_mut_slice();
        while !rest.is_empty() {
            // SAFETY: the list and the blocks live through the call; buffers are ours until the context is destroyed, and nobody
            // gets at one while its slot is busy.
            let n =
                again(|| unsafe { libc::syscall(libc::SYS_io_submit, self.context, rest.len(), rest.as_mut_ptr()) })?;
            rest = &mut rest[n as usize..];
        }
        Ok(())
    }

    /// Waits until at least one request has ended, and says which have.
    pub fn wait(&mut self) -> io::Result<Vec<usize>> {
        let mut events = vec![IoEvent::default(); self.busy.len()];
        let none: *mut libc::timespec = std::ptr::null_mut();
        // SAFETY: room for as many events as are said.
        let n = again(|| unsafe {
            libc::syscall(libc::SYS_io_getevents, self.context, 1usize, events.len(), events.as_mut_ptr(), none)
        })?;
        let mut ended = vec![];
        for event in &events[..n as usize] {
            if event.result != self.size as i64 {
                return Err(match i32::try_from(-event.result) {
                    Ok(errno @ 1..) => io::Error::from_raw_os_error(errno),
                    _ => io::Error::other(format!("{} of {} bytes", event.result, self.size)),
                });
            }
            self.busy[event.data as usize] = false;
            ended.push(event.data as usize);
        }
        Ok(ended)
    }
}

impl Drop for Aio<'_> {
    fn drop(&mut self) {
        // SAFETY: waits for what is in flight; only then the buffers go.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

/// pipe(2): reading and writing end.
pub fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }).expect("pipe");
    // SAFETY: two new descriptors that nobody else owns.
    ends.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) })).into()
}

/// Runs `child` in a new process, which ends with the status it returns; gives the process number.
pub fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: this program has no other threads when workloads fork.
    let id = check(unsafe { libc::fork() }).expect("fork");
    if id == 0 {
        let status = child();
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(status) }
    }
    id
}

/// Waits for a child's end and gives its exit status.
pub fn wait(id: i32) -> i32 {
    let mut status = 0;
    // SAFETY: room for a status.
    check(unsafe { libc::waitpid(id, &raw mut status, 0) }).expect("waitpid");
    libc::WEXITSTATUS(status)
}

/// execve(2) with an empty environment; returns only on an error, as exit status 127.
pub fn exec(path: &CString, args: &[CString]) -> i32 {
    let mut list: Vec<_> = args.iter().map(|a| a.as_ptr()).collect();
    list.push(std::ptr::null());
    let none = [std::ptr::null()];
    // SAFETY: strings and lists end in zeros and outlive the call.
    unsafe { libc::execve(path.as_ptr(), list.as_ptr(), none.as_ptr()) };
    127
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Sends this process `n` signals, one after the other; how many its handler saw.
pub fn signals(n: u64) -> u64 {
    SIGNALS.store(0, Ordering::Relaxed);
    let handler: extern "C" fn(libc::c_int) = count;
    // SAFETY: the handler only counts, which is allowed in handlers.
    unsafe {
        libc::signal(libc::SIGUSR1, handler as libc::sighandler_t);
        let me = libc::getpid();
        for _ in 0..n {
            libc::kill(me, libc::SIGUSR1);
        }
        libc::signal(libc::SIGUSR1, libc::SIG_DFL);
    }
    SIGNALS.load(Ordering::Relaxed)
}

/// Whether this is the first process of a machine.
pub fn is_init() -> bool {
    std::process::id() == 1
}

/// Mounts a file system without a device.
pub fn mount(kind: &str, at: &str) -> io::Result<()> {
    std::fs::create_dir_all(at)?;
    let [kind, at] = [kind, at].map(|s| CString::new(s).expect("no zeros"));
    // SAFETY: strings end in zeros; no data.
    check(unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) })?;
    Ok(())
}

/// Gives the kernel's random numbers a seed (RNDADDENTROPY, random(4)). A machine without a source of randomness else spins for a
/// second when a program first asks for them, and that second would be one workload's.
pub fn seed_random() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    /// `struct rand_pool_info` with its buffer.
    #[repr(C)]
    struct Seed {
        bits: libc::c_int,
        bytes: libc::c_int,
        buffer: [u8; 64],
    }
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    let seed = Seed { bits: 512, bytes: 64, buffer: std::array::from_fn(|i| i as u8) };
    let random = File::open("/dev/urandom")?;
    // SAFETY: the call reads one value of this layout; the descriptor is open.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const seed) })?;
    Ok(())
}

/// Puts a terminal into raw mode: no echo, no translation.
pub fn raw(terminal: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: zeros are a valid termios, which the call fills; the descriptor is open.
    unsafe {
        let mut t: libc::termios = std::mem::zeroed();
        check(libc::tcgetattr(terminal.as_raw_fd(), &raw mut t))?;
        libc::cfmakeraw(&raw mut t);
        check(libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const t))?;
    }
    Ok(())
}

/// Switches the machine off. Returns where that is not allowed.
pub fn power_off() {
    // SAFETY: no memory is involved.
    unsafe {
        libc::sync();
        libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF);
    }
}
