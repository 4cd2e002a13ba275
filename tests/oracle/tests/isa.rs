//! `docs/instructions.md` is current, and nothing in it is missing or unchecked.

use oracle::isa;
use std::path::Path;

#[test]
fn the_page_is_current_and_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rows = isa::rows();
    let problems = isa::problems(&rows, &root);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let committed = std::fs::read_to_string(isa::path(&root)).unwrap_or_default();
    let now = isa::page(&rows);
    let line = committed.lines().zip(now.lines()).find(|(a, b)| a != b);
    assert!(committed == now, "docs/instructions.md is not current, run `cargo xtask isa`: first difference {line:?}");
}

/// Whoever adds an instruction without a check must hear of it.
#[test]
fn an_unchecked_row_is_a_problem() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut row = isa::rows().swap_remove(0);
    assert!(isa::problems(std::slice::from_ref(&row), &root).is_empty());
    row.missing.push((oracle::Mode::Bits64, row.forms[0]));
    assert_eq!(isa::problems(std::slice::from_ref(&row), &root).len(), 1);
    row.missing.clear();
    row.code = iced_x86::Code::Wrmsr;
    row.check = oracle::forms::Check::Program("privileged");
    assert!(isa::problems(std::slice::from_ref(&row), &root).is_empty());
    assert_eq!(isa::problems(std::slice::from_ref(&row), Path::new("/nowhere")).len(), 1);
}
