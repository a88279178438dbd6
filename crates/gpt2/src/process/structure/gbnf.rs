//! llama.cpp's GBNF, written as the Lark that llguidance reads.
//!
//! Every character becomes a lexeme of its own. llguidance's lexer takes the longest lexeme that fits, which a grammar of
//! characters knows nothing of: with longer lexemes, texts of the grammar would be missing.
//!
//! Rules, alternatives, literals, classes of characters, `.`, groups, `?`, `*`, `+`, `{m}`, `{m,}`, `{m,n}` and comments are
//! read. llama.cpp's `<[id]>` and `!<[id]>`, which stand for tokens, are refused.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Whether a grammar is GBNF: it has a line that begins with a name and `::=`.
pub(super) fn is_gbnf(text: &str) -> bool {
    text.lines().any(|line| {
        let rest = line.trim_start().trim_start_matches(is_word);
        rest.len() < line.trim_start().len() && rest.trim_start().starts_with("::=")
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Writes a grammar as Lark.
///
/// # Errors
/// If it is no GBNF: what was expected, and the line.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
    let mut reader = Reader { rest: text, text, used: BTreeSet::new() };
    let mut rules: Vec<(&str, String)> = Vec::new();
    reader.skip(Lines::Cross);
    while !reader.rest.is_empty() {
        let name = reader.name()?;
        if rules.iter().any(|(other, _)| *other == name) {
            return Err(reader.wrong(&format!("a rule that is not there yet, not `{name}`")));
        }
        reader.skip(Lines::Cross);
        reader.take("::=")?;
        reader.skip(Lines::Cross);
        let body = reader.alternatives(Lines::Stay)?;
        rules.push((name, body));
        if !(reader.rest.is_empty() || reader.rest.starts_with(['\n', '\r'])) {
            return Err(reader.wrong("the end of the rule"));
        }
        reader.skip(Lines::Cross);
    }
    let names: BTreeSet<&str> = rules.iter().map(|(name, _)| *name).collect();
    if let Some(missing) = ["root"].iter().chain(&reader.used).find(|name| !names.contains(*name)) {
        return Err(format!("there is no rule `{missing}`"));
    }
    let mut lark = String::from("start: ") + &rule("root") + "\n";
    for (name, body) in rules {
        let _ = writeln!(lark, "{}: {body}", rule(name));
    }
    Ok(lark)
}

/// The name of a rule in Lark, where upper case would mean a terminal. Different names stay different.
fn rule(name: &str) -> String {
    let mut lark = String::from("r_");
    for c in name.chars() {
        match c {
            'a'..='z' | '0'..='9' => lark.push(c),
            _ => {
                let _ = write!(lark, "_{:x}_", c as u32);
            }
        }
    }
    lark
}

/// Whether what is read may go on in the next line.
#[derive(Clone, Copy, PartialEq)]
enum Lines {
    Stay,
    Cross,
}

struct Reader<'t> {
    rest: &'t str,
    text: &'t str,
    /// Names of rules that occur in bodies.
    used: BTreeSet<&'t str>,
}

impl<'t> Reader<'t> {
    fn alternatives(&mut self, lines: Lines) -> Result<String, String> {
        let mut lark = self.sequence(lines)?;
        while self.rest.starts_with('|') {
            self.rest = &self.rest[1..];
            self.skip(Lines::Cross);
            lark = lark + " | " + &self.sequence(lines)?;
        }
        Ok(lark)
    }

    fn sequence(&mut self, lines: Lines) -> Result<String, String> {
        let mut items: Vec<String> = Vec::new();
        while let Some(c) = self.rest.chars().next() {
            let item = match c {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.rest = &self.rest[1..];
                    r"/(?s:.)/".to_owned()
                }
                '(' => {
                    self.rest = &self.rest[1..];
                    self.skip(Lines::Cross);
                    let inner = self.alternatives(Lines::Cross)?;
                    self.take(")")?;
                    format!("({inner})")
                }
                '?' | '*' | '+' | '{' => {
                    let count = self.repetition()?;
                    let Some(last) = items.last_mut() else {
                        return Err(self.wrong("something to repeat"));
                    };
                    *last = format!("({last}){count}");
                    self.skip(lines);
                    continue;
                }
                '<' | '!' => return Err(self.wrong("no single tokens (`<…>`), which are not supported")),
                _ if is_word(c) => {
                    let name = self.name()?;
                    self.used.insert(name);
                    rule(name)
                }
                _ => break,
            };
            items.push(item);
            self.skip(lines);
        }
        // Lark has no sign for nothing; an empty literal is one.
        Ok(if items.is_empty() { "\"\"".to_owned() } else { items.join(" ") })
    }

    /// Reads `"…"`: one lexeme for each character.
    fn literal(&mut self) -> Result<String, String> {
        self.take("\"")?;
        let mut lark: Vec<String> = Vec::new();
        while !self.rest.starts_with('"') {
            let c = self.character()?;
            lark.push(format!("/{}/", regex_character(c)));
        }
        self.take("\"")?;
        // A repetition behind it repeats the whole.
        Ok(if lark.is_empty() { "\"\"".to_owned() } else { format!("({})", lark.join(" ")) })
    }

    /// Reads `[…]`: the same in a regular expression.
    fn class(&mut self) -> Result<String, String> {
        self.take("[")?;
        let mut regex = String::from("/[");
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.rest = rest;
            regex.push('^');
        }
        let empty = self.rest.starts_with(']');
        while !self.rest.starts_with(']') {
            let first = self.character()?;
            regex += &regex_character(first);
            if let Some(rest) = self.rest.strip_prefix('-').filter(|rest| !rest.starts_with(']')) {
                self.rest = rest;
                let last = self.character()?;
                if last < first {
                    return Err(self.wrong(&format!("a range that ends behind {first:?}, not at {last:?}")));
                }
                regex += "-";
                regex += &regex_character(last);
            }
        }
        if empty {
            return Err(self.wrong("a class of at least one character"));
        }
        self.take("]")?;
        Ok(regex + "]/")
    }

    /// Reads a character of a literal or class, which may be escaped.
    fn character(&mut self) -> Result<char, String> {
        let mut characters = self.rest.chars();
        let Some(c) = characters.next() else { return Err(self.wrong("the end of the literal or class")) };
        self.rest = characters.as_str();
        if c != '\\' {
            return Ok(c);
        }
        let escape = characters.next().unwrap_or(' ');
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            'n' => 0,
            'r' => 0,
            't' => 0,
            '\\' | '"' | '[' | ']' => 0,
            _ => return Err(self.wrong("an escape among \\n \\r \\t \\\\ \\\" \\[ \\] \\x \\u \\U")),
        };
        let rest = characters.as_str();
        let code = rest.get(..digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        let escaped = match (escape, code) {
            ('n', _) => Some('\n'),
            ('r', _) => Some('\r'),
            ('t', _) => Some('\t'),
            ('x' | 'u' | 'U', code) => {
                code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32)
            }
            _ => Some(escape),
        };
        let escaped = escaped.ok_or_else(|| self.wrong(&format!("{digits} digits that are a character")))?;
        self.rest = &rest[digits..];
        Ok(escaped)
    }

    /// Reads `?`, `*`, `+` or `{…}`.
    fn repetition(&mut self) -> Result<String, String> {
        let Some(inner) = self.rest.strip_prefix('{') else {
            let (sign, rest) = self.rest.split_at(1);
            self.rest = rest;
            return Ok(sign.to_owned());
        };
        let Some((counts, rest)) = inner.split_once('}') else { return Err(self.wrong("`}`")) };
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let read = match counts.split_once(',') {
            None => number(counts).map(|exactly| (exactly, Some(exactly))),
            Some((least, most)) if most.trim().is_empty() => number(least).map(|least| (least, None)),
            Some((least, most)) => number(least).zip(number(most)).map(|(least, most)| (least, Some(most))),
        };
        match read {
            Some((least, None)) => {
                self.rest = rest;
                Ok(format!("{{{least},}}"))
            }
            Some((least, Some(most))) if least <= most => {
                self.rest = rest;
                Ok(format!("{{{least},{most}}}"))
            }
            _ => Err(self.wrong("`{m}`, `{m,}` or `{m,n}` with m up to n")),
        }
    }

    fn name(&mut self) -> Result<&'t str, String> {
        let rest = self.rest.trim_start_matches(is_word);
        let name = &self.rest[..self.rest.len() - rest.len()];
        if name.is_empty() {
            return Err(self.wrong("the name of a rule"));
        }
        self.rest = rest;
        Ok(name)
    }

    fn take(&mut self, sign: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(sign).ok_or_else(|| self.wrong(&format!("`{sign}`")))?;
        Ok(())
    }

    /// Passes over white space and comments.
    fn skip(&mut self, lines: Lines) {
        loop {
            let space = |c: char| c == ' ' || c == '\t' || lines == Lines::Cross && (c == '\n' || c == '\r');
            self.rest = self.rest.trim_start_matches(space);
            if !self.rest.starts_with('#') {
                break;
            }
            self.rest = &self.rest[self.rest.find(['\n', '\r']).unwrap_or(self.rest.len())..];
        }
    }

    fn wrong(&self, expected: &str) -> String {
        let line = self.text[..self.text.len() - self.rest.len()].matches('\n').count() + 1;
        let found = self.rest.lines().next().unwrap_or_default();
        let found = if found.is_empty() { "the end of the line" } else { found };
        format!(
            "line {line} of the grammar: expected {expected}, found `{}`",
            found.chars().take(20).collect::<String>()
        )
    }
}

/// A character as part of a regular expression.
fn regex_character(c: char) -> String {
    if c.is_ascii_alphanumeric() || (!c.is_ascii() && !c.is_control()) {
        c.to_string()
    } else {
        format!(r"\x{{{:x}}}", c as u32)
    }
}
