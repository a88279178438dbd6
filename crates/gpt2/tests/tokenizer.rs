//! GPT-2's own vocabulary, as the demo model has it.

use std::path::Path;
use std::sync::LazyLock;

use gpt2::stream::TextStream;
use gpt2::tokenizer::{Encoding, SpecialText, SpecialTokens, Tokenizer};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    Tokenizer::from_directory(&directory).expect("the demo model has GPT-2's tokenizer")
});

#[test]
fn the_notebooks_sentence_has_the_notebooks_ids() {
    let text = "Natural language processing helps computers understand text.";
    let encoding = GPT2.encode_with_offsets(text, SpecialTokens::Parse).expect("encodes");
    assert_eq!(encoding.ids, [35364, 3303, 7587, 5419, 9061, 1833, 2420, 13]);
    assert_eq!(encoding.tokens[..3], ["Natural", "Ġlanguage", "Ġprocessing"]);
    assert_eq!(encoding.offsets[..3], [(0, 7), (7, 16), (16, 27)]);
    assert_eq!(GPT2.token(3303).as_deref(), Some("Ġlanguage"));
    assert_eq!(GPT2.token_bytes(3303), Some(&b" language"[..]));
}

#[test]
fn the_vocabulary_is_gpt2s() {
    assert_eq!(GPT2.vocab_size(), 50257);
    assert_eq!((GPT2.end_of_text(), GPT2.special_ids()), (Some(50256), &[50256][..]));
}

#[test]
fn a_token_that_is_no_whole_character_keeps_its_bytes() {
    let json = |id| serde_json::to_value(GPT2.token_text(id).expect("in the vocabulary")).expect("JSON");
    assert_eq!(json(3303), json!({ "token": " language" }));
    assert_eq!(json(50256), json!({ "token": "<|endoftext|>" }));
    // Of `日` and of `あ`, which are three bytes each; and a space with the first byte of a character.
    assert_eq!(json(33768), json!({ "token": "\u{fffd}", "bytes": [0xe6, 0x97] }));
    assert_eq!(json(2515), json!({ "token": "\u{fffd}", "bytes": [0xe3, 0x81] }));
    assert_eq!(json(12520), json!({ "token": " \u{fffd}", "bytes": [0x20, 0xf0, 0x9f] }));
    // A vocabulary may hold U+FFFD itself, which is a whole character.
    assert_eq!(json(4210), json!({ "token": "\u{fffd}" }));
    assert!(GPT2.token_text(50257).is_err());
}

#[derive(Deserialize)]
struct Golden {
    encodings: Vec<GoldenEncoding>,
    decodings: Vec<GoldenDecoding>,
}

#[derive(Deserialize)]
struct GoldenEncoding {
    text: String,
    ids: Vec<u32>,
    tokens: Vec<String>,
    offsets: Vec<(usize, usize)>,
    plain_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct GoldenDecoding {
    ids: Vec<u32>,
    text: String,
}

#[test]
fn encoding_and_decoding_agree_with_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/tokenizer.json");
    let json = std::fs::read(path).expect("the golden file is part of the repository");
    let golden: Golden = serde_json::from_slice(&json).expect("its format is in testdata/golden/README.md");
    assert!(!golden.encodings.is_empty() && !golden.decodings.is_empty());
    for GoldenEncoding { text, ids, tokens, offsets, plain_ids } in golden.encodings {
        let expected = Encoding { ids, tokens, offsets };
        let found = GPT2.encode_with_offsets(&text, SpecialTokens::Parse).expect("encodes");
        assert_eq!(found, expected, "{text:?}");
        let plain = GPT2.encode(&text, SpecialTokens::AsText).expect("encodes");
        assert_eq!(plain, plain_ids.unwrap_or(expected.ids), "{text:?} as plain text");
    }
    for GoldenDecoding { ids, text } in golden.decodings {
        assert_eq!(GPT2.decode(&ids, SpecialText::Keep).expect("decodes"), text, "{ids:?}");
    }
}

#[test]
fn long_runs_of_spaces_and_letters_are_encoded_whole() {
    for text in [" ".repeat(100_000) + "x", "a".repeat(100_000), "\n \n".repeat(30_000)] {
        let ids = GPT2.encode(&text, SpecialTokens::Parse).expect("encodes");
        assert_eq!(GPT2.decode(&ids, SpecialText::Keep).expect("decodes"), text);
    }
}

/// Text as people write it, and text as they do not.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~\n]{0,80}",
        "( ?([a-z']{1,9}|[0-9]{1,4}|[éß€漢字🎉\u{301}\u{200d}]|<\\|endoftext\\|>|\\s{1,3})){0,30}",
    ]
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in texts()) {
        for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
            let encoding = GPT2.encode_with_offsets(&text, special)?;
            prop_assert_eq!(&GPT2.encode(&text, special)?, &encoding.ids);
            prop_assert_eq!(&GPT2.decode(&encoding.ids, SpecialText::Keep)?, &text);
            prop_assert_eq!(GPT2.decode_bytes(&encoding.ids, SpecialText::Keep)?, text.as_bytes());
            prop_assert!(special == SpecialTokens::Parse || !encoding.ids.contains(&50256));
        }
    }

    #[test]
    fn streamed_pieces_join_to_the_decoded_whole(ids in prop::collection::vec(0..50257u32, 0..40)) {
        let mut stream = TextStream::new(&GPT2, &[]);
        let mut text = String::new();
        for &id in &ids {
            text.push_str(stream.push(id)?);
        }
        text.push_str(stream.finish());
        prop_assert_eq!(text, GPT2.decode(&ids, SpecialText::Skip)?);
    }
}
