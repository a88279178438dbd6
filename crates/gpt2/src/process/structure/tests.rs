//! The processor by itself, on a vocabulary of nine tokens.

use serde_json::json;

use super::*;
use crate::generate::StructuredOutputs;
use crate::tokenizer::Tokenizer;

/// A tokenizer of single letters, two longer tokens, and an end token that is special.
fn tokenizer() -> Tokenizer {
    let json = json!({
        "added_tokens": [{
            "id": 8, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false
        }],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
        "model": {
            "type": "BPE",
            "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "1": 5, "\"": 6, "\u{ff}": 7, "<|end|>": 8},
            "merges": [["a", "b"], ["ab", "c"]],
        },
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).expect("a tokenizer")
}

fn grammar(outputs: &StructuredOutputs) -> Result<Grammar, String> {
    Grammar::new(outputs, tokenizer().vocabulary())
}

fn regex(regex: &str) -> Grammar {
    grammar(&StructuredOutputs::Regex(regex.to_owned())).expect("a regular expression")
}

fn of(text: &str) -> Grammar {
    grammar(&StructuredOutputs::Grammar(text.to_owned())).expect("a grammar")
}

fn context(tokens: &[u32], sequence: usize) -> Context<'_> {
    Context { tokens, prompt: 1, sequence, ..Context::default() }
}

#[test]
fn a_tokenizer_is_shared_between_threads_and_has_its_trie_made_once() {
    fn shared<T: Send + Sync>(_: &T) {}
    let tokenizer = tokenizer();
    shared(&tokenizer);
    assert!(std::sync::Arc::ptr_eq(&tokenizer.vocabulary(), &tokenizer.vocabulary()));
}

/// The tokens of a vocabulary of eleven, two of which are padding, that may follow some tokens.
fn allowed(structure: &mut Structure, tokens: &[u32], sequence: usize) -> Vec<u32> {
    let mut scores = Scores::default();
    scores.set(&[0.5; 11]);
    structure.process(&context(tokens, sequence), &mut scores);
    let mut ids = Vec::new();
    scores.candidates(|id, _| ids.push(id));
    ids
}

#[test]
fn tokens_are_allowed_that_go_on_with_the_text_and_ends_where_it_may_end() {
    let mut structure = Structure::new(&regex("(abc)+b?"), &[8], 11).expect("a thread");
    // 9 stands for a prompt that is no part of the text.
    for (tokens, expected) in [
        (&[9][..], &[0, 3, 4][..]),
        (&[9, 0], &[1]),
        (&[9, 3], &[2]),
        (&[9, 4], &[0, 1, 3, 4, 8]),
        (&[9, 3, 2], &[0, 1, 3, 4, 8]),
        // Complete, and nothing may follow.
        (&[9, 4, 1], &[8]),
    ] {
        assert_eq!(allowed(&mut structure, tokens, 0), expected, "{tokens:?}");
        assert!(!structure.ended(&context(tokens, 0)), "an end token is there to be chosen");
    }
}

#[test]
fn neither_padding_nor_special_tokens_nor_broken_bytes_are_ever_allowed() {
    // 7 is the byte 0xff, which no text has; 9 and 10 are padding.
    let mut structure = Structure::new(&regex("(?s:.*)"), &[], 11).expect("a thread");
    assert_eq!(allowed(&mut structure, &[9], 0), [0, 1, 2, 3, 4, 5, 6]);
    let mut structure = Structure::new(&regex("(?s:.*)"), &[8], 11).expect("a thread");
    assert_eq!(allowed(&mut structure, &[9], 0), [0, 1, 2, 3, 4, 5, 6, 8]);
    // An end token need not be one of the tokenizer's.
    for (regex_, before, after) in
        [("ab", &[0, 3][..], &[10][..]), ("(?s:.*)", &[0, 1, 2, 3, 4, 5, 6, 10], &[0, 1, 2, 3, 4, 5, 6, 10])]
    {
        let mut structure = Structure::new(&regex(regex_), &[10], 11).expect("a thread");
        assert_eq!(allowed(&mut structure, &[9], 0), before);
        assert_eq!(allowed(&mut structure, &[9, 3], 0), after);
    }
    // An end token may be an ordinary one.
    let mut structure = Structure::new(&regex("[ab]+"), &[1], 11).expect("a thread");
    assert_eq!(allowed(&mut structure, &[9], 0), [0, 3]);
    assert_eq!(allowed(&mut structure, &[9, 0], 0), [0, 1, 3]);
}

#[test]
fn without_end_tokens_a_text_ends_where_nothing_can_follow() {
    let mut structure = Structure::new(&regex("ab?|c"), &[], 11).expect("a thread");
    for (tokens, ended) in [(&[9][..], false), (&[9, 0], false), (&[9, 3], true), (&[9, 2], true)] {
        assert_eq!(structure.ended(&context(tokens, 0)), ended, "{tokens:?}");
    }
}

#[test]
fn what_is_allowed_is_a_function_of_the_tokens_whatever_was_asked_before() {
    let grammar = regex("(a|bc)*1");
    let paths: [&[u32]; 7] = [&[9], &[9, 0], &[9, 1], &[9, 1, 2], &[9, 0, 0], &[9, 1, 2, 0], &[9, 0, 5]];
    let fresh =
        |tokens: &[u32]| allowed(&mut Structure::new(&grammar, &[8], 11).expect("a thread"), tokens, 0);
    let mut structure = Structure::new(&grammar, &[8], 11).expect("a thread");
    let scores = Scores::default();
    for round in 0..200_usize {
        let tokens = paths[(round * round + round / 7) % paths.len()];
        let sequence = round % 3;
        // Told or not, of what comes or of something else.
        if round % 2 == 0
            && let Some((&last, before)) = tokens.split_last().filter(|(_, before)| !before.is_empty())
        {
            structure.chosen(&context(before, sequence), &scores, last);
        }
        if round % 5 == 0 {
            structure.chosen(&context(&[9], sequence), &scores, 1);
        }
        assert_eq!(allowed(&mut structure, tokens, sequence), fresh(tokens), "round {round}: {tokens:?}");
    }
}

#[test]
fn a_token_outside_the_grammar_is_told_of() {
    let grammar = regex("ab");
    let mut structure = Structure::new(&grammar, &[8], 11).expect("a thread");
    assert!(allowed(&mut structure, &[9, 2], 0).is_empty());
    assert_eq!(grammar.failure(), Some("token 2 was chosen, and the text cannot go on with it"));
}

#[test]
fn a_dead_end_is_told_of_where_a_text_gets_there() {
    // No token spells the second letter.
    let grammar = regex("(ax|b)c?");
    let mut structure = Structure::new(&grammar, &[8], 11).expect("a thread");
    assert_eq!(allowed(&mut structure, &[9], 1), [0, 1]);
    structure.chosen(&context(&[9], 1), &Scores::default(), 0);
    // Another sequence is not concerned.
    assert_eq!(allowed(&mut structure, &[9, 1], 0), [2, 8]);
    assert_eq!(grammar.failure(), None);
    assert!(allowed(&mut structure, &[9, 0], 1).is_empty());
    let told =
        "the regex led into a dead end: the text is not complete after 1 token, and no token can follow";
    assert_eq!(grammar.failure(), Some(told));
}

#[test]
fn what_is_ruled_out_before_stays_so() {
    for few in [false, true] {
        for ids in [&[0, 3, 9][..], &[]] {
            let begin = || {
                let mut scores = Scores::default();
                scores.set(&[1.0, 2.0, f32::NEG_INFINITY, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
                if few {
                    scores.keep(|id, _| id != 9);
                }
                scores
            };
            let (mut kept, mut left) = (begin(), begin());
            kept.keep_ids(ids);
            left.keep(|id, _| ids.contains(&id));
            assert_eq!(kept.all(), left.all());
            let (mut ruled, mut left) = (begin(), begin());
            ruled.rule_out(ids);
            left.keep(|id, _| !ids.contains(&id));
            assert_eq!(ruled.all(), left.all());
        }
    }
}

#[test]
fn a_panic_of_the_thread_reaches_whoever_waits_for_it() {
    // Such a sequence would take more memory than there is.
    let mut structure = Structure::new(&regex("ab"), &[8], 11).expect("a thread");
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        structure.worker.ask(Request { sequence: usize::MAX, number: 99, same: 0, tokens: Vec::new() });
        loop {
            structure.worker.receive();
        }
    }));
    assert!(asked.is_err());
}

#[test]
fn texts_of_a_grammar_are_whole_ones() {
    let whole = |grammar: &Grammar, ids: &[u32]| grammar.accepts(ids);
    let once = regex("(abc)+");
    assert!(once.accepts_text("abcabc") && !once.accepts_text("abca") && !once.accepts_text("abc?"));
    assert!(whole(&once, &[4]) && whole(&once, &[0, 1, 2, 4]) && whole(&once, &[3, 2]));
    assert!(!whole(&once, &[]) && !whole(&once, &[3]) && !whole(&once, &[4, 1]) && !whole(&once, &[4, 8]));
}

#[test]
fn gbnf_is_read_as_llama_cpp_does() {
    // A grammar, texts of it, and texts that are not.
    let cases: [(&str, &[&str], &[&str]); 10] = [
        // The longest literal is not always the right one.
        ("root ::= \"ab\" \"c\" | \"a\" \"b\" \"1\"", &["abc", "ab1"], &["ab", "a1"]),
        ("root ::= [a-c]+ \"1\" # end\n", &["a1", "abcab1"], &["1", "a", "a11"]),
        (
            "root ::= x{2} Y? # two\nx ::= \"a\" |\n  \"b\"\nY ::= \"1\"",
            &["ab", "bb1"],
            &["a", "abb", "ab11"],
        ),
        ("# begin\nroot ::= (\"a\" | \"b\" \"c\"){1,2}", &["a", "bc", "bca"], &["", "aaa", "b"]),
        ("root ::= \"ab\"{2,} \"\"", &["abab", "ababab"], &["ab", "aba"]),
        ("root ::= \"ab\"* | \"c\"", &["", "abab", "c"], &["a", "abc"]),
        ("root ::= \"(\" root \")\" | \"a\" root-2\nroot-2 ::= \"b\" root |", &["a", "aba"], &["ab", "b"]),
        ("root ::= [^a-b\\n] .", &["c1", "1a", "c\""], &["a1", "b1", "c"]),
        ("root ::= \"\\x61\\u0062\" [\\x63\\]] [a-]", &["abca"], &["ab", "abc"]),
        ("root ::= \"\\\"\" [1]* \"\\\"\"\n\n", &["\"\"", "\"11\""], &["\"", "1"]),
    ];
    for (text, inside, outside) in cases {
        assert!(gbnf::is_gbnf(text), "{text}");
        let (grammar, tokenizer) = (of(text), tokenizer());
        let ids =
            |text: &str| tokenizer.encode(text, crate::tokenizer::SpecialTokens::AsText).expect("letters");
        for inside in inside {
            assert!(grammar.accepts(&ids(inside)), "{text}: {inside}");
        }
        for outside in outside {
            assert!(!grammar.accepts(&ids(outside)), "{text}: {outside}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let text = |text: &str| StructuredOutputs::Grammar(text.to_owned());
    let cases = [
        (StructuredOutputs::Regex("(a".into()), "unclosed group"),
        (StructuredOutputs::Regex("a(?=b)".into()), "look-around"),
        (StructuredOutputs::Regex(r"\ba".into()), "lookarounds not supported"),
        (StructuredOutputs::Choice(vec![]), "at least one character"),
        (StructuredOutputs::Choice(vec!["a".into(), String::new()]), "at least one character"),
        (StructuredOutputs::Json(json!({"uniqueItems": true})), "uniqueItems"),
        (StructuredOutputs::Json(json!({"x-guidance": {"lenient": true}, "not": {}})), "not"),
        (StructuredOutputs::Json(json!({"type": "string", "format": "color"})), "Unknown format: color"),
        (StructuredOutputs::Json(json!({"minProperties": 2})), "counted twice"),
        (StructuredOutputs::Json(json!(false)), "no value"),
        (StructuredOutputs::Json(json!(["a"])), "an object or a boolean"),
        (StructuredOutputs::Json(json!({"type": "integer", "minimum": 2, "maximum": 1})), "Unsatisfiable"),
        (
            StructuredOutputs::Json(json!({"patternProperties": {"a": true}})),
            "`patternProperties` is not supported",
        ),
        (text("start: a"), "unknown name"),
        (text("start: <|end|>"), "special tokens"),
        (text("root ::= a"), "no rule `a`"),
        (text("a ::= \"a\""), "no rule `root`"),
        (text("root ::= \"a\"\nroot ::= \"b\""), "line 2"),
        (text("root ::= [b-a]"), "range"),
        (text("root ::= []"), "at least one character"),
        (text("root ::= \"a"), "end of the literal"),
        (text("root ::= \"\\q\""), "escape"),
        (text("root ::= \"\\ud800\""), "4 digits that are a character"),
        (text("root ::= * \"a\""), "something to repeat"),
        (text("root ::= \"a\"{3,1}"), "m up to n"),
        (text("root ::= (\"a\""), "expected `)`"),
        (text("root ::= <[3]>"), "single tokens"),
        (text("root ::= \"a\" )"), "end of the rule"),
    ];
    for (outputs, expected) in cases {
        let message = grammar(&outputs).err().unwrap_or_else(|| panic!("{outputs:?} is taken"));
        assert!(message.contains(expected), "{outputs:?}: {message}");
        assert!(!message.contains("verbose") && !message.contains("backtrace"), "{message}");
    }
}

/// Definitions `0` to `count`, each of which needs the next, and the last of which is a letter.
fn chain(count: usize, needs: impl Fn(serde_json::Value) -> serde_json::Value) -> serde_json::Value {
    let next = |i: usize| (i.to_string(), needs(json!({"$ref": format!("#/$defs/{}", i + 1)})));
    let mut definitions: serde_json::Map<String, serde_json::Value> = (0..count).map(next).collect();
    definitions.insert(count.to_string(), json!({"const": "a"}));
    json!({"$ref": "#/$defs/0", "$defs": definitions})
}

#[test]
fn long_chains_of_definitions_are_followed_or_refused_and_overflow_no_stack() {
    let within: [fn(serde_json::Value) -> serde_json::Value; 6] = [
        |next| next,
        |next| json!({"allOf": [next]}),
        |next| json!({"oneOf": [{"anyOf": [next]}]}),
        |next| json!({"anyOf": [next, false]}),
        |next| json!({"type": "string", "allOf": [next]}),
        |next| json!({"anyOf": [next], "properties": {"b": {"type": "array", "prefixItems": [next]}}}),
    ];
    for needs in within {
        // As deep as is followed, or not followed: an answer either way.
        for count in [6_000, 10_000, 32_000] {
            drop(grammar(&StructuredOutputs::Json(chain(count, needs))));
        }
        let grammar = grammar(&StructuredOutputs::Json(chain(1000, needs)));
        assert!(grammar.is_ok_and(|grammar| grammar.accepts_text("\"a\"")), "{}", needs(json!(true)));
        let error =
            self::grammar(&StructuredOutputs::Json(chain(50_000, needs))).err().expect("it is refused");
        assert!(error.contains("`$ref` leads through"), "{error}");
    }
}
