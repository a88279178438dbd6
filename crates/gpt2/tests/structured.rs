//! Structured outputs: what is complete matches, and what is cut off says so.
//!
//! Schemas and expressions are drawn, and taken from JSON Schema's public tests, by `tools/golden/structured.py`. Texts of
//! the demo model are judged by the crates `jsonschema` and `regex`, which know nothing of how they were made.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use gpt2::generate::{
    Batch, BatchEvent, Completion, DolaHalf, DolaLayers, FinishReason, Generate, GenerateError,
    GenerationConfig, StructuredOutputs,
};
use gpt2::model::Formats;
use gpt2::pretrained::Pretrained;
use gpt2::tokenizer::SpecialTokens;
use gpt2_kernels::{Cpu, Kernels, WeightFormat};
use serde::Deserialize;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn demo(threads: usize) -> Pretrained {
    let formats = Formats { weights: WeightFormat::Int8, ..Formats::default() };
    let cpu = Cpu::new(Kernels::detect(), threads);
    Pretrained::from_directory(root().join("models/demo"), cpu, formats).expect("the demo model")
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = root().join("testdata/golden/structured").join(name);
    serde_json::from_slice(&std::fs::read(path).expect(name)).expect(name)
}

#[derive(Deserialize)]
struct Drawn {
    schemas: Vec<Value>,
    regexes: Vec<String>,
}

/// A schema of the public tests, and values that meet it or do not.
#[derive(Deserialize)]
struct Group {
    about: String,
    schema: Value,
    tests: Vec<(Value, bool)>,
}

fn request<'m>(gpt2: &'m Pretrained, outputs: &StructuredOutputs, tokens: usize) -> Generate<'m> {
    let request = gpt2.generate("The answer is").expect("a prompt").max_new_tokens(tokens);
    request.structured_outputs(outputs.clone())
}

/// The same with a way of choosing that is another one for every number.
fn varied<'m>(
    gpt2: &'m Pretrained,
    outputs: &StructuredOutputs,
    tokens: usize,
    number: usize,
) -> Generate<'m> {
    let request = request(gpt2, outputs, tokens).seed(number as u64).do_sample(!number.is_multiple_of(4));
    match number % 4 {
        0 => request,
        1 => request.top_k(0),
        2 => request.temperature(0.7).top_p(0.95),
        _ => request.temperature(1.5).top_k(0).with(|config| config.repetition_penalty = Some(1.2)),
    }
}

fn one(request: Generate<'_>) -> Completion {
    let mut texts = request.run().expect("a text");
    assert_eq!(texts.len(), 1);
    texts.remove(0)
}

/// A judge of texts: whether one is whole.
type Judge<'a> = dyn Fn(&str) -> Result<(), String> + 'a;

/// Checks a text that was generated with so many tokens at most, and says whether it is complete.
fn check(text: &Completion, tokens: usize, judge: &Judge<'_>) -> Result<bool, String> {
    let found = &text.text;
    match (text.complete, text.finish) {
        (Some(true), Some(FinishReason::Eos | FinishReason::Length)) => judge(found).map(|()| true),
        (Some(false), Some(FinishReason::Length)) if text.tokens.len() == tokens => Ok(false),
        end => Err(format!("ends with {end:?} after {} tokens: {found:?}", text.tokens.len())),
    }
}

/// Whether a text is JSON, or the beginning of it. Numbers may be larger than any `f64`: JSON sets no limit to them.
fn begins_json(text: &str) -> bool {
    serde_json::from_str::<Value>(text).map_or_else(|error| error.is_eof() || too_large(&error), |_| true)
}

fn too_large(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("number out of range")
}

fn validate(schema: &Value, text: &str) -> Result<(), String> {
    let value: Value = match serde_json::from_str(text) {
        Err(error) if too_large(&error) => return Ok(()),
        value => value.map_err(|error| format!("{error}: {text:?}"))?,
    };
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| error.to_string())?;
    validator.validate(&value).map_err(|error| format!("{error}: {text:?}"))
}

#[test]
fn texts_meet_the_schemas_that_were_drawn() {
    let gpt2 = demo(2);
    let mut wrong = String::new();
    let (mut complete, mut cut, mut refused) = (0, 0, 0);
    let schemas = read::<Drawn>("drawn.json").schemas;
    assert!(schemas.len() >= 170);
    for (index, schema) in schemas.iter().enumerate() {
        let outputs = StructuredOutputs::Json(schema.clone());
        if schema.to_string().contains(r#""patternProperties":{""#) {
            let error = varied(&gpt2, &outputs, 200, index).run().expect_err("it is refused").to_string();
            assert!(error.contains("`patternProperties` is not supported"), "{error}");
            refused += 1;
            continue;
        }
        for number in [index, index + 1] {
            let text = one(varied(&gpt2, &outputs, 200, number));
            match check(&text, 200, &|text| validate(schema, text)) {
                Ok(true) => complete += 1,
                Ok(false) if begins_json(&text.text) => cut += 1,
                Ok(false) => drop(writeln!(wrong, "{index}: {schema}\n  no beginning: {:?}", text.text)),
                Err(message) => drop(writeln!(wrong, "{index}: {schema}\n  {message}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    // Fractions of numbers and lists without an end may go on.
    assert!(complete >= 290 && refused == 9, "{complete} complete, {cut} cut off, {refused} refused");
}

#[test]
fn texts_match_the_expressions_that_were_drawn() {
    let gpt2 = demo(2);
    let mut wrong = String::new();
    let (mut complete, mut cut) = (0, 0);
    let regexes = read::<Drawn>("drawn.json").regexes;
    assert!(regexes.len() >= 80);
    for (index, regex) in regexes.iter().enumerate() {
        let outputs = StructuredOutputs::Regex(regex.clone());
        let whole = regex::Regex::new(&format!(r"\A(?:{regex})\z")).expect("an expression");
        let judge = |text: &str| whole.is_match(text).then_some(()).ok_or(format!("no match: {text:?}"));
        for number in [index, index + 1] {
            let text = one(varied(&gpt2, &outputs, 40, number));
            match check(&text, 40, &judge) {
                Ok(true) => complete += 1,
                Ok(false) => cut += 1,
                Err(message) => drop(writeln!(wrong, "{index}: {regex:?}\n  {message}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(complete >= 140, "{complete} complete, {cut} cut off");
}

#[test]
fn texts_meet_the_schemas_of_the_public_tests() {
    let gpt2 = demo(2);
    let mut wrong = String::new();
    let (mut complete, mut cut, mut taken, mut tests, mut missing) = (0, 0, 0, 0, 0);
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for (index, Group { about, schema, tests: values }) in
        read::<Vec<Group>>("suite.json").into_iter().enumerate()
    {
        let outputs = StructuredOutputs::Json(schema.clone());
        let mut generation = match varied(&gpt2, &outputs, 40, index).text() {
            Ok(generation) => generation,
            Err(GenerateError::Structure { kind: "json", message }) => {
                reasons(&message).into_iter().for_each(|reason| *refused.entry(reason).or_default() += 1);
                continue;
            }
            Err(error) => panic!("{about}: {error}"),
        };
        taken += 1;
        for (value, valid) in &values {
            let text = written(value);
            let ids = gpt2.tokenizer.encode(&text, SpecialTokens::AsText).expect("any text");
            let accepted = generation.generation().complete(&ids).expect("there is a structure");
            tests += 1;
            missing += usize::from(*valid && !accepted);
            if accepted && !valid {
                let _ = writeln!(wrong, "{about}: {schema}\n  takes {text}");
            }
        }
        generation.by_ref().try_for_each(|delta| delta.map(drop)).expect("a text");
        let text = generation.into_completions().remove(0);
        match check(&text, 40, &|text| validate(&schema, text)) {
            Ok(true) => complete += 1,
            Ok(false) if begins_json(&text.text) => cut += 1,
            Ok(false) => drop(writeln!(wrong, "{about}: {schema}\n  no beginning: {:?}", text.text)),
            Err(message) => drop(writeln!(wrong, "{about}: {schema}\n  {message}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    // A schema counts for each of the keywords that are not supported.
    let expected = [
        ("$dynamicAnchor", 1),
        ("$dynamicRef", 3),
        ("Expected positive integer for", 12),
        ("Reference segment", 4),
        ("Unsatisfiable schema", 10),
        ("Value for", 2),
        ("`$ref` within a part that has an `$id` is not supported", 13),
        ("`oneOf` is supported only where its alternatives cannot overlap", 16),
        ("`patternProperties` is not supported", 19),
        ("contains", 25),
        ("dependencies", 7),
        ("dependentRequired", 4),
        ("dependentSchemas", 7),
        ("else", 16),
        ("if", 25),
        ("maxContains", 7),
        ("minContains", 9),
        ("no value meets the schema `false`", 2),
        ("not", 19),
        ("only references within the schema (`#", 38),
        ("propertyNames", 14),
        ("then", 18),
        ("unevaluatedItems", 26),
        ("unevaluatedProperties", 39),
        ("uniqueItems", 12),
    ];
    let expected: BTreeMap<String, usize> =
        expected.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
    assert_eq!(refused, expected);
    assert_eq!((taken, tests, missing), (262, 882, 25));
    assert!(complete >= 210 && cut < 50, "{complete} complete, {cut} cut off");
}

/// Why a schema is refused, in short: the keywords, or the beginning of the message.
fn reasons(message: &str) -> Vec<String> {
    let keywords = message.strip_prefix("Unimplemented keys: ");
    keywords.map_or_else(
        || vec![message.split([':', ';', '\'', '/', '.']).next().unwrap_or_default().trim().to_owned()],
        |list| serde_json::from_str(list).expect("a list of texts"),
    )
}

/// A value as the schemas have it written.
fn written(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{}: {}", json!(name), written(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

fn choice(texts: &[&str]) -> StructuredOutputs {
    StructuredOutputs::Choice(texts.iter().map(|&text| text.to_owned()).collect())
}

fn regex(regex: &str) -> StructuredOutputs {
    StructuredOutputs::Regex(regex.to_owned())
}

#[test]
fn a_choice_gives_one_of_the_texts_whatever_the_mode() {
    let gpt2 = demo(2);
    // One begins with another, some with signs that mean something in expressions.
    let texts = [" yes", " yes, sir", " no", "^.*$", "C++ (1)", "a\nb", "/"];
    let mut seen = BTreeMap::new();
    for seed in 0..40 {
        let request =
            request(&gpt2, &choice(&texts), 30).do_sample(seed > 0).temperature(3.0).top_k(0).seed(seed);
        let text = one(request);
        assert_eq!((text.finish, text.complete), (Some(FinishReason::Eos), Some(true)), "{text:?}");
        assert!(texts.contains(&&*text.text), "{text:?}");
        *seen.entry(text.text).or_insert(0) += 1;
    }
    assert!(seen.len() >= 3, "{seen:?}");
    type Change = fn(&mut GenerationConfig);
    let changes: [Change; 3] = [
        |config| config.guidance_scale = Some(2.0),
        |config| config.token_healing = Some(true),
        |config| config.mirostat = Some(2),
    ];
    for change in changes {
        let text = one(request(&gpt2, &choice(&texts), 30).with(change));
        assert!(text.complete == Some(true) && texts.contains(&&*text.text), "{text:?}");
    }
}

#[test]
fn texts_are_the_same_whatever_the_threads_and_what_else_is_generated() {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let outputs =
        [StructuredOutputs::Json(schema.clone()), regex("([a-z]+ ){3,8}end"), choice(&["a", "b", "abc"])];
    let (alone, together) = (demo(1), demo(2));
    for outputs in &outputs {
        let several = |gpt2: &Pretrained, count: usize| {
            let request =
                request(gpt2, outputs, 40).do_sample(true).top_k(0).seed(5).num_return_sequences(count);
            request.run().expect("texts")
        };
        let texts = several(&together, 6);
        assert_eq!(texts, several(&alone, 6));
        assert_eq!(texts[..1], several(&together, 1));
        assert!(texts.iter().any(|text| text.text != texts[0].text), "{texts:?}");
        assert!(texts.iter().all(|text| text.complete.is_some()), "{texts:?}");
    }
    for text in request(&together, &outputs[0], 60)
        .do_sample(true)
        .seed(1)
        .num_return_sequences(4)
        .run()
        .expect("texts")
    {
        assert_eq!((text.complete, validate(&schema, &text.text)), (Some(true), Ok(())));
    }
}

#[test]
fn a_text_that_is_cut_off_is_the_beginning_of_a_longer_one() {
    let gpt2 = demo(2);
    for outputs in [regex("([a-z]{2,3} ){40}[0-9]"), StructuredOutputs::JsonObject, regex("(日本|é|ü){60}")]
    {
        let text = |tokens| one(request(&gpt2, &outputs, tokens).do_sample(true).top_k(0).seed(3));
        let long = text(120);
        assert!(long.tokens.len() > 30, "{long:?}");
        for tokens in [1, 2, 7, 30] {
            let short = text(tokens);
            assert_eq!(
                (short.finish, short.complete),
                (Some(FinishReason::Length), Some(false)),
                "{short:?}"
            );
            assert_eq!(short.tokens, long.tokens[..tokens]);
        }
    }
}

#[test]
fn without_end_tokens_a_text_ends_when_it_is_complete() {
    let gpt2 = demo(2);
    let endless = |outputs: &StructuredOutputs| {
        let request = request(&gpt2, outputs, 40).do_sample(true).num_return_sequences(3);
        request.with(|config| config.eos_token_id = Some(Vec::new())).run().expect("texts")
    };
    for text in endless(&choice(&["one", "two", "three"])) {
        assert_eq!((text.finish, text.complete), (Some(FinishReason::Stop), Some(true)), "{text:?}");
        assert!(["one", "two", "three"].contains(&&*text.text), "{text:?}");
    }
    for text in endless(&StructuredOutputs::Json(
        json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 2}),
    )) {
        assert_eq!((text.finish, text.complete), (Some(FinishReason::Stop), Some(true)), "{text:?}");
    }
    // This may always go on, and is complete wherever it is cut off.
    for text in endless(&regex("[a-z ]*")) {
        assert_eq!((text.finish, text.complete), (Some(FinishReason::Length), Some(true)), "{text:?}");
        assert_eq!(text.tokens.len(), 40);
    }
}

#[test]
fn an_end_token_may_be_an_ordinary_one() {
    let gpt2 = demo(2);
    let dot = gpt2.tokenizer.encode(".", SpecialTokens::AsText).expect("a text");
    for outputs in [regex("[a-z]{3}"), choice(&["x.y", "xy"])] {
        let request = request(&gpt2, &outputs, 20).with(|config| config.eos_token_id = Some(dot.clone()));
        let text = one(request);
        assert_eq!((text.finish, text.complete), (Some(FinishReason::Eos), Some(true)), "{text:?}");
        assert!(!text.text.contains('.') && text.tokens.ends_with(&dot), "{text:?}");
    }
}

#[test]
fn what_a_stop_string_leaves_is_judged_as_it_stands() {
    let gpt2 = demo(2);
    for (expression, whole) in [("ab;c", false), ("ab(;c)?", true)] {
        let text = one(request(&gpt2, &regex(expression), 20).stop(";").with(|config| {
            // The end is not to come before the stop string.
            config.min_new_tokens = Some(2);
        }));
        assert_eq!((&*text.text, text.finish), ("ab", Some(FinishReason::Stop)), "{text:?}");
        assert_eq!(text.complete, Some(whole));
    }
}

#[test]
fn grammars_of_both_kinds_give_texts_of_the_grammar() {
    let gpt2 = demo(2);
    let lark = "start: expr\nexpr: term (/[+*]/ term)*\nterm: /[0-9]{1,3}/ | \"(\" expr \")\"";
    let gbnf = "root ::= term ([+*] term)* # a sum\nterm ::= [0-9]{1,3} | \"(\" root \")\"";
    for grammar in [lark, gbnf] {
        let outputs = StructuredOutputs::Grammar(grammar.to_owned());
        let mut complete = 0;
        for seed in 0..12 {
            let text = one(request(&gpt2, &outputs, 60).do_sample(true).temperature(2.0).seed(seed));
            let (mut depth, mut after_term) = (0, false);
            for c in text.text.chars() {
                match c {
                    '(' if !after_term => depth += 1,
                    ')' if after_term && depth > 0 => depth -= 1,
                    '+' | '*' if after_term => after_term = false,
                    '0'..='9' => after_term = true,
                    _ => panic!("{text:?}"),
                }
            }
            assert_eq!(text.complete, Some(after_term && depth == 0), "{text:?}");
            complete += usize::from(text.complete == Some(true));
        }
        assert!(complete > 0, "{grammar}");
    }
}

#[test]
fn what_cannot_be_is_an_error_that_says_so() {
    let gpt2 = demo(2);
    let outputs = choice(&["yes", "no"]);
    type Change = fn(&mut GenerationConfig);
    let excluded: [(Change, &str); 7] = [
        (|config| config.dola_layers = Some(DolaLayers::Half(DolaHalf::Low)), "dola_layers"),
        (|config| config.num_beams = Some(3), "num_beams"),
        (
            |config| {
                (config.num_beams, config.num_beam_groups, config.diversity_penalty) =
                    (Some(4), Some(2), Some(1.0))
            },
            "num_beams",
        ),
        (|config| (config.penalty_alpha, config.top_k) = (Some(0.6), Some(4)), "penalty_alpha"),
        (|config| config.forced_bos_token_id = Some(5), "forced_bos_token_id"),
        (|config| config.forced_eos_token_id = Some(vec![5]), "forced_eos_token_id"),
        (|config| config.remove_invalid_values = Some(true), "remove_invalid_values"),
    ];
    for (change, other) in excluded {
        let error = request(&gpt2, &outputs, 9).with(change).run().expect_err(other).to_string();
        assert_eq!(error, format!("`structured_outputs` cannot be combined with `{other}`"));
    }
    // Others may leave nothing of what is allowed.
    let all: Vec<u32> = (0..50_256).collect();
    let error = request(&gpt2, &outputs, 9).with(|config| config.suppress_tokens = Some(all)).run();
    assert!(matches!(error, Err(GenerateError::NoTokenLeft { .. })), "{error:?}");
    let no_tokenizer = gpt2.model.generate(&[1]).structured_outputs(outputs.clone()).tokens().err();
    assert!(
        matches!(no_tokenizer, Some(GenerateError::NoTokenizer("structured_outputs"))),
        "{no_tokenizer:?}"
    );
    let error = request(&gpt2, &regex("(a"), 9).run().expect_err("no expression").to_string();
    assert!(
        error.starts_with("`structured_outputs` (`regex`): ") && error.contains("unclosed group"),
        "{error}"
    );
}

#[test]
fn a_trace_shows_the_step() {
    let gpt2 = demo(2);
    let request = request(&gpt2, &choice(&["yes", "no"]), 9).do_sample(true);
    let text = one(request.details(gpt2::generate::DetailsRequest { alternatives: 0, trace: true }));
    let trace = text.details[0].trace.as_ref().expect("it was asked for");
    let step = &trace.steps[0];
    // `y`, `ye`, `yes`, `n` and `no`.
    assert_eq!((step.name, step.left), ("structured_outputs", 5));
}

#[test]
fn texts_are_the_same_with_guesses_and_in_a_batch() {
    let gpt2 = demo(2);
    // A list that repeats itself, so that guesses are right now and then.
    let list = json!({"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 12, "maxItems": 20});
    let outputs = [StructuredOutputs::Json(list), regex("(the (old|sea) ?)+"), choice(&["yes", "no"])];
    let mut batch = Batch::new(&gpt2.model, 3);
    let mut alone = Vec::new();
    for (index, outputs) in (0..).zip(&outputs) {
        for seed in [None, Some(index)] {
            let plain = || request(&gpt2, outputs, 60).do_sample(seed.is_some()).seed(seed.unwrap_or(0));
            let text = plain().run().expect("a text");
            assert!(text[0].complete.is_some());
            let lookup = plain().with(|config| config.prompt_lookup_num_tokens = Some(6));
            assert_eq!(lookup.run().expect("a text"), text);
            // A model that agrees with itself.
            assert_eq!(plain().assistant(&gpt2.model).run().expect("a text"), text);
            batch.push(plain());
            alone.push(text);
        }
    }
    let mut finished = 0;
    for event in batch {
        if let BatchEvent::Finished { request, result, .. } = event {
            assert_eq!(result.expect("texts"), alone[request]);
            finished += 1;
        }
    }
    assert_eq!(finished, alone.len());
}
