//! The files that contain `unsafe` code, against `tests/unsafe-files.txt`.

use proc_macro2::{TokenStream, TokenTree};
use std::path::{Path, PathBuf};

fn rust_files(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, all);
            }
        } else if name.ends_with(".rs") {
            all.push(path);
        }
    }
}

/// Whether the word occurs as a token: not in a comment, a string or a longer name.
fn has_unsafe(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|t| match t {
        TokenTree::Ident(i) => i == "unsafe",
        TokenTree::Group(g) => has_unsafe(g.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

fn parse(text: &str) -> Option<TokenStream> {
    // a byte order mark or `#!` line would be no token; we have neither
    text.parse().ok()
}

#[test]
fn the_list_of_files_with_unsafe_code_is_exact() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut found: Vec<String> = files
        .iter()
        .filter(|f| {
            let text = std::fs::read_to_string(f).expect("a source file");
            has_unsafe(parse(&text).unwrap_or_else(|| panic!("{} is not Rust", f.display())))
        })
        .map(|f| f.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned())
        .collect();
    found.sort();
    let list = std::fs::read_to_string(root.join("tests/unsafe-files.txt")).expect("tests/unsafe-files.txt");
    let listed: Vec<&str> = list.lines().collect();
    assert!(listed.is_sorted(), "tests/unsafe-files.txt is sorted");
    let missing: Vec<_> = found.iter().filter(|f| !listed.contains(&f.as_str())).collect();
    let stale: Vec<_> = listed.iter().filter(|f| !found.iter().any(|g| g == *f)).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "contain unsafe, not listed: {missing:?}; listed, do not: {stale:?}"
    );
}

#[test]
fn only_code_counts() {
    let says = |text: &str| has_unsafe(parse(text).expect("Rust"));
    assert!(says("fn f() { unsafe { g() } }") && says("unsafe impl Send for X {}") && says("m! { (unsafe) }"));
    assert!(says("#[unsafe(no_mangle)] fn f() {}"));
    assert!(!says("// unsafe\nfn f() { \"unsafe\"; } /* unsafe */ /// unsafe\nfn unsafe_g() {}"));
    assert!(!says("#![forbid(unsafe_code)]"));
}
