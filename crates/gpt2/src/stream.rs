//! Token ids in, text out, piece by piece: characters kept whole, stop strings cut off.
//!
//! A token may end in the middle of a character, and a stop string may begin in one token and end in another.
//! [`TextStream`] holds back the bytes that could still turn out either way, and nothing else:
//!
//! ```text
//! bytes of the tokens   H e l l o ⏎ U s e │
//! stop "⏎User:"                  └───────┘ held back: may become the stop string
//! given out             H e l l o
//! ```
//!
//! The pieces, joined, are the whole text as [`Tokenizer::decode`] gives it without special tokens, up to the
//! stop string. Stop strings are matched on the text with its special tokens, whether these are shown or not. Each
//! byte is looked at once per stop string; nothing is decoded twice.

use crate::tokenizer::{SpecialText, Tokenizer, TokenizerError};

/// Turns token ids into pieces of text.
///
/// # Examples
///
/// ```
/// use gpt2::stream::TextStream;
/// use gpt2::tokenizer::Tokenizer;
///
/// let json = br#"{
///     "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
///     "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
///     "model": {"vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}
/// }"#;
/// let tokenizer = Tokenizer::from_bytes(json)?;
/// let mut stream = TextStream::new(&tokenizer, &["bc".to_owned()]);
/// assert_eq!(stream.push(0)?, "a");
/// assert_eq!(stream.push(1)?, ""); // may become "bc"
/// assert_eq!(stream.push(0)?, "ba"); // did not
/// assert_eq!(stream.push(1)?, "");
/// assert_eq!(stream.push(2)?, "");
/// assert_eq!(stream.stopped(), Some("bc"));
/// # Ok::<(), gpt2::tokenizer::TokenizerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    stops: Vec<StopString>,
    stopped: Option<usize>,
    special: SpecialText,
    keeps_stop: bool,
    /// Bytes not given out yet.
    held: Vec<u8>,
    /// The last bytes, shown or not, as many as a stop string matches so far: whether each is shown.
    shown: Vec<bool>,
    /// The piece that the last call gave out.
    piece: String,
}

impl<'t> TextStream<'t> {
    /// Starts a stream that ends at the first of the `stop` strings, if there are any.
    ///
    /// An empty stop string is never found.
    pub fn new(tokenizer: &'t Tokenizer, stop: &[String]) -> Self {
        let stops = stop.iter().filter(|text| !text.is_empty()).map(|text| StopString::new(text)).collect();
        Self {
            tokenizer,
            stops,
            stopped: None,
            special: SpecialText::Skip,
            keeps_stop: false,
            held: Vec::new(),
            shown: Vec::new(),
            piece: String::new(),
        }
    }

    /// Says whether special tokens are part of the text. Default: they are not.
    #[must_use]
    pub fn special_text(self, special: SpecialText) -> Self {
        Self { special, ..self }
    }

    /// Says whether the text ends with the stop string instead of before it. Default: before it.
    #[must_use]
    pub fn keep_stop(self, keeps_stop: bool) -> Self {
        Self { keeps_stop, ..self }
    }

    /// Takes the next token and returns the text that is certain now, often empty.
    ///
    /// Padding ids add nothing, and neither do special tokens unless [they are kept](Self::special_text). The stream
    /// stops with the first byte that completes a stop string; where one byte completes several, the longest counts.
    /// That string, unless [it is kept](Self::keep_stop), and all that follows it are left out, however the text was
    /// cut into tokens. A special token that is not shown is part of what stop strings are matched on. After the stop,
    /// every piece is empty.
    ///
    /// # Errors
    ///
    /// When the tokenizer does not know `id`; the stream is as it was.
    pub fn push(&mut self, id: u32) -> Result<&str, TokenizerError> {
        let tokenizer = self.tokenizer;
        let bytes = tokenizer.token_bytes(id).ok_or_else(|| tokenizer.unknown(id))?;
        Ok(self.take(bytes, self.special == SpecialText::Keep || !tokenizer.is_special(id)))
    }

    /// Takes a token that ends the text. It is shown as special tokens are, even if it is an ordinary one.
    pub(crate) fn push_end(&mut self, id: u32) -> &str {
        let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
        self.take(bytes, self.special == SpecialText::Keep)
    }

    /// Takes the bytes of a token, which are shown or only matched.
    fn take(&mut self, bytes: &[u8], shown: bool) -> &str {
        self.piece.clear();
        if self.stopped.is_some() {
            return &self.piece;
        }
        for &byte in bytes {
            if shown {
                self.held.push(byte);
            }
            self.shown.push(shown);
            let complete = self.stops.iter_mut().enumerate().filter_map(|(index, stop)| {
                let complete = stop.advance(byte);
                complete.then_some((stop.text.len(), index))
            });
            if let Some((length, index)) = complete.max() {
                if !self.keeps_stop {
                    self.held.truncate(self.held.len() - self.last_shown(length));
                }
                self.stopped = Some(index);
                self.release(self.held.len(), Tail::Ends);
                return &self.piece;
            }
        }
        let candidate = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        self.shown.drain(..self.shown.len() - candidate);
        let wait = if self.keeps_stop { 0 } else { self.last_shown(candidate) };
        self.release(self.held.len() - wait, Tail::Continues);
        &self.piece
    }

    /// How many of the last bytes are shown.
    fn last_shown(&self, bytes: usize) -> usize {
        self.shown[self.shown.len() - bytes..].iter().filter(|&&shown| shown).count()
    }

    /// Ends the text and returns what was held back: the start of a stop string that never came, or U+FFFD
    /// for the start of a character.
    ///
    /// The next token begins a new text, but after a stop string: that has ended the stream for good.
    pub fn finish(&mut self) -> &str {
        self.piece.clear();
        self.release(self.held.len(), Tail::Ends);
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        self.shown.clear();
        &self.piece
    }

    /// Returns the stop string that ended the stream, if one has.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|index| self.stops[index].text.as_str())
    }

    /// Moves the first `end` bytes held to the piece, but for an unfinished character if the text continues.
    fn release(&mut self, end: usize, tail: Tail) {
        let mut taken = 0;
        for chunk in self.held[..end].utf8_chunks() {
            self.piece.push_str(chunk.valid());
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            let unfinished = str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if tail == Tail::Continues && unfinished && taken + invalid.len() == end {
                break;
            }
            if !invalid.is_empty() {
                self.piece.push(char::REPLACEMENT_CHARACTER);
                taken += invalid.len();
            }
        }
        self.held.drain(..taken);
    }
}

/// Whether more bytes may follow those being released.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Continues,
    Ends,
}

/// A stop string and how much of it the last bytes match (Knuth, Morris and Pratt).
#[derive(Clone, Debug)]
struct StopString {
    text: String,
    /// For every prefix, the length of its longest proper prefix that is also its suffix.
    borders: Vec<usize>,
    matched: usize,
}

impl StopString {
    fn new(text: &str) -> Self {
        let mut stop = Self { text: text.to_owned(), borders: vec![0], matched: 0 };
        for &byte in &text.as_bytes()[1..] {
            stop.advance(byte);
            stop.borders.push(stop.matched);
        }
        stop.matched = 0;
        stop
    }

    /// Takes the next byte and says whether it completes the string.
    fn advance(&mut self, byte: u8) -> bool {
        let text = self.text.as_bytes();
        while self.matched > 0 && text[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        if text[self.matched] == byte {
            self.matched += 1;
        }
        self.matched == text.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::SpecialText;
    use crate::tokenizer::tests::byte_tokenizer;

    /// Feeds one token per byte and joins the pieces.
    fn stream(tokenizer: &Tokenizer, bytes: &[u8], stop: &[String]) -> (String, Option<String>) {
        let mut stream = TextStream::new(tokenizer, stop);
        let mut text = String::new();
        for &byte in bytes {
            text.push_str(stream.push(u32::from(byte)).expect("every byte is a token"));
        }
        text.push_str(stream.finish());
        (text, stream.stopped().map(str::to_owned))
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_character_is_given_out_with_its_last_byte() {
        let tokenizer = byte_tokenizer();
        let mut stream = TextStream::new(&tokenizer, &[]);
        let pieces: Vec<_> =
            "é€".bytes().map(|byte| stream.push(byte.into()).expect("a byte").to_owned()).collect();
        assert_eq!(pieces, ["", "é", "", "", "€"]);
    }

    #[test]
    fn an_unfinished_character_ends_as_a_replacement() {
        let tokenizer = byte_tokenizer();
        assert_eq!(stream(&tokenizer, b"a\xe2\x82", &[]), ("a\u{fffd}".to_owned(), None));
        assert_eq!(stream(&tokenizer, b"a\xe2\x82b", &[]), ("a\u{fffd}b".to_owned(), None));
    }

    #[test]
    fn the_first_complete_stop_string_ends_the_text_and_the_longest_of_those() {
        let tokenizer = byte_tokenizer();
        for (text, stop, expected, found) in [
            ("one two three", &["two"][..], "one ", Some("two")),
            ("one two three", &["four"], "one two three", None),
            ("xabcd", &["abcd", "bc"], "xa", Some("bc")),
            ("xabc", &["c", "bc", "abc"], "x", Some("abc")),
            ("aaab", &["aab"], "a", Some("aab")),
            ("stop", &["stop"], "", Some("stop")),
            ("st", &["stop"], "st", None),
            ("sun ☀ and ☂", &["☂"], "sun ☀ and ", Some("☂")),
            ("any", &[""], "any", None),
        ] {
            let expected = (expected.to_owned(), found.map(str::to_owned));
            assert_eq!(stream(&tokenizer, text.as_bytes(), &strings(stop)), expected, "{text:?} {stop:?}");
        }
    }

    #[test]
    fn stop_strings_are_matched_on_the_text_with_its_special_tokens() {
        let tokenizer = byte_tokenizer();
        let end_of_text = tokenizer.end_of_text().expect("the vocabulary has it");
        let ids = |text: &str| {
            let part = |part: &str| part.bytes().map(u32::from).collect::<Vec<_>>();
            text.split("<|endoftext|>").map(part).collect::<Vec<_>>().join(&end_of_text)
        };
        let read = |text: &str, stop: &str, special: SpecialText, keep: bool| {
            let mut stream =
                TextStream::new(&tokenizer, &strings(&[stop])).special_text(special).keep_stop(keep);
            let mut read = String::new();
            for id in ids(text) {
                read.push_str(stream.push(id).expect("a token"));
            }
            read.push_str(stream.finish());
            (read, stream.stopped().is_some())
        };
        // The text, the stop string, the text without and with special tokens, the same with the stop string.
        for (text, stop, texts, kept) in [
            ("ab<|endoftext|>cd", "<|endoftext|>", ["ab", "ab"], ["ab", "ab<|endoftext|>"]),
            ("ab<|endoftext|>cd", "b<|endoftext|>c", ["a", "a"], ["abc", "ab<|endoftext|>c"]),
            ("ab<|endoftext|>cd", "of", ["ab", "ab<|end"], ["ab", "ab<|endof"]),
            ("ab<|endoftext|>cd", ">c", ["ab", "ab<|endoftext|"], ["abc", "ab<|endoftext|>c"]),
            ("€<|endoftext|>€", "<|endoftext|>\u{20ac}", ["€", "€"], ["€€", "€<|endoftext|>€"]),
            // It begins again within what it has matched.
            ("<|<|endoftext|>b", "<|endoftext|>b", ["<|", "<|"], ["<|b", "<|<|endoftext|>b"]),
        ] {
            let found = |text: &str| (text.to_owned(), true);
            for (special, without, with) in
                [(SpecialText::Skip, texts[0], kept[0]), (SpecialText::Keep, texts[1], kept[1])]
            {
                assert_eq!(read(text, stop, special, false), found(without), "{text} {stop} {special:?}");
                assert_eq!(read(text, stop, special, true), found(with), "{text} {stop} {special:?}");
            }
        }
        // What is on both sides of a special token is not next to each other.
        let text = "b<|endoftext|>c";
        assert_eq!(read(text, "bc", SpecialText::Skip, false), ("bc".to_owned(), false));
        assert_eq!(read(text, "bc", SpecialText::Keep, false), (text.to_owned(), false));
    }

    #[test]
    fn an_end_token_is_matched_and_shown_only_with_special_tokens() {
        let tokenizer = byte_tokenizer();
        let end = |stop: &str, special: SpecialText, id: u32| {
            let mut stream = TextStream::new(&tokenizer, &strings(&[stop])).special_text(special);
            let mut text = stream.push(b'a'.into()).expect("a byte").to_owned();
            text.push_str(stream.push_end(id));
            text.push_str(stream.finish());
            (text, stream.stopped().is_some())
        };
        let end_of_text = tokenizer.end_of_text().expect("the vocabulary has it");
        for (stop, special, id, text, stopped) in [
            ("z", SpecialText::Skip, end_of_text, "a", false),
            ("z", SpecialText::Keep, end_of_text, "a<|endoftext|>", false),
            ("a<|end", SpecialText::Skip, end_of_text, "", true),
            ("<|end", SpecialText::Keep, end_of_text, "a", true),
            // An ordinary token, and one that the tokenizer does not know.
            ("z", SpecialText::Skip, b'b'.into(), "a", false),
            ("z", SpecialText::Keep, b'b'.into(), "ab", false),
            ("z", SpecialText::Keep, 1000, "a", false),
        ] {
            assert_eq!(end(stop, special, id), (text.to_owned(), stopped), "{stop} {special:?} {id}");
        }
    }

    #[test]
    fn nothing_follows_a_stop() {
        let tokenizer = byte_tokenizer();
        let mut stream = TextStream::new(&tokenizer, &strings(&["bc"]));
        assert_eq!(stream.push(b'b'.into()).expect("a byte"), "");
        assert_eq!(stream.push(b'c'.into()).expect("a byte"), "");
        assert_eq!(stream.stopped(), Some("bc"));
        assert_eq!(stream.push(b'd'.into()).expect("a byte"), "", "nothing follows a stop");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn an_unknown_id_is_an_error_and_changes_nothing() {
        let tokenizer = byte_tokenizer();
        let mut stream = TextStream::new(&tokenizer, &strings(&["ab"]));
        stream.push(b'a'.into()).expect("a byte");
        assert!(matches!(stream.push(1000), Err(TokenizerError::UnknownId { id: 1000, .. })));
        stream.push(b'b'.into()).expect("a byte");
        assert_eq!(stream.stopped(), Some("ab"));
    }

    #[test]
    fn finishing_begins_a_new_text() {
        let tokenizer = byte_tokenizer();
        let mut stream = TextStream::new(&tokenizer, &strings(&["ab"]));
        stream.push(b'a'.into()).expect("a byte");
        assert_eq!(stream.finish(), "a");
        assert_eq!(stream.push(b'b'.into()).expect("a byte"), "b");
        assert_eq!(stream.stopped(), None);
    }

    #[test]
    fn finishing_after_a_stop_begins_nothing() {
        let tokenizer = byte_tokenizer();
        let mut stream = TextStream::new(&tokenizer, &strings(&["a"]));
        stream.push(b'a'.into()).expect("a byte");
        assert_eq!(stream.finish(), "");
        assert_eq!(stream.push(b'b'.into()).expect("a byte"), "");
        assert_eq!(stream.finish(), "");
        assert_eq!(stream.stopped(), Some("a"));
    }

    /// The whole text cut by looking at every position, as the documentation says.
    fn cut(bytes: &[u8], stop: &[String]) -> (String, Option<String>) {
        for end in 1..=bytes.len() {
            let complete = stop.iter().filter(|text| bytes[..end].ends_with(text.as_bytes()));
            if let Some(found) = complete.max_by_key(|text| text.len()) {
                let text = String::from_utf8_lossy(&bytes[..end - found.len()]).into_owned();
                return (text, Some(found.clone()));
            }
        }
        (String::from_utf8_lossy(bytes).into_owned(), None)
    }

    proptest! {
        #[test]
        fn the_pieces_join_to_the_whole_text(bytes: Vec<u8>) {
            let tokenizer = byte_tokenizer();
            let ids: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
            let whole = tokenizer.decode(&ids, SpecialText::Skip)?;
            prop_assert_eq!(stream(&tokenizer, &bytes, &[]), (whole, None));
        }

        #[test]
        fn stop_strings_cut_where_a_search_of_the_whole_text_would(
            bytes in prop::collection::vec(prop::sample::select(b"ab\xc3\xa9\xe2".to_vec()), 0..40),
            stop in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let tokenizer = byte_tokenizer();
            prop_assert_eq!(stream(&tokenizer, &bytes, &stop), cut(&bytes, &stop));
        }
    }
}
