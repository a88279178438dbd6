//! Texts that may not occur, in whatever tokens they are written.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Context, Processor, Scores};
use crate::tokenizer::{TokenBytes, Tokenizer};

/// Rules out the tokens that would complete one of some texts.
///
/// A text is found in what the tokens decode to, wherever these begin and end, so it does not matter in which pieces it
/// is written. A single token that has it only as part of a longer word stays: `he` rules out ` he`, and `e` after ` h`,
/// but not ` the` or ` help`.
#[derive(Clone)]
pub struct BadWords {
    bytes: Arc<TokenBytes>,
    texts: Vec<Vec<u8>>,
    /// Tokens that have a whole text.
    always: Vec<u32>,
    /// Tokens that complete a text of which so many bytes come before.
    completing: Vec<(Begun, Vec<u32>)>,
    longest: usize,
    /// The last bytes of the text so far; kept for its allocation.
    tail: Vec<u8>,
    /// How far from the end of the text its last tokens begin, in bytes.
    begins: Vec<usize>,
}

/// The beginning of a text: its index and a number of bytes.
type Begun = (usize, usize);

impl BadWords {
    /// Takes texts, and tokens of a vocabulary of so many. End tokens are never ruled out: they are no text.
    ///
    /// # Panics
    /// Panics if a text is empty.
    #[must_use]
    pub fn new(texts: &[String], tokenizer: &Tokenizer, eos_token_ids: &[u32], vocabulary: usize) -> Self {
        let texts: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        assert!(texts.iter().all(|text| !text.is_empty()), "bad_words with an empty text");
        let mut rests: HashMap<&[u8], Vec<Begun>> = HashMap::new();
        for (index, text) in texts.iter().enumerate() {
            (0..text.len()).for_each(|begun| rests.entry(&text[begun..]).or_default().push((index, begun)));
        }
        let first = |byte: u8| texts.iter().any(|text| text[0] == byte);
        let first: [bool; 256] = std::array::from_fn(|byte| first(byte as u8));
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let bytes = tokenizer.bytes();
        let mut completing: HashMap<Begun, Vec<u32>> = HashMap::new();
        for id in (0..vocabulary.min(tokenizer.vocab_size()) as u32).filter(|id| !eos_token_ids.contains(id))
        {
            let token = bytes.get(id).unwrap_or_default();
            for start in (0..token.len()).filter(|&start| start == 0 || first[usize::from(token[start])]) {
                for end in start + 1..=token.len().min(start + longest) {
                    let within = |at: usize| at > 0 && at < token.len() && joins(token[at - 1], token[at]);
                    if start > 0 && within(start) || within(end) {
                        continue;
                    }
                    for &(index, begun) in rests.get(&token[start..end]).into_iter().flatten() {
                        if start == 0 || begun == 0 {
                            completing.entry((index, begun)).or_default().push(id);
                        }
                    }
                }
            }
        }
        let whole = completing.extract_if(|&(_, begun), _| begun == 0).flat_map(|(_, ids)| ids);
        let mut always: Vec<u32> = whole.collect();
        always.sort_unstable();
        always.dedup();
        let completing = completing.into_iter().collect();
        Self { bytes, texts, always, completing, longest, tail: Vec::new(), begins: Vec::new() }
    }

    /// Reads as much of the end of the text so far as a text may have before its last token.
    fn read(&mut self, tokens: &[u32]) {
        let Self { bytes, longest, tail, begins, .. } = self;
        tail.clear();
        begins.clear();
        for &id in tokens.iter().rev() {
            if tail.len() + 1 >= *longest {
                break;
            }
            tail.splice(0..0, bytes.get(id).unwrap_or_default().iter().copied());
            begins.push(tail.len());
        }
    }
}

/// Whether two bytes are of one word.
fn joins(one: u8, next: u8) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
    letter(one) && letter(next)
}

impl Processor for BadWords {
    fn name(&self) -> &'static str {
        "bad_words"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        self.read(context.tokens);
        let Self { texts, always, completing, tail, begins, .. } = self;
        let stands = |&&(index, begun): &&Begun| {
            let start = tail.len().checked_sub(begun);
            start.is_some_and(|start| {
                tail[start..] == texts[index][..begun]
                    && (begins.contains(&begun) || start > 0 && !joins(tail[start - 1], tail[start]))
            })
        };
        let ids = completing.iter().filter(|(begun, _)| stands(&begun)).flat_map(|(_, ids)| ids);
        always.iter().chain(ids).for_each(|&id| scores.put(id, f32::NEG_INFINITY));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer_of(tokens: &[&str]) -> Tokenizer {
        let vocabulary = tokens.iter().zip(0..).map(|(token, id): (_, u32)| (token.replace(' ', "Ġ"), id));
        let json = json!({
            "added_tokens": [{
                "id": tokens.len() - 1, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false
            }],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
            "model": {"type": "BPE", "vocab": vocabulary.collect::<HashMap<_, _>>(), "merges": []},
        });
        Tokenizer::from_bytes(json.to_string().as_bytes()).expect("a tokenizer")
    }

    /// The tokens of a text that are ruled out behind others.
    fn ruled_out(texts: &[&str], before: &[&str]) -> Vec<&'static str> {
        const TOKENS: [&str; 17] = [
            "was", " was", " wasp", "was.", " w", "as", "a", "s", "wa", "x", "swas", " ", "asp", "s.", ".",
            ". was", "<|end|>",
        ];
        let tokenizer = tokenizer_of(&TOKENS);
        let id = |token: &str| TOKENS.iter().position(|other| *other == token).expect("a token") as u32;
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let mut words = BadWords::new(&texts, &tokenizer, &[id("<|end|>")], TOKENS.len());
        let mut scores = Scores::default();
        scores.set(&[0.0; TOKENS.len()]);
        let tokens: Vec<u32> = before.iter().map(|token| id(token)).collect();
        words.process(&Context { tokens: &tokens, ..Context::default() }, &mut scores);
        let out = (0..TOKENS.len()).filter(|&id| scores.score(id as u32) == f32::NEG_INFINITY);
        out.map(|id| TOKENS[id]).collect()
    }

    #[test]
    fn a_text_is_completed_in_no_pieces() {
        let alone = ["was", " was", "was.", ". was"];
        let also = |more: &[&'static str]| {
            let mut all = [&alone[..], more].concat();
            all.sort_unstable();
            all
        };
        for (before, more) in [
            (&[][..], &[][..]),
            (&["x"], &[]),
            (&[" w"], &["as"]),
            (&["x", " ", "wa"], &["s", "s."]),
            (&[" w", "a"], &["s", "s."]),
            // A token that begins behind others begins a word, as far as anybody can tell.
            (&["x", "wa"], &["s", "s."]),
            // What is there already is not completed again.
            (&[" w", "as"], &[]),
            (&["s"], &[]),
        ] {
            let mut found = ruled_out(&["was"], before);
            found.sort_unstable();
            assert_eq!(found, also(more), "{before:?}");
        }
        // With the space it takes the space.
        assert_eq!(ruled_out(&[" was"], &[" w"]), [" was", "as", ". was"]);
        assert_eq!(ruled_out(&[" was"], &[" "]), ["was", " was", "was.", ". was"]);
        // The `s` is the word's, and the point would complete `s.` within it.
        assert_eq!(ruled_out(&["s."], &["was"]), ["s."]);
        assert_eq!(ruled_out(&["s."], &["wa", "s"]), ["s.", ".", ". was"]);
        assert_eq!(ruled_out(&["as", "."], &[" w"])[..], ["was.", "as", "s.", ".", ". was"]);
        // An end token is no text.
        assert_eq!(ruled_out(&["<|end|>"], &[]), [""; 0]);
    }
}
