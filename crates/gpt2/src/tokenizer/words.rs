//! Splitting a text into words, which merges never cross.
//!
//! GPT-2 says where words end with a pattern, the first of [`PATTERNS`]. A regular-expression engine that knows `(?!\S)`
//! backtracks, and gives up on long runs of white space; this does the same by hand, in one pass over the text.
//!
//! ```text
//! "It's  3 times."  ─►  "It" "'s" " " " 3" " times" "."
//! ```

use regex_syntax::Parser;
use regex_syntax::hir::{Class as HirClass, HirKind};
use tokenizers::pattern::Pattern;

/// What [`Words`] splits by, and another way to write it.
pub(super) const PATTERNS: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// What may follow an apostrophe as a word of its own.
const CONTRACTIONS: [&str; 7] = ["s", "t", "re", "ve", "m", "ll", "d"];

/// The kinds of characters that the pattern tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    White,
    Other,
}

/// Splits texts as GPT-2's pattern does.
pub(super) struct Words {
    /// Letters and numbers beyond ASCII: the first and last character of each range, ascending.
    ranges: Vec<(char, char, Class)>,
}

impl Words {
    pub(super) fn new() -> Self {
        let letters = ranges(r"\p{L}").into_iter().map(|(first, last)| (first, last, Class::Letter));
        let numbers = ranges(r"\p{N}").into_iter().map(|(first, last)| (first, last, Class::Number));
        let mut ranges: Vec<_> = letters.chain(numbers).collect();
        ranges.sort_unstable_by_key(|&(first, ..)| first);
        Self { ranges }
    }

    fn class(&self, c: char) -> Class {
        match c {
            'a'..='z' | 'A'..='Z' => Class::Letter,
            '0'..='9' => Class::Number,
            _ if c.is_whitespace() => Class::White,
            _ if c.is_ascii() => Class::Other,
            _ => {
                let after = self.ranges.partition_point(|&(first, ..)| first <= c);
                match after.checked_sub(1).map(|index| self.ranges[index]) {
                    Some((_, last, class)) if c <= last => class,
                    _ => Class::Other,
                }
            }
        }
    }

    /// Returns the length of the first word of a text, which is not empty.
    fn first_word(&self, text: &str) -> usize {
        if let Some(rest) = text.strip_prefix('\'')
            && let Some(end) = CONTRACTIONS.into_iter().find(|end| rest.starts_with(end))
        {
            return 1 + end.len();
        }
        // One space belongs to what follows it, unless that is white space too.
        let word = text.strip_prefix(' ').unwrap_or(text);
        match word.chars().next().map_or(Class::White, |c| self.class(c)) {
            Class::White => {
                let run = self.run(text, Class::White);
                let last = text[..run].chars().next_back().map_or(0, char::len_utf8);
                // The last one before a word is left to that word.
                if run == text.len() || run == last { run } else { run - last }
            }
            class => text.len() - word.len() + self.run(word, class),
        }
    }

    /// Returns the length of the characters of one kind at the start of a text.
    fn run(&self, text: &str, class: Class) -> usize {
        text.find(|c| self.class(c) != class).unwrap_or(text.len())
    }
}

impl Pattern for &Words {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<((usize, usize), bool)>> {
        let mut words = Vec::new();
        let mut start = 0;
        while start < inside.len() {
            let end = start + self.first_word(&inside[start..]);
            words.push(((start, end), true));
            start = end;
        }
        Ok(words)
    }
}

/// Returns the ranges of a class of characters in the notation of regular expressions.
fn ranges(class: &str) -> Vec<(char, char)> {
    let parsed = Parser::new().parse(class).expect("the classes of the pattern are well-formed");
    match parsed.into_kind() {
        HirKind::Class(HirClass::Unicode(class)) => {
            class.iter().map(|range| (range.start(), range.end())).collect()
        }
        _ => unreachable!("`{class}` is a class of characters"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    fn ends(text: &str) -> Vec<usize> {
        let words = (&Words::new()).find_matches(text).expect("never fails");
        words.into_iter().map(|((_, end), _)| end).collect()
    }

    /// The same by the pattern itself, which holds as long as the engine does not give up.
    fn ends_by_pattern(text: &str) -> Vec<usize> {
        let mut pieces = PreTokenizedString::from(text);
        ByteLevel::new(false, false, true).pre_tokenize(&mut pieces).expect("never fails");
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(_, (_, end), _)| end).collect()
    }

    #[test]
    fn words_of_a_text_are_those_of_the_pattern() {
        for (text, expected) in [
            ("It's  3 times.", vec!["It", "'s", " ", " 3", " times", "."]),
            ("a\n\n b  ", vec!["a", "\n\n", " b", "  "]),
            ("\t x\u{3000}y", vec!["\t", " x", "\u{3000}", "y"]),
            (
                "we'll 'llama' o'clock 'S",
                vec!["we", "'ll", " '", "llama", "'", " o", "'", "clock", " '", "S"],
            ),
            ("x²½Ⅷ٣e\u{301}", vec!["x", "²½Ⅷ٣", "e", "\u{301}"]),
        ] {
            let words: Vec<&str> = {
                let mut start = 0;
                let cut = |end| {
                    let word = &text[start..end];
                    start = end;
                    word
                };
                ends(text).into_iter().map(cut).collect()
            };
            assert_eq!(words, expected, "{text:?}");
            assert_eq!(ends(text), ends_by_pattern(text), "{text:?}");
        }
    }

    #[test]
    fn every_character_is_of_the_kind_that_the_pattern_takes_it_for() {
        // Unicode has none but private ones beyond these.
        let all: Vec<char> = ('\0'..='\u{33fff}').chain('\u{e0000}'..='\u{e0fff}').collect();
        for some in all.chunks(4096) {
            let text: String = some.iter().flat_map(|&c| ['a', c, '1', c, '!', c, c, ' ', c, '\n']).collect();
            assert!(ends(&text) == ends_by_pattern(&text), "{:?} to {:?}", some[0], some[some.len() - 1]);
        }
    }

    #[test]
    fn a_run_of_any_length_is_split_as_a_short_one() {
        for run in [" ", "\t", "\n", "\r\n", "\u{a0}", "\u{2003}\u{85}", "a", "7", "!", "'", " '", "'s"] {
            for (before, after) in [("", ""), ("x", "y"), ("1", " …3rd\n\nnext"), ("", "?")] {
                let [short, long] = [100, 20_000].map(|times| {
                    let end = before.len() + times * run.len();
                    let ends = ends(&format!("{before}{}{after}", run.repeat(times)));
                    // Counted from the end of the run, so that both can be compared.
                    ends.into_iter()
                        .map(|at| at as isize - end as isize)
                        .filter(|at| *at > -9)
                        .collect::<Vec<_>>()
                });
                assert_eq!(short, long, "{before:?}, a run of {run:?}, {after:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_texts_are_split_as_the_pattern_splits_them(
            text in prop_oneof![
                any::<String>(),
                "[ \t\r\n'strevmld]{0,60}",
                "[ \t\u{b}\u{1c}\u{85}\u{a0}\u{2028}\u{3000}a-zß漢ー0-9²½Ⅷ٣'!…_🎉\u{301}\u{200d}\u{feff}]{0,60}",
            ],
        ) {
            prop_assert_eq!(ends(&text), ends_by_pattern(&text));
        }
    }
}
