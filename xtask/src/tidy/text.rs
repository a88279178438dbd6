//! Rules about one file and what is written in it.

use super::{File, Problem, has_word};

const MOST_LINES: usize = 700;
const MOST_BYTES: u64 = 1_000_000;

/// Unfinished work, and lints silenced for good. Macros and attributes count in code only.
const UNFINISHED_CODE: [(&str, &str); 6] = [
    ("todo!(", "finish it, or leave it out"),
    ("unimplemented!(", "finish it, or leave it out"),
    ("dbg!(", "leave it out"),
    ("#[ignore", "a test that does not run proves nothing"),
    ("#[allow(", "use `#[expect(..., reason = \"...\")]`"),
    ("#![allow(", "use `#![expect(..., reason = \"...\")]`"),
];
// In two halves, so that this file passes its own check.
const UNFINISHED_TEXT: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

const PRINTING: [&str; 4] = ["print!", "println!", "eprint!", "eprintln!"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 3] = ["utils", "common", "prelude"];

/// Top folders that exist on one person's machine only.
const MACHINE_FOLDERS: [&str; 5] = ["home", "root", "work", "tmp", "Users"];

/// Lists what breaks a rule in one file.
pub(super) fn problems(file: &File) -> Vec<Problem> {
    [length, opening, unfinished, machine_paths, names, environment, printing, size]
        .iter()
        .flat_map(|rule| rule(file))
        .collect()
}

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

fn is_source(file: &File) -> bool {
    is_rust(file) || file.path.ends_with(".py")
}

/// Whether the file belongs to a program, which talks to people: the command line, this one, a tool or an example.
fn may_meet_the_user(file: &File) -> bool {
    let programs = ["crates/gpt2-cli/", "crates/gpt2/examples/", "xtask/", "tools/"];
    programs.iter().any(|folder| file.path.starts_with(folder))
}

/// Over 700 lines means two ideas.
fn length(file: &File) -> Vec<Problem> {
    let lines = file.lines().count();
    if !is_source(file) || lines <= MOST_LINES {
        return Vec::new();
    }
    vec![file.problem(MOST_LINES + 1, format!("{lines} lines, at most {MOST_LINES}: split it by ideas"))]
}

/// A reader learns first what a module is for.
fn opening(file: &File) -> Vec<Problem> {
    let in_src =
        file.path.contains("/src/") && (file.path.starts_with("crates/") || file.path.starts_with("xtask/"));
    let opened = file.text.as_ref().is_some_and(|text| text.starts_with("//!"));
    if !is_rust(file) || !in_src || opened {
        return Vec::new();
    }
    vec![file.problem(1, "does not begin with `//!`: say what the module is for")]
}

fn unfinished(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, line) in file.code_lines() {
        for (word, advice) in UNFINISHED_CODE.into_iter().filter(|(word, _)| has_word(line, word)) {
            problems.push(file.problem(number, format!("`{word}`: {advice}")));
        }
    }
    for (number, line) in file.lines().filter(|_| is_source(file)) {
        for word in UNFINISHED_TEXT.into_iter().filter(|word| has_word(line, word)) {
            problems.push(file.problem(number, format!("`{word}`: finish it, or open an issue")));
        }
    }
    problems
}

fn machine_paths(file: &File) -> Vec<Problem> {
    // A `/` after any of these is in the middle of a relative path, a variable's or an address's.
    let in_path = |c: char| c.is_alphanumeric() || "_-.~})*>".contains(c);
    let mut problems = Vec::new();
    for (number, line) in file.lines() {
        for folder in MACHINE_FOLDERS {
            let pattern = format!("/{folder}/");
            if line.match_indices(&pattern).any(|(start, _)| !line[..start].ends_with(in_path)) {
                problems.push(file.problem(number, format!("`{pattern}`: a path of one machine")));
            }
        }
    }
    problems
}

fn names(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    if is_source(file) {
        let parts = file.path.split('/').map(|part| part.split('.').next().unwrap_or(part));
        for name in parts.filter(|part| EMPTY_NAMES.contains(part)) {
            problems.push(file.problem(1, format!("`{name}` says nothing: name it after what it holds")));
        }
    }
    for (number, line) in file.code_lines() {
        for name in EMPTY_NAMES.into_iter().filter(|name| has_word(line, &format!("mod {name}"))) {
            problems.push(
                file.problem(number, format!("`mod {name}` says nothing: name it after what it holds")),
            );
        }
    }
    problems
}

/// A library takes what it needs as arguments, so that its tests can choose.
fn environment(file: &File) -> Vec<Problem> {
    if may_meet_the_user(file) || file.path.contains("/tests/") {
        return Vec::new();
    }
    let reads = |line: &str| has_word(line, "std::env") || has_word(line, "env::");
    let problem =
        |number| file.problem(number, "`std::env`: only `gpt2-cli` meets the environment; pass it in");
    file.code_lines().filter(|(_, line)| reads(line)).map(|(number, _)| problem(number)).collect()
}

fn printing(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, line) in file.code_lines().filter(|_| !may_meet_the_user(file)) {
        for word in PRINTING.into_iter().filter(|word| has_word(line, word)) {
            problems.push(file.problem(number, format!("`{word}`: only `gpt2-cli` prints; return it")));
        }
    }
    problems
}

fn size(file: &File) -> Vec<Problem> {
    let is_data = file.path.starts_with("models/") || file.path.starts_with("testdata/");
    if is_data || file.bytes <= MOST_BYTES {
        return Vec::new();
    }
    let message = format!("{} bytes: over {MOST_BYTES} only in `models` and `testdata`", file.bytes);
    vec![file.problem(1, message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts which lines of a file of this text the rule finds fault with.
    fn assert_lines(rule: fn(&File) -> Vec<Problem>, path: &str, text: &str, expected: &[usize]) {
        let problems = rule(&File::new(path, text.as_bytes()));
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, expected, "{path}: {text:?}: {problems:?}");
    }

    #[test]
    fn source_of_more_than_700_lines_is_too_long() {
        for (path, lines, expected) in [
            ("crates/a/src/b.rs", 700, &[][..]),
            ("crates/a/src/b.rs", 701, &[701]),
            ("tools/b.py", 701, &[701]),
            ("testdata/b.json", 701, &[]),
        ] {
            assert_lines(length, path, &"x\n".repeat(lines), expected);
        }
    }

    #[test]
    fn modules_begin_with_what_they_are_for() {
        for (path, text, expected) in [
            ("crates/a/src/b.rs", "//! For this.\n", &[][..]),
            ("crates/a/src/b.rs", "use x;\n//! For this.\n", &[1]),
            ("crates/a/src/b/c.rs", "", &[1]),
            ("xtask/src/b.rs", "// no", &[1]),
            ("crates/a/tests/b.rs", "use x;", &[]),
        ] {
            assert_lines(opening, path, text, expected);
        }
    }

    #[test]
    fn unfinished_work_is_found_in_code_and_not_in_strings() {
        for (word, _) in UNFINISHED_CODE {
            let text = format!("//! A.\n    {word} x)]\n");
            assert_lines(unfinished, "crates/a/src/b.rs", &text, &[2]);
            assert_lines(
                unfinished,
                "crates/a/src/b.rs",
                &format!("const A: &str = \"{word}\"; // {word}"),
                &[],
            );
        }
        assert_lines(unfinished, "a.rs", "#[ignore]\nfn f() {}\n#[ignore = \"slow\"]", &[1, 3]);
        assert_lines(unfinished, "a.rs", "my_todo!(x)", &[]);
        for word in UNFINISHED_TEXT {
            assert_lines(unfinished, "a.rs", &format!("// {word}: later"), &[1]);
            assert_lines(unfinished, "a.py", &format!("\n# {word}"), &[2]);
            assert_lines(unfinished, "a.py", &format!("{word}{word}"), &[]);
            assert_lines(unfinished, "a.json", word, &[]);
        }
    }

    #[test]
    fn absolute_paths_of_a_machine_are_found_in_any_text() {
        for folder in MACHINE_FOLDERS {
            assert_lines(machine_paths, "README.md", &format!("\nsee /{folder}/me/x"), &[2]);
            assert_lines(machine_paths, "a.json", &format!("\"/{folder}/me\""), &[1]);
            assert_lines(machine_paths, "a.txt", &format!("file:///{folder}/me"), &[1]);
            let relative = format!("a/{folder}/b ../{folder}/b ~/{folder}/b $X/{folder}/b {{x}}/{folder}/b");
            assert_lines(machine_paths, "a.md", &relative, &[]);
        }
        assert_lines(machine_paths, "a.md", "/homely/me /usr/bin", &[]);
    }

    #[test]
    fn names_that_say_nothing_are_found_as_files_folders_and_modules() {
        for name in EMPTY_NAMES {
            assert_lines(names, &format!("crates/a/src/{name}.rs"), "", &[1]);
            assert_lines(names, &format!("crates/a/tests/{name}/mod.rs"), "", &[1]);
            assert_lines(names, &format!("tools/{name}.py"), "", &[1]);
            assert_lines(names, "a.rs", &format!("\npub(crate) mod {name} {{}}"), &[2]);
            assert_lines(names, "a.rs", &format!("mod {name}_of_x; // mod {name}"), &[]);
        }
    }

    #[test]
    fn only_programs_and_tests_meet_the_environment() {
        for (text, expected) in [
            ("let a = std::env::var(x);", &[1][..]),
            ("use std::{env, fs};\nlet a = env::args();", &[2]),
            ("const A: &str = env!(\"A\"); // std::env", &[]),
        ] {
            assert_lines(environment, "crates/gpt2/src/a.rs", text, expected);
            for path in
                ["crates/gpt2-cli/src/a.rs", "xtask/src/a.rs", "tools/a/src/a.rs", "crates/gpt2/tests/a.rs"]
            {
                assert_lines(environment, path, text, &[]);
            }
        }
    }

    #[test]
    fn only_programs_print() {
        for word in PRINTING {
            let text = format!("/// {word}(x)\nfn f() {{ {word}(x) }}");
            assert_lines(printing, "crates/gpt2/src/a.rs", &text, &[2]);
            assert_lines(printing, "crates/gpt2-kernels/tests/a.rs", &text, &[2]);
            assert_lines(printing, "crates/gpt2-cli/src/a.rs", &text, &[]);
            assert_lines(printing, "crates/gpt2/examples/a.rs", &text, &[]);
            assert_lines(printing, "xtask/src/a.rs", &text, &[]);
            assert_lines(printing, "tools/a/src/a.rs", &text, &[]);
        }
    }

    #[test]
    fn only_models_and_test_data_are_large() {
        let large = "x".repeat(MOST_BYTES as usize + 1);
        for (path, text, expected) in [
            ("docs/a.svg", &large[..], &[1][..]),
            ("docs/a.svg", &large[1..], &[]),
            ("models/demo/a", &large, &[]),
            ("testdata/a", &large, &[]),
        ] {
            let problems = size(&File::new(path, text.as_bytes()));
            assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), expected, "{path}");
        }
    }
}
