//! The command line as the parser and its help have it: which options help shows for which command.
//!
//! Every global option is accepted by every command, so that one line of options serves them all. Help and completions
//! show it for those commands alone for which it does something. `-h` shows the options that matter most, and how many
//! more there are; `--help` shows all.

use clap::{Arg, Command, CommandFactory};

use crate::arguments::{Arguments, COMPUTATION};

/// The options of `generate` that `-h` shows, beside the global ones.
const ESSENTIAL: [&str; 12] = [
    "max_new_tokens",
    "greedy",
    "seed",
    "num_return_sequences",
    "num_beams",
    "temperature",
    "top_k",
    "top_p",
    "stop",
    "file",
    "no_prompt",
    "json",
];

/// Examples, by command; the empty name is that of the program.
const EXAMPLES: [(&str, &[&str]); 9] = [
    (
        "",
        &[
            "gpt2 generate \"Once upon a time\"",
            "gpt2 generate \"The meaning of life is\" --seed 7 --num-return-sequences 3",
            "echo \"Dear diary,\" | gpt2 generate --greedy -n 20",
            "gpt2 next \"The capital of France is\"",
            "gpt2 inspect --model gpt2-medium",
        ],
    ),
    (
        "generate",
        &[
            "gpt2 generate \"Once upon a time\" -n 100 --temperature 0.9",
            "gpt2 generate \"The capital of France is\" --greedy --json",
            "gpt2 generate --file prompt.txt --seed 7 --num-return-sequences 3",
        ],
    ),
    ("next", &["gpt2 next \"The capital of France is\" -k 5"]),
    ("score", &["gpt2 score \"The cat sat on the mat.\"", "gpt2 score --file book.txt --stride 512"]),
    ("tokenize", &["gpt2 tokenize \"Natural language processing\"", "gpt2 tokenize --file text.txt --json"]),
    ("detokenize", &["gpt2 detokenize 15496 995", "gpt2 detokenize \"[15496, 995]\""]),
    ("inspect", &["gpt2 inspect --model gpt2-xl"]),
    ("bench", &["gpt2 bench --model gpt2 --dtype int8 --threads 4"]),
    ("download", &["gpt2 download gpt2-medium"]),
];

/// Examples of the sections of `generate --help`.
const SECTIONS: [(&str, &str); 12] = [
    ("Length", "gpt2 generate \"Once\" --max-length 200 --min-new-tokens 50"),
    ("Decoding", "gpt2 generate \"Once\" --greedy --num-beams 4 --early-stopping true"),
    ("Sampling", "gpt2 generate \"Once\" --temperature 1.1 --min-p 0.05"),
    ("Repetition", "gpt2 generate \"Once\" --repetition-penalty 1.2"),
    ("Structured output", "gpt2 generate \"Answer:\" --choice \" yes\" --choice \" no\""),
    ("Constraints", "gpt2 generate \"Once\" --bad-words never"),
    ("Stopping", "gpt2 generate \"Dear\" --stop \"\\n\""),
    ("Speculative decoding", "gpt2 generate \"Once\" --speculate prompt-lookup"),
    ("Several prompts", "gpt2 generate --batch in.jsonl --output out.jsonl"),
    ("Settings files", "gpt2 generate \"Once\" --print-config > mine.json"),
    ("", "gpt2 generate \"Once\" --generation-config mine.json"),
    ("Output", "gpt2 generate \"Once\" --logprobs 5"),
];

/// What `generate --help` says of how flags may be written.
const HABITS: &str = "\
Underscores may stand for dashes: --max_new_tokens. As in llama.cpp, a text is given by -p or -f,
the length by -n, the seed by -s, threads by -t, and the temperature by --temp.";

/// What `--help` says of the environment.
const VARIABLES: &str = "Without a command, a text in quotes is continued: gpt2 \"Once upon a time\".
Each global option can be set by an environment variable: GPT2_MODEL, GPT2_DTYPE, GPT2_THREADS, ...";

/// The command line, built.
pub(crate) fn command() -> Command {
    let given = |option| with_variable(without_empty_variable(option));
    let mut command = Arguments::command().mut_args(given);
    let options: Vec<Arg> =
        command.get_arguments().filter(|option| option.is_global_set()).cloned().collect();
    command = command.mut_subcommands(|command| with_options(command, &options));
    command = with_endings(command, "");
    command.build();
    command
}

/// Adds the global options that do nothing for a command, hidden, and decides what `-h` shows.
fn with_options(mut command: Command, options: &[Arg]) -> Command {
    let name = command.get_name().to_owned();
    let has =
        |command: &Command, option: &Arg| command.get_arguments().any(|own| own.get_id() == option.get_id());
    for option in options {
        if !acts(&name, option) && !has(&command, option) {
            // Without a heading, for it would come first under it.
            command = command.arg(option.clone().hide(true).help_heading(None));
        }
    }
    if name.ends_with("tokenize")
        && let Some(model) = options.iter().find(|option| option.get_id() == "model")
    {
        let help = "Model whose tokenizer to use [default: that of GPT-2, built in]";
        command = command.arg(with_variable(model.clone().help(help).long_help(help)));
    }
    if name == "generate" {
        command = command.mut_args(|option| {
            let essential = option.is_positional() || ESSENTIAL.contains(&option.get_id().as_str());
            if essential { option } else { option.hide_short_help(true) }
        });
    }
    let more = options.iter().filter(|option| acts(&name, option) && option.is_hide_short_help_set()).count();
    let own =
        command.get_arguments().filter(|own| own.is_hide_short_help_set() && !own.is_hide_set()).count();
    with_more(command, &name, own + more)
}

/// Whether a global option does something for a command.
fn acts(command: &str, option: &Arg) -> bool {
    let id = option.get_id().as_str();
    let computes = option.get_help_heading() == Some(COMPUTATION) || id == "verbose";
    match command {
        "tokenize" | "detokenize" | "inspect" => !computes,
        "download" => !computes && id != "model",
        "models" => matches!(id, "quiet" | "color"),
        "completions" | "help" => false,
        _ => true,
    }
}

/// Adds what help ends with: examples, and after `-h` how many options `--help` has beside.
fn with_more(command: Command, name: &str, more: usize) -> Command {
    let header = *command.get_styles().get_header();
    let full = format!("gpt2 {name} --help").replace("  ", " ");
    let more = match more {
        0 => None,
        1 => Some(format!("1 more option: {full}")),
        more => Some(format!("{more} more options: {full}")),
    };
    let examples = EXAMPLES.iter().find(|(command, _)| *command == name).map(|(_, lines)| {
        let lines: String = lines.iter().map(|line| format!("\n  {line}")).collect();
        format!("{header}Examples:{header:#}{lines}")
    });
    let sections = || {
        let lines = SECTIONS.iter().map(|(section, line)| format!("\n  {section:21} {line}"));
        format!("{header}Examples by section:{header:#}{}\n\n{HABITS}", lines.collect::<String>())
    };
    let rest = match name {
        "" => Some(VARIABLES.to_owned()),
        "generate" => Some(sections()),
        _ => None,
    };
    let joined = |parts: [&Option<String>; 2]| {
        let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        parts.join("\n\n")
    };
    let (short, long) = (joined([&examples, &more]), joined([&examples, &rest]));
    // An empty text keeps the parser from showing the end of the short help in the long one.
    if short.is_empty() && long.is_empty() {
        command
    } else {
        command.after_help(short).after_long_help(long)
    }
}

fn with_endings(command: Command, name: &str) -> Command {
    let more = command.get_arguments().filter(|option| option.is_hide_short_help_set()).count();
    with_more(command, name, more)
}

/// Names an option's environment variable in its long help.
fn with_variable(option: Arg) -> Arg {
    let Some(variable) = option.get_env().map(|name| name.to_string_lossy().into_owned()) else {
        return option;
    };
    let help = option.get_long_help().or(option.get_help()).cloned().unwrap_or_default();
    option.long_help(format!("{help}\n\n[env: {variable}]"))
}

/// An environment variable that is empty counts as one that is not set.
fn without_empty_variable(option: Arg) -> Arg {
    let empty =
        option.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    if empty { option.env(None::<&str>) } else { option }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    /// What help shows for a command.
    fn shown(name: &str, long: bool) -> String {
        let mut command = command();
        let command = if name.is_empty() { &mut command } else { command.find_subcommand_mut(name).unwrap() };
        let help = if long { command.render_long_help() } else { command.render_help() };
        help.to_string()
    }

    /// The options that a help text has, by their long names.
    fn options(help: &str) -> Vec<&str> {
        let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        lines
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
            .map(|word| word.split(['=', '[']).next().unwrap_or(word).trim_end_matches(','))
            .collect()
    }

    #[test]
    fn global_options_are_shown_where_they_act() {
        for (command, absent) in [
            (
                "tokenize",
                &["--dtype", "--kv-dtype", "--kernels", "--threads", "--pack-cache", "--device"][..],
            ),
            ("detokenize", &["--dtype", "--threads", "--no-pack-cache", "--verbose"]),
            ("inspect", &["--dtype", "--kernels"]),
            ("download", &["--dtype", "--model", "--threads"]),
            ("models", &["--dtype", "--model", "--revision"]),
            ("completions", &["--dtype", "--model", "--quiet", "--color"]),
        ] {
            let help = shown(command, true);
            let options = options(&help);
            for option in absent {
                assert!(!options.contains(option), "{command} {option}: {options:?}");
            }
        }
        for command in ["generate", "next", "score", "bench"] {
            let help = shown(command, true);
            let options = options(&help);
            for option in
                ["--model", "--dtype", "--kv-dtype", "--threads", "--kernels", "--device", "--verbose"]
            {
                assert!(options.contains(&option), "{command} {option}: {options:?}");
            }
        }
    }

    #[test]
    fn the_short_help_says_how_many_options_the_long_one_has_beside() {
        for command in ["", "generate", "next", "score", "tokenize", "inspect", "bench"] {
            let (short, long) = (shown(command, false), shown(command, true));
            let hidden = options(&long).len() - options(&short).len();
            let said =
                short.lines().find_map(|line| line.split_once(" more option")).map(|(number, _)| number);
            assert_eq!(said, Some(hidden.to_string().as_str()), "{command}:\n{short}");
        }
    }

    #[test]
    fn the_long_help_has_no_more_options_than_it_shows() {
        for command in ["", "generate", "models", "tour", "next", "completions"] {
            assert!(!shown(command, true).contains("more option"), "{command}");
        }
    }

    #[test]
    fn the_short_help_of_generate_has_what_matters_most() {
        let help = shown("generate", false);
        assert!(help.lines().count() <= 55, "{help}");
        for option in ["--max-new-tokens", "--temperature", "--top-k", "--top-p", "--seed", "--model"] {
            assert!(options(&help).contains(&option), "{option}: {help}");
        }
    }

    #[test]
    fn every_global_option_has_a_variable_which_its_help_names() {
        let help = shown("generate", true);
        for option in Arguments::command().get_arguments().filter(|option| option.is_global_set()) {
            let name = format!("GPT2_{}", option.get_id().as_str().to_uppercase());
            assert_eq!(option.get_env().and_then(|name| name.to_str()), Some(name.as_str()));
            assert!(help.contains(&format!("[env: {name}]")), "{name}: {help}");
        }
    }
}
