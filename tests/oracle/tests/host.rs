//! The judge itself: is the host executor right, repeatable and fast, and would a wrong executor be caught?
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use iced_x86::Code;
use oracle::{
    Case, Executor, Fault, Layout, Mode, Outcome, State, cases, forms,
    forms::{Form, Prefix},
    host::Host,
    layout::DATA_LEN,
    run,
    values::Values,
};
use std::{cell::RefCell, rc::Rc, time::Instant};

fn seed() -> u64 {
    std::env::var("ORACLE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

fn one(host: &mut Host, mode: Mode, code: &[u8], set: impl Fn(&mut State)) -> Outcome {
    let mut state = State { rip: host.layout().code + 0x400, rflags: 0x202, ..State::default() };
    set(&mut state);
    host.run(&Case { mode, code: code.to_vec(), count: 1, state, memory: vec![] })
}

#[test]
fn registers_and_flags_come_back() {
    let mut host = Host::new().unwrap();
    let out = one(&mut host, Mode::Bits64, &[0x48, 0x01, 0xd8], |s| {
        s.gpr = std::array::from_fn(|n| n as u64 + 1);
        s.gpr[0] = u64::MAX;
        s.gpr[3] = 1;
    });
    assert_eq!(out.fault, None);
    assert_eq!(out.state.gpr[0], 0);
    assert_eq!(out.state.gpr[15], 16);
    assert_eq!(out.state.gpr[4], 5);
    assert_eq!(out.state.rflags & 0x8d5, 0x55);
    assert_eq!(out.state.rip, host.layout().code + 0x403);
}

#[test]
fn faults_carry_vector_code_and_address() {
    let mut host = Host::new().unwrap();
    let data = host.layout().data;
    // mov [rax], ebx to the read-only page, to an absent page; div by zero; ud2; a non-canonical address
    let store = [0x89, 0x18];
    let at = |host: &mut Host, rax| one(host, Mode::Bits64, &store, |s| s.gpr[0] = rax).fault;
    assert_eq!(at(&mut host, data), None);
    assert_eq!(at(&mut host, data + 0x2010), Some(Fault { vector: 14, error: 7, address: data + 0x2010 }));
    assert_eq!(at(&mut host, data + 0x5000), Some(Fault { vector: 14, error: 6, address: data + 0x5000 }));
    assert_eq!(at(&mut host, data + 0x1ffe), Some(Fault { vector: 14, error: 7, address: data + 0x2000 }));
    assert_eq!(at(&mut host, 1 << 63), Some(Fault { vector: 13, error: 0, address: 0 }));
    assert_eq!(one(&mut host, Mode::Bits64, &[0xf7, 0xf3], |_| ()).fault.unwrap().vector, 0);
    let ud = one(&mut host, Mode::Bits64, &[0x0f, 0x0b], |_| ());
    assert_eq!((ud.fault.unwrap().vector, ud.state.rip), (6, host.layout().code + 0x400));
    // sqrtss xmm0, xmm0 of -1 with the invalid exception unmasked
    let xm = one(&mut host, Mode::Bits64, &[0xf3, 0x0f, 0x51, 0xc0], |s| {
        s.fx.set_mxcsr(0x1f00);
        s.fx.set_xmm(0, 0xbf80_0000);
    });
    assert_eq!((xm.fault.unwrap().vector, xm.state.fx.mxcsr()), (19, 0x1f01));
    // int3 itself
    assert_eq!(one(&mut host, Mode::Bits64, &[0xcc], |_| ()).fault.unwrap().vector, 3);
}

#[test]
fn taken_branches_are_no_faults() {
    let mut host = Host::new().unwrap();
    let code = host.layout().code;
    let out = one(&mut host, Mode::Bits64, &[0xff, 0xe0], |s| s.gpr[0] = code + 0x123);
    assert_eq!((out.fault, out.state.rip), (None, code + 0x123));
    let out = one(&mut host, Mode::Bits64, &[0xff, 0xe0], |s| s.gpr[0] = 0x10);
    assert_eq!((out.fault, out.state.rip), (None, 0x10));
}

#[test]
fn thirty_two_bit_code_runs() {
    let mut host = Host::new().unwrap();
    if !host.runs_32_bit() {
        // Not a silent pass: the table that counts on this says so as well.
        eprintln!("*** This kernel runs no 32-bit code: 32-bit forms are checked by tests/ins only. ***");
        return;
    }
    // aam: no such instruction in 64-bit mode
    let out = one(&mut host, Mode::Bits32, &[0xd4, 0x0a], |s| s.gpr[0] = 57);
    assert_eq!((out.fault, out.state.gpr[0] & 0xffff), (None, 0x507));
    let data = host.layout().data;
    let out = one(&mut host, Mode::Bits32, &[0x89, 0x18], |s| s.gpr[0] = data + 0x2000);
    assert_eq!(out.fault, Some(Fault { vector: 14, error: 7, address: data + 0x2000 }));
}

/// Every form encodes, and the host gives the same answer twice.
#[test]
fn host_repeats_itself() {
    let (mut a, mut b) = (Host::new().unwrap(), Again(None, Box::new([0; DATA_LEN])));
    let seed = seed();
    println!("seed {seed}");
    let started = Instant::now();
    let mut runs = 0;
    for mode in a.modes() {
        let mut empty = vec![];
        for form in forms::host_forms(mode) {
            let layout = a.layout().view(mode);
            let mut v = Values::new(seed ^ form.code as u64);
            let mut done = 0;
            for _ in 0..100 {
                let Some(e) = cases::encode(form, mode, &layout, &mut v) else { continue };
                let case = cases::state(&e, mode, &layout, &mut v);
                b.0 = Some(a.run(&case));
                b.1.copy_from_slice(a.memory());
                let (_, d) = run::differ(&mut a, &mut b, &case);
                assert!(d.is_empty(), "{}\n{d}", oracle::compare::describe(&case));
                done += 1;
                runs += 2;
                if done == 10 {
                    break;
                }
            }
            if done == 0 {
                empty.push(format!("{} {:?}", form.text(), form.code));
            }
        }
        assert!(empty.is_empty(), "no encoding found for {empty:#?}");
    }
    println!("{runs} runs, {:.0} per second", f64::from(runs) / started.elapsed().as_secs_f64());
}

#[test]
fn two_hundred_thousand_runs_a_second() {
    let mut host = Host::new().unwrap();
    let layout = host.layout();
    let form = Form { code: Code::Add_r64_rm64, memory: false, prefix: Prefix::None };
    let mut v = Values::new(1);
    let e = std::iter::repeat_with(|| cases::encode(form, Mode::Bits64, &layout, &mut v)).flatten().next().unwrap();
    let case = cases::state(&e, Mode::Bits64, &layout, &mut v);
    let best = (0..5)
        .map(|_| {
            let t = cpu_time();
            for _ in 0..20_000 {
                host.run(&case);
            }
            20_000.0 / (cpu_time() - t)
        })
        .fold(0.0, f64::max);
    println!("{best:.0} runs per second");
    assert!(best > 200_000.0, "{best:.0} runs per second");
}

#[test]
fn sequences_are_made_and_a_lost_flag_in_them_is_caught() {
    let host = Rc::new(RefCell::new(Host::new().unwrap()));
    let shared = |wrong| Shared { host: host.clone(), wrong, memory: Box::new([0; DATA_LEN]) };
    let modes = host.borrow_mut().modes();
    for mode in modes {
        let (runs, failure) = run::sequences(&mut shared(|_, _| ()), &mut shared(|_, _| ()), mode, 500, 6, seed());
        assert!(runs > 1500, "{runs} runs");
        assert_eq!(failure, None);
        let lost: Wrong = |c, o| o.state.rflags ^= (c.state.rflags ^ o.state.rflags) & 1;
        let (_, failure) = run::sequences(&mut shared(|_, _| ()), &mut shared(lost), mode, 500, 6, seed());
        assert!(failure.is_some());
    }
}

/// An executor that is wrong in one small way must be caught, whatever the way.
#[test]
fn wrong_executors_are_caught() {
    let host = Rc::new(RefCell::new(Host::new().unwrap()));
    let shared = |wrong| Shared { host: host.clone(), wrong, memory: Box::new([0; DATA_LEN]) };
    let form = |code| Form { code, memory: false, prefix: Prefix::None };
    let wrongs: [(&str, Form, Wrong); 7] = [
        ("a carry", form(Code::Adc_r32_rm32), |c, o| {
            if c.state.rflags & 1 != 0 && c.state.gpr[0] == u64::MAX {
                o.state.rflags ^= 1;
            }
        }),
        ("upper half kept", form(Code::Mov_r32_rm32), |c, o| {
            for n in 0..16 {
                if o.state.gpr[n] != c.state.gpr[n] {
                    o.state.gpr[n] |= c.state.gpr[n] >> 32 << 32;
                }
            }
        }),
        ("count above 31", form(Code::Shl_rm8_CL), |c, o| {
            if c.state.gpr[1] & 0xff == 32 {
                o.state.rflags ^= 0x40;
            }
        }),
        ("sticky flag", form(Code::Addps_xmm_xmmm128), |_, o| {
            let m = o.state.fx.mxcsr();
            o.state.fx.set_mxcsr(m & !0x10);
        }),
        ("error code", Form { memory: true, ..form(Code::Mov_rm64_r64) }, |_, o| {
            if let Some(f) = &mut o.fault {
                f.error &= !1;
            }
        }),
        ("order of equal zeros", form(Code::Maxss_xmm_xmmm32), |c, o| {
            for n in 0..16 {
                if o.state.fx.xmm(n) as u32 == 0x8000_0000 && c.state.fx.xmm(n) as u32 == 0 {
                    o.state.fx.set_xmm(n, c.state.fx.xmm(n));
                }
            }
        }),
        ("tag word", form(Code::Fstp_sti), |c, o| o.state.fx.set_ftw(c.state.fx.ftw())),
    ];
    for (what, form, wrong) in wrongs {
        let (mut judge, mut other) = (shared(|_, _| ()), shared(wrong));
        let plan = run::Plan { encodings: 100, states: 50, seed: seed() };
        let report = run::form(&mut judge, &mut other, Mode::Bits64, form, plan);
        assert!(report.failures > 0, "{what} of {} went unnoticed in {} runs", form.text(), report.runs);
        assert!(report.failures < report.runs, "{what}: {report:?}");
        assert!(report.first.is_some_and(|t| t.lines().count() > 2));
    }
}

type Wrong = fn(&Case, &mut Outcome);

/// The host, perhaps with one mistake: both sides of a comparison in one slot.
struct Shared {
    host: Rc<RefCell<Host>>,
    wrong: Wrong,
    memory: Box<[u8; DATA_LEN]>,
}

impl Executor for Shared {
    fn name(&self) -> &str {
        "host with a mistake"
    }
    fn layout(&self) -> Layout {
        self.host.borrow().layout()
    }
    fn run(&mut self, case: &Case) -> Outcome {
        let mut host = self.host.borrow_mut();
        let mut out = host.run(case);
        self.memory.copy_from_slice(host.memory());
        (self.wrong)(case, &mut out);
        out
    }
    fn memory(&self) -> &[u8; DATA_LEN] {
        &self.memory
    }
}

/// Processor time of this thread in seconds: other load does not count.
fn cpu_time() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// Gives back what it was told.
struct Again(Option<Outcome>, Box<[u8; DATA_LEN]>);
impl Executor for Again {
    fn name(&self) -> &str {
        "again"
    }
    fn layout(&self) -> Layout {
        Layout::new(0)
    }
    fn run(&mut self, _: &Case) -> Outcome {
        self.0.unwrap()
    }
    fn memory(&self) -> &[u8; DATA_LEN] {
        &self.1
    }
}
