//! Runs forms through two executors and collects what differs.

use crate::{
    approx, cases, compare,
    forms::Form,
    layout::{DATA_LEN, Layout},
    sequence::Pool,
    shrink::shrink,
    state::{Case, Executor, Mode, Outcome},
    undefined::{self, Undefined},
    values::Values,
};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

/// How much to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Encodings tried of every form.
    pub encodings: u32,
    /// States for each encoding.
    pub states: u32,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What came of one form.
#[derive(Clone, Debug)]
pub struct Report {
    /// The form.
    pub form: Form,
    /// States it ran on.
    pub runs: u32,
    /// States that raised an exception in the judge.
    pub faults: u32,
    /// States that differ.
    pub failures: u32,
    /// The first failing case, shrunk, as text.
    pub first: Option<String>,
}

/// Seed of one case, from the plan's seed, the form and the case's number.
fn mix(seed: u64, form: Form, mode: Mode, n: u64) -> u64 {
    let mut x = seed
        ^ (form.code as u64) << 40
        ^ u64::from(form.memory) << 39
        ^ (form.prefix as u64) << 36
        ^ u64::from(mode.bits()) << 28
        ^ n;
    for _ in 0..3 {
        x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    x
}

/// Runs one form on both executors.
pub fn form(judge: &mut dyn Executor, other: &mut dyn Executor, mode: Mode, form: Form, plan: Plan) -> Report {
    let mut report = Report { form, runs: 0, faults: 0, failures: 0, first: None };
    let layout = judge.layout().view(mode);
    let mut tries = 0;
    let mut n = 0;
    while n < plan.encodings && tries < 20 * plan.encodings {
        tries += 1;
        let mut v = Values::new(mix(plan.seed, form, mode, u64::from(tries) << 12));
        let Some(e) = cases::encode(form, mode, &layout, &mut v) else { continue };
        n += 1;
        for _ in 0..plan.states {
            let case = cases::state(&e, mode, &layout, &mut v);
            report.runs += 1;
            let (faulted, difference) = differ(judge, other, &case);
            report.faults += u32::from(faulted);
            if difference.is_empty() {
                continue;
            }
            report.failures += 1;
            if report.first.is_none() {
                let small = shrink(&case, |c| !differ(judge, other, c).1.is_empty());
                let (_, text) = differ(judge, other, &small);
                report.first = Some(format!("{}\n{text}", compare::describe(&small)));
            }
        }
    }
    report
}

/// Runs `case` on both; did the judge fault, and what differs.
pub fn differ(judge: &mut dyn Executor, other: &mut dyn Executor, case: &Case) -> (bool, String) {
    let a = judge.run(case);
    let b = other.run(case);
    (a.fault.is_some(), difference(&judge.layout().view(case.mode), case, (&a, judge.memory()), (&b, other.memory())))
}

/// Runs `count` random sequences of up to `most` instructions; the first failure as text.
pub fn sequences(
    judge: &mut dyn Executor,
    other: &mut dyn Executor,
    mode: Mode,
    count: u64,
    most: u64,
    seed: u64,
) -> (u64, Option<String>) {
    let layout = judge.layout().view(mode);
    let pool = Pool::new(mode);
    let mut runs = 0;
    for n in 0..count {
        let mut v = Values::new(seed.wrapping_mul(0x9e37_79b9) ^ n << 8 ^ u64::from(mode.bits()));
        let Some(s) = pool.sequence(&layout, most, &mut v) else { continue };
        for _ in 0..4 {
            let mut case = cases::random(mode, s.case.state.rip, &mut v);
            case.state.gpr[4] = s.case.state.gpr[4];
            case.code.clone_from(&s.case.code);
            case.count = s.case.count;
            runs += 1;
            let mut fails = |case: &Case| {
                let (a, b) = (judge.run(case), other.run(case));
                let rflags = if a.fault.is_some() { s.ever_undefined } else { s.undefined };
                let u = Undefined { rflags, ..Undefined::default() };
                compare::compare(case, &u, (&a, judge.memory()), (&b, other.memory()), &vec![], None)
            };
            if fails(&case).is_empty() {
                continue;
            }
            let small = shrink(&case, |c| !fails(c).is_empty());
            let text = fails(&small);
            return (runs, Some(format!("{}\n{text}", compare::describe(&small))));
        }
    }
    (runs, None)
}

/// What differs between two outcomes of `case`.
pub fn difference(
    layout: &Layout,
    case: &Case,
    a: (&Outcome, &[u8; DATA_LEN]),
    b: (&Outcome, &[u8; DATA_LEN]),
) -> String {
    let mut decoder = Decoder::with_ip(case.mode.bits(), &case.code, case.state.rip, DecoderOptions::NONE);
    let i = decoder.decode();
    let mut u = if case.count == 1 { undefined::undefined(&i, case) } else { Undefined::default() };
    if case.count == 1 {
        u.outcomes(&i, a.0, b.0);
    }
    let destination = (i.op_count() > 0 && i.op0_kind() == OpKind::Register)
        .then(|| i.op0_register().full_register().number())
        .filter(|_| i.op0_register().is_gpr());
    let ignore = ignored(&i, layout, case);
    let mut judge = *a.0;
    if !approx::accept(&i, layout, case, &mut judge, a.1, b.0) {
        return String::new();
    }
    compare::compare(case, &u, (&judge, a.1), b, &ignore, destination)
}

/// Bytes of the memory operand that hold what is not compared: x87 instruction and data pointers, MXCSR_MASK, reserved fields.
fn ignored(i: &Instruction, layout: &Layout, case: &Case) -> compare::Ignore {
    let parts: &[(usize, usize)] = match i.mnemonic() {
        // SDM vol. 1, figures 8-9 to 8-12: FIP, FCS and FOP, FDP, FDS, and the reserved upper halves.
        Mnemonic::Fnsave | Mnemonic::Fsave | Mnemonic::Fnstenv | Mnemonic::Fstenv => match i.memory_size().size() {
            14 | 94 => &[(6, 14)],
            _ => &[(2, 4), (6, 8), (10, 28)],
        },
        // SDM vol. 1, table 10-2.
        Mnemonic::Fxsave | Mnemonic::Fxsave64 => &[
            (5, 24),
            (28, 32),
            (42, 48),
            (58, 64),
            (74, 80),
            (90, 96),
            (106, 112),
            (122, 128),
            (138, 144),
            (154, 160),
            (416, 512),
        ],
        _ => return vec![],
    };
    let Some(ea) = cases::effective_address(i, 0, layout, case) else { return vec![] };
    let Some(at) = cases::data_offset(ea, layout) else { return vec![] };
    parts.iter().map(|(from, to)| from + at..to + at).collect()
}
