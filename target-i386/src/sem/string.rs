//! String instructions: rare functions that work page run by page run. Source: Intel SDM vol. 1 §7.3.9.

/// MOVS, CMPS, SCAS, LODS, STOS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Str {
    Movs,
    Cmps,
    Scas,
    Lods,
    Stos,
}
