//! Errors of the command line: what is said beside the error itself.
//!
//! The parser's own tips assume that whatever it does not know was meant as a value. Here they are replaced by what people
//! mean who come from other programs.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::typed::{Typed, quoted};

/// The text of the tips, where none was typed.
const TEXT: &str = "\"Once upon a time\"";

/// Commands of other programs, and what to use instead.
const COMMANDS: [(&[&str], &str); 13] = [
    (
        &["run", "complete", "completion", "continue", "predict"],
        "`gpt2 generate --model MODEL \"Once upon a time\"` continues a text",
    ),
    (
        &["chat", "ask", "repl", "interactive"],
        "GPT-2 continues a text and is not a chat model: `gpt2 generate \"Once upon a time\"`",
    ),
    (
        &["serve", "server", "start"],
        "there is no server; `gpt2 generate --batch - --json` answers prompts line by line from one loaded model",
    ),
    (
        &["show", "info", "summary", "parameters", "params", "print", "arch", "architecture"],
        "`gpt2 inspect --model MODEL` shows what a model consists of",
    ),
    (
        &["rm", "remove", "delete", "uninstall"],
        "`gpt2 models` shows where each model is; delete its directory to remove it",
    ),
    (&["get", "fetch", "install", "clone"], "`gpt2 download MODEL` fetches a model"),
    (&["ps", "cache"], "`gpt2 models` lists the models that need no download"),
    (&["encode", "tokens", "tokenizer"], "`gpt2 tokenize TEXT` splits a text into tokens"),
    (&["decode", "untokenize"], "`gpt2 detokenize IDS` joins tokens to a text"),
    (
        &["perplexity", "ppl", "logprob", "logprobs", "eval", "evaluate"],
        "`gpt2 score TEXT` shows the perplexity of a text",
    ),
    (&["benchmark", "speed"], "`gpt2 bench` measures the speed of a model"),
    (&["quantize", "convert"], "models are quantized as they are loaded: `--dtype int8` or `--dtype int4`"),
    (&["next-token", "top", "topk", "candidates"], "`gpt2 next PROMPT` shows the most likely next tokens"),
];

/// Options of other programs, and what to use instead.
const OPTIONS: [(&[&str], &str); 16] = [
    (&["-i", "--interactive", "-cnv", "--conversation"], "there is no interactive mode"),
    (
        &["-c", "--ctx-size", "--context"],
        "the context is as long as the model's; `--overflow slide` goes on beyond it",
    ),
    (&["-b", "--ubatch-size"], "`--batch-size` is the number of sequences that are processed together"),
    (
        &["-r", "--reverse-prompt", "--stop-token", "--stop-sequence", "--stop-words"],
        "`--stop` ends the text",
    ),
    (&["-o", "--out"], "`--output` writes the results of several prompts; `>` redirects those of one"),
    (
        &["--length", "-l", "--max-tokens-to-sample", "--tokens", "--num-tokens"],
        "`--max-new-tokens` is the number of new tokens",
    ),
    (
        &["--nsamples", "--num-samples", "--num-sequences", "--samples"],
        "`--num-return-sequences` is the number of continuations",
    ),
    (&["--model-name-or-path", "--model-name", "--model-path", "--hf-repo", "-hf"], "use `--model`"),
    (&["--beams", "--beam-size", "--beam-width", "--num-beam"], "`--num-beams` is the number of beams"),
    (&["--no-sample", "--no-do-sample", "--argmax"], "`--greedy` always takes the most likely token"),
    (
        &["--gpu", "--cuda", "--n-gpu-layers", "-ngl", "--gpu-layers", "--no-cuda", "--no-gpu"],
        "this build computes on the CPU only",
    ),
    (&["--load-in-8bit", "--int8", "--quantize", "--quantization"], "`--dtype int8` quantizes the weights"),
    (&["--load-in-4bit", "--int4"], "`--dtype int4` quantizes the weights"),
    (
        &["--fp16", "--half", "--bf16", "--torch-dtype", "--precision"],
        "`--dtype bf16` keeps the weights in 16 bits",
    ),
    (
        &["--pad-token-id", "--pad-token", "--attention-mask", "--padding"],
        "not needed: prompts are not padded",
    ),
    (&["--return-full-text", "--echo", "--no-echo"], "`--no-prompt` prints the continuation alone"),
];

/// Replaces what misleads in an error by what helps; `command` is the built command line.
pub(crate) fn improved(mut error: clap::Error, command: &Command, typed: &Typed) -> clap::Error {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            if let Some(name) = context(&error, ContextKind::InvalidSubcommand) {
                let tips = for_command(&name, typed, error.get(ContextKind::SuggestedSubcommand).is_some());
                if COMMANDS.iter().any(|(names, _)| names.contains(&name.as_str())) {
                    error.remove(ContextKind::SuggestedSubcommand);
                }
                suggest(&mut error, tips);
            }
        }
        ErrorKind::UnknownArgument => {
            if let Some(argument) = context(&error, ContextKind::InvalidArg) {
                let tips = for_argument(&argument, command, typed);
                if !tips.is_empty() {
                    error.remove(ContextKind::SuggestedArg);
                    // Usage had the argument that the parser took for the one that was meant.
                    let usage = current(command, typed).clone().render_usage();
                    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
                }
                suggest(&mut error, tips);
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let named = context(&error, ContextKind::InvalidArg);
            let option = named.as_deref().and_then(|named| option_named(command, typed, named));
            let variable = option.filter(|option| !typed.flags.contains(&option.get_id().to_string()));
            if let Some(name) = variable.and_then(Arg::get_env) {
                let name = name.to_string_lossy().into_owned();
                error.insert(ContextKind::InvalidArg, ContextValue::String(name));
                error.remove(ContextKind::Usage);
            }
            let value = context(&error, ContextKind::InvalidValue);
            let is_temperature = option.is_some_and(|option| option.get_id() == "threads")
                && value.is_some_and(|value| value.contains('.') && value.parse::<f64>().is_ok());
            if is_temperature {
                suggest(
                    &mut error,
                    vec!["`-t` is the number of threads; the temperature is `--temp`".to_owned()],
                );
            }
        }
        _ => {}
    }
    error
}

/// What is meant by a command that there is not.
fn for_command(name: &str, typed: &Typed, similar: bool) -> Vec<String> {
    if let Some((_, tip)) = COMMANDS.iter().find(|(names, _)| names.contains(&name)) {
        // What has a blank is a text, any other word is taken for a model.
        let (texts, models): (Vec<_>, Vec<_>) =
            typed.words.iter().skip(1).partition(|word| word.contains(char::is_whitespace));
        let mut tip = (*tip).to_owned();
        if let Some(text) = texts.first() {
            tip = tip.replace(TEXT, &quoted(text));
        }
        if let Some(model) = models.first() {
            tip = tip.replace("MODEL", &quoted(model));
        } else {
            tip = tip.replace(" --model MODEL", "");
        }
        return vec![tip];
    }
    if similar || typed.command.is_some() {
        return Vec::new();
    }
    vec![format!("to continue a text: `gpt2 generate {}`", quoted(&typed.words.join(" ")))]
}

/// What is meant by an argument that there is not.
fn for_argument(argument: &str, command: &Command, typed: &Typed) -> Vec<String> {
    let current = typed.command.as_deref();
    if !argument.starts_with('-') {
        let tip = match current {
            Some("inspect" | "bench") => format!("use `--model {}`", quoted(argument)),
            Some("tour") => "put the prompt in quotes".to_owned(),
            _ => return Vec::new(),
        };
        return vec![tip];
    }
    let name = argument.split('=').next().unwrap_or(argument);
    let others: Vec<&str> = command
        .get_subcommands()
        .filter(|other| Some(other.get_name()) != current && has_option(other, name))
        .map(Command::get_name)
        .collect();
    // What the command knows it was not given: it came before the command.
    let own = current.filter(|own| command.find_subcommand(own).is_some_and(|own| has_option(own, name)));
    if let Some(command) = own.or(others.first().copied().filter(|_| current.is_none())) {
        return vec![format!("`{name}` comes after the command: `gpt2 {command} {name}`")];
    }
    if let Some((_, tip)) = OPTIONS.iter().find(|(names, _)| names.contains(&name)) {
        return vec![(*tip).to_owned()];
    }
    if others.is_empty() {
        return Vec::new();
    }
    let commands: Vec<String> = others.iter().map(|other| format!("`gpt2 {other}`")).collect();
    vec![format!("`{name}` is an option of {}", commands.join(" and "))]
}

fn has_option(command: &Command, name: &str) -> bool {
    let is_named = |option: &Arg| match name.strip_prefix("--") {
        Some(long) => {
            option.get_long() == Some(long)
                || option.get_all_aliases().is_some_and(|names| names.contains(&long))
        }
        None => {
            option.get_short().is_some_and(|short| name.strip_prefix('-') == Some(short.to_string().as_str()))
        }
    };
    command.get_arguments().any(|option| !option.is_hide_set() && is_named(option))
}

/// The option that an error names as `--threads <N>`.
fn option_named<'a>(command: &'a Command, typed: &Typed, named: &str) -> Option<&'a Arg> {
    let long = named.strip_prefix("--")?.split([' ', '=', '[']).next()?;
    current(command, typed).get_arguments().find(|option| option.get_long() == Some(long))
}

/// The command that was typed, or the whole command line if there is none.
fn current<'a>(command: &'a Command, typed: &Typed) -> &'a Command {
    typed.command.as_deref().and_then(|name| command.find_subcommand(name)).unwrap_or(command)
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Puts tips in the place of the parser's.
fn suggest(error: &mut clap::Error, tips: Vec<String>) {
    error.remove(ContextKind::Suggested);
    if !tips.is_empty() {
        let tips = tips.into_iter().map(StyledStr::from).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
}
