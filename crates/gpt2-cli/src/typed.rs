//! What people type, as the parser expects it.
//!
//! Habits of other programs are translated before the parser sees them. Only flags are touched, never their values nor
//! anything after `--`:
//!
//! ```text
//! --top_k 5, --top_k=5           ─► --top-k 5, --top-k=5
//! --do-sample False              ─► --do-sample=false
//! gpt2 "Once upon a time"        ─► gpt2 generate "Once upon a time"
//! gpt2 -p "Once" -n 20           ─► gpt2 generate -p "Once" -n 20
//! gpt2 generate "-5 degrees"     ─► gpt2 generate -- "-5 degrees"
//! gpt2 version                   ─► gpt2 --version
//! ```

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, ArgAction, Command};

/// The command that a text without a command is for.
const DEFAULT: &str = "generate";
/// Options of that command that name a text.
const TEXTS: [&str; 3] = ["prompts", "file", "batch"];
/// The names of arguments that are a text.
const TEXT: [&str; 2] = ["text", "prompt"];

/// A command line, translated, and what it consists of.
#[derive(Debug, Default)]
pub(crate) struct Typed {
    /// The arguments, the program's name first.
    pub(crate) line: Vec<OsString>,
    /// The name of the command, if there is one.
    pub(crate) command: Option<String>,
    /// The ids of all flags.
    pub(crate) flags: Vec<String>,
    /// What is neither a flag nor a value before the command and in its place, or all of it if there is no command.
    pub(crate) words: Vec<String>,
}

impl Typed {
    /// The last value of a long flag, as far as that can be said before the line is parsed.
    pub(crate) fn value(&self, flag: &str) -> Option<String> {
        let flag = format!("--{flag}");
        let texts: Vec<_> =
            self.line.iter().map(|text| text.to_string_lossy()).take_while(|text| text != "--").collect();
        let attached = |text: &str| text.strip_prefix(&flag)?.strip_prefix('=').map(str::to_owned);
        let apart = |index: usize| texts.get(index + 1).map(|next| next.to_string());
        let value = |index| if texts[index] == flag { apart(index) } else { attached(&texts[index]) };
        (0..texts.len()).rev().find_map(value)
    }
}

/// Translates a command line, the program's name first; `command` is built.
pub(crate) fn translated(command: &Command, line: impl IntoIterator<Item = OsString>) -> Typed {
    let mut front: Vec<OsString> = line.into_iter().collect();
    if front.is_empty() {
        return Typed::default();
    }
    let mut line = vec![front.remove(0)];
    let default = command.find_subcommand(DEFAULT);
    let either = [Some(command), default];
    let mut reader = Reader::new(&either);
    let named = front.iter().position(|argument| reader.read(argument) == Piece::Word);
    let name = named.map(|index| front[index].to_string_lossy().into_owned());
    let known = name.as_deref().and_then(|name| command.find_subcommand(name));
    let is_text = match &name {
        Some(name) => known.is_none() && name.contains(char::is_whitespace),
        None => reader.flags.iter().any(|id| TEXTS.contains(&id.as_str())),
    };
    let (subcommand, after) = match named {
        _ if is_text => (default, std::mem::take(&mut front)),
        Some(index) => (known, front.split_off(index + 1)),
        None => (None, Vec::new()),
    };
    if let (Some("version"), Some(last)) = (name.as_deref(), front.last_mut()) {
        *last = "--version".into();
    }
    let mut reader = Reader::new(&either);
    line.extend(front.iter().map(|argument| reader.respelt(argument)));
    let mut flags = reader.flags;
    let mut words = Vec::from_iter(name);
    match subcommand {
        Some(subcommand) => {
            if is_text {
                line.push(DEFAULT.into());
            }
            line.extend(arguments(subcommand, after, &mut flags));
        }
        None => {
            words.extend(
                after
                    .iter()
                    .map(|word| word.to_string_lossy().into_owned())
                    .take_while(|word| !word.starts_with('-')),
            );
            line.extend(after);
        }
    }
    let command = subcommand.map(|command| command.get_name().to_owned());
    Typed { line, command, flags, words }
}

/// Translates the arguments of one command.
fn arguments(command: &Command, line: Vec<OsString>, flags: &mut Vec<String>) -> Vec<OsString> {
    let takes_text = command.get_positionals().any(|argument| TEXT.contains(&argument.get_id().as_str()));
    let commands = [Some(command)];
    let mut reader = Reader::new(&commands);
    let (mut result, mut texts) = (Vec::with_capacity(line.len() + 1), Vec::new());
    let mut ended = false;
    let mut line = line.into_iter().peekable();
    while let Some(argument) = line.next() {
        match reader.read(&argument) {
            Piece::End => {
                texts.extend(line);
                ended = true;
                break;
            }
            Piece::Switch if line.peek().is_some_and(|next| truth(next).is_some()) => {
                let value = line.next().and_then(|next| truth(&next)).unwrap_or_default();
                result.push(format!("{}={value}", reader.respell(&argument).to_string_lossy()).into());
            }
            Piece::Flag | Piece::Switch => result.push(reader.respell(&argument)),
            // From the first text that begins with a dash on, texts come after `--`, in their order.
            Piece::Word if takes_text && (!texts.is_empty() || has_dash(&argument)) => texts.push(argument),
            Piece::Word | Piece::Value => result.push(argument),
        }
    }
    if ended || !texts.is_empty() {
        result.push("--".into());
    }
    result.extend(texts);
    flags.extend(reader.flags);
    result
}

fn has_dash(word: &OsStr) -> bool {
    word != "-" && word.to_string_lossy().starts_with('-')
}

/// A truth value as Python or JSON writes it.
fn truth(word: &OsStr) -> Option<&'static str> {
    match word.to_str()? {
        "true" | "True" => Some("true"),
        "false" | "False" => Some("false"),
        _ => None,
    }
}

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// A flag, with its value if that is attached.
    Flag,
    /// A flag that may have a truth value.
    Switch,
    /// The value of the flag before it.
    Value,
    /// Neither: the name of a command, or a text.
    Word,
    /// `--`
    End,
}

/// Tells flags from values.
struct Reader<'a> {
    commands: &'a [Option<&'a Command>],
    value_expected: bool,
    /// The ids of the flags so far.
    flags: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(commands: &'a [Option<&'a Command>]) -> Self {
        Self { commands, value_expected: false, flags: Vec::new() }
    }

    /// Says what the next argument is.
    fn read(&mut self, argument: &OsStr) -> Piece {
        if std::mem::take(&mut self.value_expected) {
            return Piece::Value;
        }
        let text = argument.to_string_lossy();
        if text == "--" {
            return Piece::End;
        }
        if let Some(rest) = text.strip_prefix("--") {
            let (name, value) =
                rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
            if name.contains(char::is_whitespace) {
                return Piece::Word;
            }
            let Some(flag) = self.long(&dashed(name)) else { return Piece::Flag };
            self.flags.push(flag.get_id().to_string());
            self.value_expected = value.is_none() && needs_value(flag);
            return if value.is_none() && may_have_value(flag) { Piece::Switch } else { Piece::Flag };
        }
        let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            return Piece::Word;
        };
        // A model's directory may have a blank in its name; any other blank makes it a text.
        let is_model = letters.strip_prefix('m').is_some_and(|path| Path::new(path).is_dir());
        let is_text = letters.contains(char::is_whitespace) && !is_model;
        if is_text || letters.parse::<f64>().is_ok_and(f64::is_finite) {
            return Piece::Word;
        }
        for (index, letter) in letters.char_indices() {
            let Some(flag) = self.short(letter) else { break };
            self.flags.push(flag.get_id().to_string());
            if needs_value(flag) {
                self.value_expected = letters.len() == index + letter.len_utf8();
                break;
            }
        }
        Piece::Flag
    }

    /// The argument, its flag respelt if it is one.
    fn respelt(&mut self, argument: &OsStr) -> OsString {
        match self.read(argument) {
            Piece::Flag | Piece::Switch => self.respell(argument),
            Piece::Value | Piece::Word | Piece::End => argument.to_owned(),
        }
    }

    /// A flag with its name as it is written here.
    fn respell(&self, flag: &OsStr) -> OsString {
        let Some(rest) = flag.to_str().and_then(|flag| flag.strip_prefix("--")) else {
            return flag.to_owned();
        };
        let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
        let name = dashed(name);
        match value {
            None => format!("--{name}").into(),
            Some(value) => {
                let switch = self.long(&name).is_some_and(may_have_value);
                let value = truth(value.as_ref()).filter(|_| switch).unwrap_or(value);
                format!("--{name}={value}").into()
            }
        }
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        let has_name = |flag: &&Arg| {
            flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|names| names.contains(&name))
        };
        self.commands.iter().flatten().flat_map(|command| command.get_arguments()).find(has_name)
    }

    fn short(&self, letter: char) -> Option<&'a Arg> {
        let has_letter = |flag: &&Arg| {
            flag.get_short() == Some(letter)
                || flag.get_all_short_aliases().is_some_and(|letters| letters.contains(&letter))
        };
        self.commands.iter().flatten().flat_map(|command| command.get_arguments()).find(has_letter)
    }
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

fn needs_value(flag: &Arg) -> bool {
    takes_value(flag) && flag.get_num_args().is_none_or(|count| count.min_values() > 0)
}

/// Whether the flag may have a value, which is then attached.
fn may_have_value(flag: &Arg) -> bool {
    takes_value(flag) && flag.get_num_args().is_some_and(|count| count.min_values() == 0)
}

fn takes_value(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Set | ArgAction::Append)
}

/// A word as it is typed into a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.contains(['"', '$', '`', '\\', '!']) {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        format!("\"{word}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::help;

    /// A line as it is translated, without the program's name.
    fn line(typed: &[&str]) -> Vec<String> {
        let typed = std::iter::once(&"gpt2").chain(typed).map(OsString::from);
        let line = translated(&help::command(), typed).line;
        line.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn only_flags_are_respelt() {
        for (typed, expected) in [
            (&["generate", "--top_k", "5"][..], &["generate", "--top-k", "5"][..]),
            (&["generate", "--top_k=5_0"], &["generate", "--top-k=5_0"]),
            (&["--kv_dtype", "a_b", "next"], &["--kv-dtype", "a_b", "next"]),
            (&["generate", "--stop", "--top_k"], &["generate", "--stop", "--top_k"]),
            (&["generate", "-p", "--top_k"], &["generate", "-p", "--top_k"]),
            (&["generate", "-qp", "--top_k"], &["generate", "-qp", "--top_k"]),
            (&["generate", "-k5", "a_b"], &["generate", "-k5", "a_b"]),
            (&["generate", "--", "--top_k"], &["generate", "--", "--top_k"]),
            (&["generate", "--no_such_flag", "a_b"], &["generate", "--no-such-flag", "a_b"]),
            (&["score", "--file", "--my_file", "--bos"], &["score", "--file", "--my_file", "--bos"]),
        ] {
            assert_eq!(line(typed), expected, "{typed:?}");
        }
    }

    #[test]
    fn texts_that_begin_with_a_dash_keep_their_place_among_the_others() {
        for (typed, expected) in [
            (&["generate", "-5 degrees", "--greedy"][..], &["generate", "--greedy", "--", "-5 degrees"][..]),
            (
                &["next", "It", "is", "-5", "-k", "3", "here"],
                &["next", "It", "is", "-k", "3", "--", "-5", "here"],
            ),
            (&["next", "-5", "--", "-k"], &["next", "--", "-5", "-k"]),
            (&["generate", "--seed", "-1"], &["generate", "--seed", "-1"]),
            (&["generate", "-"], &["generate", "-"]),
            (&["detokenize", "1", "-2"], &["detokenize", "1", "-2"]),
            (&["generate", "--stop", "--", "-1 a"], &["generate", "--stop", "--", "--", "-1 a"]),
        ] {
            assert_eq!(line(typed), expected, "{typed:?}");
        }
    }

    #[test]
    fn a_text_without_a_command_is_generated_from() {
        for (typed, expected) in [
            (&["Once upon"][..], &["generate", "Once upon"][..]),
            (&["--dtype", "int8", "Once upon"], &["generate", "--dtype", "int8", "Once upon"]),
            (&["-5 degrees"], &["generate", "--", "-5 degrees"]),
            (&["--", "Once upon"], &["generate", "--", "Once upon"]),
            (&["-m", "demo", "-p", "Once"], &["generate", "-m", "demo", "-p", "Once"]),
            (&["Once"], &["Once"]),
            (&["--greedy"], &["--greedy"]),
            (&["-m", "two words", "models"], &["-m", "two words", "models"]),
            (&["version"], &["--version"]),
            (&[], &[]),
        ] {
            assert_eq!(line(typed), expected, "{typed:?}");
        }
    }

    #[test]
    fn truth_values_are_attached_to_the_flags_that_have_them() {
        for (typed, expected) in [
            (&["generate", "--do_sample", "False"][..], &["generate", "--do-sample=false"][..]),
            (&["generate", "--do-sample=True", "x"], &["generate", "--do-sample=true", "x"]),
            (&["generate", "--do-sample", "x"], &["generate", "--do-sample", "x"]),
            (&["generate", "--json", "true"], &["generate", "--json", "true"]),
            (
                &["generate", "--stop", "--do-sample", "false"],
                &["generate", "--stop", "--do-sample", "false"],
            ),
        ] {
            assert_eq!(line(typed), expected, "{typed:?}");
        }
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (word, expected) in [
            ("generate", "generate"),
            ("0.7", "0.7"),
            ("", "\"\""),
            ("Once upon", "\"Once upon\""),
            ("it's", "\"it's\""),
            ("$5", "'$5'"),
            ("it's $5", r"'it'\''s $5'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
