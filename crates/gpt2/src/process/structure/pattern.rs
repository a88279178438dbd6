//! Regular expressions of JSON Schema, which are JavaScript's, as `llguidance` reads them rightly.
//!
//! It takes the syntax of the crate `regex`. That differs within classes, where JavaScript has no classes and operators,
//! and in what white space is. And a class with all control characters lets `"` and `\` through whether it has them or
//! not, once it is quoted for JSON: so no class has U+0000.

use std::fmt::Write;

/// JavaScript's white space, as a part of a class.
const SPACE: &str =
    r"\t\n\x0b\x0c\r\x20\xa0\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";

/// Translates an expression. What is wrong in it stays so.
pub(super) fn translate(pattern: &str) -> String {
    let mut translated = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '[' => class(rest, &mut translated),
            '\\' => escape(rest, &mut translated),
            next => {
                translated.push(next);
                next.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    translated
}

/// Translates the escape at the beginning of a text; returns its length.
fn escape(text: &str, translated: &mut String) -> usize {
    let Some(letter) = text[1..].chars().next() else {
        translated.push('\\');
        return 1;
    };
    let length = 1 + letter.len_utf8();
    // Writing to a `String` cannot fail.
    let _ = match letter {
        's' => write!(translated, "[{SPACE}]"),
        'S' => write!(translated, "[^{SPACE}]"),
        'p' | 'P' => match text[length..].strip_prefix('{').and_then(|name| name.find('}')) {
            Some(end) => {
                let length = length + end + 2;
                let _ = write!(translated, r"[{}--\x00]", &text[..length]);
                return length;
            }
            None => write!(translated, r"\{letter}"),
        },
        letter => write!(translated, r"\{letter}"),
    };
    length
}

/// Translates the class at the beginning of a text; returns its length.
fn class(text: &str, translated: &mut String) -> usize {
    let negated = text[1..].starts_with('^');
    let begin = 1 + usize::from(negated);
    translated.push_str(if negated { "[[^" } else { "[[" });
    let mut at = begin;
    let mut before = None;
    while let Some(next) = text[at..].chars().next() {
        let mut length = next.len_utf8();
        match next {
            ']' => {
                // JavaScript's `[]` is nothing and `[^]` is anything; here the bracket would be part of the class.
                translated.push_str(if at == begin { "a&&b" } else { "" });
                translated.push_str(r"]--\x00]");
                return at + 1;
            }
            '\\' => match text[at + 1..].chars().next() {
                // Within a class it is a backspace.
                Some('b') => {
                    translated.push_str(r"\x08");
                    length = 2;
                }
                _ => length = escape(&text[at..], translated),
            },
            '[' => translated.push_str(r"\["),
            '&' | '~' if before == Some(next) => {
                translated.push('\\');
                translated.push(next);
            }
            // Behind a `-` it is the end of a range, or stands for itself.
            '-' if before == Some('-') => translated.push_str(r"\-"),
            next => translated.push(next),
        }
        before = Some(next);
        at += length;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javascript_is_read_as_javascript() {
        // An expression, texts with a match, and texts without.
        let cases: [(&str, &[&str], &[&str]); 14] = [
            (r"^[^a]$", &["b", "\"", "\\", "\n"], &["a", "\0", ""]),
            (r"^[[:alpha:]]$", &["[]", "a]", ":]"], &["a", "b", "z"]),
            (r"^[a&&b]+$", &["a&b"], &["c"]),
            (r"^[a~~b]+$", &["a~b"], &["c"]),
            (r"^[!--]+$", &["!-,"], &["."]),
            (r"^[\]\\[]+$", &["]\\["], &["a"]),
            (r"^\s$", &["\u{feff}", " ", "\u{3000}"], &["\u{85}", "a"]),
            (r"^[\s,]+$", &[", \u{a0}"], &["\u{85}"]),
            (r"^\S[^\S]$", &["\u{85} "], &["aa"]),
            (r"^\p{Lu}\P{Lu}$", &["Éa"], &["aÉ", "A\0"]),
            (r"^[\p{L}\d]+$", &["é1"], &["-"]),
            (r"^a[]b|c$", &["c"], &["ab", "a]b"]),
            (r"^[^]$", &["]", "a"], &["", "ab"]),
            (r"^[\b]\[$", &["\u{8}["], &["b["]),
        ];
        for (pattern, inside, outside) in cases {
            let translated = translate(pattern);
            let regex = regex::Regex::new(&translated).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            inside.iter().for_each(|text| assert!(regex.is_match(text), "{pattern}: {text:?}"));
            outside.iter().for_each(|text| assert!(!regex.is_match(text), "{pattern}: {text:?}"));
        }
        for wrong in ["[a", "\\", "(", "[a\\", r"\p{", "[^"] {
            assert!(regex::Regex::new(&translate(wrong)).is_err(), "{wrong}");
        }
    }
}
