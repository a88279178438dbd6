//! Words that are not broken at the right edge of a terminal.
//!
//! ```text
//! pushed ─► gap, word ─► written
//!           held back until the word is whole: only then is it known whether it fits on the line
//! ```
//! Indentation and line ends of the text stay as they are; the spaces at which a line is broken are left out. Wide
//! characters (Chinese, Japanese, emoji) may be broken apart, and a word wider than a line is cut.

use std::io::{self, Write};

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Distance of the places that a tab goes to.
const TAB: usize = 8;
/// What joins emoji to one.
const JOINER: char = '\u{200d}';

/// The number of columns that a text takes, without tabs and line ends.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// A text filled up to a number of columns with spaces, and cut to it with `…` if it is wider.
pub(crate) fn fit(text: &str, width: usize) -> String {
    let columns_of_text = columns(text);
    if columns_of_text <= width {
        return format!("{text}{}", " ".repeat(width - columns_of_text));
    }
    let (mut cut, mut used) = (String::new(), 0);
    for c in text.chars() {
        let next = c.width().unwrap_or(0);
        if used + next + 1 > width {
            break;
        }
        cut.push(c);
        used += next;
    }
    cut.push('…');
    format!("{cut}{}", " ".repeat(width.saturating_sub(used + 1)))
}

/// Breaks a message into lines of at most `width` columns where spaces allow it; words that are too wide stay whole, so
/// that a path can be copied. The first line is preceded by something `first` columns wide, the others by `indent` spaces.
pub(crate) fn fill(message: &str, width: usize, first: usize, indent: usize) -> String {
    let mut filled = String::new();
    for (number, line) in message.split('\n').enumerate() {
        if number > 0 {
            filled.push('\n');
        }
        let mut column = if number == 0 { first } else { 0 };
        for (index, word) in line.split(' ').enumerate() {
            let wide = columns(word);
            if index > 0 {
                if !word.is_empty() && column + 1 + wide > width && column > indent {
                    filled.push('\n');
                    filled.push_str(&" ".repeat(indent));
                    column = indent;
                } else {
                    filled.push(' ');
                    column += 1;
                }
            }
            filled.push_str(word);
            column += wide;
        }
    }
    filled
}

/// A text on its way to a terminal.
#[derive(Debug, Default)]
pub(crate) struct Wrap {
    /// Columns of the current line that are taken.
    column: usize,
    /// White space that was not written yet.
    gap: String,
    /// The word behind it, in pieces of one style each.
    word: Vec<(Style, String)>,
    /// The columns that the word takes.
    width: usize,
}

impl Wrap {
    /// Takes more text, without control characters but tabs and line ends, and writes what is certain.
    pub(crate) fn push(
        &mut self,
        text: &str,
        style: Style,
        width: usize,
        writer: &mut impl Write,
    ) -> io::Result<()> {
        // A window that was made narrower has broken the line itself.
        if self.column > width {
            self.column %= width;
        }
        for c in text.chars() {
            let columns = c.width().unwrap_or(0);
            match c {
                '\n' => {
                    self.release(width, writer)?;
                    writer.write_all(b"\n")?;
                    self.gap.clear();
                    self.column = 0;
                }
                ' ' | '\t' => {
                    self.release(width, writer)?;
                    self.gap.push(c);
                }
                _ => {
                    let joined = self.word.last().is_some_and(|(_, part)| part.ends_with(JOINER));
                    if columns == 2 && !joined || self.width + columns > width {
                        self.release(width, writer)?;
                    }
                    match self.word.last_mut() {
                        Some((last, part)) if *last == style => part.push(c),
                        _ => self.word.push((style, c.to_string())),
                    }
                    self.width += columns;
                    if columns == 2 && !joined {
                        self.release(width, writer)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes what is left, and begins anew.
    pub(crate) fn finish(&mut self, width: usize, writer: &mut impl Write) -> io::Result<()> {
        self.release(width, writer)?;
        *self = Self::default();
        Ok(())
    }

    /// Writes the word, on a new line if it does not fit on this one.
    fn release(&mut self, width: usize, writer: &mut impl Write) -> io::Result<()> {
        if self.word.is_empty() {
            return Ok(());
        }
        let behind = self.gap.chars().fold(self.column, |column, c| match c {
            '\t' => (column / TAB + 1) * TAB,
            _ => column + 1,
        });
        if behind + self.width > width && behind > 0 {
            writer.write_all(b"\n")?;
            self.column = 0;
        } else {
            writer.write_all(self.gap.as_bytes())?;
            self.column = behind;
        }
        self.gap.clear();
        for (style, part) in self.word.drain(..) {
            write!(writer, "{style}{part}{style:#}")?;
        }
        self.column += std::mem::take(&mut self.width);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wraps a text that comes in pieces of so many characters.
    fn wrapped(text: &str, width: usize, piece: usize) -> String {
        let (mut wrap, mut out) = (Wrap::default(), Vec::new());
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(piece) {
            wrap.push(&piece.iter().collect::<String>(), Style::new(), width, &mut out).unwrap();
        }
        wrap.finish(width, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn words_stay_whole_however_the_text_comes() {
        for (text, expected) in [
            ("one two three", "one two\nthree"),
            // A line that is exactly full.
            ("12345678 9", "12345678\n9"),
            ("1234567 9", "1234567\n9"),
            ("123456 8 0", "123456 8\n0"),
            // What the text has of its own stays.
            ("a\n\n    b", "a\n\n    b"),
            ("  ab  cd", "  ab  cd"),
            // A word wider than a line, alone and behind another one.
            ("abcdefghijkl", "abcdefgh\nijkl"),
            ("xy abcdefghijkl z", "xy\nabcdefgh\nijkl z"),
            // Wide characters take two columns, need no spaces, and are not cut in half.
            ("日本語日本語", "日本語日\n本語"),
            ("a日本語日", "a日本語\n日"),
            // Tabs go to the next multiple of eight.
            ("a\tb", "a\nb"),
            ("a", "a"),
            ("", ""),
        ] {
            for piece in [1, 2, 3, 100] {
                assert_eq!(wrapped(text, 8, piece), expected, "{text:?} in pieces of {piece}");
            }
        }
        assert_eq!(wrapped("a\tb c", 12, 1), "a\tb c");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_letter_is_lost() {
        let text = "The 日本語 text, with  spaces\tand\n\nlines; averyveryveryverylongwordthatfitsnowhere, e\u{301}é 🙂🙂🙂!";
        for width in 2..60 {
            for piece in [1, 7] {
                let found = wrapped(text, width, piece);
                for line in found.split('\n').filter(|line| !line.contains('\t')) {
                    assert!(columns(line) <= width, "{line:?} at {width}");
                }
                let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
                assert_eq!(letters(&found), letters(text), "{width}");
            }
        }
    }

    #[test]
    fn a_word_of_two_styles_is_one_word() {
        let (mut wrap, mut out) = (Wrap::default(), Vec::new());
        let dim = Style::new().dimmed();
        wrap.push("so the pro", dim, 10, &mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), format!("{dim}so{dim:#} {dim}the{dim:#}"));
        wrap.push("mpt", Style::new(), 10, &mut out).unwrap();
        wrap.finish(10, &mut out).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("{dim}so{dim:#} {dim}the{dim:#}\n{dim}pro{dim:#}mpt")
        );
    }

    #[test]
    fn a_window_that_becomes_narrower_is_met() {
        let (mut wrap, mut out) = (Wrap::default(), Vec::new());
        wrap.push("one two three ", Style::new(), 40, &mut out).unwrap();
        // The terminal shows `one two t`, `hree` now.
        wrap.push("four five ", Style::new(), 9, &mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), "one two three four\nfive");
    }

    #[test]
    fn messages_are_filled() {
        let long = "/a/very/long/path/that/is/one/word";
        assert_eq!(fill("some words to read", 10, 0, 0), "some words\nto read");
        assert_eq!(fill("words to read", 14, 6, 2), "words to\n  read");
        assert_eq!(fill(&format!("in {long} it is"), 12, 0, 0), format!("in\n{long}\nit is"));
        assert_eq!(fill("  two  gaps", 80, 0, 0), "  two  gaps");
        assert_eq!(fill("one\ntwo three", 8, 4, 0), "one\ntwo\nthree");
    }

    #[test]
    fn texts_are_cut_to_columns() {
        for (text, expected) in [
            ("abc", "abc  "),
            ("abcde", "abcde"),
            ("abcdef", "abcd…"),
            ("日本語", "日本…"),
            ("日本語x", "日本…"),
        ] {
            assert_eq!(fit(text, 5), expected, "{text}");
        }
        assert_eq!(fit("日本", 4), "日本");
        assert_eq!(fit("日本語", 4), "日… ");
    }
}
