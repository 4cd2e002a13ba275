//! The table of instructions: what there is, what the interpreter implements, how it is checked. Written to `docs/instructions.md`.
//!
//! Rows are iced's opcodes of the CPUID features the interpreter reports. An instruction is implemented when the interpreter, asked to run it in
//! some mode, does anything but raise #UD.

use crate::{
    cases,
    forms::{self, Check, Form},
    guest::{Drive, Guest},
    layout::Layout,
    state::{Executor, Mode},
    values::Values,
};
use iced_x86::{Code, CpuidFeature, Mnemonic};
use std::{collections::BTreeMap, fmt::Write as _, path::Path};

/// One opcode.
#[derive(Clone, Debug)]
pub struct Row {
    /// Opcode.
    pub code: Code,
    /// Modes the architecture has it in, of 64, 32 and 16 bits.
    pub modes: Vec<Mode>,
    /// Forms of it: register, memory, prefixes.
    pub forms: Vec<Form>,
    /// What of it does not run: mode and form.
    pub missing: Vec<(Mode, Form)>,
    /// How it is checked.
    pub check: Check,
}

/// All rows, found by asking the interpreter.
pub fn rows() -> Vec<Row> {
    let mut guest = Guest::new(Layout::new(0), Drive::Step);
    let mut rows: BTreeMap<u32, Row> = BTreeMap::new();
    for mode in [Mode::Bits64, Mode::Bits32, Mode::Bits16] {
        for form in forms::all_forms(mode) {
            let row = rows.entry(form.code as u32).or_insert_with(|| Row {
                code: form.code,
                modes: vec![],
                forms: vec![],
                missing: vec![],
                check: forms::check(form.code),
            });
            if !row.modes.contains(&mode) {
                row.modes.push(mode);
            }
            if !row.forms.contains(&form) {
                row.forms.push(form);
            }
            if !implemented(&mut guest, mode, form) {
                row.missing.push((mode, form));
            }
        }
    }
    rows.into_values().collect()
}

/// Instructions that raise #UD in user mode by definition: nothing can be learned from running them there.
fn always_undefined(m: Mnemonic) -> bool {
    matches!(
        m,
        Mnemonic::Monitor
            | Mnemonic::Mwait
            | Mnemonic::Sysexit
            | Mnemonic::Sysexitq
            | Mnemonic::Sysenter
            | Mnemonic::Ud0
            | Mnemonic::Ud1
            | Mnemonic::Ud2
            | Mnemonic::Rsm
            | Mnemonic::Clac
            | Mnemonic::Stac
            | Mnemonic::Sysret
            | Mnemonic::Sysretq
    )
}

fn implemented(guest: &mut Guest, mode: Mode, form: Form) -> bool {
    if always_undefined(form.code.mnemonic()) {
        return true;
    }
    let layout = guest.layout().view(mode);
    let mut v = Values::new(form.code as u64);
    for _ in 0..40 {
        let Some(e) = cases::encode(form, mode, &layout, &mut v) else { continue };
        let case = cases::state(&e, mode, &layout, &mut v);
        return guest.run(&case).fault.is_none_or(|f| f.vector != 6);
    }
    false
}

/// Where the guest programs lie that check what user code on the host cannot.
const PROGRAMS: &str = "target-i386/tests/system";

/// Does a guest program use the instruction? Programs are assembled by iced's assembler, whose methods have the mnemonics' names.
fn in_programs(sources: &str, m: Mnemonic) -> bool {
    let name = format!("{m:?}").to_lowercase();
    if m == Mnemonic::Call {
        // Far calls are given as bytes; the tests have names.
        return sources.contains("fn far_call");
    }
    // IRET, IRETD, IRETQ … are one instruction in three sizes.
    let stem = if name.len() > 3 { name.trim_end_matches(['d', 'q', 'w']) } else { &name };
    [name.as_str(), stem].iter().any(|n| {
        ["", "_", "d", "q", "w"]
            .iter()
            .any(|end| sources.contains(&format!(".{n}{end}(")) || sources.contains(&format!(".{n}_")))
    })
}

/// The page's text.
pub fn page(rows: &[Row]) -> String {
    let mut out = String::from(
        "# Instructions\n\n\
         Written by `cargo xtask isa`; a test compares it with the interpreter. One row per opcode of the CPUID features the interpreter reports, as iced-x86\n\
         numbers them. *Modes*: code sizes the architecture has it in. *Checked*: `host` is the comparison with the host CPU (`tests/oracle`), on every form in\n\
         every mode the kernel lets us run code in; `programs` are guest programs (`target-i386/tests/system`), for what user code on the host cannot show, with the reason.\n\n",
    );
    let total: usize = rows.iter().map(|r| r.forms.len()).sum();
    let host = rows.iter().filter(|r| r.check == Check::Host).count();
    let missing = rows.iter().filter(|r| !r.missing.is_empty()).count();
    let _ = writeln!(
        out,
        "{} opcodes, {total} forms; {host} opcodes checked by the host; {missing} not complete.\n",
        rows.len()
    );
    out.push_str(
        "| instruction | opcode | features | modes | forms | implemented | checked |\n|---|---|---|---|---|---|---|\n",
    );
    for r in rows {
        let op = r.code.op_code();
        let features: Vec<_> = r.code.cpuid_features().iter().map(|f: &CpuidFeature| format!("{f:?}")).collect();
        let modes: Vec<_> = r.modes.iter().map(|m| m.bits().to_string()).collect();
        let implemented = if r.missing.is_empty() { "yes".to_string() } else { format!("no: {}", missing_text(r)) };
        let checked = match r.check {
            Check::Host => "host".to_string(),
            Check::Program(reason) => format!("programs: {reason}"),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {implemented} | {checked} |",
            op.instruction_string().replace('|', "\\|"),
            op.op_code_string(),
            features.join(" "),
            modes.join(" "),
            r.forms.len(),
        );
    }
    out
}

fn missing_text(r: &Row) -> String {
    let all: Vec<_> = r.missing.iter().map(|(m, f)| format!("{} in {} bits", f.text(), m.bits())).collect();
    all.join(", ")
}

/// What is wrong: forms of a reported feature that do not run, instructions that nothing checks.
pub fn problems(rows: &[Row], root: &Path) -> Vec<String> {
    let files = std::fs::read_dir(root.join(PROGRAMS)).into_iter().flatten().flatten();
    let sources: String = files.filter_map(|f| std::fs::read_to_string(f.path()).ok()).collect();
    let missing = rows.iter().filter(|r| !r.missing.is_empty());
    let unchecked =
        rows.iter().filter(|r| matches!(r.check, Check::Program(_)) && !in_programs(&sources, r.code.mnemonic()));
    missing
        .map(|r| format!("{:?} is not implemented: {}", r.code, missing_text(r)))
        .chain(unchecked.map(|r| format!("{:?} is checked neither by the host nor by a program in {PROGRAMS}", r.code)))
        .collect()
}

/// The page's place under the repository's root.
pub fn path(root: &Path) -> std::path::PathBuf {
    root.join("docs/instructions.md")
}
