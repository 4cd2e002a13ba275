//! x87 results at the ends of the range against the host CPU: random operands seldom meet there.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use oracle::{
    Case, Executor, Mode, State, compare,
    guest::{Drive, Guest},
    host::Host,
    run,
};

const FYL2X: [u8; 2] = [0xd9, 0xf1];
const FYL2XP1: [u8; 2] = [0xd9, 0xf9];
const INTEGER: u64 = 1 << 63;

fn f80(negative: bool, exponent: u16, significand: u64) -> u128 {
    u128::from(exponent | u16::from(negative) << 15) << 64 | u128::from(significand)
}

/// Runs an instruction on all pairs in all rounding modes, underflow and overflow masked and not.
fn pairs(code: [u8; 2], st0: &[u128], st1: &[u128]) {
    let mut host = Host::new().expect("the host executor");
    let mut guest = Guest::new(host.layout(), Drive::Run);
    let rip = host.layout().code + 0x400;
    for fcw in [0x37f, 0x367].iter().flat_map(|fcw| (0..4).map(move |rc| fcw | rc << 10)) {
        for (&x, &y) in st0.iter().flat_map(|x| st1.iter().map(move |y| (x, y))) {
            let mut state = State { rip, rflags: 0x202, ..State::default() };
            state.fx.set_fcw(fcw);
            state.fx.set_ftw(0xff);
            state.fx.set_st(0, x);
            state.fx.set_st(1, y);
            let case = Case { mode: Mode::Bits64, code: code.to_vec(), count: 1, state, memory: vec![] };
            let (_, d) = run::differ(&mut host, &mut guest, &case);
            assert!(d.is_empty(), "{}\n{d}", compare::describe(&case));
        }
    }
}

/// Significands with few and with many bits, as normal numbers of these exponents.
fn normal(exponents: &[u16]) -> Vec<u128> {
    let significands = [INTEGER, INTEGER + 1, 0xd770 << 48, u64::MAX];
    let signed = |e: u16, s| [false, true].map(|negative| f80(negative, e, s));
    exponents.iter().flat_map(|&e| significands.into_iter().flat_map(move |s| signed(e, s))).collect()
}

/// Denormal numbers, and the pseudo-denormals beside them.
fn denormal() -> Vec<u128> {
    let significands =
        [1, 2, 3, 0x8421, 1 << 40, INTEGER >> 4, INTEGER >> 1, INTEGER - 1, INTEGER, INTEGER + 1, u64::MAX];
    significands.into_iter().flat_map(|s| [f80(false, 0, s), f80(true, 0, s)]).collect()
}

#[test]
fn integers_times_the_smallest_and_largest_numbers() {
    let near_one = (0x3fff - 9..0x3fff + 9).filter(|&e| e != 0x3fff);
    let mut powers: Vec<_> = near_one.map(|e| f80(false, e, INTEGER)).collect();
    powers.extend([1, 2, 0xbf6, 0x1fff, 0x3000, 0x5000, 0x7ffd, 0x7ffe].map(|e| f80(false, e, INTEGER)));
    powers.extend((0..64).step_by(7).map(|n| f80(false, 0, 1 << n)));
    let mut factors = denormal();
    factors.extend(normal(&[1, 2, 10, 0x3fff, 0x7ff0, 0x7ffc, 0x7ffe]));
    pairs(FYL2X, &powers, &factors);
}

#[test]
fn logarithms_that_underflow_and_overflow() {
    let mut factors = denormal();
    factors.extend(normal(&[1, 40, 0x3fff, 0x7ffc, 0x7ffe]));
    let near_one: Vec<_> =
        [1, 2, 3, 1 << 20, 1 << 40, 3 << 60].into_iter().map(|n| f80(false, 0x3fff, INTEGER | n)).collect();
    pairs(FYL2X, &near_one, &factors);
    let mut small = denormal();
    small.extend(normal(&[1, 0x2000, 0x3fff - 64, 0x3ffc]));
    pairs(FYL2XP1, &small, &factors);
}
