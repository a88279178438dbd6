//! Grammars, compiled by the crate `llguidance` for the tokens of a tokenizer.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};
use std::thread;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Matcher, ParserFactory};
use serde_json::json;

use super::{gbnf, schema};
use crate::generate::StructuredOutputs;
use crate::tokenizer::Tokenizer;

/// A grammar at its start.
pub(crate) struct Grammar {
    start: Matcher,
    vocabulary: Arc<Vocabulary>,
    /// Why a text could not be followed, if that has happened.
    pub(super) failure: Arc<OnceLock<String>>,
    /// The name of what it was made from.
    pub(super) kind: &'static str,
}

/// The texts of a tokenizer's tokens, as a trie.
///
/// Special tokens spell nothing, and neither do ids without a token: no grammar allows them.
pub(crate) struct Vocabulary {
    parsers: ParserFactory,
    spelled: SimpleVob,
}

impl Vocabulary {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        // Bytes that begin no character stand for special tokens in the trie.
        let marker = TokTrie::SPECIAL_TOKEN_MARKER;
        let spells = |id| !tokenizer.is_special(id);
        let words: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32)
            .map(|id| tokenizer.token_bytes(id).filter(|_| spells(id)).unwrap_or_default().to_vec())
            .map(|word| if word.first() == Some(&marker) { Vec::new() } else { word })
            .collect();
        let mut spelled = SimpleVob::alloc(words.len());
        words.iter().enumerate().for_each(|(id, word)| spelled.set(id, !word.is_empty()));
        // The ends of texts are not the grammar's matter: they are told tokens, and need not be special.
        let info = TokRxInfo::new(words.len() as u32, INVALID_TOKEN);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        // Masks of the tokens that fit into any string of JSON are kept; shorter slices of the vocabulary take more time
        // to make than they save.
        let slices = [r#"[^"\\\x00-\x1F\x7F]+"#.to_owned()];
        let parsers = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices);
        let mut parsers = parsers.expect("the slice is a regular expression");
        parsers.quiet();
        *parsers.limits_mut() = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
        Self { parsers, spelled }
    }

    /// No token.
    pub(super) fn none(&self) -> SimpleVob {
        self.parsers.tok_env().tok_trie().alloc_token_set()
    }

    /// The tokens that spell something.
    pub(super) fn spelled(&self) -> &SimpleVob {
        &self.spelled
    }
}

impl Grammar {
    /// Compiles what a text must match.
    ///
    /// # Errors
    /// If that is wrong, or has something that is not supported: a message.
    pub(crate) fn new(outputs: &StructuredOutputs, vocabulary: Arc<Vocabulary>) -> Result<Self, String> {
        let StructuredOutputs::Json(json_schema) = outputs else { return Self::compile(outputs, vocabulary) };
        // A schema's references may lead deeper than the stack of whoever calls this.
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(schema::stack(json_schema)?);
        thread::scope(|scope| {
            let compiling = thread.spawn_scoped(scope, || Self::compile(outputs, vocabulary));
            let compiled = compiling.map_err(|error| format!("cannot start a thread: {error}"))?.join();
            compiled.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Compiles it on this thread's stack.
    fn compile(outputs: &StructuredOutputs, vocabulary: Arc<Vocabulary>) -> Result<Self, String> {
        let grammar = match outputs {
            StructuredOutputs::Json(schema) => TopLevelGrammar::from_json_schema(schema::prepare(schema)?),
            StructuredOutputs::JsonObject => {
                TopLevelGrammar::from_json_schema(schema::prepare(&json!({"type": "object"}))?)
            }
            StructuredOutputs::Regex(regex) => TopLevelGrammar::from_regex(regex),
            StructuredOutputs::Choice(texts) => TopLevelGrammar::from_regex(&one_of(texts)?),
            StructuredOutputs::Grammar(text) if gbnf::is_gbnf(text) => {
                TopLevelGrammar::from_lark(gbnf::to_lark(text)?)
            }
            StructuredOutputs::Grammar(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        let regex = matches!(outputs, StructuredOutputs::Regex(_));
        let wrong = |error| if regex { of_regex(&message(error)) } else { message(error) };
        let mut parser = vocabulary.parsers.create_parser(grammar).map_err(wrong)?;
        // What would be left out of account is refused.
        if let Some(warning) = parser.grammar_warnings().first() {
            return Err(message(warning));
        }
        let mut start = Matcher::new(Ok(parser));
        if let Some(error) = start.get_error() {
            return Err(message(error));
        }
        // A grammar that no text matches is found out here.
        let empty = start.is_accepting().map_err(message)?;
        match start.deep_clone().compute_mask().map_err(message) {
            Err(error) if error == NOTHING_FITS && empty => {}
            Err(error) if error == NOTHING_FITS => return Err("no text matches it".to_owned()),
            first => drop(first?),
        }
        Ok(Self { start, vocabulary, failure: Arc::default(), kind: outputs.name() })
    }

    /// A matcher that shares nothing with others.
    pub(super) fn matcher(&self) -> Matcher {
        self.start.deep_clone()
    }

    pub(super) fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// Whether some tokens are a whole text of the grammar.
    pub(crate) fn accepts(&self, tokens: &[u32]) -> bool {
        let mut matcher = self.matcher();
        matcher.try_consume_tokens(tokens).is_ok_and(|taken| taken == tokens.len())
            && matcher.is_accepting().unwrap_or(false)
    }

    /// Whether a text is a whole one of the grammar.
    pub(crate) fn accepts_text(&self, text: &str) -> bool {
        // Any tokens will do that spell it.
        let trie = self.vocabulary.parsers.tok_env().tok_trie();
        let tokens = trie.greedy_tokenize(text.as_bytes());
        tokens.iter().map(|&id| trie.token(id).len()).sum::<usize>() == text.len() && self.accepts(&tokens)
    }

    /// Why a text could not be followed, if that has happened.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

/// The message that no token goes on with a text.
pub(super) const NOTHING_FITS: &str = "NoExtensionBias";

/// The message of an error of the crate, without what is for its authors.
pub(super) fn message(error: impl Display) -> String {
    let text = error.to_string();
    let end =
        ["\n<non-verbose/>", "\n<backtrace>", "\n<state>"].iter().filter_map(|mark| text.find(mark)).min();
    let text = text[..end.unwrap_or(text.len())].trim_end();
    // What these say of options and features is for those who build with the crate.
    if text.starts_with("oneOf ") {
        return "`oneOf` is supported only where its alternatives cannot overlap; `anyOf` may be what is meant"
            .to_owned();
    }
    if let Some((_, reference)) = text.split_once("'referencing' feature; ref ") {
        return format!("only references within the schema (`#/...`) are supported: {reference}");
    }
    match text.strip_prefix("panic: ") {
        Some("missing special token prefix") => "special tokens (`<|…|>`) are not supported".to_owned(),
        Some(panic) => format!("llguidance cannot read it: {panic}"),
        None => text.to_owned(),
    }
}

/// A message without the grammar that was made around a regular expression.
fn of_regex(message: &str) -> String {
    let message = message.split("\n   1 | start: ").next().unwrap_or(message);
    message.find("regex parse error:").map_or(message, |start| &message[start..]).to_owned()
}

/// A regular expression for a list of texts.
fn one_of(texts: &[String]) -> Result<String, String> {
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err("expected texts of at least one character".to_owned());
    }
    let escaped = |text: &String| {
        let special = |c: char| r"\.+*?()|[]{}^$#&-~".contains(c);
        text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect::<String>()
    };
    Ok(texts.iter().map(escaped).collect::<Vec<_>>().join("|"))
}
