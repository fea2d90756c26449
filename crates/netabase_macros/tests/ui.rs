//! The compiler's messages about mistakes, and their absence without mistakes.
//!
//! `TRYBUILD=overwrite cargo test -p netabase_macros --test ui` writes the expected messages
//! anew; read the difference.

#[test]
fn mistakes_are_explained() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    cases.pass("tests/ui/pass/*.rs");
}
