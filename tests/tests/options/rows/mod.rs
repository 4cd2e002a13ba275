//! The rows: options, and what they must have done.

macro_rules! rows {
    ($($test:ident: [$($arg:expr),*] |$r:ident| $run:block)*) => {
        pub const ROWS: &[&[&str]] = &[$(&[$($arg),*]),*];
        $(#[test]
        fn $test() {
            let row = Row::new(&[$($arg),*]);
            let $r = &row;
            $run
        })*
    };
}

mod blocks;
mod boot;
mod chardevs;
mod devices;
mod machine;
mod monitors;
mod nets;
mod process;

/// The options of all rows.
pub fn all() -> impl Iterator<Item = &'static [&'static str]> {
    [process::ROWS, machine::ROWS, boot::ROWS, devices::ROWS, blocks::ROWS, nets::ROWS, monitors::ROWS, chardevs::ROWS]
        .into_iter()
        .flatten()
        .copied()
}
