//! Which forms and pairs tier 0 specialises: one row of the product per line.

use crate::{
    X86,
    forms::{Loc::*, *},
    sem::family,
    vector_table,
};
use accel::tcg::{Handler, Handlers, W::*};

/// A list that grows at compile time.
struct List<T: Copy, const N: usize> {
    row: [T; N],
    n: usize,
}
impl<T: Copy, const N: usize> List<T, N> {
    const fn push(&mut self, t: T) {
        self.row[self.n] = t;
        self.n += 1
    }
}
macro_rules! product {
    ($($x:ident in $xs:expr),+ => $body:block) => { product!(@ $body $($x, $xs;)+) };
    (@ $body:block) => { $body };
    (@ $body:block $x:ident, $xs:expr; $($rest:tt)*) => {
        let xs = $xs; let mut i = 0;
        while i < xs.len() { let $x = xs[i]; i += 1; product!(@ $body $($rest)*); }
    }
}

const NOP: Form = Form::new(Op::Nop, B4, No, No);
const KEEP: [Alu; 5] = [Alu::Add, Alu::Or, Alu::And, Alu::Sub, Alu::Xor];
/// These evaluate flags of any producer: long handlers, so only the commonest forms.
const CARRY: [Alu; 2] = [Alu::Adc, Alu::Sbb];
const TEST: [Alu; 2] = [Alu::Cmp, Alu::Test];
const LIVE: [bool; 2] = [false, true];
const CC: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// Locations of two operands: 64-bit addresses, then 32-bit ones.
const TO: [(Loc, Loc); 7] = [(R, R), (R, I), (R, M), (R, Mx), (M, R), (M, I), (Mx, R)];
const TO32: [(Loc, Loc); 5] = [(R, M32), (R, Mx32), (M32, R), (M32, I), (Mx32, R)];
const COMPARED: [(Loc, Loc); 8] = [(R, R), (R, I), (R, M), (R, Mx), (M, R), (M, I), (Mx, R), (Mx, I)];
const COMPARED32: [(Loc, Loc); 5] = [(R, M32), (R, Mx32), (M32, R), (M32, I), (Mx32, I)];
const MOVED: [(Loc, Loc); 11] =
    [(R, R), (R, I), (R, M), (R, Mx), (M, R), (M, I), (Mx, R), (Mx, I), (R, S), (S, R), (R, M32)];
const MOVED32: [(Loc, Loc); 10] =
    [(R, Mx32), (M32, R), (M32, I), (Mx32, R), (R, G16), (G16, R), (R, G32), (G32, R), (G16, I), (G32, I)];
const SOURCES: [Loc; 6] = [R, M, Mx, S, M32, Mx32];
const SHIFTS: [Shift; 3] = [Shift::Shl, Shift::Shr, Shift::Sar];

const fn f(op: Op, w: accel::tcg::W, dst: Loc, src: Loc) -> Form {
    Form::new(op, w, dst, src)
}

#[rustfmt::skip]
const LIST: List<(Form, bool), 2048> = {
    let mut l = List { row: [(NOP, false); 2048], n: 0 };
    l.push((NOP, false));
    product!(op in KEEP, w in [B1, B4, B8], at in TO, live in LIVE => { l.push((f(Op::Alu(op), w, at.0, at.1), live)) });
    product!(op in KEEP, w in [B1, B4], at in TO32, live in LIVE => { l.push((f(Op::Alu(op), w, at.0, at.1), live)) });
    product!(op in KEEP, at in [(R, R), (R, I), (R, M), (M, I)], live in LIVE => { l.push((f(Op::Alu(op), B2, at.0, at.1), live)) });
    product!(op in CARRY, w in [B4, B8], src in [R, I, M], live in LIVE => { l.push((f(Op::Alu(op), w, R, src), live)) });
    product!(op in TEST, w in [B1, B2, B4, B8], at in COMPARED => { l.push((f(Op::Alu(op), w, at.0, at.1), true)) });
    product!(op in TEST, w in [B1, B2, B4], at in COMPARED32 => { l.push((f(Op::Alu(op), w, at.0, at.1), true)) });
    product!(w in [B1, B2, B4, B8], at in MOVED => { l.push((f(Op::Mov, w, at.0, at.1), false)) });
    product!(w in [B1, B2, B4], at in MOVED32 => { l.push((f(Op::Mov, w, at.0, at.1), false)) });
    product!(from in [B1, B2], w in [B4, B8], src in SOURCES => { l.push((f(Op::Zext(from), w, R, src), false)) });
    product!(from in [B1, B2], w in [B4, B8], src in SOURCES => { l.push((f(Op::Sext(from), w, R, src), false)) });
    product!(src in [R, M, Mx] => { l.push((f(Op::Sext(B4), B8, R, src), false)) });
    product!(w in [B4, B8], src in [M, Mx, M32, Mx32] => { l.push((f(Op::Lea, w, R, src), false)) });
    product!(op in SHIFTS, w in [B4, B8], src in [I, R], live in LIVE => { l.push((f(Op::Shift(op), w, R, src), live)) });
    product!(op in [Shift::Rol, Shift::Ror], w in [B4, B8] => { l.push((f(Op::Shift(op), w, R, I), false)) });
    product!(op in [Shift::Shl, Shift::Shr], live in LIVE => { l.push((f(Op::Shift(op), B1, R, I), live)) });
    product!(w in [B4, B8], src in [R, M, Mx], live in LIVE => { l.push((f(Op::Imul, w, R, src), live)) });
    product!(w in [B4, B8], src in [R, M], live in LIVE => { l.push((f(Op::Imul3, w, R, src), live)) });
    product!(w in [B4, B8], signed in LIVE, live in LIVE => { l.push((f(Op::MulWide(signed), w, No, R), live)) });
    product!(w in [B4, B8], signed in LIVE => { l.push((f(Op::Div(signed), w, No, R), false)) });
    product!(w in [B4, B8], op in [Op::Inc, Op::Dec, Op::Neg], live in LIVE => { l.push((f(op, w, R, No), live)) });
    product!(w in [B4, B8], op in [Op::Inc, Op::Dec], at in [M, M32], live in LIVE => { l.push((f(op, w, at, No), live)) });
    product!(w in [B4, B8] => { l.push((f(Op::Not, w, R, No), false)) });
    product!(w in [B4, B8] => { l.push((f(Op::Xchg, w, R, R), false)) });
    product!(w in [B4, B8] => { l.push((f(Op::Bswap, w, R, No), false)) });
    product!(w in [B4, B8], op in [Op::Bsf, Op::Bsr, Op::Popcnt], live in LIVE => { l.push((f(op, w, R, R), live)) });
    product!(w in [B4, B8], src in [R, I], at in [R, M] => { l.push((f(Op::Bt(Bt::Bt), w, at, src), true)) });
    product!(w in [B4, B8] => { l.push((f(Op::LockCmpxchg, w, M, R), true)) });
    product!(w in [B4, B8] => { l.push((f(Op::LockXadd, w, M, R), true)) });
    product!(cc in CC => { l.push((f(Op::Jcc(cc), B8, No, No), false)) });
    product!(cc in CC => { l.push((f(Op::Setcc(cc), B1, R, No), false)) });
    product!(cc in CC, w in [B4, B8] => { l.push((f(Op::Cmov(cc), w, R, R), false)) });
    product!(src in [R, I, M] => { l.push((f(Op::Push, B8, M, src), false)) });
    product!(src in [R, I, M32] => { l.push((f(Op::Push, B4, M32, src), false)) });
    l.push((f(Op::Pop, B8, R, M), false));
    l.push((f(Op::Pop, B4, R, M32), false));
    l.push((f(Op::Leave, B8, No, M), false));
    l.push((f(Op::Leave, B4, No, M32), false));
    product!(src in [R, M, Mx] => { l.push((f(Op::JmpTo, B8, No, src), false)) });
    product!(src in [R, M, Mx] => { l.push((f(Op::CallTo, B8, M, src), false)) });
    product!(src in [R, M32, Mx32] => { l.push((f(Op::JmpTo, B4, No, src), false)) });
    product!(src in [R, M32, Mx32] => { l.push((f(Op::CallTo, B4, M32, src), false)) });
    product!(op in [Op::Call, Op::CallFar, Op::Ret] => { l.push((f(op, B8, M, No), false)) });
    product!(op in [Op::Call, Op::CallFar, Op::Ret] => { l.push((f(op, B4, M32, No), false)) });
    product!(w in [B4, B8], op in [Op::Jmp, Op::JmpFar] => { l.push((f(op, w, No, No), false)) });
    product!(w in [B4, B8] => { l.push((f(Op::SignInto, w, No, No), false)) });
    product!(form in vector_table::VECTORS => { l.push((form, true)) });
    l
};
/// Specialised forms, and whether their flags are kept.
pub const FORMS: &[(Form, bool)] = LIST.row.split_at(LIST.n).0;

/// The family of each.
pub const FAMILIES: &[u8] = &{
    let mut n = [0; FORMS.len()];
    let mut i = 0;
    while i < FORMS.len() {
        n[i] = family(FORMS[i].0.op);
        i += 1
    }
    n
};
/// The families of each pair.
pub const PAIR_FAMILIES: &[(u8, u8)] = &{
    let mut n = [(0, 0); PAIRS.len()];
    let mut i = 0;
    while i < PAIRS.len() {
        n[i] = (family(PAIRS[i].0.op), family(PAIRS[i].1.op));
        i += 1
    }
    n
};

const SETTERS: [Alu; 4] = [Alu::Add, Alu::Sub, Alu::And, Alu::Test];
/// Conditions that follow comparisons in practice.
const USED: [u8; 12] = [2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15];
const fn jcc(cc: u8) -> Form {
    f(Op::Jcc(cc), B8, No, No)
}
#[rustfmt::skip]
const PAIR_LIST: List<(Form, Form, bool), 1024> = {
    let mut l = List { row: [(NOP, NOP, false); 1024], n: 0 };
    product!(w in [B1, B4, B8], at in [(R, R), (R, I), (R, M), (M, I)], cc in USED => { l.push((f(Op::Alu(Alu::Cmp), w, at.0, at.1), jcc(cc), true)) });
    product!(at in [(R, M32), (M32, I)], cc in USED => { l.push((f(Op::Alu(Alu::Cmp), B4, at.0, at.1), jcc(cc), true)) });
    product!(op in SETTERS, w in [B4, B8], src in [R, I], cc in USED => { l.push((f(Op::Alu(op), w, R, src), jcc(cc), true)) });
    product!(w in [B4, B8], op in [Op::Dec, Op::Inc], cc in [4, 5, 8, 9] => { l.push((f(op, w, R, No), jcc(cc), true)) });
    product!(src in [R, I], cc in [4, 5] => { l.push((f(Op::Alu(Alu::Test), B1, R, src), jcc(cc), true)) });
    l
};
/// Neighbours that run as one handler.
pub const PAIRS: &[(Form, Form, bool)] = PAIR_LIST.row.split_at(PAIR_LIST.n).0;

#[rustfmt::skip]
static FORM_HANDLERS: [[Option<Handler<X86>>; 16]; 100] = accel::tcg_handlers!(X86, form:
    0 16 32 48 64 80 96 112 128 144 160 176 192 208 224 240 256 272 288 304
    320 336 352 368 384 400 416 432 448 464 480 496 512 528 544 560 576 592 608 624
    640 656 672 688 704 720 736 752 768 784 800 816 832 848 864 880 896 912 928 944
    960 976 992 1008 1024 1040 1056 1072 1088 1104 1120 1136 1152 1168 1184 1200 1216 1232 1248 1264
    1280 1296 1312 1328 1344 1360 1376 1392 1408 1424 1440 1456 1472 1488 1504 1520 1536 1552 1568 1584);
#[rustfmt::skip]
static PAIR_HANDLERS: [[Option<Handler<X86>>; 16]; 30] = accel::tcg_handlers!(X86, pair:
    0 16 32 48 64 80 96 112 128 144 160 176 192 208 224 240 256 272 288 304
    320 336 352 368 384 400 416 432 448 464);
// Every row has a handler.
const _: () = assert!(FORMS.len() <= 1600 && PAIRS.len() <= 480);

/// The handler tables.
pub fn handlers() -> Handlers<X86> {
    Handlers { forms: &FORM_HANDLERS, pairs: &PAIR_HANDLERS }
}
