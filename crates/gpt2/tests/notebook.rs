//! The notebook's guide, `docs/notebook.md`: its Rust is the example's, which prints what the commands print.

use std::path::Path;

#[expect(dead_code, reason = "the example's `main` is not called")]
#[path = "../examples/notebook.rs"]
mod notebook;

/// The blocks of a language in Markdown, without their fences.
fn blocks<'a>(markdown: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("\n```{language}\n");
    let parts = markdown.split(opening.as_str()).skip(1);
    parts.map(|part| part.split_once("\n```").expect("a block is closed").0).collect()
}

#[test]
fn the_notebook_is_the_same_in_rust_and_by_commands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let guide = std::fs::read_to_string(root.join("docs/notebook.md")).expect("the guide is there");

    let example = include_str!("../examples/notebook.rs");
    let body =
        example.split_once("Box<dyn Error>> {\n").and_then(|(_, rest)| rest.split_once("fn notebook(out"));
    let body = body.and_then(|(_, rest)| rest.split_once("{\n")).expect("the example has a function");
    let body = body.1.split_once("\n    Ok(())").expect("the function ends well").0;
    let body: Vec<&str> = body.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    assert_eq!(body.join("\n"), blocks(&guide, "rust").join("\n\n"));

    std::env::set_current_dir(&root).expect("the root is there");
    let mut printed = Vec::new();
    notebook::notebook(&mut printed).expect("the notebook runs");
    let printed = String::from_utf8(printed).expect("it prints UTF-8");
    let shown = blocks(&guide, "console").join("\n");
    let mut shown = shown.lines();
    for line in printed.lines() {
        assert!(shown.any(|other| other == line), "not in the guide, or not in this place: {line}");
    }
    assert!(printed.lines().count() > 40);
}
