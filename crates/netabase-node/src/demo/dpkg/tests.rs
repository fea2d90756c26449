use super::*;

fn packages(bytes: &[u8]) -> Vec<Option<Package>> {
    Packages::new(bytes).collect::<Result<_, _>>().unwrap()
}

fn package(bytes: &[u8]) -> Package {
    let [package] = packages(bytes).try_into().unwrap();
    package.unwrap()
}

const HELLO: &str = "Package: hello\nStatus: install ok installed\nPriority: optional\nSection: devel\n\
    Installed-Size: 280\nArchitecture: amd64\nVersion: 2.10-3\nDepends: libc6 (>= 2.34), info | install-info\n\
    Description: example package\n The GNU hello program.\n .\n   indented\nHomepage: https://example.org\n";

fn hello() -> Package {
    Package {
        name: "hello".into(),
        section: "devel".into(),
        priority: "optional".into(),
        version: "2.10-3".into(),
        architecture: "amd64".into(),
        installed_size: Some(280),
        depends: vec!["libc6 (>= 2.34)".into(), "info | install-info".into()],
        description: "example package\nThe GNU hello program.\n\n  indented".into(),
    }
}

/// Returns a package with the required fields alone.
fn minimal(name: &str) -> String {
    format!("Package: {name}\nSection: s\nPriority: p\nVersion: 1\nArchitecture: all\nDescription: d\n")
}

#[test]
fn a_paragraph_is_a_package() {
    assert_eq!(package(HELLO.as_bytes()), hello());
}

#[test]
fn line_ends_of_other_systems_and_empty_lines_change_nothing() {
    let text = format!("\n \n{HELLO}\n\n\t\n{HELLO}");
    assert_eq!(packages(text.as_bytes()), [Some(hello()), Some(hello())]);
    assert_eq!(packages(text.replace('\n', "\r\n").as_bytes()), [Some(hello()), Some(hello())]);
    assert_eq!(package(HELLO.trim_end().as_bytes()), hello());
    assert_eq!(package(format!("\u{feff}{HELLO}").as_bytes()), hello());
}

#[test]
fn field_names_are_read_in_any_case_and_comments_are_not() {
    let text = format!("# a comment\n{}", HELLO.replace("Version:", "VERSION:"));
    assert_eq!(package(text.as_bytes()), hello());
}

#[test]
fn a_paragraph_without_a_field_that_all_packages_have_is_no_package() {
    for field in ["Package", "Section", "Priority", "Version", "Architecture", "Description"] {
        let text = minimal("a").replace(&format!("{field}:"), "Other:");
        assert_eq!(packages(text.as_bytes()), [None], "{field}");
    }
    assert_eq!(packages(minimal("").as_bytes()), [None]);
    assert_eq!(packages(minimal(&"a".repeat(256)).as_bytes()), [None]);
    assert_eq!(packages(b"no field\n continued\n"), [None]);
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let mut bytes = minimal("a").into_bytes();
    bytes.truncate(bytes.len() - 1);
    bytes.extend(b" \xff\xfe\x00.\n");
    assert_eq!(package(&bytes).description, "d \u{fffd}\u{fffd}\0.");
}

#[test]
fn a_line_without_end_is_no_package_and_the_next_paragraph_is_one() {
    let long = "x".repeat(3 * usize::try_from(MAX_LINE_BYTES).unwrap());
    let text = format!("{}Other: {long}\n\n{}", minimal("a"), minimal("b"));
    let found = packages(text.as_bytes());
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], None);
    assert_eq!(found[1].as_ref().unwrap().name, "b");
    assert_eq!(packages(long.as_bytes()), [None]);
}

#[test]
fn a_paragraph_without_end_keeps_no_more_than_the_limit() {
    let line = format!(" {}\n", "x".repeat(1000));
    let text = format!("{}{}\n{}", minimal("a"), line.repeat(1000), minimal("b"));
    let mut paragraphs = Packages::new(text.as_bytes());
    let first = paragraphs.next_paragraph().unwrap().unwrap();
    assert!(first.spoilt && first.fields.is_empty());
    assert_eq!(paragraphs.next().unwrap().unwrap().unwrap().name, "b");
}

#[test]
fn every_cut_of_a_file_is_read() {
    let text = format!("{HELLO}\r\n\r\n{}", minimal("b"));
    for length in 0..text.len() {
        assert!(packages(&text.as_bytes()[..length]).len() <= 2);
    }
}
