//! The README's program is the one in the library's documentation, which is compiled and run.

use std::path::Path;

/// The first block of Rust in a text.
fn program(text: &str) -> Vec<&str> {
    let lines = text.lines().skip_while(|line| !matches!(*line, "```rust" | "```"));
    lines.skip(1).take_while(|line| *line != "```").filter(|line| !line.starts_with("# ")).collect()
}

#[test]
fn the_programs_are_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("../../README.md")).expect("README.md");
    let library = std::fs::read_to_string(root.join("src/lib.rs")).expect("lib.rs");
    let documentation = library.lines().map_while(|line| line.strip_prefix("//!"));
    let documentation: String =
        documentation.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n").collect();
    let rust = readme.find("```rust").expect("a program in README.md");
    let found = program(&readme[rust..]);
    assert!(found.len() > 10);
    assert_eq!(found, program(&documentation));
}
