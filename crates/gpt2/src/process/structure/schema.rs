//! JSON schemas before `llguidance` reads them: how the text is written, and what is refused.
//!
//! The crate names the keywords that it does not know. Refused here is what it takes and does not keep: there a text would
//! not meet the schema, or would never come to an end.

use std::collections::{HashMap, HashSet};

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
    if !ends(&schema) {
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
                // An integer beyond 64 bits was read as an `f64` and has lost digits already.
                || number.is_f64() && number.as_f64().is_some_and(|x| x.abs() > EXACT as f64)
        }
        Value::Array(values) => values.iter().any(inexact),
        Value::Object(fields) => fields.values().any(inexact),
        _ => false,
    }
}

/// The most stack that it takes to read a schema: `llguidance` recurses through what a schema refers to.
///
/// # Errors
/// If that is more than can be had: a message.
pub(super) fn stack(schema: &Value) -> Result<usize, String> {
    /// What everything else takes.
    const LEAST: usize = 2 << 20;
    /// More than it takes to go one level down.
    const LEVEL: usize = 8 << 10;
    const MOST_LEVELS: usize = 1 << 15;
    let mut references = HashSet::new();
    let height = collect(schema, &mut references);
    // Every reference is followed once: at worst, each of them within the one before.
    let within =
        |reference: &&str| Some(schema.pointer(reference.strip_prefix('#')?).map_or(1, self::height));
    let levels = height + references.iter().filter_map(within).sum::<usize>();
    if levels > MOST_LEVELS {
        return Err(format!(
            "`$ref` leads through up to {levels} levels of the schema, at most {MOST_LEVELS} are supported"
        ));
    }
    Ok(LEAST + levels * LEVEL)
}

/// Collects the references in a value, and tells how deep it is.
fn collect<'s>(value: &'s Value, references: &mut HashSet<&'s str>) -> usize {
    let deepest = match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().map(|part| collect(part, references)).max()
        }
        Value::Array(values) => values.iter().map(|part| collect(part, references)).max(),
        _ => return 0,
    };
    1 + deepest.unwrap_or(0)
}

/// How deep a value is.
fn height(value: &Value) -> usize {
    collect(value, &mut HashSet::new())
}

/// What has to be known of a schema to tell whether a value that meets it can come to an end.
#[derive(Default)]
struct Node {
    /// As many of the nodes that it waits for must end before it does.
    missing: usize,
    /// The nodes that wait for it.
    waiting: Vec<usize>,
}

/// The schemas that have been met, and which of them wait for which.
#[derive(Default)]
struct Graph<'s> {
    nodes: Vec<Node>,
    places: HashMap<*const Value, usize>,
    /// Schemas that have a node and have not been looked into.
    open: Vec<(usize, &'s Value)>,
}

impl<'s> Graph<'s> {
    /// The node of a schema, which is made where there is none.
    fn of(&mut self, schema: &'s Value) -> usize {
        *self.places.entry(schema).or_insert_with(|| {
            self.nodes.push(Node::default());
            self.open.push((self.nodes.len() - 1, schema));
            self.nodes.len() - 1
        })
    }

    /// Has a node wait for a schema.
    fn wait(&mut self, node: usize, schema: &'s Value) {
        let part = self.of(schema);
        self.nodes[part].waiting.push(node);
        self.nodes[node].missing += 1;
    }

    /// Has a node wait for any one of some schemas.
    fn wait_for_any(&mut self, node: usize, options: &'s [Value]) {
        if options.is_empty() {
            return;
        }
        let any = self.nodes.len();
        self.nodes.push(Node { missing: 1, waiting: vec![node] });
        self.nodes[node].missing += 1;
        for option in options {
            let option = self.of(option);
            self.nodes[option].waiting.push(any);
        }
    }

    /// Has a node wait for what a value of its schema cannot be without.
    fn look_into(&mut self, root: &'s Value, node: usize, schema: &'s Value) {
        let Value::Object(fields) = schema else { return };
        let reference = fields.get("$ref").and_then(Value::as_str).and_then(|uri| uri.strip_prefix('#'));
        if let Some(target) = reference.and_then(|pointer| root.pointer(pointer)) {
            self.wait(node, target);
        }
        let list = |name: &str| fields.get(name).and_then(Value::as_array);
        list("anyOf").into_iter().chain(list("oneOf")).for_each(|options| self.wait_for_any(node, options));
        list("allOf").into_iter().flatten().for_each(|part| self.wait(node, part));
        let is = |value: &Value, kind: &str| {
            value == kind || value.as_array().is_some_and(|kinds| kinds == &[kind])
        };
        match fields.get("type") {
            Some(kind) if is(kind, "object") => {
                let properties = fields.get("properties").and_then(Value::as_object);
                let property = |name| {
                    properties.and_then(|named| named.get(name)).or(fields.get("additionalProperties"))
                };
                let required = list("required").into_iter().flatten().filter_map(Value::as_str);
                required.filter_map(property).for_each(|part| self.wait(node, part));
            }
            Some(kind) if is(kind, "array") => {
                let least = fields.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
                let first = list("prefixItems").or(list("items")).map_or(&[][..], Vec::as_slice);
                let rest = fields.get("items").filter(|items| items.is_object() && least > first.len());
                first.iter().take(least).chain(rest).for_each(|item| self.wait(node, item));
            }
            _ => {}
        }
    }
}

/// Whether a value that meets a schema can come to an end, as far as references, `required` and `minItems` can tell.
///
/// Every schema is looked into once, and nothing here recurses: references may form chains and circles of any length.
fn ends(root: &Value) -> bool {
    let mut graph = Graph::default();
    graph.of(root);
    while let Some((node, schema)) = graph.open.pop() {
        graph.look_into(root, node, schema);
    }
    // What waits for nothing ends, and then what waited for that alone.
    let mut ended: Vec<usize> =
        (0..graph.nodes.len()).filter(|&node| graph.nodes[node].missing == 0).collect();
    while let Some(node) = ended.pop() {
        for waiting in std::mem::take(&mut graph.nodes[node].waiting) {
            let missing = &mut graph.nodes[waiting].missing;
            // Of several that one of is enough, all but the first come too late.
            if *missing > 0 {
                *missing -= 1;
                if *missing == 0 {
                    ended.push(waiting);
                }
            }
        }
    }
    graph.nodes[0].missing == 0
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
            (json!({"const": 18_446_744_073_709_551_617_f64}), "`const` with"),
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

    #[test]
    fn long_chains_and_circles_of_references_are_answered_at_once() {
        let reference = |to: usize| json!({"$ref": format!("#/$defs/{to}")});
        let chain = |last: Value| {
            let mut defs: Map<String, Value> =
                (0..50_000).map(|i| (i.to_string(), reference(i + 1))).collect();
            defs.insert("50000".to_owned(), last);
            json!({"$ref": "#/$defs/0", "$defs": defs})
        };
        assert!(ends(&chain(json!({"type": "null"}))));
        assert!(!ends(&chain(reference(0))));
        // Each requires all others, or any one of them.
        let circle = |keyword: &str, last: Value| {
            let others = |i| (0..12).filter(|&j| j != i).map(reference).collect::<Vec<_>>();
            let mut defs: Map<String, Value> =
                (0..12).map(|i| (i.to_string(), json!({keyword: others(i)}))).collect();
            defs.insert("11".to_owned(), last);
            json!({"$ref": "#/$defs/0", "$defs": defs})
        };
        assert!(!ends(&circle("allOf", json!({"allOf": [reference(0)]}))));
        assert!(!ends(&circle("anyOf", json!({"anyOf": [reference(0), reference(1)]}))));
        assert!(ends(&circle("anyOf", json!({"type": "null"}))));
    }
}
