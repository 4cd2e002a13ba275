//! The host CPU as an executor.
//!
//! Code, data and a small context lie at fixed addresses ([`Layout`]). `enter` (assembled here, by iced-x86) saves what the host's ABI wants kept, loads
//! the guest's registers from the context and jumps to the code; behind the code lies a jump to `exit`, which stores them. Exceptions
//! arrive as signals on an alternate stack: the handler copies the machine context out and goes on at `resume`. 32-bit code is entered and left through
//! far jumps (selectors 23h and 33h of Linux).
//!
//! Source: Linux `arch/x86/include/uapi/asm/sigcontext.h` for what a signal frame holds (vector, error code, CR2).
#![allow(unsafe_code)]

use crate::{
    layout::{CODE_LEN, CODE_LIMIT_16, DATA_LEN, DATA_LIMIT_16, HIGH, Layout, PAGE, PLAIN, SLOTS, pattern},
    state::{Case, Executor, Fault, Fx, Mode, Outcome, State},
};
use std::{
    cell::Cell,
    ffi::c_void,
    io, mem, ptr,
    ptr::NonNull,
    sync::{Mutex, MutexGuard, OnceLock},
};

/// Selectors of Linux for user code: `__USER32_CS`, `__USER_CS`, `__USER_DS`.
const CS32: u16 = 0x23;
const CS64: u16 = 0x33;
const DATA_SEL: u16 = 0x2b;
/// Selectors of a slot's own segments in the local descriptor table.
const fn code16(slot: usize) -> u16 {
    (slot as u16 * 2) << 3 | 7
}
const fn data16(slot: usize) -> u16 {
    (slot as u16 * 2 + 1) << 3 | 7
}

/// Shared with the assembled code; lies at `Layout::own`.
#[repr(C, align(64))]
struct Context {
    fx_in: Fx,
    fx_out: Fx,
    gpr_in: [u64; 16],
    gpr_out: [u64; 16],
    rflags_in: u64,
    rflags_out: u64,
    entry: u64,
    /// Loaded into DS, ES and SS before 16- and 32-bit code.
    data_sel: u64,
    host_rsp: u64,
    host_mxcsr: u64,
    rip_out: u64,
    /// Set while guest code may run; a signal outside that time is not ours.
    active: u64,
    /// Vector + 1 of the exception, or 0.
    vector: u64,
    error: u64,
    cr2: u64,
    resume: u64,
}

thread_local! {
    /// The context of the executor that runs on this thread.
    static CONTEXT: Cell<*mut Context> = const { Cell::new(ptr::null_mut()) };
}

/// One lock per slot: the addresses are the process's.
static IN_USE: [Mutex<()>; SLOTS] = [const { Mutex::new(()) }; SLOTS];

/// The host CPU. One per thread at a time; at most [`SLOTS`] in the process.
pub struct Host {
    layout: Layout,
    slot: usize,
    context: NonNull<Context>,
    pattern: Box<[u8; DATA_LEN]>,
    maps: Vec<Map>,
    enter: [u64; 2],
    exit: u64,
    last_code: Option<(Mode, u64, Vec<u8>)>,
    extra: Vec<Map>,
    _slot: MutexGuard<'static, ()>,
}

struct Map {
    at: u64,
    len: usize,
}

impl Map {
    /// Maps `len` fresh bytes at exactly `at`; fails if something is there.
    fn new(at: u64, len: usize, file: Option<i32>, prot: i32) -> io::Result<Map> {
        let kind = if file.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS };
        // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping, so no memory that Rust knows of changes.
        let p = unsafe {
            libc::mmap(
                at as *mut c_void,
                len,
                prot,
                kind | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE,
                file.unwrap_or(-1),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = Map { at: p as u64, len };
        if map.at != at {
            return Err(io::Error::other(format!("the kernel gave {:#x} instead of {at:#x}", map.at)));
        }
        Ok(map)
    }
    fn protect(&self, at: u64, len: usize, prot: i32) -> io::Result<()> {
        assert!(at >= self.at && at + len as u64 <= self.at + self.len as u64);
        // SAFETY: the range is inside this mapping, which only `Host` uses and never holds references into across calls.
        match unsafe { libc::mprotect(at as *mut c_void, len, prot) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.at as *mut c_void, self.len) };
    }
}

impl Host {
    /// Sets up the first free slot.
    ///
    /// # Errors
    /// What the operating system says when the fixed addresses or writable code pages cannot be had.
    pub fn new() -> io::Result<Host> {
        let (slot, guard) = loop {
            if let Some(x) = IN_USE.iter().enumerate().find_map(|(i, m)| match m.try_lock() {
                Ok(g) => Some((i, g)),
                Err(std::sync::TryLockError::Poisoned(e)) => Some((i, e.into_inner())),
                Err(std::sync::TryLockError::WouldBlock) => None,
            }) {
                break x;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        install_handlers()?;
        alternate_stack()?;
        let layout = Layout::new(slot);
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let own = Map::new(layout.own, 3 * PAGE as usize, None, rw)?;
        let (tramp, base) = (layout.own + 2 * PAGE, layout.own);
        let context = NonNull::new(base as *mut Context).expect("not null");
        let code = Map::new(layout.code, CODE_LEN, None, rw | libc::PROT_EXEC)?;
        let file = memory_file(DATA_LEN)?;
        let data = Map::new(layout.data, DATA_LEN, Some(file.0), rw)?;
        let high = Map::new(layout.data + HIGH, DATA_LEN, Some(file.0), rw)?;
        // A third mapping, always writable, is how the executor itself fills and reads the data pages.
        let plain = Map::new(layout.data + PLAIN, DATA_LEN, Some(file.0), rw)?;
        for n in (0..4).filter(|&n| Layout::read_only(n)) {
            for map in [&data, &high] {
                map.protect(map.at + n as u64 * PAGE, PAGE as usize, libc::PROT_READ)?;
            }
        }
        // The page tables must be filled through each mapping, or the first access would be a fault of the host's own.
        let (bytes, enter, exit, resume) = trampoline(base, tramp);
        assert!(bytes.len() <= PAGE as usize);
        // SAFETY: `own` is mapped read-write, three pages; the context fits into the first two, the code into the third.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), tramp as *mut u8, bytes.len());
            (*context.as_ptr()).resume = resume;
            ptr::write_bytes(layout.code as *mut u8, 0xcc, CODE_LEN);
        }
        own.protect(tramp, PAGE as usize, libc::PROT_READ | libc::PROT_EXEC)?;
        const { assert!(mem::size_of::<Context>() <= 2 * PAGE as usize) };
        // SAFETY: arch_prctl(ARCH_SET_GS) sets a base nobody else uses: Rust and the C library address thread data through FS.
        if unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1001, layout.gs_base) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Host {
            layout,
            slot,
            context,
            pattern: pattern(),
            maps: vec![plain, data, high, code, own],
            enter,
            exit,
            last_code: None,
            extra: vec![],
            _slot: guard,
        })
    }

    /// Can this kernel run 32-bit code? Found out by trying.
    pub fn runs_32_bit(&mut self) -> bool {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        *ANSWER.get_or_init(|| {
            let mut state = State { rip: self.layout.code, rflags: 0x202, ..State::default() };
            state.gpr[0] = 41;
            // inc eax in 32-bit code is a REX prefix in 64-bit code
            let out = self.run(&Case { mode: Mode::Bits32, code: vec![0x40], count: 1, state, memory: vec![] });
            out.fault.is_none() && out.state.gpr[0] == 42
        })
    }

    /// Maps `len` bytes at the fixed address `at` for [`Host::execute`], readable, writable and executable, with `bytes` at its start.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn map(&mut self, at: u64, len: usize, bytes: &[u8]) -> io::Result<()> {
        let map = Map::new(at, len, None, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
        assert!(bytes.len() <= len);
        // SAFETY: the mapping is fresh, writable and at least as long.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
        self.extra.push(map);
        Ok(())
    }

    /// Reads what [`Host::map`] mapped.
    pub fn read(&self, at: u64, out: &mut [u8]) {
        assert!(self.extra.iter().any(|m| at >= m.at && at + out.len() as u64 <= m.at + m.len as u64));
        // SAFETY: inside a readable mapping of ours; no code of the guest runs now.
        unsafe { ptr::copy_nonoverlapping(at as *const u8, out.as_mut_ptr(), out.len()) };
    }

    /// Writes to what [`Host::map`] mapped.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        assert!(self.extra.iter().any(|m| at >= m.at && at + bytes.len() as u64 <= m.at + m.len as u64));
        // SAFETY: inside a writable mapping of ours; no code of the guest runs now.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
    }

    /// Runs straight machine code natively from `state.rip` until it raises an exception (INT3 is the usual end) and says which one: for
    /// benches. The code must lie where [`Host::map`] put it, and must not make system calls.
    pub fn execute(&mut self, mode: Mode, state: &State) -> Outcome {
        self.enter(mode, state)
    }

    fn enter(&mut self, mode: Mode, state: &State) -> Outcome {
        let (entry, sel) = match mode {
            Mode::Bits64 => (self.enter[0], CS64),
            Mode::Bits32 => (self.enter[1], CS32),
            Mode::Bits16 => (self.enter[1], code16(self.slot)),
        };
        let cx = self.context.as_ptr();
        // SAFETY: the context is mapped, aligned and ours alone. `enter` keeps the System V ABI: it saves the callee-saved registers, the flags
        // and MXCSR, and comes back through `exit` or, from the signal handler, through `resume`. What runs in between touches only the mapped
        // guest pages, or faults.
        unsafe {
            (*cx).fx_in = state.fx;
            (*cx).gpr_in = state.gpr;
            (*cx).rflags_in = state.rflags;
            (*cx).entry = state.rip;
            if mode != Mode::Bits64 {
                (*cx).entry = state.rip & 0xffff_ffff | u64::from(sel) << 32;
            }
            (*cx).data_sel = u64::from(if mode == Mode::Bits16 { data16(self.slot) } else { DATA_SEL });
            (*cx).vector = 0;
            (*cx).rip_out = 0;
            CONTEXT.set(cx);
            ptr::write_volatile(&raw mut (*cx).active, 1);
            let f: extern "sysv64" fn() = mem::transmute(entry as *const ());
            f();
            ptr::write_volatile(&raw mut (*cx).active, 0);
            let mut out = Outcome {
                state: State { gpr: (*cx).gpr_out, rip: (*cx).rip_out, rflags: (*cx).rflags_out, fx: (*cx).fx_out },
                fault: None,
            };
            if (*cx).vector != 0 {
                let vector = ((*cx).vector - 1) as u8;
                let address = if vector == 14 { (*cx).cr2 } else { 0 };
                out.fault = Some(Fault { vector, error: (*cx).error as u32, address });
            }
            out
        }
    }

    /// Can this kernel run 16-bit code, in segments of the local descriptor table? Found out by trying.
    pub fn runs_16_bit(&mut self) -> bool {
        if !self.runs_32_bit() || local_segments(self.slot, &self.layout).is_err() {
            return false;
        }
        let mut state = State { rip: 0x100, rflags: 0x202, ..State::default() };
        state.gpr[0] = 0xffff;
        // inc ax: with 32-bit operands the result would be 10000h
        let out = self.run(&Case { mode: Mode::Bits16, code: vec![0x40], count: 1, state, memory: vec![] });
        out.fault.is_none() && out.state.gpr[0] == 0
    }

    /// The modes this kernel lets us run code in.
    pub fn modes(&mut self) -> Vec<Mode> {
        let mut modes = vec![Mode::Bits64];
        if self.runs_32_bit() {
            modes.push(Mode::Bits32);
        }
        if self.runs_16_bit() {
            modes.push(Mode::Bits16);
        }
        for mode in [Mode::Bits32, Mode::Bits16] {
            if !modes.contains(&mode) {
                // Not a silent pass: whoever reads the log must see what was not compared.
                eprintln!(
                    "*** This kernel runs no {}-bit code: its forms are checked by tests/ins only. ***",
                    mode.bits()
                );
            }
        }
        modes
    }

    fn put_code(&mut self, mode: Mode, at: u64, code: &[u8]) {
        if let Some((m, a, c)) = &self.last_code
            && (*m, *a) == (mode, at)
            && c == code
        {
            return;
        }
        let end = at + code.len() as u64;
        let mut leave = Vec::with_capacity(8);
        match mode {
            Mode::Bits64 => {
                leave.push(0xe9);
                leave.extend_from_slice(&(self.exit.wrapping_sub(end + 5) as u32).to_le_bytes());
            }
            Mode::Bits32 | Mode::Bits16 => {
                if mode == Mode::Bits16 {
                    leave.push(0x66);
                }
                leave.push(0xea);
                leave.extend_from_slice(&(self.exit as u32).to_le_bytes());
                leave.extend_from_slice(&CS64.to_le_bytes());
            }
        }
        assert!(self.layout.in_code(at) && self.layout.in_code(end + leave.len() as u64));
        // SAFETY: the code pages are mapped read-write-execute and nobody runs in them now; the checks above keep the writes inside.
        unsafe {
            if let Some((_, a, c)) = &self.last_code {
                ptr::write_bytes(*a as *mut u8, 0xcc, c.len() + 8);
            }
            ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u8, code.len());
            ptr::copy_nonoverlapping(leave.as_ptr(), end as *mut u8, leave.len());
        }
        self.last_code = Some((mode, at, code.to_vec()));
    }

    fn data(&mut self) -> &mut [u8; DATA_LEN] {
        // SAFETY: the plain mapping is read-write, DATA_LEN long, and no guest code runs while the borrow of `self` lasts.
        unsafe { &mut *(self.maps[0].at as *mut [u8; DATA_LEN]) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        CONTEXT.set(ptr::null_mut());
    }
}

impl Executor for Host {
    fn name(&self) -> &str {
        "host"
    }
    fn layout(&self) -> Layout {
        self.layout
    }
    fn run(&mut self, case: &Case) -> Outcome {
        self.put_code(case.mode, case.state.rip + self.layout.code_base(case.mode), &case.code);
        let pattern = mem::replace(&mut self.pattern, Box::new([0; DATA_LEN]));
        self.data().copy_from_slice(&pattern[..]);
        self.pattern = pattern;
        for (at, bytes) in &case.memory {
            self.data()[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let mut out = self.enter(case.mode, &case.state);
        if out.fault.is_none() {
            out.state.rip = case.state.rip + case.code.len() as u64;
        }
        if let Some(f) = &mut out.fault
            && f.vector == 14
            && f.address >> 63 != 0
        {
            // Linux says of all its own addresses that they are present.
            f.error &= !1;
        }
        out.settle(case);
        out
    }
    fn memory(&self) -> &[u8; DATA_LEN] {
        // SAFETY: as in `data`, shared.
        unsafe { &*(self.maps[0].at as *const [u8; DATA_LEN]) }
    }
}

/// Makes the segments 16-bit code of a slot uses (modify_ldt(2)).
fn local_segments(slot: usize, layout: &Layout) -> io::Result<()> {
    for (selector, base, limit, contents) in [
        (code16(slot), layout.code_base(Mode::Bits16), CODE_LIMIT_16, 2_u32),
        (data16(slot), layout.data_base(Mode::Bits16), DATA_LIMIT_16, 0),
    ] {
        // struct user_desc: entry, base, limit, flags (contents in bits 1 and 2; 16-bit, writable or readable, byte limit, present)
        let desc = [u32::from(selector >> 3), base as u32, limit, contents << 1];
        // SAFETY: the kernel reads 16 bytes; the new segments only concern code that loads these selectors.
        if unsafe { libc::syscall(libc::SYS_modify_ldt, 0x11, desc.as_ptr(), mem::size_of_val(&desc)) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

struct MemoryFile(i32);
impl Drop for MemoryFile {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours; mappings made from it stay.
        unsafe { libc::close(self.0) };
    }
}

fn memory_file(len: usize) -> io::Result<MemoryFile> {
    // SAFETY: plain system calls with a valid string.
    unsafe {
        let fd = libc::memfd_create(c"oracle".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let file = MemoryFile(fd);
        if libc::ftruncate(fd, len as libc::off_t) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(file)
    }
}

/// Assembles entry (64-bit, 32-bit), exit and resume for a context at `context`; the code will lie at `at`.
fn trampoline(context: u64, at: u64) -> (Vec<u8>, [u64; 2], u64, u64) {
    use iced_x86::code_asm::*;
    macro_rules! field {
        ($f:ident) => {
            context + mem::offset_of!(Context, $f) as u64
        };
    }
    let gprs = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
    let build = || -> Result<_, iced_x86::IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let (mut e64, mut e32, mut exit, mut resume) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        for wide in [true, false] {
            a.set_label(if wide { &mut e64 } else { &mut e32 })?;
            for r in [rbx, rbp, r12, r13, r14, r15] {
                a.push(r)?;
            }
            a.pushfq()?;
            a.mov(qword_ptr(field!(host_rsp)), rsp)?;
            a.stmxcsr(dword_ptr(field!(host_mxcsr)))?;
            a.fxrstor64(ptr(field!(fx_in)))?;
            if !wide {
                a.mov(eax, dword_ptr(field!(data_sel)))?;
                a.mov(ds, eax)?;
                a.mov(es, eax)?;
                a.mov(ss, eax)?;
            }
            a.mov(rsp, field!(rflags_in))?;
            a.popfq()?;
            for (i, r) in gprs.iter().enumerate() {
                a.mov(*r, qword_ptr(field!(gpr_in) + 8 * i as u64))?;
            }
            if wide {
                a.jmp(qword_ptr(field!(entry)))?;
            } else {
                a.jmp(fword_ptr(field!(entry)))?;
            }
        }
        a.set_label(&mut exit)?;
        a.mov(qword_ptr(field!(gpr_out) + 8 * 4), rsp)?;
        a.mov(rsp, field!(rflags_out) + 8)?;
        a.pushfq()?;
        for (i, r) in gprs.iter().enumerate().filter(|(i, _)| *i != 4) {
            a.mov(qword_ptr(field!(gpr_out) + 8 * i as u64), *r)?;
        }
        a.fxsave64(ptr(field!(fx_out)))?;
        a.set_label(&mut resume)?;
        a.mov(eax, u32::from(DATA_SEL))?;
        a.mov(ss, eax)?;
        a.mov(rsp, qword_ptr(field!(host_rsp)))?;
        a.fninit()?;
        a.ldmxcsr(dword_ptr(field!(host_mxcsr)))?;
        a.popfq()?;
        for r in [r15, r14, r13, r12, rbp, rbx] {
            a.pop(r)?;
        }
        a.ret()?;
        let done = a.assemble_options(at, iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        Ok((
            [done.label_ip(&e64)?, done.label_ip(&e32)?],
            done.label_ip(&exit)?,
            done.label_ip(&resume)?,
            done.inner.code_buffer,
        ))
    };
    let (enter, exit, resume, bytes) = build().expect("the trampoline is valid code");
    (bytes, enter, exit, resume)
}

const SIGNALS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

fn install_handlers() -> io::Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_some() {
        return Ok(());
    }
    for signal in SIGNALS {
        // SAFETY: a zeroed sigaction is valid; the handler only touches its frame and the context of its own thread.
        let rc = unsafe {
            let mut sa: libc::sigaction = mem::zeroed();
            sa.sa_sigaction = on_signal as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as usize;
            sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &sa, ptr::null_mut())
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let _ = DONE.set(());
    Ok(())
}

/// Gives this thread an alternate signal stack, for as long as it lives.
fn alternate_stack() -> io::Result<()> {
    thread_local! {
        static STACK: Cell<Option<Box<[u64; 8192]>>> = const { Cell::new(None) };
    }
    let mut stack = Box::new([0_u64; 8192]);
    // SAFETY: the memory stays allocated until the thread ends; it is replaced only after the kernel has been told of the new one.
    let rc = unsafe {
        let ss = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: mem::size_of_val(&*stack) };
        libc::sigaltstack(&ss, ptr::null_mut())
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    STACK.set(Some(stack));
    Ok(())
}

/// Copies the guest's registers out of the signal frame and sends the thread back to the host's code.
extern "C" fn on_signal(signal: i32, _info: *mut libc::siginfo_t, frame: *mut c_void) {
    let cx = CONTEXT.get();
    // SAFETY: the kernel passes a valid frame. The context, when set, outlives the run that set `active`; without an active run the default action
    // is restored, so that the signal kills the process where it belongs.
    unsafe {
        if cx.is_null() || ptr::read_volatile(&raw const (*cx).active) == 0 {
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        let m = &mut (*frame.cast::<libc::ucontext_t>()).uc_mcontext;
        const ORDER: [i32; 16] = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        for (out, reg) in (*cx).gpr_out.iter_mut().zip(ORDER) {
            *out = m.gregs[reg as usize] as u64;
        }
        (*cx).rip_out = m.gregs[libc::REG_RIP as usize] as u64;
        (*cx).rflags_out = m.gregs[libc::REG_EFL as usize] as u64;
        (*cx).vector = m.gregs[libc::REG_TRAPNO as usize] as u64 + 1;
        (*cx).error = m.gregs[libc::REG_ERR as usize] as u64;
        (*cx).cr2 = m.gregs[libc::REG_CR2 as usize] as u64;
        ptr::copy_nonoverlapping(m.fpregs.cast::<u8>(), (*cx).fx_out.0.as_mut_ptr(), 512);
        m.gregs[libc::REG_RIP as usize] = (*cx).resume as i64;
        m.gregs[libc::REG_RSP as usize] = (*cx).host_rsp as i64;
        m.gregs[libc::REG_EFL as usize] = 0x202;
        // cs, gs, fs, ss in one word (struct sigcontext_64)
        m.gregs[libc::REG_CSGSFS as usize] = m.gregs[libc::REG_CSGSFS as usize] & !0xffff_0000_0000_ffff_u64 as i64
            | i64::from(CS64)
            | (i64::from(DATA_SEL) << 48);
    }
}
