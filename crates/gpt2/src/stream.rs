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
//! stop string. Each byte is looked at once per stop string; nothing is decoded twice.

use crate::tokenizer::{Tokenizer, TokenizerError};

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
    /// Bytes not given out yet.
    held: Vec<u8>,
    /// The piece that the last call gave out.
    piece: String,
}

impl<'t> TextStream<'t> {
    /// Starts a stream that ends at the first of the `stop` strings, if there are any.
    ///
    /// An empty stop string is never found.
    pub fn new(tokenizer: &'t Tokenizer, stop: &[String]) -> Self {
        let stops = stop.iter().filter(|text| !text.is_empty()).map(|text| StopString::new(text)).collect();
        Self { tokenizer, stops, stopped: None, held: Vec::new(), piece: String::new() }
    }

    /// Takes the next token and returns the text that is certain now, often empty.
    ///
    /// Special tokens and ids of padding add nothing. The stream stops with the first byte that completes a
    /// stop string; where one byte completes several, the longest counts. That string and all that follows it
    /// are left out, however the text was cut into tokens. After the stop, every piece is empty.
    ///
    /// # Errors
    ///
    /// When the tokenizer does not know `id`; the stream is as it was.
    pub fn push(&mut self, id: u32) -> Result<&str, TokenizerError> {
        self.piece.clear();
        let tokenizer = self.tokenizer;
        let bytes = tokenizer.token_bytes(id).ok_or_else(|| tokenizer.unknown(id))?;
        if self.stopped.is_some() || tokenizer.is_special(id) {
            return Ok(&self.piece);
        }
        for &byte in bytes {
            self.held.push(byte);
            let complete = self.stops.iter_mut().enumerate().filter_map(|(index, stop)| {
                let complete = stop.advance(byte);
                complete.then_some((stop.text.len(), index))
            });
            if let Some((length, index)) = complete.max() {
                self.held.truncate(self.held.len() - length);
                self.stopped = Some(index);
                self.release(self.held.len(), Tail::Ends);
                return Ok(&self.piece);
            }
        }
        let candidate = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        self.release(self.held.len() - candidate, Tail::Continues);
        Ok(&self.piece)
    }

    /// Ends the text and returns what was held back: the start of a stop string that never came, or U+FFFD
    /// for the start of a character.
    ///
    /// The next token begins a new text, but after a stop string: that has ended the stream for good.
    pub fn finish(&mut self) -> &str {
        self.piece.clear();
        self.release(self.held.len(), Tail::Ends);
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
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
    fn a_stop_string_is_found_within_and_across_tokens_and_special_tokens() {
        let tokenizer = byte_tokenizer();
        let end_of_text = tokenizer.end_of_text().expect("the vocabulary has it");
        let mut stream = TextStream::new(&tokenizer, &strings(&["bc"]));
        assert_eq!(stream.push(b'b'.into()).expect("a byte"), "");
        assert_eq!(stream.push(end_of_text).expect("a token"), "");
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
