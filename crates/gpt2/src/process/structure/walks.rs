//! Texts drawn at random from schemas, judged by `jsonschema`.

use llguidance::Matcher;
use serde_json::{Value, json};

use super::grammar::{Grammar, NOTHING_FITS, message};
use crate::generate::StructuredOutputs;
use crate::tokenizer::tests::byte_tokenizer;

/// A text whose bytes are drawn, if it comes to an end.
fn walk(mut matcher: Matcher, seed: u64, most: usize) -> Result<Option<String>, String> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut text = Vec::new();
    for step in 0..most {
        let may_end = matcher.is_accepting().map_err(message)?;
        let mut allowed = Vec::new();
        if !matcher.is_stopped() {
            match matcher.compute_mask().map_err(message) {
                Ok(mask) => mask.iter_set_entries(|id| allowed.push(id as u32)),
                Err(error) if error == NOTHING_FITS => {}
                Err(error) => return Err(format!("{error} after {:?}", String::from_utf8_lossy(&text))),
            }
        }
        allowed.retain(|&id| id < 256);
        if may_end && (allowed.is_empty() || draw(3) == 0) {
            return Ok(Some(String::from_utf8(text).map_err(|error| error.to_string())?));
        }
        if allowed.is_empty() {
            return Err(format!("dead end after {:?}", String::from_utf8_lossy(&text)));
        }
        // Strings and lists come to an end more often than not.
        let closing: Vec<u32> = allowed.iter().copied().filter(|&id| b"\"]}".contains(&(id as u8))).collect();
        let plain: Vec<u32> =
            allowed.iter().copied().filter(|&id| (b' '..127).contains(&(id as u8))).collect();
        let from = match draw(8) {
            _ if step > most / 2 && !closing.is_empty() => &closing,
            0..3 if !closing.is_empty() => &closing,
            3..7 if !plain.is_empty() => &plain,
            _ => &allowed,
        };
        let id = from[draw(from.len())];
        matcher.consume_token(id).map_err(message)?;
        text.push(id as u8);
    }
    Ok(None)
}

/// Schemas of every kind that is not refused.
fn schemas() -> Vec<Value> {
    let mut schemas = Vec::new();
    for format in
        ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
    {
        schemas.push(json!({"type": "string", "format": format}));
        schemas.push(json!({"anyOf": [{"format": format}, {"type": "null"}], "type": ["string", "null"]}));
    }
    schemas.push(json!({"type": "string", "format": "date", "pattern": "-02-", "maxLength": 10}));
    for pattern in [
        "^a",
        "a$",
        "^(a|b)$",
        "^a|b$",
        r"\d{3}",
        r"^\s+$",
        r"^\S+$",
        "^[^a-z]+$",
        "^.$",
        r"^\p{L}+$",
        r"^\x41+$",
        r"^[\w.-]+@[\w.-]+$",
        "^[0-9]+([.][0-9]+)?$",
        r#"^[^"]*$"#,
        r#"^[^"\\]{1,9}$"#,
        "^[^ -~]+$",
        r"^[\x00-\x1f]+$",
        r"^\P{P}+$",
        "[[:alpha:]]",
        r"\W",
        r"\D\d",
        "^(a|)$",
        "^[!--]+$",
        r#"^"\\$"#,
        r"^\x7f?$",
        "^[😀é]+$",
    ] {
        schemas.push(json!({"type": "string", "pattern": pattern}));
        schemas.push(json!({"pattern": pattern, "maxLength": 5, "type": ["string", "boolean"]}));
    }
    for strings in [
        json!({"minLength": 3}),
        json!({"maxLength": 0}),
        json!({"minLength": 2, "maxLength": 2}),
        json!({"const": "a\"b\\c\né😀"}),
        json!({"enum": ["/", "\t", "\u{7f}"]}),
    ] {
        schemas.push(json!({"type": "string", "allOf": [strings]}));
    }
    for numbers in [
        json!({"minimum": 0, "maximum": 99}),
        json!({"exclusiveMinimum": 0, "exclusiveMaximum": 1000}),
        json!({"minimum": -20, "maximum": 20, "multipleOf": 7}),
        json!({"minimum": 1, "maximum": 5, "multipleOf": 0.5}),
        json!({"minimum": -3.5, "maximum": -1}),
    ] {
        schemas.push(json!({"type": "number", "allOf": [numbers]}));
        schemas.push(json!({"type": ["integer", "null"], "allOf": [numbers]}));
    }
    for value in [
        json!(0.1),
        json!(1e5),
        json!(-3),
        json!(9_007_199_254_740_991_i64),
        json!({"b": 1, "a": [true, null]}),
    ] {
        schemas.push(json!({"const": value}));
        schemas.push(json!({"enum": [value, "x", null]}));
    }
    for arrays in [
        json!({"items": {"type": "boolean"}}),
        json!({"prefixItems": [{"type": "integer"}, {"type": "null"}], "items": false}),
        json!({"prefixItems": [{"type": "null"}], "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}),
        json!({"items": false}),
        json!({"items": {"enum": [1, "a"]}, "anyOf": [{"minItems": 2}, {"maxItems": 0}]}),
    ] {
        let Value::Object(mut fields) = arrays else { unreachable!("they are objects") };
        fields.insert("type".to_owned(), json!("array"));
        schemas.push(Value::Object(fields));
    }
    let properties =
        json!({"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", "y"]}});
    for objects in [
        json!({}),
        json!({"required": ["a"]}),
        json!({"additionalProperties": false}),
        json!({"required": ["c"]}),
        json!({"additionalProperties": {"type": "string", "maxLength": 2}}),
        json!({"maxProperties": 1, "additionalProperties": false}),
        json!({"minProperties": 1, "additionalProperties": false}),
        json!({"required": ["a", "b"], "maxProperties": 3}),
        json!({"allOf": [{"properties": {"a": {"maximum": 5}}}, {"required": ["b"]}]}),
        json!({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
    ] {
        let Value::Object(mut fields) = objects else { unreachable!("they are objects") };
        fields.insert("type".to_owned(), json!("object"));
        fields.insert("properties".to_owned(), properties.clone());
        schemas.push(Value::Object(fields));
    }
    schemas.extend([
        json!({"type": "object", "properties": {"a": false, "b": true}}),
        json!({"type": "object", "maxProperties": 2}),
        json!({"type": "object", "properties": {"a\"b": {"type": "null"}, "": {"type": "null"}}, "required": ["", "a\"b"],
               "additionalProperties": false}),
        json!({"oneOf": [{"type": "integer"}, {"type": "string"}]}),
        json!({"allOf": [{"type": "string"}, {"maxLength": 3}, {"pattern": "^a"}]}),
        json!({"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}),
        json!({"type": "object", "properties": {"c": {"$ref": "#"}}, "additionalProperties": false}),
    ]);
    schemas
}

#[test]
fn texts_that_are_drawn_at_random_meet_their_schemas() {
    let vocabulary = byte_tokenizer().vocabulary();
    let (mut wrong, mut ended) = (Vec::new(), 0);
    for schema in schemas() {
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
        let grammar = Grammar::new(&StructuredOutputs::Json(schema.clone()), vocabulary.clone());
        let grammar = grammar.unwrap_or_else(|error| panic!("{schema}: {error}"));
        for seed in 0..60 {
            let judged = match walk(grammar.matcher(), seed, 200) {
                Ok(None) => continue,
                // JSON sets no limit to numbers; the parser does.
                Ok(Some(text))
                    if serde_json::from_str::<Value>(&text)
                        .is_err_and(|e| e.to_string().starts_with("number out of range")) =>
                {
                    continue;
                }
                Ok(Some(text)) => {
                    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}")).and_then(
                        |value: Value| validator.validate(&value).map_err(|error| format!("{error}: {text}")),
                    )
                }
                Err(error) => Err(error),
            };
            ended += 1;
            wrong.extend(judged.err().map(|error| format!("{schema}: {error}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ended > 5000, "only {ended} texts came to an end");
}

#[test]
fn a_name_is_not_written_in_another_way_to_be_another_property() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "null"}});
    let grammar =
        Grammar::new(&StructuredOutputs::Json(schema), byte_tokenizer().vocabulary()).expect("a schema");
    for (text, whole) in [
        (r#"{"a": 1}"#, true),
        (r#"{"b": null}"#, true),
        (r#"{"b": 1}"#, false),
        (r#"{"a": null}"#, false),
        (r#"{"\u0061": null}"#, false),
        (r#"{"a\n": null}"#, true),
    ] {
        assert_eq!(grammar.accepts_text(text), whole, "{text}");
    }
}
