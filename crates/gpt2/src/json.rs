//! Reading JSON as the programs that write checkpoints write it.
//!
//! Python's `json.dump` writes `NaN`, `Infinity` and `-Infinity`, which JSON does not have, and numbers such as `50.0`
//! where a whole number is meant; some editors put a byte order mark before the first character. Such files are read.
//! A value that is not a number reads as the string of its name, so that it is refused by name where it is used and
//! does no harm elsewhere.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Error, Map, Number, Value};

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Numbers that Python writes and JSON does not have.
const NOT_NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The largest number up to which every whole number is an `f64`.
const LARGEST_WHOLE: f64 = (1_u64 << 53) as f64;

/// Reads the bytes of a JSON file.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::custom("found a file in UTF-16, expected UTF-8"));
    }
    let bytes = without_mark(bytes);
    serde_json::from_slice(bytes).or_else(|error| match quoted(bytes) {
        Cow::Owned(bytes) => serde_json::from_slice(&bytes),
        Cow::Borrowed(_) => Err(error),
    })
}

/// Leaves out the byte order mark that some editors put at the start of a file.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// Returns a whole number from zero on, however it is written.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| whole_number(value.as_f64()?)?.as_u64())
}

/// Writes every whole number in these fields without a fraction.
pub(crate) fn with_whole_numbers(fields: Map<String, Value>) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name, value_with_whole_numbers(value))).collect()
}

fn value_with_whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            Value::Number(number.as_f64().and_then(whole_number).unwrap_or(number))
        }
        Value::Array(values) => values.into_iter().map(value_with_whole_numbers).collect(),
        Value::Object(fields) => Value::Object(with_whole_numbers(fields)),
        value => value,
    }
}

fn whole_number(x: f64) -> Option<Number> {
    let whole = x.fract() == 0.0 && x.abs() <= LARGEST_WHOLE;
    whole.then(|| if x < 0.0 { Number::from(x as i64) } else { Number::from(x as u64) })
}

/// Puts the [`NOT_NUMBERS`] that are outside strings between quotation marks.
fn quoted(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut result = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        let found = NOT_NUMBERS.iter().find(|name| !in_string && bytes[at..].starts_with(name.as_bytes()));
        if let Some(name) = found {
            result.extend_from_slice(&bytes[copied..at]);
            result.extend([b"\"", name.as_bytes(), b"\""].concat());
            at += name.len();
            copied = at;
            continue;
        }
        match bytes[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1,
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return bytes.into();
    }
    result.extend_from_slice(&bytes[copied..]);
    result.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_python_writes_is_read() {
        assert_eq!(value("\u{feff}{\"a\": 1}"), json!({"a": 1}));
        assert_eq!(
            value(r#"{"a": NaN, "b": [Infinity, -Infinity], "c": 1}"#),
            json!({"a": "NaN", "b": ["Infinity", "-Infinity"], "c": 1})
        );
        // Inside strings they are text.
        for text in [r#"{"a NaN": "\" NaN \\", "b": 2}"#, r#"["NaN", "-Infinity\\\"Infinity"]"#] {
            assert_eq!(value(text), serde_json::from_str::<Value>(text).unwrap());
            let with_nan = format!("[{text}, NaN]");
            assert_eq!(value(&with_nan)[0], serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, message) in [
            ("{\n  \"a\": NaN,\n  \"b\": }", "expected value at line 3 column 8"),
            ("{\"a\": nan}", "expected ident at line 1 column 8"),
            ("{\"a\": -NaN}", "invalid number at line 1 column 8"),
            ("\u{feff}", "EOF while parsing a value at line 1 column 0"),
        ] {
            assert_eq!(read::<Value>(text.as_bytes()).unwrap_err().to_string(), message, "{text}");
        }
        for bytes in [&b"\xff\xfe{\0}\0"[..], b"\xfe\xff\0{\0}"] {
            let message = read::<Value>(bytes).unwrap_err().to_string();
            assert_eq!(message, "found a file in UTF-16, expected UTF-8");
        }
    }

    #[test]
    fn whole_numbers_are_whole_however_they_are_written() {
        for (text, expected) in
            [("50", Some(50)), ("50.0", Some(50)), ("5e1", Some(50)), ("0.0", Some(0)), ("-0.0", Some(0))]
        {
            assert_eq!(whole(&value(text)), expected, "{text}");
        }
        for text in ["50.5", "-1.0", "-1", "1e300", "\"50\"", "true", "null", "NaN"] {
            assert_eq!(whole(&value(text)), None, "{text}");
        }
        let Value::Object(fields) = value(r#"{"a": 1.0, "b": [2.0, -3.0, 4.5], "c": {"d": 1e300}}"#) else {
            panic!("an object")
        };
        let expected = value(r#"{"a": 1, "b": [2, -3, 4.5], "c": {"d": 1e300}}"#);
        assert_eq!(Value::Object(with_whole_numbers(fields)), expected);
    }
}
