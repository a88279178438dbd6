//! Rules about ARCHITECTURE.md: short enough to be read, and right about where `unsafe` is.

use super::{File, Problem, has_word};

const PATH: &str = "ARCHITECTURE.md";
const MOST_LINES: usize = 200;

/// Lists what is wrong with ARCHITECTURE.md.
pub(super) fn problems(files: &[File]) -> Vec<Problem> {
    let Some(file) = files.iter().find(|file| file.path == PATH) else {
        return vec![Problem { path: PATH.to_owned(), line: 1, message: "is missing".to_owned() }];
    };
    let mut problems = length(file);
    problems.extend(unsafe_files(file, files));
    problems
}

fn length(file: &File) -> Vec<Problem> {
    let lines = file.lines().count();
    if lines <= MOST_LINES {
        return Vec::new();
    }
    vec![
        file.problem(
            MOST_LINES + 1,
            format!("{lines} lines, at most {MOST_LINES}: move details to the modules"),
        ),
    ]
}

/// The files in the section whose heading has `unsafe` are exactly those whose code has it.
fn unsafe_files(file: &File, files: &[File]) -> Vec<Problem> {
    let Some((heading, listed)) = listed(file) else {
        return vec![file.problem(1, "has no section on `unsafe` with the list of files that have it")];
    };
    let mut problems = Vec::new();
    let first_unsafe =
        |file: &File| file.code_lines().find(|(_, line)| has_word(line, "unsafe")).map(|(n, _)| n);
    for source in files {
        if let Some(line) = first_unsafe(source)
            && !listed.iter().any(|(_, path)| *path == source.path)
        {
            problems
                .push(source.problem(line, format!("`unsafe`, but {PATH}:{heading} does not list the file")));
        }
    }
    for (line, path) in listed {
        match files.iter().find(|source| source.path == path) {
            None => problems
                .push(file.problem(line, format!("`{path}` is listed as unsafe, but there is no such file"))),
            Some(source) if first_unsafe(source).is_none() => {
                problems
                    .push(file.problem(line, format!("`{path}` is listed as unsafe, but has no `unsafe`")));
            }
            Some(_) => {}
        }
    }
    problems
}

/// The line of the heading, and every `*.rs` between backquotes in its section, with its line.
fn listed(file: &File) -> Option<(usize, Vec<(usize, &str)>)> {
    let mut lines = file.lines();
    let (heading, _) = lines.find(|(_, line)| line.starts_with('#') && has_word(line, "unsafe"))?;
    let mut listed = Vec::new();
    for (number, line) in lines.take_while(|(_, line)| !line.starts_with('#')) {
        let quoted = line.split('`').skip(1).step_by(2);
        listed.extend(quoted.filter(|word| word.ends_with(".rs")).map(|path| (number, path)));
    }
    Some((heading, listed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text.as_bytes())).collect();
        problems(&files).iter().map(ToString::to_string).collect()
    }

    const UNSAFE: (&str, &str) = ("crates/a/src/b.rs", "\nunsafe { x }");

    #[test]
    fn a_list_that_agrees_with_the_code_passes() {
        let text = "# A\n`c.rs`\n## Where `unsafe` is\n| `crates/a/src/b.rs`, `d.rs` | why |\n## B\n`e.rs`";
        let safe = ("crates/a/src/c.rs", "//! No unsafe.\n\"unsafe\"");
        assert_eq!(messages(&[(PATH, text), UNSAFE, safe, ("d.rs", "unsafe fn f()")]), [""; 0]);
    }

    #[test]
    fn unsafe_that_is_not_listed_is_found() {
        let expected = "crates/a/src/b.rs:2: `unsafe`, but ARCHITECTURE.md:1 does not list the file";
        assert_eq!(messages(&[(PATH, "# Where `unsafe` is"), UNSAFE]), [expected]);
    }

    #[test]
    fn listed_files_without_unsafe_are_found() {
        let text = "# unsafe\n`crates/a/src/b.rs`\n`safe.rs`\n`gone.rs`";
        let expected = [
            "ARCHITECTURE.md:3: `safe.rs` is listed as unsafe, but has no `unsafe`",
            "ARCHITECTURE.md:4: `gone.rs` is listed as unsafe, but there is no such file",
        ];
        assert_eq!(messages(&[(PATH, text), UNSAFE, ("safe.rs", "// unsafe")]), expected);
    }

    #[test]
    fn it_must_be_there_short_and_have_the_list() {
        assert_eq!(messages(&[]), ["ARCHITECTURE.md:1: is missing"]);
        let missing = "ARCHITECTURE.md:1: has no section on `unsafe` with the list of files that have it";
        assert_eq!(messages(&[(PATH, "# A")]), [missing]);
        let long = format!("# unsafe\n{}", "x\n".repeat(MOST_LINES));
        assert_eq!(
            messages(&[(PATH, &long)]),
            ["ARCHITECTURE.md:201: 201 lines, at most 200: move details to the modules"]
        );
    }
}
