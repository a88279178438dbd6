//! The JSON of every command but `generate`.

use std::fs;

use serde_json::json;

use crate::support::Room;

#[test]
fn tokenize_counts_offsets_in_characters() {
    let records = Room::new().json(&["tokenize", "a é🙂"]);
    assert_eq!(
        records,
        [json!({
            "text": "a é🙂",
            "ids": [64, 38251, 8582, 25081],
            "tokens": ["a", " é", "\u{fffd}", "\u{fffd}\u{fffd}"],
            "bytes": [null, null, [0xf0, 0x9f], [0x99, 0x82]],
            "offsets": [[0, 1], [1, 3], [3, 4], [3, 4]],
        })]
    );
}

#[test]
fn tokenize_gives_bytes_only_where_a_token_is_no_whole_character() {
    let room = Room::new();
    let record = room.json(&["tokenize", "a é"]).remove(0);
    assert_eq!(
        record,
        json!({ "text": "a é", "ids": [64, 38251], "tokens": ["a", " é"], "offsets": [[0, 1], [1, 3]] })
    );
    let raw = room.json(&["tokenize", "a é🙂", "--raw"]).remove(0);
    assert_eq!(raw["tokens"], json!(["a", "ĠÃ©", "ðŁ", "ĻĤ"]));
    assert_eq!(raw.get("bytes"), None);
}

#[test]
fn detokenize_gives_the_bytes_of_what_is_no_text_and_nothing_for_padding() {
    let room = Room::new();
    let found = room.json(&["detokenize", "64", "8582"]).remove(0);
    assert_eq!(found, json!({ "ids": [64, 8582], "text": "a\u{fffd}", "bytes": [0x61, 0xf0, 0x9f] }));

    // A model with more rows than its tokenizer has tokens can draw such an id, and `generate` shows nothing for it.
    let read = |file| fs::read_to_string(room.path().join("tiny").join(file)).expect("the file is there");
    let config = read("config.json").replace("\"vocab_size\": 101", "\"vocab_size\": 108");
    let padded = room.path().join("padded");
    fs::create_dir(&padded).expect("a directory can be made");
    fs::write(padded.join("config.json"), config).expect("a file can be written");
    fs::write(padded.join("tokenizer.json"), read("tokenizer.json")).expect("a file can be written");
    let found = room.json(&["detokenize", "--model=padded", "39", "107", "100"]).remove(0);
    assert_eq!(found, json!({ "ids": [39, 107, 100], "text": "H<|endoftext|>" }));
    let outcome = room.gpt2(&["detokenize", "--model=padded", "108"]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("token id 108 is not in the vocabulary of 108 tokens"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn detokenize_undoes_tokenize() {
    let records = Room::new().json(&["detokenize", "35364,3303", "7587", "50256"]);
    assert_eq!(
        records,
        [json!({ "ids": [35364, 3303, 7587, 50256], "text": "Natural language processing<|endoftext|>" })]
    );
}

#[test]
fn next_ranks_candidates_whose_probabilities_add_up() {
    let records = Room::new().json(&["next", "Hi", "--model=tiny", "-k", "101"]);
    assert_eq!(records[0]["prompt"], "Hi");
    let candidates = records[0]["candidates"].as_array().expect("a list");
    assert_eq!(candidates.len(), 101);
    let probabilities: Vec<f64> =
        candidates.iter().map(|candidate| candidate["probability"].as_f64().expect("a number")).collect();
    assert!(probabilities.is_sorted_by(|a, b| a >= b));
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    for (candidate, probability) in candidates.iter().zip(&probabilities) {
        let logprob = candidate["logprob"].as_f64().expect("a number");
        assert!((logprob.exp() - probability).abs() < 1e-6);
        assert!(candidate["id"].is_u64() && candidate["token"].is_string());
    }
}

#[test]
fn score_agrees_with_next_and_with_itself() {
    let room = Room::new();
    let score = |more: &[&str]| room.json(&[&["score", "--model=tiny"], more].concat()).remove(0);
    let plain = score(&["Hi!"]);
    let tokens = plain["tokens"].as_array().expect("a list");
    assert_eq!(tokens[0], json!({ "id": 39, "token": "H", "logprob": null, "rank": null }));
    assert_eq!(plain["tokens_scored"], 2);
    let logprobs: Vec<f64> =
        tokens[1..].iter().map(|token| token["logprob"].as_f64().expect("a number")).collect();
    let total: f64 = logprobs.iter().sum();
    assert!((plain["total_logprob"].as_f64().expect("a number") - total).abs() < 1e-6);
    assert!((plain["perplexity"].as_f64().expect("a number").ln() + total / 2.0).abs() < 1e-6);

    let next = room.json(&["next", "Hi", "--model=tiny", "-k", "101"]).remove(0);
    let candidates = next["candidates"].as_array().expect("a list");
    let rank =
        candidates.iter().position(|candidate| candidate["token"] == "!").expect("every token is listed");
    assert_eq!(tokens[2]["rank"], rank + 1);
    assert_eq!(tokens[2]["logprob"], candidates[rank]["logprob"]);

    let with_bos = score(&["Hi!", "--bos"]);
    assert_eq!(with_bos["tokens_scored"], 3);
    assert!(with_bos["tokens"][0]["logprob"].is_number());

    let long = "x".repeat(500);
    let strided = score(&[&long, "--stride=100"]);
    assert_eq!(strided["tokens_scored"], 499);
}

#[test]
fn a_text_has_the_same_score_whichever_way_it_comes() {
    let room = Room::new();
    let score = |text: &str| {
        let mut found = room.json(&["score", text, "--model=tiny"]);
        std::fs::write(room.path().join("text.txt"), text).expect("a file can be written");
        found.extend(room.json(&["score", "--file=text.txt", "--model=tiny"]));
        for more in ["", "-"] {
            let mut command = room.command("sh");
            let script = format!("exec \"$0\" score {more} --model=tiny --json --quiet < text.txt");
            let outcome =
                crate::support::Outcome::of(command.args(["-c", &script, crate::support::binary()]));
            found.push(serde_json::from_str(&outcome.stdout).expect("a record"));
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
        found.remove(0)
    };
    assert_eq!(score("The cat sat.")["tokens_scored"], 11);
    // The newline is one more token, and so is every other one.
    assert_eq!(score("The cat sat.\n")["tokens_scored"], 12);
    assert_eq!(score("The cat sat.\n\n")["tokens_scored"], 13);
}

#[test]
fn records_of_scores_and_candidates_name_what_they_were_made_with() {
    let room = Room::new();
    let version = env!("CARGO_PKG_VERSION");
    let made = json!({ "dtype": "int8", "kv_dtype": "f16", "version": version, "model": "tiny" });
    let score = room.json(&["score", "Hi!", "--model=tiny", "--dtype=int8", "--stride=7"]).remove(0);
    let next = room.json(&["next", "Hi", "--model=tiny", "--dtype=int8", "-k", "3"]).remove(0);
    for (name, value) in made.as_object().expect("an object") {
        assert_eq!((&score[name], &next[name]), (value, value));
    }
    assert_eq!(score["text"], "Hi!");
    assert_eq!(score["settings"], json!({ "bos": false, "stride": 7, "special_tokens": "parse" }));
    assert_eq!(next["settings"], json!({ "top_k": 3, "special_tokens": "parse" }));
    // Bits per byte: two tokens of a byte each.
    let bits = -score["total_logprob"].as_f64().expect("a number") / std::f64::consts::LN_2 / 2.0;
    assert!((score["bits_per_byte"].as_f64().expect("a number") - bits).abs() < 1e-12);
    assert_eq!(room.json(&["score", "H", "--model=tiny"])[0]["bits_per_byte"], json!(null));
}

#[test]
fn a_record_of_a_model_of_the_hub_names_its_commit() {
    let room = Room::new();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let folder = room.path().join("cache/hub/models--me--tiny");
    let snapshot = folder.join("snapshots").join(commit);
    std::fs::create_dir_all(&snapshot).expect("a directory can be made");
    std::fs::create_dir_all(folder.join("refs")).expect("a directory can be made");
    std::fs::write(folder.join("refs/main"), commit).expect("a file can be written");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(room.path().join("tiny").join(file), snapshot.join(file))
            .expect("a file can be copied");
    }
    for command in
        [&["generate", "Hi", "--seed=1", "--max-new-tokens=9"][..], &["score", "Hi"], &["next", "Hi"]]
    {
        let record = room.json(&[command, &["--model=me/tiny"]].concat()).remove(0);
        assert_eq!((&record["model"], &record["revision"]), (&json!("me/tiny"), &json!(commit)));
        let again = room.json(&[command, &["--model=me/tiny", "--revision", commit]].concat()).remove(0);
        assert_eq!(again["revision"], commit);
        for field in ["text", "tokens", "candidates"] {
            assert_eq!(again.get(field), record.get(field));
        }
        // A directory has none.
        assert_eq!(room.json(&[command, &["--model=tiny"]].concat())[0].get("revision"), None);
    }
}

#[test]
fn score_compares_formats_and_agrees_with_the_perplexity_of_each() {
    let room = Room::new();
    let text = "x y z ".repeat(20);
    let score = |more: &[&str]| room.json(&[&["score", "--model=tiny", &text], more].concat()).remove(0);
    let found = score(&["--dtype=int4", "--reference-dtype=f32", "--limit=100"]);
    assert_eq!(
        [&found["model"], &found["dtype"], &found["kv_dtype"], &found["reference_dtype"]],
        ["tiny", "int4", "int8", "f32"]
    );
    assert_eq!([&found["tokens"], &found["window"], &found["positions"]], [100, 200, 99]);
    let number = |record: &serde_json::Value, field: &str| record[field].as_f64().expect("a number");
    for field in ["bits_per_weight", "kl", "kl_stderr"] {
        assert!(number(&found, field) > 0.0, "{field} in {found}");
    }
    assert!(number(&found, "kl_max") >= number(&found, "kl"), "{found}");
    assert!((0.0..=1.0).contains(&number(&found, "same_top_token")), "{found}");

    let whole = text.clone();
    let text = &text[..100];
    for (dtype, field) in [("int4", "perplexity"), ("f32", "reference_perplexity")] {
        let dtype = format!("--dtype={dtype}");
        let alone = room.json(&["score", "--model=tiny", text, &dtype]).remove(0);
        // Log-probabilities are rounded to f32 there.
        assert!(
            (number(&alone, "perplexity") / number(&found, field) - 1.0).abs() < 1e-5,
            "{alone}, {found}"
        );
    }
    assert_eq!(found["settings"], json!({ "limit": 100, "special_tokens": "parse" }));
    assert_eq!(
        (found["text"].as_str(), &found["version"]),
        (Some(&*whole), &json!(env!("CARGO_PKG_VERSION")))
    );
    let same = score(&["--dtype=int4", "--reference-dtype=int4"]);
    assert_eq!((number(&same, "kl"), number(&same, "kl_max")), (0.0, 0.0));
}

#[test]
fn inspect_adds_up_whatever_it_is_grouped_by() {
    let room = Room::new();
    for (by, first, count) in [
        ("component", "transformer.h.0 (Block 0)", 4),
        ("block", "transformer.wte (Word Embeddings)", 4),
        ("kind", "wte", 5),
    ] {
        let record = room.json(&["inspect", "--model=tiny", "--by", by]).remove(0);
        let components = record["components"].as_array().expect("a list");
        assert_eq!((&components[0]["name"], components.len()), (&json!(first), count));
        let sum = |parts: &serde_json::Value| -> u64 {
            let parts = parts.as_array().expect("a list").iter();
            parts.map(|part| part["parameters"].as_u64().expect("a number")).sum()
        };
        assert_eq!(record["total_parameters"], sum(&record["components"]));
        if by == "block" {
            assert_eq!(components[2]["module"], "transformer.h.0");
            assert_eq!(components[2]["parameters"], sum(&components[2]["parts"]));
        }
        assert_eq!([&record["model"], &record["source"]], ["tiny", "files"]);
        assert_eq!(record["verified"], true);
        let architecture = record["architecture"].as_str().expect("a text");
        assert!(architecture.starts_with("GPT2LMHeadModel(\n"), "{architecture}");
    }
}

#[test]
fn bench_measures_and_its_hash_is_that_of_the_tokens() {
    let room = Room::new();
    let bench_tokens = |new_tokens: usize, more: &[&str]| {
        let new_tokens = format!("--new-tokens={new_tokens}");
        let line = ["bench", "--model=tiny", "--prompt-tokens=5", "--repetitions=1", &new_tokens];
        room.json(&[&line[..], more].concat()).remove(0)
    };
    let bench = |more: &[&str]| bench_tokens(9, more);
    let one = bench(&["--threads=1", "--kernels=scalar"]);
    for field in ["load_s", "prefill_tokens_per_second", "decode_tokens_per_second", "gigabytes_per_second"] {
        assert!(one[field].as_f64().is_some_and(|value| value > 0.0), "{field} in {one}");
    }
    assert_eq!(
        (&one["dtype"], &one["kernels"], &one["threads"]),
        (&json!("f32"), &json!("scalar"), &json!(1))
    );
    assert_eq!((&one["prompt_tokens"], &one["new_tokens"], &one["batch"]), (&json!(5), &json!(9), &json!(1)));
    for field in ["prefill_tokens_per_second", "decode_tokens_per_second", "machine_gigabytes_per_second"] {
        // There is one repetition, but memory is measured before and after it.
        let range = [0, 1].map(|index| one[format!("{field}_range")][index].as_f64().expect("a number"));
        let value = one[field].as_f64().expect("a number");
        assert!(range[0] <= value && value <= range[1], "{field} in {one}");
    }
    assert_eq!(one["kv_dtype"], "f32");
    assert_eq!(bench(&["--dtype=int8"])["kv_dtype"], "f16");
    assert_eq!(bench(&["--dtype=int4"])["kv_dtype"], "int8");
    let first = one["tokens"].as_array().expect("a list");
    assert_eq!(first.len(), 8, "the first of nine");
    assert_eq!(bench_tokens(3, &[])["tokens"].as_array().expect("a list")[..], first[..3]);
    let alone = bench_tokens(1, &[]);
    assert!(alone["decode_tokens_per_second_range"].is_null() && alone["bandwidth_share"].is_null());
    assert_eq!(one["output_hash"], bench(&["--threads=2"])["output_hash"]);
    assert_ne!(one["output_hash"], bench(&["--batch=3"])["output_hash"]);
}

#[test]
fn models_lists_the_built_in_one_and_the_published_ones() {
    let records = Room::new().json(&["models"]);
    let names: Vec<_> = records.iter().map(|record| record["model"].as_str().expect("a name")).collect();
    assert_eq!(names, ["demo", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"]);
    let gpt2 = &records[1];
    assert_eq!((&gpt2["parameters"], &gpt2["download_bytes"]), (&json!(124_439_808), &json!(548_105_171)));
    assert_eq!([&gpt2["path"], &gpt2["revision"], &gpt2["bytes"]], [&json!(null); 3]);
    let need = |record: &serde_json::Value, format: &str| record["memory"][format].as_u64().expect("bytes");
    for record in &records {
        let needs = ["f32", "bf16", "int8", "int4"].map(|format| need(record, format));
        assert!(needs.is_sorted_by(|a, b| a > b), "{record}");
        // More than the weights, less than twice as much.
        let weights = 4 * record["parameters"].as_u64().expect("a number");
        assert!((weights..2 * weights + 100_000_000).contains(&needs[0]), "{record}");
    }
    assert!(records[0]["bytes"].is_u64());
}
