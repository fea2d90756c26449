//! The packages of the demonstration.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, ensure};

use super::dpkg::Packages;
use crate::models::Package;

/// The index of the installed packages of a Debian system.
const INSTALLED: &str = "/var/lib/dpkg/status";
/// Some entries of a real package index, for other systems.
const SAMPLE: &str = include_str!("sample.deb822");
/// The fewest packages with which every step has work.
pub(super) const MIN_PACKAGES: usize = 4;

/// Packages to import, each name once.
#[derive(Debug)]
pub(super) struct Input {
    /// The name of the source.
    pub(super) source: String,
    pub(super) packages: Vec<Package>,
    /// The number of paragraphs that do not describe a package.
    pub(super) skipped: usize,
    /// The number of paragraphs that were replaced by a later one of the same name.
    pub(super) replaced: usize,
}

impl Input {
    /// Reads at most `limit` packages from `file`, or else from the installed packages, or else
    /// from the sample.
    pub(super) fn load(file: Option<&Path>, limit: Option<usize>) -> anyhow::Result<Self> {
        let limit = limit.unwrap_or(usize::MAX);
        if let Some(file) = file {
            return Self::open(file, limit);
        }
        Self::open(Path::new(INSTALLED), limit).or_else(|error| {
            tracing::info!("using the sample: {error:#}");
            Self::read("built-in sample".into(), SAMPLE.as_bytes(), limit)
        })
    }

    fn open(path: &Path, limit: usize) -> anyhow::Result<Self> {
        let source = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot open {source}"))?;
        Self::read(source, BufReader::new(file), limit)
    }

    fn read(source: String, reader: impl BufRead, limit: usize) -> anyhow::Result<Self> {
        let mut input = Self { source, packages: Vec::new(), skipped: 0, replaced: 0 };
        let mut places = HashMap::new();
        for package in Packages::new(reader) {
            let package = package.with_context(|| format!("cannot read {}", input.source))?;
            if !input.add(package, &mut places, limit) {
                break;
            }
        }
        input.check()
    }

    /// Adds a package, and replaces an earlier one of the same name. Returns whether the limit is
    /// not reached yet.
    fn add(&mut self, package: Option<Package>, places: &mut HashMap<String, usize>, limit: usize) -> bool {
        let Some(package) = package else {
            self.skipped += 1;
            return true;
        };
        let full = places.len() >= limit;
        match places.entry(package.name.clone()) {
            Entry::Occupied(place) => {
                self.replaced += 1;
                self.packages.get_mut(*place.get()).into_iter().for_each(|old| *old = package.clone());
                true
            }
            Entry::Vacant(_) if full => false,
            Entry::Vacant(place) => {
                place.insert(self.packages.len());
                self.packages.push(package);
                true
            }
        }
    }

    fn check(self) -> anyhow::Result<Self> {
        let (source, found) = (&self.source, self.packages.len());
        ensure!(found > 0, "{source} holds no packages; give a file in the format of `apt-cache dumpavail`");
        ensure!(
            found >= MIN_PACKAGES,
            "{source} holds {found} packages; the demonstration needs {MIN_PACKAGES}"
        );
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paragraph(name: &str, version: &str) -> String {
        format!(
            "Package: {name}\nSection: s\nPriority: p\nVersion: {version}\nArchitecture: all\nDescription: d\n\n"
        )
    }

    fn read(text: &str, limit: usize) -> anyhow::Result<Input> {
        Input::read("test".into(), text.as_bytes(), limit)
    }

    #[test]
    fn of_packages_with_one_name_the_last_is_kept_in_the_place_of_the_first() {
        let names = [("a", "1"), ("b", "1"), ("c", "1"), ("a", "2"), ("d", "1"), ("a", "3")];
        let text: String = names.iter().map(|(name, version)| paragraph(name, version)).collect();
        let input = read(&text, usize::MAX).unwrap();
        let packages: Vec<_> =
            input.packages.iter().map(|package| (package.name.as_str(), package.version.as_str())).collect();
        assert_eq!(packages, [("a", "3"), ("b", "1"), ("c", "1"), ("d", "1")]);
        assert_eq!((input.skipped, input.replaced), (0, 2));
    }

    #[test]
    fn the_limit_counts_names() {
        let names = ["a", "b", "a", "c", "d", "a", "e", "f"];
        let text: String = names.iter().map(|name| paragraph(name, "1")).collect();
        let input = read(&text, 4).unwrap();
        assert_eq!((input.packages.len(), input.replaced), (4, 2));
    }

    #[test]
    fn what_is_no_package_index_is_refused() {
        for text in ["", "\n\n\n", "root:x:0:0:root:/root:/bin/bash\n", "Package: a\n\nPackage: b\n"] {
            let error = read(text, 10).unwrap_err().to_string();
            assert!(error.starts_with("test holds no packages; give a file"), "{error}");
        }
        let error = read(&paragraph("a", "1"), 10).unwrap_err();
        assert_eq!(error.to_string(), "test holds 1 packages; the demonstration needs 4");
    }

    #[test]
    fn the_sample_is_whole() {
        let input = Input::read("sample".into(), SAMPLE.as_bytes(), usize::MAX).unwrap();
        assert!(input.packages.len() >= 40);
        assert_eq!((input.skipped, input.replaced), (0, 0));
    }
}
