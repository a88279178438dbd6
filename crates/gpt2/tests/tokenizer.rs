//! GPT-2's own vocabulary, as the demo model has it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use gpt2::stream::TextStream;
use gpt2::tokenizer::{Encoding, SpecialText, SpecialTokens, Tokenizer, TokenizerError};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

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

/// The two ways in which a tokenizer is saved.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    VocabAndMerges,
    TokenizerJson,
}

const LAYOUTS: [Layout; 2] = [Layout::VocabAndMerges, Layout::TokenizerJson];

/// Reads GPT-2's tokenizer, changed, out of a directory with other files beside it.
fn load(
    layout: Layout,
    change: impl Fn(&mut Value),
    files: &[(&str, Value)],
) -> Result<Tokenizer, TokenizerError> {
    let json = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/tokenizer.json");
    let json = fs::read(json).expect("the demo model is part of the repository");
    let mut json: Value = serde_json::from_slice(&json).expect("a tokenizer is JSON");
    change(&mut json);
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, contents: String| {
        fs::write(directory.path().join(name), contents).expect("written");
    };
    match layout {
        Layout::TokenizerJson => write("tokenizer.json", json.to_string()),
        Layout::VocabAndMerges => {
            let merges =
                json["model"]["merges"].as_array().expect("a list").iter().map(|merge| match merge {
                    Value::String(merge) => merge.clone(),
                    pair => {
                        format!("{} {}", pair[0].as_str().expect("text"), pair[1].as_str().expect("text"))
                    }
                });
            write("vocab.json", json["model"]["vocab"].to_string());
            write("merges.txt", merges.fold("#version: 0.2\n".to_owned(), |all, line| all + &line + "\n"));
        }
    }
    for (name, contents) in files {
        write(name, contents.to_string());
    }
    Tokenizer::from_directory(directory.path())
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, SpecialTokens::Parse).expect("encodes")
}

/// An added token of `added_tokens_decoder` with a flag.
fn flagged(content: &str, flag: &str) -> Value {
    let mut token = json!({ "content": content, "lstrip": false, "normalized": false, "rstrip": false,
        "single_word": false, "special": false });
    token[flag] = json!(true);
    token
}

/// The ids are those of transformers 5.23, and so is the text without special tokens.
#[test]
fn tokens_of_the_files_beside_a_vocabulary_are_tokens() {
    let speakers = json!({ "<pad>": 50257, "<|speaker1|>": 50258, "<|speaker2|>": 50259 });
    let map = json!({ "pad_token": "<pad>", "additional_special_tokens": ["<|speaker1|>", "<|speaker2|>"] });
    let dialogue = "<|speaker1|>Hello there<|speaker2|> hi<pad>";
    let dialogue_ids: &[u32] = &[50258, 15496, 612, 50259, 23105, 50257];
    let config = |value: Value| ("tokenizer_config.json", value);
    let pad = json!({ "__type": "AddedToken", "content": "<pad>", "lstrip": false, "rstrip": false });
    let mask = json!({ "content": "<mask>", "lstrip": true, "rstrip": false, "normalized": false });
    for (files, text, expected, skipped) in [
        (
            vec![("added_tokens.json", speakers.clone()), ("special_tokens_map.json", map.clone())],
            dialogue,
            dialogue_ids,
            "Hello there hi",
        ),
        (vec![("added_tokens.json", speakers)], dialogue, dialogue_ids, dialogue),
        (vec![("special_tokens_map.json", map)], dialogue, dialogue_ids, "Hello there hi"),
        (vec![config(json!({ "pad_token": "[PAD]" }))], "a[PAD]b", &[64, 50257, 65], "ab"),
        (
            vec![config(json!({ "added_tokens_decoder": {
                "50258": flagged("zqx", "lstrip"), "50257": flagged("<x>", "special") } }))],
            "a<x>b  zqx bar<|endoftext|>",
            &[64, 50257, 65, 50258, 2318, 50256],
            "abzqx bar",
        ),
        (
            vec![config(json!({ "added_tokens_decoder": {
                "50257": flagged("<r>", "rstrip"), "50258": flagged("zqx", "single_word") } }))],
            "a <r>  b zqx zqxim _zqx zqx.",
            &[64, 220, 50257, 65, 220, 50258, 1976, 80, 87, 320, 4808, 89, 80, 87, 220, 50258, 13],
            "a <r>b zqx zqxim _zqx zqx.",
        ),
        // Where `added_tokens_decoder` is there, the older files are not read.
        (
            vec![
                config(json!({ "added_tokens_decoder": { "50257": flagged("<x>", "special") } })),
                ("special_tokens_map.json", json!({ "pad_token": "<pad>" })),
                ("added_tokens.json", json!({ "<y>": 50258 })),
            ],
            "a<x>b<pad>c<y>",
            &[64, 50257, 65, 27, 15636, 29, 66, 27, 88, 29],
            "ab<pad>c<y>",
        ),
        (
            vec![config(
                json!({ "image_token": "<img>", "extra_special_tokens": { "video_token": "<vid>" } }),
            )],
            "a<img>b<vid>",
            &[64, 50257, 65, 50258],
            "ab",
        ),
        (
            vec![config(json!({ "additional_special_tokens": ["<e1>", "<e2>"], "pad_token": pad }))],
            "a<e1>b<e2><pad>",
            &[64, 50258, 65, 50259, 50257],
            "ab",
        ),
        (
            vec![
                config(json!({ "pad_token": "<p1>" })),
                ("special_tokens_map.json", json!({ "pad_token": "<p2>" })),
            ],
            "a<p1>b<p2>",
            &[64, 27, 79, 16, 29, 65, 50257],
            "a<p1>b",
        ),
        (
            vec![("special_tokens_map.json", json!({ "mask_token": mask }))],
            "a <mask> b",
            &[64, 50257, 275],
            "a b",
        ),
        (
            vec![config(json!({ "bos_token": null, "pad_token": null, "add_bos_token": true }))],
            "a",
            &[64],
            "a",
        ),
        (
            vec![(
                "special_tokens_map.json",
                json!({ "additional_special_tokens": ["<b>", "<a>"], "pad_token": "<p>", "my_token": "<my>" }),
            )],
            "<a><b><p><my>",
            &[50260, 50259, 50257, 50258],
            "",
        ),
        (
            vec![
                config(json!({ "extra_special_tokens": ["<a>"], "additional_special_tokens": ["<c>"] })),
                ("special_tokens_map.json", json!({ "extra_special_tokens": ["<b>"] })),
            ],
            "<a><b><c>",
            &[50257, 50258, 27, 66, 29],
            "<c>",
        ),
        (
            vec![config(json!({ "pad_token": "!", "sep_token": "foo" }))],
            "a! foo!",
            &[64, 0, 220, 21943, 0],
            "a ",
        ),
        (
            vec![
                config(json!({ "eos_token": "<eos>", "cls_token": "<cls>" })),
                ("added_tokens.json", json!({ "<cls>": 50257, "<eos>": 50258 })),
            ],
            "<eos><cls><|endoftext|>",
            &[50258, 50257, 50256],
            "",
        ),
        // White space before marks of punctuation stays, whatever is said of it.
        (
            vec![config(json!({ "clean_up_tokenization_spaces": true, "model_max_length": 1e30 }))],
            "a . b 's",
            &[64, 764, 275, 705, 82],
            "a . b 's",
        ),
    ] {
        for layout in LAYOUTS {
            let tokenizer = load(layout, |_| (), &files).unwrap_or_else(|error| panic!("{files:?}: {error}"));
            assert_eq!(ids(&tokenizer, text), expected, "{layout:?} {files:?}");
            let found = tokenizer.decode(expected, SpecialText::Skip).expect("decodes");
            assert_eq!(found, skipped, "{layout:?} {files:?}");
        }
    }
}

#[test]
fn special_tokens_within_the_vocabulary_are_tokens_if_a_file_names_them() {
    let change = |json: &mut Value| {
        let vocab = json["model"]["vocab"].as_object_mut().expect("an object");
        vocab.remove("<|endoftext|>");
        for (token, id) in [("<s>", 50256), ("</s>", 50257), ("<unk>", 50258)] {
            vocab.insert(token.to_owned(), json!(id));
        }
    };
    let map = |value: Value| [("special_tokens_map.json", value)];
    let all = map(json!({ "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>" }));
    let some = map(json!({ "bos_token": "<s>", "pad_token": "<pad>" }));
    for (files, text, expected) in [
        (&all[..], "<s>Hi</s><|endoftext|>", vec![50256, 17250, 50257, 27, 91, 437, 1659, 5239, 91, 29]),
        (&some, "<s>Hi</s><|endoftext|><pad>", vec![50256, 17250, 3556, 82, 29, 50259, 50260]),
        (&[], "<s>Hi</s><|endoftext|>", vec![27, 82, 29, 17250, 3556, 82, 29, 50259]),
    ] {
        let tokenizer = load(Layout::VocabAndMerges, change, files).expect("valid");
        assert_eq!(ids(&tokenizer, text), expected, "{files:?}");
    }
}

#[test]
fn a_token_that_has_another_id_than_its_file_says_is_refused() {
    for layout in LAYOUTS {
        for (file, contents, expected) in [
            ("added_tokens.json", json!({ "<pad>": 50260 }), "`<pad>` has the id 50260"),
            ("added_tokens.json", json!({ "<a>": 50257, "<b>": 50257 }), "both have the id 50257"),
            ("added_tokens.json", json!({ "<a>": 11 }), "both have the id 11"),
            ("added_tokens.json", json!({ "foo": 50257 }), "its place in the vocabulary is 21943"),
            ("added_tokens.json", json!({ "<a>": -1 }), "cannot use `added_tokens.json`"),
            ("added_tokens.json", json!(["<a>"]), "cannot use `added_tokens.json`"),
            ("special_tokens_map.json", json!({ "pad_token": 5 }), "cannot use `pad_token`"),
            ("tokenizer_config.json", json!({ "added_tokens_decoder": ["<a>"] }), "`added_tokens_decoder`"),
            ("tokenizer_config.json", json!({ "add_prefix_space": "yes" }), "`add_prefix_space`"),
        ] {
            let error = load(layout, |_| (), &[(file, contents)]).expect_err(expected).to_string();
            assert!(error.contains(expected), "{layout:?}: {error}");
        }
    }
    let roberta = [("tokenizer_config.json", json!({ "tokenizer_class": "RobertaTokenizer" }))];
    let error = load(Layout::VocabAndMerges, |_| (), &roberta).expect_err("another class").to_string();
    assert!(
        error.ends_with(
            "expected `tokenizer_class` `GPT2Tokenizer`, as there is no `tokenizer.json`, found `RobertaTokenizer`"
        ),
        "{error}"
    );
}

/// The ids are those of transformers 5.23.
#[test]
fn settings_that_change_ids_are_read() {
    let config = |value: Value| [("tokenizer_config.json", value)];
    let prefix = config(json!({ "add_prefix_space": true }));
    for layout in LAYOUTS {
        let tokenizer = load(layout, |_| (), &prefix).expect("valid");
        for (text, expected) in [
            ("Hello world", vec![18435, 995]),
            (" Hello", vec![18435]),
            ("a<|endoftext|>b", vec![257, 50256, 275]),
            ("", vec![]),
        ] {
            assert_eq!(ids(&tokenizer, text), expected, "{layout:?} {text:?}");
        }
        let split = config(json!({ "split_special_tokens": true }));
        let tokenizer = load(layout, |_| (), &split).expect("valid");
        assert_eq!(ids(&tokenizer, "a<|endoftext|>b"), [64, 27, 91, 437, 1659, 5239, 91, 29, 65]);
        // A `tokenizer.json` says itself what comes before and after a text.
        let around = |before: &[u32], after: &[u32]| match layout {
            Layout::VocabAndMerges => [before, &[15496], after].concat(),
            Layout::TokenizerJson => vec![15496],
        };
        for (settings, expected) in [
            (json!({ "add_bos_token": true }), around(&[50256], &[])),
            (json!({ "add_bos_token": true, "add_eos_token": true }), around(&[50256], &[50256])),
            (json!({ "add_bos_token": true, "bos_token": "<s>" }), around(&[50257], &[])),
            (json!({ "add_bos_token": false, "add_eos_token": null }), around(&[], &[])),
        ] {
            let tokenizer = load(layout, |_| (), &config(settings.clone())).expect("valid");
            assert_eq!(ids(&tokenizer, "Hello"), expected, "{layout:?} {settings}");
        }
    }

    // A space before texts is the settings' to say, unless they name a class that takes `tokenizer.json` as it is.
    let change = |json: &mut Value| json["pre_tokenizer"]["add_prefix_space"] = json!(true);
    for (settings, expected) in [
        (json!({}), 15496),
        (json!({ "add_prefix_space": false, "tokenizer_class": "GPT2TokenizerFast" }), 15496),
        (json!({ "add_prefix_space": false, "tokenizer_class": "PreTrainedTokenizerFast" }), 18435),
    ] {
        let tokenizer = load(Layout::TokenizerJson, change, &config(settings.clone())).expect("valid");
        assert_eq!(ids(&tokenizer, "Hello"), [expected], "{settings}");
    }
}

#[test]
fn a_token_of_tokenizer_json_keeps_its_flags_unless_added_tokens_decoder_has_it() {
    let change = |json: &mut Value| {
        let mut token = flagged("<z>", "special");
        token["id"] = json!(50257);
        json["added_tokens"].as_array_mut().expect("a list").push(token);
    };
    let decoder = json!({ "added_tokens_decoder": { "50257": flagged("<z>", "rstrip") } });
    for (files, text, skipped) in [
        (vec![], "a<z>  b", "a  b"),
        (vec![("added_tokens.json", json!({ "<z>": 50257 }))], "a<z>  b", "a  b"),
        (vec![("tokenizer_config.json", decoder)], "a<z>  b", "a<z>b"),
    ] {
        let tokenizer = load(Layout::TokenizerJson, change, &files).expect("valid");
        let ids = ids(&tokenizer, text);
        assert!(ids.contains(&50257), "{files:?}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids, SpecialText::Skip).expect("decodes"), skipped, "{files:?}");
    }
}

#[test]
fn without_tokenizer_json_the_end_of_text_is_special_whatever_the_class() {
    for class in ["GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"] {
        let files = [("tokenizer_config.json", json!({ "tokenizer_class": class }))];
        let tokenizer = load(Layout::VocabAndMerges, |_| (), &files).expect("valid");
        assert_eq!(ids(&tokenizer, "a<|endoftext|>"), [64, 50256], "{class}");
        assert_eq!(tokenizer.special_ids(), [50256], "{class}");
    }
}

/// As transformers 5 writes it for a tokenizer with `add_bos_token`.
#[test]
fn a_template_with_a_beginning_begins_every_text() {
    let change = |json: &mut Value| {
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
            ],
            "pair": [
                { "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "<|endoftext|>", "type_id": 1 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": {
                "<|endoftext|>": { "id": "<|endoftext|>", "ids": [50256], "tokens": ["<|endoftext|>"] },
            },
        });
    };
    let settings =
        json!({ "add_prefix_space": true, "backend": "tokenizers", "tokenizer_class": "GPT2Tokenizer" });
    let tokenizer =
        load(Layout::TokenizerJson, change, &[("tokenizer_config.json", settings)]).expect("supported");
    assert_eq!(ids(&tokenizer, "Hello world"), [50256, 18435, 995]);
    assert_eq!(tokenizer.encode_part("Hello world", SpecialTokens::Parse).expect("encodes"), [18435, 995]);
}

#[test]
fn a_run_of_a_million_characters_hides_no_words_behind_it() {
    for run in [" ", "\t", "\n", "\r\n", "\u{a0}", "a", "7", "!?", "é"] {
        let text = format!("start{}…3rd\n\nnext", run.repeat(1_000_000 / run.len()));
        let ids = ids(&GPT2, &text);
        assert!(ids[0] == 9688 || !run.trim().is_empty(), "{run:?}");
        assert!(ids.ends_with(&[198, 198, 19545]), "{run:?}: {:?}", &ids[ids.len() - 9..]);
        assert_eq!(GPT2.decode(&ids, SpecialText::Keep).expect("decodes"), text, "{run:?}");
    }
}
