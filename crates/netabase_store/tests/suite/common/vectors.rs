//! Golden bytes as lines of JSON below `docs/vectors`, for other implementations as well as for our
//! tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test uses files, threads and clocks directly")]
#![allow(dead_code, reason = "the crates that share it do not use all of it")]
#![allow(unreachable_pub, reason = "every test file is a crate of its own")]

use std::fmt::Write;
use std::path::Path;

/// The lines of one file.
#[derive(Default)]
pub struct Vectors(String);

impl Vectors {
    /// Adds an object with these fields, in this order; the values are JSON.
    pub fn line(&mut self, fields: &[(&str, String)]) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        writeln!(self.0, "{{{}}}", fields.join(",")).unwrap();
    }

    /// Compares the lines with those of the file; `UPDATE_GOLDEN=1` writes them.
    pub fn assert_golden(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &self.0).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, (found, golden)) in (1..).zip(self.0.lines().zip(golden.lines())) {
            assert_eq!(found, golden, "line {number} of {}", path.display());
        }
        assert_eq!(self.0.len(), golden.len(), "{} has other lines", path.display());
    }
}

/// Bytes as hexadecimal digits in quotes.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let digits = bytes.as_ref().iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").unwrap();
        digits
    });
    format!("\"{digits}\"")
}

/// Plain text in quotes.
pub fn text(text: &str) -> String {
    format!("{text:?}")
}

/// A list of values.
pub fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}
