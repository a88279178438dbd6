//! `gpt2 completions`: help for a shell.
//!
//! The script asks this program at every completion, so that models that were downloaded since are completed too.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use clap::{Arg, Command};
use clap_complete::Shell;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::{CompleteEnv, Shells};
use gpt2::hub::{Hub, HubOptions};
use gpt2::published::PUBLISHED;

use crate::failure::Failure;
use crate::help;
use crate::model::DEMO;
use crate::terminal::Terminal;

/// The variable with which the scripts ask for completions.
const VARIABLE: &str = "GPT2_COMPLETE";

/// What `--samplers` takes.
const SAMPLERS: [&str; 12] = [
    "penalties",
    "dry",
    "top_n_sigma",
    "temperature",
    "top_h",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "xtc",
];

/// Print a completion script for a shell.
///
/// It completes commands, options, models (those in the cache among them) and the values of options.
#[derive(clap::Args, Debug)]
#[command(after_help = INSTALL)]
pub(crate) struct Arguments {
    /// Shell to print the script for
    shell: Shell,
}

const INSTALL: &str = "\
To install it, add the line for your shell:

  bash, in ~/.bashrc
      source <(gpt2 completions bash)
  zsh, in ~/.zshrc, after `autoload -U compinit; compinit`
      source <(gpt2 completions zsh)
  fish, in ~/.config/fish/config.fish
      gpt2 completions fish | source
  elvish, in ~/.config/elvish/rc.elv
      eval (gpt2 completions elvish | slurp)
  powershell, in $PROFILE
      gpt2 completions powershell | Out-String | Invoke-Expression";

/// Prints the script.
pub(crate) fn run(arguments: &Arguments, terminal: &mut Terminal) -> Result<(), Failure> {
    let shells = Shells::builtins();
    let name = arguments.shell.to_string();
    let shell =
        shells.completer(&name).ok_or_else(|| Failure::usage(format!("there is no script for `{name}`")))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "gpt2", "gpt2", &this_program(), &mut script)?;
    Ok(terminal.output.write_all(script.trim_ascii_start())?)
}

/// This program as the script has to call it: by its name if it was found by that, else by its path.
fn this_program() -> String {
    let called = std::env::args_os().next().unwrap_or_else(|| "gpt2".into());
    let path = Path::new(&called);
    let is_path = path.components().count() > 1;
    let path =
        if is_path { std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) } else { path.to_owned() };
    path.to_string_lossy().into_owned()
}

/// Answers a shell that asks for completions, and ends the program then.
pub(crate) fn answer() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// The command line with what completes its values.
fn command() -> Command {
    help::command().mut_args(|argument| completed("", argument)).mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        command.mut_args(|argument| completed(&name, argument))
    })
}

/// Adds what completes the value of an argument.
fn completed(command: &str, argument: Arg) -> Arg {
    let values = |values: &'static [&'static str]| {
        ArgValueCandidates::new(move || values.iter().map(CompletionCandidate::new).collect::<Vec<_>>())
    };
    match (command, argument.get_id().as_str()) {
        (_, "model" | "assistant") => argument.add(ArgValueCompleter::new(models_and_directories)),
        ("download", "id") => argument.add(ArgValueCompleter::new(hub_models)),
        (_, "early_stopping") => argument.add(values(&["true", "false", "never"])),
        (_, "dola_layers") => argument.add(values(&["low", "high"])),
        (_, "device") => argument.add(values(&["auto", "cpu"])),
        (_, "mirostat") => argument.add(values(&["0", "1", "2"])),
        (_, "samplers") => argument.add(ArgValueCompleter::new(samplers)),
        (_, "batch" | "output" | "generation_config" | "json_schema" | "grammar") => {
            argument.add(ArgValueCompleter::new(PathCompleter::file()))
        }
        _ => argument,
    }
}

/// The names of models: those that are published, and those that are in the cache.
fn hub_models(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut names: Vec<String> = PUBLISHED.iter().map(|model| model.name.to_owned()).collect();
    let hub = HubOptions::from_variables(|name| std::env::var(name).ok()).map(Hub::new);
    let cached = hub.and_then(|hub| hub.models()).unwrap_or_default();
    let others = cached.into_iter().map(|model| model.id);
    names.extend(others.filter(|id| PUBLISHED.iter().all(|model| model.name != id)));
    matching(names, current)
}

fn models_and_directories(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = matching(vec![DEMO.to_owned()], current);
    found.extend(hub_models(current));
    found.extend(PathCompleter::dir().complete(current));
    found
}

/// Names of samplers, with a comma between.
fn samplers(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let begin = current.rfind(',').map_or(0, |comma| comma + 1);
    let (before, last) = current.split_at(begin);
    let used: Vec<&str> = before.split(',').collect();
    let names = SAMPLERS.into_iter().filter(|name| name.starts_with(last) && !used.contains(name));
    names.map(|name| CompletionCandidate::new(format!("{before}{name}"))).collect()
}

fn matching(names: Vec<String>, current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(&*current)).map(CompletionCandidate::new).collect()
}
