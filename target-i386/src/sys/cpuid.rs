//! What CPUID reports.

/// CPUID leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuidTable {
    /// `(leaf, subleaf)` to EAX EBX ECX EDX.
    pub leaves: Vec<((u32, u32), [u32; 4])>,
}
