//! Chores of this repository: `cargo xtask --help`.
//!
//! Calls other programs and reads the working tree; what it checks about the tree is in [`mod@tidy`].
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results and errors are for the terminal")]

mod tidy;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

const HELP: &str = "\
Chores of this repository

Usage: cargo xtask COMMAND

Commands:
  ci                              Everything that a change must pass: runs .ci/run
  tidy                            Check the rules of CONTRIBUTING.md that no compiler knows
  golden [--python PROGRAM] ...   Make the golden files again with a Python (default: python3) that has
                                  what tools/golden/requirements.txt lists; further arguments go to
                                  tools/golden/make.py, such as `--demo models/demo` or `--case f16`
";

/// Why a chore was not done.
enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// The chore found a fault, or could not be done: exit code 1.
    Chore(String),
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}\nhint: `cargo xtask --help` lists the commands");
            ExitCode::from(2)
        }
        Err(Failure::Chore(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the repository");
    let (command, rest) = arguments.split_first().ok_or_else(|| Failure::Usage("no command".to_owned()))?;
    match (command.to_str(), rest) {
        (Some("--help" | "-h" | "help"), _) => {
            print!("{HELP}");
            Ok(())
        }
        (Some("ci"), []) => call(Command::new("bash").arg(".ci/run").current_dir(root)),
        (Some("tidy"), []) => tidy(root),
        (Some("golden"), rest) => call(golden(rest)?.current_dir(root)),
        (Some("ci" | "tidy"), [unexpected, ..]) => {
            Err(Failure::Usage(format!("unexpected argument {unexpected:?}")))
        }
        _ => Err(Failure::Usage(format!("unknown command {command:?}"))),
    }
}

fn tidy(root: &Path) -> Result<(), Failure> {
    let problems = tidy::check(root).map_err(Failure::Chore)?;
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => Err(Failure::Chore(format!("tidy: {count} problem{}", if count == 1 { "" } else { "s" }))),
    }
}

/// The call of `tools/golden/make.py`, which takes the folder to write to first.
fn golden(arguments: &[OsString]) -> Result<Command, Failure> {
    let (python, rest) = match arguments {
        [flag, python, rest @ ..] if flag == "--python" => (python.clone(), rest),
        [flag] if flag == "--python" => return Err(Failure::Usage("`--python` needs a program".to_owned())),
        rest => (OsString::from("python3"), rest),
    };
    let mut command = Command::new(python);
    command.args(["tools/golden/make.py", "testdata/golden"]).args(rest);
    Ok(command)
}

fn call(command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().to_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Chore(format!("{program:?} failed: {status}"))),
        Err(error) => Err(Failure::Chore(format!("cannot start {program:?}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn golden_passes_on_what_follows_the_python() {
        for (arguments, program, passed) in [
            (&["--python", "py", "--case", "f16"][..], "py", &["--case", "f16"][..]),
            (&["--demo", "models/demo"], "python3", &["--demo", "models/demo"]),
        ] {
            let command = golden(&line(arguments)).ok().unwrap();
            assert_eq!(command.get_program(), program);
            let expected = [&["tools/golden/make.py", "testdata/golden"], passed].concat();
            assert_eq!(command.get_args().collect::<Vec<_>>(), expected);
        }
        assert!(matches!(golden(&line(&["--python"])), Err(Failure::Usage(_))));
    }

    #[test]
    fn unknown_commands_are_refused() {
        for arguments in [&[][..], &["tidyy"], &["tidy", "--fast"], &["ci", "x"]] {
            assert!(matches!(run(&line(arguments)), Err(Failure::Usage(_))), "{arguments:?}");
        }
    }
}
