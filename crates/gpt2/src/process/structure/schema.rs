//! JSON schemas before `llguidance` reads them: how the text is written, and what is refused.
//!
//! The crate names the keywords that it does not know. Refused here is what it takes and does not keep: there a text would
//! not meet the schema, or would never come to an end.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::pattern;

/// A schema that says how its JSON is written.
///
/// # Errors
/// If it asks for something that would not be kept: a message.
pub(super) fn prepare(schema: &Value) -> Result<Value, String> {
    let mut fields = match schema {
        Value::Object(fields) => fields.clone(),
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err("no value meets the schema `false`".to_owned()),
        other => return Err(format!("a schema must be an object or a boolean, not `{other}`")),
    };
    let schema = Value::Object(fields.clone());
    check(&schema, &schema)?;
    if !ends(&schema, &schema, &mut References::default()) {
        return Err("every text that meets it would have no end: it requires itself".to_owned());
    }
    let mut written = json!({"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false});
    // A name with `\u0061` for `a` would pass for another property. Where control characters may be meant, they need it.
    let text = schema.to_string();
    if !["\"pattern\"", "\\u", "\u{7f}"].iter().any(|needs| text.contains(needs)) {
        written["json_allowed_escapes"] = json!("nrbtf\\\"");
    }
    fields.entry("x-guidance").or_insert(written);
    translate(&mut fields);
    Ok(Value::Object(fields))
}

/// Has patterns and formats read as they are meant, in a schema and all those within it.
fn translate(fields: &mut Map<String, Value>) {
    if let Some(Value::String(pattern)) = fields.get_mut("pattern") {
        *pattern = pattern::translate(pattern);
    }
    if let Some(exact) = fields.get("format").and_then(Value::as_str).and_then(format) {
        fields.remove("format");
        match fields.get_mut("allOf") {
            Some(Value::Array(all)) => all.push(json!({"pattern": exact})),
            _ => drop(fields.insert("allOf".to_owned(), json!([{"pattern": exact}]))),
        }
    }
    for part in
        NAMED.iter().filter_map(|name| fields.get(*name).is_some().then_some(*name)).collect::<Vec<_>>()
    {
        let parts = fields.get_mut(part).and_then(Value::as_object_mut);
        parts.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut).for_each(translate);
    }
    for part in LISTS {
        let parts = fields.get_mut(part).and_then(Value::as_array_mut);
        parts.into_iter().flatten().filter_map(Value::as_object_mut).for_each(translate);
    }
    for part in SINGLE {
        fields.get_mut(part).and_then(Value::as_object_mut).into_iter().for_each(translate);
    }
}

/// An expression for a format of which the crate's own also matches what is none: days and seconds that there are not, and
/// names that are too long.
fn format(name: &str) -> Option<String> {
    const DATE: &str = "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)\
                        |02-(?:0[1-9]|1[0-9]|2[0-8]))\
                        |(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29";
    const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]+)?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
    // At most 253 characters, 63 between two points.
    const HOST: &str = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\
                        |[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,28}[a-zA-Z0-9])?\
                        (?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,28}[a-zA-Z0-9])?){1,7}";
    // At most 64 characters.
    const LOCAL: &str = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,64}\
                         |[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,15}(?:\\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,15}){1,3}";
    Some(match name {
        "date" => format!("^(?:{DATE})$"),
        "time" => format!("^{TIME}$"),
        "date-time" => format!("^(?:{DATE})[tT]{TIME}$"),
        "hostname" => format!("^(?:{HOST})$"),
        "email" => format!("^(?:{LOCAL})@(?:{HOST})$"),
        _ => return None,
    })
}

/// Keywords whose values are schemas by name, in a list, and alone.
const NAMED: [&str; 3] = ["properties", "$defs", "definitions"];
const LISTS: [&str; 5] = ["anyOf", "oneOf", "allOf", "prefixItems", "items"];
const SINGLE: [&str; 3] = ["items", "additionalItems", "additionalProperties"];

/// The schemas within a schema, by the keywords that the crate knows.
fn parts(fields: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let named = NAMED.iter().filter_map(|name| fields.get(*name)?.as_object()).flat_map(Map::values);
    let lists = LISTS.iter().filter_map(|name| fields.get(*name)?.as_array()).flatten();
    let single = SINGLE.iter().filter_map(|name| fields.get(*name));
    named.chain(lists).chain(single).filter(|part| part.is_object())
}

/// Refuses what would not be kept, in a schema and all those within it.
fn check(root: &Value, schema: &Value) -> Result<(), String> {
    let Value::Object(fields) = schema else { return Ok(()) };
    check_object(fields)?;
    check_array(fields)?;
    check_numbers(fields)?;
    let draft = root.get("$schema").and_then(Value::as_str).unwrap_or_default();
    if draft.contains("draft-06") || draft.contains("draft-07") {
        let content = ["contentEncoding", "contentMediaType"].iter().find(|name| fields.contains_key(**name));
        if let Some(name) = content {
            return Err(format!("`{name}` is not supported"));
        }
    }
    if !std::ptr::eq(root, schema) && fields.get("$id").is_some_and(Value::is_string) && refers(schema) {
        return Err("`$ref` within a part that has an `$id` is not supported".to_owned());
    }
    parts(fields).try_for_each(|part| check(root, part))
}

/// Whether a schema has a reference.
fn refers(schema: &Value) -> bool {
    let Value::Object(fields) = schema else { return false };
    fields.contains_key("$ref") || parts(fields).any(refers)
}

/// Refuses names that are only patterns, and a number of properties of which one could be counted twice.
fn check_object(fields: &Map<String, Value>) -> Result<(), String> {
    if fields.get("patternProperties").and_then(Value::as_object).is_some_and(|names| !names.is_empty()) {
        return Err("`patternProperties` is not supported: name the properties in `properties`, or describe all others \
                    in `additionalProperties`"
            .to_owned());
    }
    let required = fields.get("required").and_then(Value::as_array).map_or(0, Vec::len);
    let least = fields.get("minProperties").and_then(Value::as_f64).unwrap_or(0.0);
    let named = fields.get("additionalProperties") == Some(&Value::Bool(false));
    if least > (required as f64).max(1.0) && !named {
        return Err("`minProperties` above 1 is supported only with `additionalProperties: false`: a property could be \
                    counted twice"
            .to_owned());
    }
    Ok(())
}

/// Refuses `additionalItems` where the crate does not read it together with `items`: with one of some keywords between
/// them, or with `prefixItems`.
fn check_array(fields: &Map<String, Value>) -> Result<(), String> {
    const APPLICATORS: [&str; 6] = ["const", "enum", "allOf", "anyOf", "oneOf", "$ref"];
    if !fields.contains_key("additionalItems") {
        return Ok(());
    }
    let place = |name: &str| fields.keys().position(|key| key == name);
    let places = [place("items"), place("additionalItems")];
    let between = |name: &&str| {
        let at = place(name);
        at > places[0].min(places[1]) && at < places[0].max(places[1])
    };
    let beside = APPLICATORS.iter().find(|name| places[0].is_some() && between(name));
    let beside = beside.or(["prefixItems"].iter().find(|name| fields.contains_key(**name)));
    beside.map_or(Ok(()), |name| Err(format!("`additionalItems` is not supported beside `{name}`")))
}

/// Refuses numbers that are not kept exactly.
fn check_numbers(fields: &Map<String, Value>) -> Result<(), String> {
    const BOUNDS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
    let large = |value: &Value| value.as_f64().is_some_and(|x| x.abs() > (1_u64 << 53) as f64);
    for name in BOUNDS {
        if let Some(value) = fields.get(name).filter(|value| large(value) || inexact(value)) {
            return Err(format!("`{name}` with {value}: bounds above 2^53 are not supported"));
        }
    }
    let values = fields.get("enum").and_then(Value::as_array).into_iter().flatten();
    let mut values = fields
        .get("const")
        .map(|value| ("const", value))
        .into_iter()
        .chain(values.map(|value| ("enum", value)));
    if let Some((name, value)) = values.find(|(_, value)| inexact(value)) {
        return Err(format!("`{name}` with {value}: integers above 2^53 are not supported"));
    }
    // The remainder of a number so far, times ten and a digit, must fit into 32 bits.
    const LARGEST: u64 = 400_000_000;
    let digits = |value: &Value| value.as_f64().map(|x| x.abs().to_string().replace('.', ""));
    match fields.get("multipleOf") {
        Some(value)
            if digits(value).is_some_and(|digits| digits.parse().is_ok_and(|x: u64| x <= LARGEST)) =>
        {
            Ok(())
        }
        Some(value) => Err(format!("`multipleOf` with {value}: digits above {LARGEST} are not supported")),
        None => Ok(()),
    }
}

/// Whether a value has an integer that is another one as an `f64`, or may be.
fn inexact(value: &Value) -> bool {
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Number(number) => {
            number.as_u64().is_some_and(|n| n > EXACT)
                || number.as_i64().is_some_and(|n| n.unsigned_abs() > EXACT)
        }
        Value::Array(values) => values.iter().any(inexact),
        Value::Object(fields) => fields.values().any(inexact),
        _ => false,
    }
}

/// References on the way through a schema.
#[derive(Default)]
struct References<'s> {
    /// Those that are being followed.
    open: Vec<&'s str>,
    /// Those whose values can come to an end.
    ending: HashSet<&'s str>,
}

/// Whether a value that meets a schema can come to an end, as far as references, `required` and `minItems` can tell.
fn ends<'s>(root: &'s Value, schema: &'s Value, references: &mut References<'s>) -> bool {
    let Value::Object(fields) = schema else { return true };
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str)
        && !references.ending.contains(reference)
    {
        if references.open.contains(&reference) {
            return false;
        }
        references.open.push(reference);
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        let end = target.is_none_or(|target| ends(root, target, references));
        references.open.pop();
        if !end {
            return false;
        }
        references.ending.insert(reference);
    }
    let list = |name: &str| fields.get(name).and_then(Value::as_array);
    let one_ends = |options: &'s Vec<Value>, references: &mut References<'s>| {
        options.is_empty() || options.iter().any(|option| ends(root, option, references))
    };
    if ["anyOf", "oneOf"].iter().any(|name| list(name).is_some_and(|options| !one_ends(options, references)))
        || list("allOf").is_some_and(|all| !all.iter().all(|part| ends(root, part, references)))
    {
        return false;
    }
    let properties = fields.get("properties").and_then(Value::as_object);
    let property = |name| properties.and_then(|named| named.get(name)).or(fields.get("additionalProperties"));
    let required = list("required").into_iter().flatten().filter_map(Value::as_str);
    let mut object_ends = || {
        let mut schemas = required.clone().filter_map(property);
        schemas.all(|schema| ends(root, schema, references))
    };
    let is =
        |value: &Value, kind: &str| value == kind || value.as_array().is_some_and(|kinds| kinds == &[kind]);
    match fields.get("type") {
        Some(kind) if is(kind, "object") => object_ends(),
        Some(kind) if is(kind, "array") => {
            let least = fields.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
            let first = list("prefixItems").or(list("items")).map_or(&[][..], Vec::as_slice);
            let rest = fields.get("items").filter(|items| items.is_object() && least > first.len());
            first.iter().take(least).chain(rest).all(|item| ends(root, item, references))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_be_kept_is_refused_by_name() {
        let wide = 9_007_199_254_740_993_u64;
        for (schema, expected) in [
            (json!({"patternProperties": {"^a": {}}}), "`patternProperties`"),
            (
                json!({"properties": {"a": {"items": [{"patternProperties": {"^a": {}}}]}}}),
                "`patternProperties`",
            ),
            (
                json!({"anyOf": [true, {"additionalProperties": {"patternProperties": {"": true}}}]}),
                "`patternProperties`",
            ),
            (
                json!({"$defs": {"a": {"allOf": [{"patternProperties": {"b": false}}]}}}),
                "`patternProperties`",
            ),
            (json!({"minProperties": 2}), "counted twice"),
            (json!({"items": {"minProperties": 2, "required": ["a"]}}), "counted twice"),
            (
                json!({"prefixItems": [{}], "additionalItems": false}),
                "`additionalItems` is not supported beside `prefixItems`",
            ),
            (json!({"items": [{}], "anyOf": [{}], "additionalItems": false}), "beside `anyOf`"),
            (json!({"additionalItems": false, "$ref": "#/$defs/a", "items": [{}]}), "beside `$ref`"),
            (json!({"const": wide}), "`const` with 9007199254740993"),
            (json!({"enum": [1, [{"a": -9_007_199_254_740_993_i64}]]}), "`enum` with"),
            (json!({"maximum": wide}), "`maximum` with"),
            (json!({"exclusiveMinimum": -1e20}), "`exclusiveMinimum` with"),
            (json!({"multipleOf": 1_000_000_007}), "`multipleOf` with"),
            (
                json!({"$schema": "http://json-schema.org/draft-07/schema#", "contentEncoding": "base64"}),
                "`contentEncoding`",
            ),
            (
                json!({"items": {"$id": "http://a.b/c", "items": {"$ref": "#/$defs/a"}}}),
                "`$ref` within a part",
            ),
            (json!(["a"]), "an object or a boolean"),
            (json!(false), "no value"),
        ] {
            let error = prepare(&schema).expect_err("it is refused");
            assert!(error.contains(expected), "{schema}: {error}");
        }
        for schema in [
            json!({"patternProperties": {}}),
            json!({"properties": {"patternProperties": {"type": "object"}, "additionalItems": {}, "prefixItems": {}}}),
            json!({"enum": [{"patternProperties": {"a": 1}}], "default": {"minProperties": 7}}),
            json!({"minProperties": 2, "properties": {"a": {}, "b": {}}, "additionalProperties": false}),
            json!({"minProperties": 2, "required": ["a", "b"]}),
            json!({"items": [{}], "additionalItems": false, "allOf": [true]}),
            json!({"anyOf": [true], "additionalItems": false, "items": [{}]}),
            json!({"maximum": 9_007_199_254_740_992_u64, "const": 0.1, "multipleOf": 0.000_01}),
            json!({"contentEncoding": "base64", "$id": "http://a.b/c", "$ref": "#/$defs/a", "$defs": {"a": true}}),
        ] {
            assert_eq!(prepare(&schema).err(), None, "{schema}");
        }
    }

    #[test]
    fn a_schema_without_a_finite_text_is_refused() {
        let list = |next: Value| {
            json!({"$ref": "#/$defs/list", "$defs": {"list": {
                "type": "object", "properties": {"value": {"type": "integer"}, "next": next}, "required": ["next"]
            }}})
        };
        for (schema, endless) in [
            (list(json!({"$ref": "#/$defs/list"})), true),
            (list(json!({"anyOf": [{"$ref": "#/$defs/list"}, {"type": "null"}]})), false),
            (list(json!({"type": "array", "items": {"$ref": "#/$defs/list"}})), false),
            (list(json!({"type": "array", "items": {"$ref": "#/$defs/list"}, "minItems": 1})), true),
            (json!({"$ref": "#"}), true),
            (json!({"type": "object", "properties": {"a": {"$ref": "#"}}}), false),
            (json!({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}), false),
            (json!({"type": ["object"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]}), true),
            (
                json!({"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
                false,
            ),
            (
                json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
                true,
            ),
            (json!({"prefixItems": [{"$ref": "#"}], "type": "array", "minItems": 1}), true),
            (json!({"prefixItems": [{"$ref": "#"}], "type": "array"}), false),
            (json!({"type": "object", "required": ["a"], "additionalProperties": {"$ref": "#"}}), true),
            (json!({"type": "object", "required": ["a"]}), false),
        ] {
            assert_eq!(prepare(&schema).is_err_and(|error| error.contains("no end")), endless, "{schema}");
        }
    }
}
