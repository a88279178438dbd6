//! What a tokenizer promises, on small vocabularies made here.

use std::collections::HashSet;
use std::fs;

use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::bytes::byte_of;
use super::*;

/// Writes a byte as a letter, by the inverse of `byte_of`.
fn letter_of(byte: u8) -> char {
    (0..0x144)
        .filter_map(char::from_u32)
        .find(|&letter| byte_of(letter) == Some(byte))
        .expect("every byte has a letter")
}

/// A `tokenizer.json` of all bytes in order, the merge `he`, and the two special tokens.
fn byte_json() -> Value {
    let mut vocab: serde_json::Map<String, Value> =
        (0..=255).map(|byte| (letter_of(byte).to_string(), json!(byte))).collect();
    vocab.insert("he".to_owned(), json!(256));
    vocab.insert(END_OF_TEXT.to_owned(), json!(257));
    let flags = json!({ "single_word": false, "lstrip": false, "rstrip": false, "normalized": false });
    let added = |id: u32, content: &str, special: bool| {
        let mut token = flags.clone();
        token["id"] = json!(id);
        token["content"] = json!(content);
        token["special"] = json!(special);
        token
    };
    json!({
        "added_tokens": [added(257, END_OF_TEXT, true), added(258, "né e", false)],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
        "post_processor": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true },
        "model": { "type": "BPE", "vocab": vocab, "merges": ["h e"] },
    })
}

fn parse(json: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_bytes(json.to_string().as_bytes())
}

/// A tokenizer whose id of every byte is the byte.
pub(crate) fn byte_tokenizer() -> Tokenizer {
    parse(&byte_json()).expect("the tokenizer is valid")
}

#[test]
fn parts_that_could_do_harm_or_lose_text_are_refused_by_name() {
    let template = json!({
        "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "missing", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
        "pair": [],
        "special_tokens": {},
    });
    for (part, value) in [
        ("normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "////////////" })),
        ("normalizer", json!({ "type": "Lowercase" })),
        ("pre_tokenizer", json!({ "type": "WhitespaceSplit" })),
        ("pre_tokenizer", json!({ "type": "Sequence" })),
        (
            "pre_tokenizer",
            json!({ "type": "Sequence", "pretokenizers": [{ "type": "Digits" }, { "type": "ByteLevel" }] }),
        ),
        (
            "pre_tokenizer",
            json!({ "type": "Split", "pattern": { "Regex": words::PATTERNS[0] }, "behavior": "Isolated" }),
        ),
        ("post_processor", self::template(&["end"])),
        ("post_processor", self::template(&["A", "B"])),
        ("post_processor", self::template(&["none", "A"])),
        ("post_processor", json!({ "type": "TemplateProcessing", "single": "$A" })),
        ("post_processor", json!({ "type": "BertProcessing", "sep": "x", "cls": "y" })),
        (
            "decoder",
            json!({ "type": "Sequence", "decoders": [{ "type": "ByteLevel" }, { "type": "Strip" }] }),
        ),
        ("pre_tokenizer", Value::Null),
        ("post_processor", template),
        ("decoder", json!({ "type": "WordPiece" })),
    ] {
        let mut file = byte_json();
        file[part] = value;
        match parse(&file) {
            Err(TokenizerError::Unsupported { part: found, .. }) => assert_eq!(found, part),
            other => panic!("{part}: {other:?}"),
        }
    }
}

#[test]
fn added_tokens_take_the_white_space_that_they_are_to_take() {
    for (strip, expected) in [("lstrip", "hné e  h"), ("rstrip", "h  né eh")] {
        let mut file = byte_json();
        file["added_tokens"][1][strip] = json!(true);
        let tokenizer = parse(&file).expect(strip);
        let ids = tokenizer.encode("h  né e  h", SpecialTokens::Parse).expect("encodes");
        assert_eq!(tokenizer.decode(&ids, SpecialText::Keep).expect("decodes"), expected, "{strip}");
        assert_eq!(ids.iter().filter(|&&id| id == 258).count(), 1, "{strip}");
    }
}

#[test]
fn an_added_token_that_begins_in_the_white_space_of_another_is_refused() {
    let mut file = byte_json();
    file["added_tokens"][0]["rstrip"] = json!(true);
    assert!(parse(&file).is_ok());
    file["added_tokens"][1]["content"] = json!(" né e");
    let error = parse(&file).expect_err("the two overlap").to_string();
    assert!(error.contains("rstrip") && error.ends_with("found ` né e`"), "{error}");
}

/// A template of tokens and texts, as a `tokenizer.json` writes it.
fn template(pieces: &[&str]) -> Value {
    let piece = |id: &&str| match *id {
        "A" | "B" => json!({ "Sequence": { "id": id, "type_id": 0 } }),
        _ => json!({ "SpecialToken": { "id": id, "type_id": 0 } }),
    };
    json!({
        "type": "TemplateProcessing",
        "single": pieces.iter().map(piece).collect::<Vec<_>>(),
        "pair": [],
        "special_tokens": {
            "end": { "id": "end", "ids": [257], "tokens": [END_OF_TEXT] },
            "two": { "id": "two", "ids": [1, 2], "tokens": ["a", "b"] },
            "none": { "id": "none", "ids": [259], "tokens": ["c"] },
        },
    })
}

#[test]
fn parts_that_do_the_same_are_the_same() {
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false });
    let unsplit = json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": false });
    let split = |pattern: &str, behavior: &str, invert: bool| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": behavior, "invert": invert });
    let [pattern, other] = words::PATTERNS;
    let sequence = |list: &str, parts: Value| json!({ "type": "Sequence", list: parts });
    let text = "the  né he's he<|endoftext|>";
    let expected = byte_tokenizer().encode_with_offsets(text, SpecialTokens::Parse).expect("encodes");
    for (part, value) in [
        ("normalizer", sequence("normalizers", json!([]))),
        ("pre_tokenizer", sequence("pretokenizers", json!([byte_level]))),
        ("pre_tokenizer", sequence("pretokenizers", json!([split(pattern, "Isolated", false), unsplit]))),
        ("pre_tokenizer", sequence("pretokenizers", json!([split(other, "Removed", true), unsplit]))),
        ("post_processor", Value::Null),
        ("post_processor", template(&["A"])),
        ("post_processor", sequence("processors", json!([byte_level, template(&["A"])]))),
        ("decoder", sequence("decoders", json!([byte_level]))),
        ("decoder", sequence("decoders", json!([byte_level, { "type": "Fuse" }]))),
    ] {
        let mut file = byte_json();
        file[part] = value;
        let tokenizer = parse(&file).unwrap_or_else(|error| panic!("{}: {error}", file[part]));
        let found = tokenizer.encode_with_offsets(text, SpecialTokens::Parse).expect("encodes");
        assert_eq!(found, expected, "{}", file[part]);
        let text = tokenizer.decode(&found.ids, SpecialText::Keep).expect("decodes");
        assert_eq!(text, byte_tokenizer().decode(&expected.ids, SpecialText::Keep).expect("decodes"));
    }
}

#[test]
fn two_parts_that_add_tokens_are_refused() {
    let mut file = byte_json();
    let processors = [template(&["end", "A"]), template(&["two", "A"])];
    file["post_processor"] = json!({ "type": "Sequence", "processors": processors });
    let error = parse(&file).expect_err("what the second adds depends on the first").to_string();
    assert!(error.contains("one part that adds tokens"), "{error}");
}

#[test]
fn a_template_puts_its_tokens_around_a_whole_text_and_not_around_a_part() {
    let pair = json!({ "type": "RobertaProcessing", "cls": ["a", 1], "sep": [END_OF_TEXT, 257] });
    let nested =
        json!({ "type": "Sequence", "processors": [template(&["two", "A", "end"]), template(&["A"])] });
    for (value, before, after) in [
        (template(&["end", "A"]), vec![257], vec![]),
        (template(&["two", "end", "A", "end"]), vec![1, 2, 257], vec![257]),
        (nested, vec![1, 2], vec![257]),
        (pair, vec![1], vec![257]),
    ] {
        let mut file = byte_json();
        file["post_processor"] = value;
        let tokenizer = parse(&file).expect("supported");
        for (text, ids) in [("hhe", vec![104, 256]), ("", vec![])] {
            let whole = [&before[..], &ids, &after].concat();
            for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
                assert_eq!(tokenizer.encode(text, special).expect("encodes"), whole);
                assert_eq!(tokenizer.encode_part(text, special).expect("encodes"), ids);
                let encoding = tokenizer.encode_with_offsets(text, special).expect("encodes");
                assert_eq!((&encoding.ids, encoding.tokens.len()), (&whole, whole.len()));
                assert_eq!(encoding.offsets[0], (0, 0));
            }
        }
    }
}

#[test]
fn files_may_begin_with_a_byte_order_mark() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, contents: &str| {
        fs::write(directory.path().join(name), format!("\u{feff}{contents}")).expect("written");
    };
    let json = byte_json();
    write("vocab.json", &json["model"]["vocab"].to_string());
    write("merges.txt", "#version: 0.2\nh e\n");
    write("tokenizer_config.json", r#"{"pad_token": "<pad>"}"#);
    write("special_tokens_map.json", r#"{"sep_token": "<sep>"}"#);
    write("added_tokens.json", r#"{"<sep>": 258}"#);
    let ids = |text| {
        let tokenizer = Tokenizer::from_directory(directory.path()).expect("valid");
        tokenizer.encode(text, SpecialTokens::Parse).expect("encodes")
    };
    assert_eq!(ids("he<sep><pad>"), [256, 258, 259]);
    write("tokenizer.json", &json.to_string());
    fs::remove_file(directory.path().join("added_tokens.json")).expect("removed");
    assert_eq!(ids("hené e<sep><pad>"), [256, 258, 259, 260]);
}

#[test]
fn settings_are_read_as_python_writes_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, contents: &[u8]| {
        fs::write(directory.path().join(name), contents).expect("written");
    };
    write("tokenizer.json", byte_json().to_string().as_bytes());
    let load = || Tokenizer::from_directory(directory.path());
    for length in ["Infinity", "-Infinity", "NaN", "1e30", "1000000000000000019884624838656"] {
        let settings = format!(r#"{{"model_max_length": {length}, "pad_token": "<pad>"}}"#);
        write("tokenizer_config.json", settings.as_bytes());
        write("special_tokens_map.json", format!(r#"{{"x": [{length}]}}"#).as_bytes());
        let ids = load().expect(length).encode("he<pad>", SpecialTokens::Parse).expect("encodes");
        assert_eq!(ids, [256, 259], "{length}");
    }
    for (contents, expected) in [
        (&br#"{"add_prefix_space": NaN}"#[..], "invalid type: string \"NaN\", expected a boolean"),
        (b"{\n\"pad_token\": }", "expected value at line 2 column 14"),
        (b"\xff\xfe{\0}\0", "found a file in UTF-16, expected UTF-8"),
        (b"[Infinity]", "invalid type: sequence, expected an object at line 1 column 0"),
    ] {
        write("tokenizer_config.json", contents);
        let error = load().expect_err(expected);
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert_eq!(source, expected, "{error}");
    }
}

#[test]
fn add_prefix_space_adds_the_space_that_is_documented_and_no_other() {
    let mut file = byte_json();
    file["pre_tokenizer"]["add_prefix_space"] = json!(true);
    let tokenizer = parse(&file).expect("supported");
    for (text, expected) in [("he", " he"), (" he", " he"), ("", ""), ("né ehe", "né e he")] {
        let ids = tokenizer.encode(text, SpecialTokens::Parse).expect("encodes");
        assert_eq!(tokenizer.decode(&ids, SpecialText::Keep).expect("decodes"), expected, "{text:?}");
    }
}

#[test]
fn files_longer_than_any_tokenizer_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let too_long = |result: Result<Tokenizer, TokenizerError>, name: &str| {
        let error = result.expect_err(name);
        assert!(matches!(error, TokenizerError::TooLong { file, .. } if file == name), "{name}: {error}");
    };
    // A hole up to one byte more than is allowed.
    let make = |name: &str, length: usize| {
        let file = File::create(directory.path().join(name)).expect("created");
        file.set_len(length as u64).expect("resized");
    };
    make("vocab.json", 0);
    make("merges.txt", MAX_FILE + 1);
    too_long(Tokenizer::from_directory(directory.path()), "merges.txt");
    make("vocab.json", MAX_FILE + 1);
    too_long(Tokenizer::from_directory(directory.path()), "vocab.json");
    make("tokenizer.json", MAX_FILE + 1);
    too_long(Tokenizer::from_directory(directory.path()), "tokenizer.json");
    too_long(Tokenizer::from_bytes(&vec![0; MAX_FILE + 1]), "tokenizer.json");
}

#[test]
fn letters_and_bytes_are_one_to_one() {
    let letters: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let bytes: HashSet<u8> = letters.iter().filter_map(|&letter| byte_of(letter)).collect();
    assert_eq!((letters.len(), bytes.len()), (256, 256));
    assert_eq!(byte_of('Ġ'), Some(b' '));
    assert_eq!(byte_of('\u{144}'), None);
}

#[test]
fn special_tokens_in_a_text_are_a_choice() {
    let tokenizer = byte_tokenizer();
    let text = "h<|endoftext|>";
    let parsed = tokenizer.encode(text, SpecialTokens::Parse).expect("encodes");
    assert_eq!(parsed, [104, 257]);
    let plain = tokenizer.encode(text, SpecialTokens::AsText).expect("encodes");
    assert_eq!(plain.len(), text.len());
    for ids in [&parsed, &plain] {
        assert_eq!(tokenizer.decode(ids, SpecialText::Keep).expect("decodes"), text);
    }
    assert_eq!(tokenizer.decode(&parsed, SpecialText::Skip).expect("decodes"), "h");
    assert_eq!(tokenizer.decode(&plain, SpecialText::Skip).expect("decodes"), text);
    assert_eq!((tokenizer.special_ids(), tokenizer.end_of_text()), (&[257][..], Some(257)));
}

#[test]
fn added_tokens_that_are_not_special_are_always_found_and_decode_to_their_text() {
    let tokenizer = byte_tokenizer();
    for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
        assert_eq!(tokenizer.encode("né e", special).expect("encodes"), [258]);
    }
    assert_eq!(tokenizer.decode(&[258], SpecialText::Skip).expect("decodes"), "né e");
    assert_eq!(tokenizer.token(258).as_deref(), Some("né e"));
}

#[test]
fn offsets_count_characters_and_share_a_split_one() {
    let encoding = byte_tokenizer().encode_with_offsets("é he", SpecialTokens::Parse).expect("encodes");
    assert_eq!(encoding.ids, [0xc3, 0xa9, 0x20, 256]);
    assert_eq!(encoding.tokens, ["Ã", "©", "Ġ", "he"]);
    assert_eq!(encoding.offsets, [(0, 1), (0, 1), (1, 2), (2, 4)]);
}

#[test]
fn an_empty_text_has_no_tokens() {
    let tokenizer = byte_tokenizer();
    assert!(tokenizer.encode("", SpecialTokens::Parse).expect("encodes").is_empty());
    assert_eq!(tokenizer.decode(&[], SpecialText::Keep).expect("decodes"), "");
}

#[test]
fn bytes_that_are_not_utf8_are_kept_as_bytes_and_replaced_in_text() {
    let tokenizer = byte_tokenizer();
    let ids = [b'a'.into(), 0xe2, 0x82, b'b'.into()];
    assert_eq!(tokenizer.decode(&ids, SpecialText::Keep).expect("decodes"), "a\u{fffd}b");
    assert_eq!(tokenizer.decode_bytes(&ids, SpecialText::Keep).expect("decodes"), b"a\xe2\x82b");
}

#[test]
fn ids_past_the_vocabulary_are_errors_unless_the_model_is_padded() {
    let tokenizer = byte_tokenizer();
    assert_eq!(tokenizer.vocab_size(), 259);
    let error = tokenizer.decode(&[104, 259], SpecialText::Keep).expect_err("259 is unknown");
    assert_eq!(error.to_string(), "token id 259 is not in the vocabulary of 259 tokens");
    let padded = tokenizer.padded_to(264);
    assert_eq!(padded.decode(&[104, 259, 263], SpecialText::Keep).expect("decodes"), "h");
    assert_eq!((padded.token(263), padded.token_bytes(263)), (None, Some(&b""[..])));
    assert_eq!(padded.token_bytes(264), None);
    assert_eq!((padded.vocab_size(), padded.token_bytes(u32::MAX)), (259, None));
}

#[test]
fn a_byte_that_the_vocabulary_lacks_is_an_error_not_a_hole() {
    let mut json = byte_json();
    let vocab = json["model"]["vocab"].as_object_mut().expect("an object");
    let id = vocab.remove("z").expect("a letter");
    vocab.insert("zz".to_owned(), id);
    let tokenizer = parse(&json).expect("valid");
    assert!(tokenizer.encode("he", SpecialTokens::Parse).is_ok());
    json["model"]["unk_token"] = json!(END_OF_TEXT);
    for tokenizer in [tokenizer, parse(&json).expect("valid")] {
        let error = tokenizer.encode("hez", SpecialTokens::Parse).expect_err("there is no `z`");
        assert!(matches!(error, TokenizerError::Unencodable { letter: 'z' }), "{error}");
    }
}

#[test]
fn both_file_formats_give_the_same_tokenizer() {
    let directory = tempfile::tempdir().expect("a directory");
    let json = byte_json();
    let vocab = json["model"]["vocab"].to_string();
    fs::write(directory.path().join("vocab.json"), vocab).expect("written");
    let error = Tokenizer::from_directory(directory.path()).expect_err("no merges");
    assert!(error.to_string().ends_with("missing `tokenizer.json` and `merges.txt`"), "{error}");

    fs::write(directory.path().join("merges.txt"), "#version: 0.2\nh e\n").expect("written");
    let tokenizer = Tokenizer::from_directory(directory.path()).expect("valid");
    let text = "the né he<|endoftext|>";
    let ids = tokenizer.encode(text, SpecialTokens::Parse).expect("encodes");
    assert_eq!(ids, byte_tokenizer().encode(text, SpecialTokens::Parse).expect("encodes"));
    assert_eq!(ids.last(), Some(&257));

    fs::write(directory.path().join("tokenizer.json"), json.to_string()).expect("written");
    let tokenizer = Tokenizer::from_directory(directory.path()).expect("valid");
    assert_eq!(tokenizer.vocab_size(), 259, "`tokenizer.json` comes first");
}

#[test]
fn hostile_files_are_errors() {
    let change = |pointer: &str, value: Value| {
        let mut json = byte_json();
        *json.pointer_mut(pointer).expect("a part of the file") = value;
        json.to_string().into_bytes()
    };
    let mut not_utf8 = byte_json().to_string().into_bytes();
    let quote = not_utf8.iter().position(|&byte| byte == b'h').expect("a letter");
    not_utf8[quote] = 0xff;
    let whole = byte_json().to_string();
    for (what, file, expected) in [
        ("empty", vec![], "is not a byte-level BPE tokenizer's"),
        ("not JSON", b"{]".to_vec(), "is not a byte-level"),
        ("not an object", b"[]".to_vec(), "is not a byte-level"),
        ("truncated", whole.as_bytes()[..whole.len() / 2].to_vec(), "is not a byte-level"),
        ("not UTF-8", not_utf8, "is not a byte-level"),
        ("no vocabulary", change("/model", json!({ "merges": [] })), "is not a byte-level"),
        ("negative id", change("/model/vocab/a", json!(-1)), "is not a byte-level"),
        ("huge id", change("/model/vocab/a", json!(u32::MAX)), "`a` has the id 4294967295"),
        ("shared id", change("/model/vocab/a", json!(98)), "both have the id 98"),
        ("unknown merge", change("/model/merges", json!(["zz top"])), "contradict"),
        ("merge of three", change("/model/merges", json!(["a b c"])), "is not a byte-level"),
        ("merge of one", change("/model/merges", json!([["a"]])), "is not a byte-level"),
        ("wrong model", change("/model/type", json!("Unigram")), "expected model `BPE`, found `Unigram`"),
        (
            "wrong decoder",
            change("/decoder/type", json!("Fuse")),
            "expected decoder `ByteLevel`, found `Fuse`",
        ),
        ("no decoder", change("/decoder", Value::Null), "expected decoder `ByteLevel`, found `none`"),
        (
            "letters",
            change(
                "/added_tokens/1",
                json!({ "content": "é", "id": 0xe9, "special": true, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false }),
            ),
            "expected added token that",
        ),
        ("added id", change("/added_tokens/1/id", json!(999)), "has the id 999, but"),
        ("added empty", change("/added_tokens/1/content", json!("")), "added token `` has the id 258"),
    ] {
        let error = Tokenizer::from_bytes(&file).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    let mut json = byte_json();
    for (part, value) in [("dropout", json!(0.1)), ("continuing_subword_prefix", json!("##"))] {
        json["model"][part] = value;
        assert!(parse(&json).expect_err(part).to_string().contains(part));
        json["model"][part] = Value::Null;
    }
}

#[test]
fn hostile_vocab_and_merges_are_errors() {
    let vocab = br#"{"a": 0, "b": 1, "ab": 2}"#;
    for (merges, expected) in [
        (&b"a b\nc d\n"[..], "contradict"),
        (b"a b\nab\n", "line 2 of `merges.txt`"),
        (b"a b c\n", "line 1 of `merges.txt`"),
        (b"\xff\xfe\n", "`merges.txt` is not UTF-8"),
    ] {
        let error = Tokenizer::from_vocab_and_merges(vocab, merges, Settings::default())
            .expect_err(expected)
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let from = |vocab| Tokenizer::from_vocab_and_merges(vocab, b"", Settings::default());
    assert!(from(b"").is_err());
    let empty = from(b"{}").expect("an empty vocabulary is a vocabulary");
    assert_eq!((empty.vocab_size(), empty.end_of_text()), (0, None));
    assert!(empty.encode("a", SpecialTokens::Parse).is_err());
}
