//! Which vector forms tier 0 specialises: one row of the product per line.

use crate::{
    forms::{Loc::*, *},
    sem::sse::Sse::{
        self, Bin, Comis, FromInt, Mask, Move, MoveLow, MoveZext, Shuffle, StoreHigh, StoreLow, ToInt, Un,
    },
};
use accel::tcg::{
    Fp, FpBin,
    W::{self, *},
    XBin, XShift, XShuffle, XUn,
};

struct List {
    row: [Form; 512],
    n: usize,
}
impl List {
    const fn push(&mut self, op: Sse, w: W, dst: Loc, src: Loc) {
        self.row[self.n] = Form::new(Op::Sse(op), w, dst, src);
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
const MEMORY: [Loc; 4] = [M, Mx, M32, Mx32];
const SOURCES: [Loc; 4] = [X, M, Mx, M32];
const SCALAR: [(Fp, W); 2] = [(Fp::Ss, B4), (Fp::Sd, B8)];
const PACKED: [(Fp, W); 2] = [(Fp::Ps, B4), (Fp::Pd, B8)];
const FOUR: [FpBin; 4] = [FpBin::Add, FpBin::Sub, FpBin::Mul, FpBin::Div];
/// Integer lanes, commonest between registers.
#[rustfmt::skip]
const LANES: [XBin; 22] = {
    use XBin::*;
    [
        AddSatS(B1), AddSatS(B2), AddSatU(B1), AddSatU(B2), SubSatS(B1), SubSatS(B2), SubSatU(B1), SubSatU(B2),
        MulLo16, MulHi16S, MulHi16U, MulU32, MulAdd16, Avg(B1), Avg(B2), Min(B2), Max(B1), Max(B2), SumAbsDiff8,
        CmpGt(B1), CmpGt(B2), CmpGt(B4),
    ]
};
/// Packs, likewise.
const PACKS: [XBin; 3] = [XBin::PackSigned(B2), XBin::PackSigned(B4), XBin::PackUnsigned16];

#[rustfmt::skip]
const LIST: List = {
    let mut l = List { row: [Form::new(Op::Nop, B4, No, No); 512], n: 0 };
    product!(op in FOUR, t in SCALAR, src in SOURCES => { l.push(Sse::Fp(op, t.0), t.1, X, src) });
    product!(op in FOUR, t in PACKED, src in [X, M, Mx] => { l.push(Sse::Fp(op, t.0), t.1, X, src) });
    product!(op in [FpBin::Sqrt, FpBin::Min, FpBin::Max], t in SCALAR => { l.push(Sse::Fp(op, t.0), t.1, X, X) });
    product!(aligned in [false, true], at in MEMORY => { l.push(Move(aligned), B8, X, at) });
    product!(aligned in [false, true], at in MEMORY => { l.push(Move(aligned), B8, at, X) });
    product!(aligned in [false, true] => { l.push(Move(aligned), B8, X, X) });
    product!(w in [B4, B8], src in [X, R, M, Mx, M32, Mx32, S] => { l.push(MoveZext, w, X, src) });
    product!(w in [B4, B8], dst in [R, M, Mx, M32, Mx32] => { l.push(StoreLow, w, dst, X) });
    product!(w in [B4, B8] => { l.push(MoveLow, w, X, X) });
    product!(src in [M, Mx] => { l.push(MoveLow, B8, X, src) });
    product!(src in SOURCES => { l.push(Bin(XBin::LowToHigh), B8, X, src) });
    product!(dst in [M, Mx] => { l.push(StoreHigh, B8, dst, X) });
    product!(quiet in [false, true], w in [B4, B8], src in SOURCES => { l.push(Comis(quiet), w, X, src) });
    product!(t in SCALAR, w in [B4, B8], src in [X, M] => { l.push(ToInt(t.1, true), w, R, src) });
    product!(t in SCALAR, w in [B4, B8], src in [R, M] => { l.push(FromInt(t.1), w, X, src) });
    product!(src in SOURCES => { l.push(Sse::Fp(FpBin::Resize, Fp::Sd), B4, X, src) });
    product!(src in SOURCES => { l.push(Sse::Fp(FpBin::Resize, Fp::Ss), B8, X, src) });
    product!(op in [XUn::CvtDqPd, XUn::CvtDqPs, XUn::CvtPsPd, XUn::CvtPdPs] => { l.push(Un(op), B8, X, X) });
    product!(op in [XBin::And, XBin::Andn, XBin::Or, XBin::Xor], src in SOURCES => { l.push(Bin(op), B8, X, src) });
    product!(w in [B1, B2, B4, B8], src in [X, M] => { l.push(Bin(XBin::Add(w)), B8, X, src); l.push(Bin(XBin::Sub(w)), B8, X, src) });
    product!(w in [B1, B2, B4], src in [X, M] => { l.push(Bin(XBin::CmpEq(w)), B8, X, src) });
    product!(w in [B1, B2, B4, B8] => { l.push(Bin(XBin::UnpackLo(w)), B8, X, X); l.push(Bin(XBin::UnpackHi(w)), B8, X, X) });
    product!(src in [X, M, Mx] => { l.push(Bin(XBin::Min(B1)), B8, X, src) });
    product!(op in LANES => { l.push(Bin(op), B8, X, X) });
    product!(op in PACKS => { l.push(Bin(op), B8, X, X) });
    product!(w in [B2, B4, B8] => { l.push(Sse::Shift(XShift::Shl(w)), B8, X, I); l.push(Sse::Shift(XShift::Shr(w)), B8, X, I) });
    product!(w in [B2, B4] => { l.push(Sse::Shift(XShift::Sar(w)), B8, X, I) });
    product!(op in [XShift::ShlBytes, XShift::ShrBytes] => { l.push(Sse::Shift(op), B8, X, I) });
    product!(op in [XShuffle::D, XShuffle::Ps, XShuffle::Pd, XShuffle::Lw] => { l.push(Shuffle(op), B8, X, X) });
    l.push(Mask(B1), B4, R, X);
    l
};
/// The specialised vector forms.
pub const VECTORS: &[Form] = LIST.row.split_at(LIST.n).0;
