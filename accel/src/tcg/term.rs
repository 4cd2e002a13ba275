//! Values of the compilers: a root plus a constant, so that constants fold and accesses off one base are recognised.

use super::{
    ops::{Bin, W},
    plain::plain_bin,
};

/// A value plus a constant (64 bits only), or a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term<R> {
    pub(super) root: Option<R>,
    pub(super) off: u64,
}
impl<R> Term<R> {
    pub(super) const fn constant(off: u64) -> Term<R> {
        Term { root: None, off }
    }
}
impl<R> From<R> for Term<R> {
    fn from(root: R) -> Term<R> {
        Term { root: Some(root), off: 0 }
    }
}

/// The operation is a shift or a rotation.
pub(super) fn is_shift(op: Bin) -> bool {
    matches!(op, Bin::Shl | Bin::Shr | Bin::Sar | Bin::Rol | Bin::Ror)
}
/// `a op b`, where that takes no code.
pub(super) fn fold<R: Copy + PartialEq>(op: Bin, w: W, a: Term<R>, b: Term<R>) -> Option<Term<R>> {
    let plus = |t: Term<R>, k: u64| Term { root: t.root, off: t.off.wrapping_add(k) };
    Some(match (op, a.root, b.root) {
        (_, None, None) => Term::constant(plain_bin(op, w, a.off, b.off)),
        (Bin::Add, Some(_), None) if w == W::B8 => plus(a, b.off),
        (Bin::Add, None, Some(_)) if w == W::B8 => plus(b, a.off),
        (Bin::Sub, Some(_), None) if w == W::B8 => plus(a, b.off.wrapping_neg()),
        (Bin::Add | Bin::Sub | Bin::Or | Bin::Xor, _, None) if b.off & w.mask() == 0 => a,
        (Bin::And, _, None) if b.off & w.mask() == w.mask() => a,
        (_, _, None) if is_shift(op) && b.off == 0 => a,
        (Bin::Xor | Bin::Sub, Some(x), Some(y)) if x == y && a.off == b.off => Term::constant(0),
        (Bin::And | Bin::Or, Some(x), Some(y)) if x == y && a.off == b.off => a,
        _ => return None,
    })
}
