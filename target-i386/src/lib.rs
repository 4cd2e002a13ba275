//! The x86 CPU: state, models, decode, semantics, MMU.
#![forbid(unsafe_code)]

pub mod cpu;
pub mod decode;
pub mod exception;
pub mod forms;
pub mod fpu;
pub mod operand;
pub mod reg;
pub mod sem;
pub mod state;
pub mod sys;
mod table;
mod touches;
pub mod vcpu;

pub mod testing;
mod vector_table;

use accel::tcg::*;
use exception::Exception;
use forms::Form;
use state::State;

/// Code of [`Rare::Exit`]: the processor shut down (triple fault).
pub const EXIT_SHUTDOWN: u32 = 1;
/// Code of [`Rare::Exit`]: INIT was received and the state is reset.
pub const EXIT_INIT: u32 = 2;
/// Code of [`Rare::Exit`]: an exception was caught ([`State::catch`](state::State::catch)).
pub const EXIT_CAUGHT: u32 = 3;

/// The architecture, for the engine.
pub struct X86;

impl Target for X86 {
    type Form = Form;
    type State = State;
    type Fault = Exception;
    const FORMS: &'static [(Form, bool)] = table::FORMS;
    const PAIRS: &'static [(Form, Form, bool)] = table::PAIRS;
    const FAMILIES: &'static [u8] = table::FAMILIES;
    const PAIR_FAMILIES: &'static [(u8, u8)] = table::PAIR_FAMILIES;
    const ALL_FLAGS: u32 = state::bits::ARITH;
    const SETTLED: (u8, W) = (sem::flags::Kind::Image as u8, W::B4);
    fn settle(d: Deferred<u64>) -> Deferred<u64> {
        sem::flags::from_image(sem::flags::image(d))
    }
    #[inline(always)]
    fn flag_values(kind: u8) -> u8 {
        sem::flags::Kind::from_code(kind).values()
    }
    #[inline(always)]
    fn complete<O: Ops>(o: &mut O, old: Deferred<O::V>, p: Partly<O::V>) -> Deferred<O::V> {
        sem::flags::complete(o, old, p)
    }
    fn handlers() -> Handlers<Self> {
        table::handlers()
    }
    #[inline(always)]
    fn run<E: Emit, K: Family>(e: &mut E, f: Form) -> Step<E> {
        sem::run::<E, K>(e, f)
    }
    fn rare(cpu: &mut Cpu<'_, Self>, f: Form) -> Rare<Exception> {
        let r = sem::rare::run(cpu, f).unwrap_or_else(Rare::Fault);
        cpu.state.follow(cpu.hot);
        r
    }
    fn light(hot: &mut Hot, state: &mut State, f: Form) -> bool {
        sem::light::run(hot, state, f)
    }
    fn is_rare(f: Form) -> bool {
        sem::is_rare(f)
    }
    fn changes(f: Form) -> (u32, u32) {
        sem::changes(f)
    }
    fn decode(code: &[u8], off: u32, mode: u32) -> Result<Decoded<Form>, Short> {
        decode::decode(code, off, mode)
    }
    fn touches(code: &[u8], mode: u32) -> (u32, u32) {
        touches::touches(code, mode)
    }
    fn address_mask(mode: u32) -> u64 {
        if mode & state::mode::SIZE == 2 { u64::MAX } else { 0xffff_ffff }
    }
    fn follow(hot: &mut Hot, state: &State) {
        state.follow(hot)
    }
    fn mode(hot: &Hot, state: &State) -> u32 {
        state.mode(hot)
    }
    fn regime(state: &State, who: Who) -> usize {
        use state::bits::*;
        let user = match who {
            Who::Current => state.cpl == 3,
            Who::User => true,
            Who::Supervisor | Who::Implicit => false,
        };
        // SMAP allows supervisor accesses to user pages while EFLAGS.AC is set, but never implicit ones.
        match (user, who) {
            (true, _) => 1,
            (_, Who::Implicit) => 0,
            _ if state.cr4 & CR4_SMAP != 0 && state.eflags & AC != 0 => 2,
            _ => 0,
        }
    }
    fn check_address(state: &State, la: u64, access: Access) -> Result<(), Exception> {
        sys::check_address(state, la, access)
    }
    fn walk(state: &mut State, phys: &mut Phys<'_>, la: u64, access: Access) -> Result<Leaf, Exception> {
        sys::walk(state, phys, la, access)
    }
    fn segment(hot: &Hot, state: &State, seg: u8, offset: u64, bytes: u32, write: bool) -> Result<u64, Exception> {
        sys::segment(hot, state, seg, offset, bytes, write)
    }
    fn divide_fault() -> Exception {
        Exception::de()
    }
    fn alignment_fault() -> Exception {
        Exception::gp(0)
    }
    fn deliver(cpu: &mut Cpu<'_, Self>, fault: Exception) -> Rare<Exception> {
        if cpu.state.catch {
            cpu.state.caught = Some(fault);
            return Rare::Exit(cpu.op.ip, EXIT_CAUGHT);
        }
        sys::deliver(cpu, fault)
    }
    fn service(cpu: &mut Cpu<'_, Self>) -> Rare<Exception> {
        sys::service(cpu)
    }
    fn stepping(state: &State) -> bool {
        sys::stepping(state)
    }
    fn before(cpu: &mut Cpu<'_, Self>) -> Rare<Exception> {
        sys::before(cpu)
    }
    fn after(cpu: &mut Cpu<'_, Self>) -> Rare<Exception> {
        sys::after(cpu)
    }
    fn unit(state: &State) -> unit::Image {
        state.fpu.to_host()
    }
    fn set_unit(state: &mut State, image: &unit::Image, last: unit::Last) {
        state.fpu.from_host(image);
        if let Some(ip) = last.ip {
            (state.fpu.fip, state.fpu.fcs) = (state.ip_of(ip), state.segs[reg::CS].sel)
        }
        if let Some((seg, offset)) = last.data {
            (state.fpu.fdp, state.fpu.fds) = (offset, state.segs.get(seg as usize).map_or(0, |s| s.sel))
        }
    }
    fn disassemble(code: &[u8], pc: u64, mode: u32) -> String {
        use iced_x86::{Decoder, DecoderOptions, Formatter};
        let (mut out, mut format) = (String::new(), insight::formatter());
        let mut decoder = Decoder::with_ip(state::mode::bits(mode), code, pc, DecoderOptions::NONE);
        while decoder.can_decode() {
            let at = decoder.position();
            let i = decoder.decode();
            let mut text = String::new();
            format.format(&i, &mut text);
            insight::push_instruction(&mut out, i.ip(), &code[at..at + i.len()], &text);
        }
        out
    }
    fn code_base(state: &State) -> u64 {
        state.segs[reg::CS].base
    }
    fn dump(hot: &Hot, state: &State, pc: u64, fpu: bool) -> String {
        cpu::dump::text(hot, state, pc, cpu::dump::Shown::Log { fpu })
    }
    fn watched(state: &mut State, la: u64, bytes: u32, write: bool) {
        sys::watched(state, la, bytes, write)
    }
}
