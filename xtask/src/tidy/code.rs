//! Rust source without what the compiler does not act on.
//!
//! Not a parser: it knows comments, strings and characters, and takes everything else as code.

/// Replaces comments and literals with spaces; lines and columns (in characters) stay as they are.
pub(super) fn only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let length = not_code(rest);
        if length == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// The length of the comment or literal at the start of `rest`, zero if there is none.
fn not_code(rest: &str) -> usize {
    let until = |end: &str| rest.find(end).unwrap_or(rest.len());
    if rest.starts_with("//") {
        return until("\n");
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if let Some(raw) = rest.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(text) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = rest.len() - text.len();
            return text.find(&end).map_or(rest.len(), |length| start + length + end.len());
        }
    }
    if let Some(character) = rest.strip_prefix('\'') {
        // What is no character is a lifetime or a label: 'a.
        let mut characters = character.chars();
        let first = characters.next();
        if first == Some('\\') || characters.next() == Some('\'') {
            return quoted(rest, '\'');
        }
    }
    0
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((index, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return index + 1;
        }
    }
    rest.len()
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut index = 0;
    while index < rest.len() {
        let (step, change) = match &rest.as_bytes()[index..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        index += step;
        depth += change;
        if depth == 0 {
            return index;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn comments_and_literals_are_blank_and_code_stays() {
        for (source, expected) in [
            ("a // b", "a     "),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("a /*", "a   "),
            (r#"f("x\"y", z)"#, r#"f(      , z)"#),
            ("f(r\"x\\\", y)", "f(     , y)"),
            ("f(r#\"x\"y\"#, z)", "f(        , z)"),
            ("f(b'\\'', b'x', '\"', a)", "f(b    , b   ,    , a)"),
            ("fn f<'a>(x: &'a str) -> &'a str", "fn f<'a>(x: &'a str) -> &'a str"),
            ("'é' é", "    é"),
            ("\"a\nb\" c", "  \n   c"),
            ("r#type, for x", "r#type, for x"),
        ] {
            assert_eq!(only(source), expected, "{source:?}");
        }
    }
}
