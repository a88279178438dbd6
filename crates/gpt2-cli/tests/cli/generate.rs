//! `generate`: transformers' tokens, its JSON, and the same text whatever the route.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Room, characters, golden};

#[test]
fn greedy_tokens_are_those_of_transformers() {
    let room = Room::new();
    let expected = fs::read(golden("one-layer").join("expected.json")).expect("the golden file is there");
    let expected: Value = serde_json::from_slice(&expected).expect("the golden file is JSON");
    let characters = characters();
    let mut compared = 0;
    for prompt in expected["prompts"].as_array().expect("the golden file has prompts") {
        let ids = prompt["ids"].as_array().expect("a prompt has ids").iter();
        // Only prompts that can be written as text in the tiny vocabulary.
        let text: Option<String> =
            ids.map(|id| characters.get(id.as_u64().expect("an id") as usize)).collect();
        let Some(text) = text else { continue };
        let greedy = &prompt["greedy"];
        let count = greedy.as_array().expect("a list of tokens").len().to_string();
        let records = room.json(&[
            "generate",
            &text,
            "--model=tiny",
            "--greedy",
            "--ignore-eos",
            "--max-new-tokens",
            &count,
        ]);
        assert_eq!(records.len(), 1);
        assert_eq!(&records[0]["prompt_tokens"], &prompt["ids"]);
        assert_eq!(&records[0]["tokens"], greedy);
        compared += 1;
    }
    assert!(compared >= 2, "only {compared} prompts compared");
}

#[test]
fn json_has_one_line_for_each_sequence_with_the_agreed_fields() {
    let room = Room::new();
    let records = room.json(&[
        "--model=tiny",
        "generate",
        "Hi",
        "--seed=5",
        "--max-new-tokens=4",
        "--num-return-sequences=3",
    ]);
    assert_eq!(records.len(), 3);
    for record in &records {
        let mut fields: Vec<&String> = record.as_object().expect("an object").keys().collect();
        fields.sort();
        let mut agreed = [
            "model",
            "prompt",
            "text",
            "prompt_tokens",
            "tokens",
            "logprobs",
            "finish_reason",
            "seed",
            "usage",
            "timing",
            "settings",
            "dtype",
            "kv_dtype",
            "version",
        ];
        agreed.sort_unstable();
        assert_eq!(fields, agreed);
        assert_eq!(record["model"], "tiny");
        assert_eq!(record["prompt"], "Hi");
        assert_eq!(record["prompt_tokens"], json!([39, 72]));
        assert_eq!(record["seed"], 5);
        assert_eq!(record["finish_reason"], "length");
        assert_eq!(record["usage"], json!({ "prompt_tokens": 2, "completion_tokens": 4 }));
        assert!(!record["text"].as_str().expect("a text").starts_with("Hi"), "the text is the continuation");
        for field in ["load_s", "prefill_s", "decode_s", "tokens_per_second"] {
            assert!(record["timing"][field].is_number(), "{field} in {record}");
        }
        let logprobs = record["logprobs"].as_array().expect("a list");
        assert!(logprobs.iter().all(|logprob| logprob.as_f64().is_some_and(|logprob| logprob < 0.0)));
    }
    assert_ne!(records[0]["tokens"], records[1]["tokens"], "sequences have noise of their own");
}

#[test]
fn a_seed_that_was_chosen_gives_the_same_text_when_it_is_given() {
    let room = Room::new();
    let generate = |more: &[&str]| room.json(&[&["generate", "Hi", "--model=tiny"], more].concat()).remove(0);
    let (first, second) = (generate(&[]), generate(&[]));
    assert_ne!(first["seed"], second["seed"]);
    let seed = first["seed"].to_string();
    assert_eq!(generate(&["--seed", &seed])["tokens"], first["tokens"]);
    let outcome = room.gpt2(&["generate", "Hi", "--model=tiny", "--seed", &seed]);
    assert!(outcome.stderr.contains(&format!("seed {seed}")), "{}", outcome.stderr);
}

#[test]
fn a_record_fed_back_gives_the_same_text() {
    let room = Room::new();
    // With formats, with what is not a setting, with settings of the model's own, and from a batch.
    fs::write(room.path().join("lines.jsonl"), r#"{"prompt": "Ho", "top_k": 9, "negative_prompt": "no"}"#)
        .expect("a file can be written");
    for line in [
        &["generate", "Hi", "--model=tiny", "--max-new-tokens=20"][..],
        &["generate", "Hi", "--model=settings"],
        &["generate", "Hi", "--model=tiny", "--dtype=int8", "--kv-dtype=f32", "--num-return-sequences=3"],
        &["generate", "a <|endoftext|>", "--model=demo", "--special-tokens=text", "--stop=e", "--rng=torch"],
        &[
            "generate",
            "Hi there",
            "--model=tiny",
            "--guidance-scale=2",
            "--negative-prompt=no",
            "--bad-words=o",
        ],
        &["generate", "Once upon a ti", "--model=demo", "--token-healing", "--min-p=0.1", "--top-k=0"],
        &["generate", "Once", "--model=demo", "--regex=( [a-z]{3}){4}", "--repetition-penalty=1.3"],
        &["generate", "--batch=lines.jsonl", "--model=tiny", "--guidance-scale=1.5", "--bad-words=a"],
        &["generate", "Hi", "--model=tiny", "--num-beams=3", "--greedy", "--num-return-sequences=2"],
    ] {
        let records = room.json(line);
        let record = &records[0];
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        fs::write(room.path().join("again.json"), record["settings"].to_string()).expect("it can be written");
        let prompt = text(record.get("given_prompt").unwrap_or(&record["prompt"]));
        let mut again = vec!["generate".to_owned(), prompt, "--generation-config=again.json".to_owned()];
        again.extend(
            ["model", "dtype", "kv_dtype"]
                .map(|field| format!("--{}={}", field.replace('_', "-"), text(&record[field]))),
        );
        for (field, flag) in
            [("negative_prompt", "--negative-prompt"), ("special_tokens", "--special-tokens")]
        {
            again.extend(record.get(field).map(|value| format!("{flag}={}", text(value))));
        }
        let again = room.json(&again.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(again.len(), records.len(), "{line:?}");
        for (one, other) in records.iter().zip(&again) {
            for field in ["prompt", "text", "tokens", "logprobs", "seed", "settings", "version"] {
                assert_eq!(one[field], other[field], "{field} of {line:?}");
            }
        }
    }
}

#[test]
fn tokens_that_are_no_characters_have_their_bytes() {
    let room = Room::new();
    let record = room.json(&["score", "日本", "--model=demo"]).remove(0);
    let bytes: Vec<u8> = record["tokens"]
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|token| match token.get("bytes") {
            Some(bytes) => serde_json::from_value(bytes.clone()).expect("bytes"),
            None => token["token"].as_str().expect("a text").as_bytes().to_vec(),
        })
        .collect();
    assert_eq!(String::from_utf8(bytes).as_deref(), Ok("日本"));
    assert!(record["tokens"].as_array().expect("a list").iter().any(|token| token.get("bytes").is_some()));
    // A character that is a token has a text alone.
    let record = room.json(&["score", "a", "--model=demo"]).remove(0);
    assert_eq!(record["tokens"][0].get("bytes"), None);
}

#[test]
fn every_token_that_json_names_by_number_has_its_text() {
    fn check(value: &Value, found: &mut usize) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| check(value, found)),
            Value::Object(fields) => {
                if fields.contains_key("id") {
                    assert!(fields["token"].is_string(), "{value}");
                    *found += 1;
                }
                fields.values().for_each(|value| check(value, found));
            }
            _ => {}
        }
    }
    let room = Room::new();
    let line = ["generate", "Hi", "--model=tiny", "--max-new-tokens=2"];
    let more = ["--trace", "--logprobs=2", "--prompt-logprobs=2"];
    let records = room.json(&[&line[..], &more].concat());
    let mut found = 0;
    check(&Value::Array(records), &mut found);
    // Of each token: itself, two others, what two steps removed, and the two that were drawn.
    assert!(found > 2 * (1 + 2 + 2 + 2), "{found}");
    for line in [["next", "Hi", "--model=tiny"], ["score", "Hi", "--model=tiny"]] {
        let mut found = 0;
        check(&Value::Array(room.json(&line)), &mut found);
        assert!(found >= 2, "{line:?}");
    }
}

#[test]
fn threads_and_kernels_change_no_bit() {
    let room = Room::new();
    let run = |more: &[&str]| {
        let line = ["generate", "Once upon", "--seed=7", "--num-return-sequences=2", "--max-new-tokens=60"];
        let records = room.json(&[&line[..], &["--model=tiny"], more].concat());
        records
            .into_iter()
            .map(|record| (record["tokens"].clone(), record["logprobs"].clone()))
            .collect::<Vec<_>>()
    };
    let one = run(&["--threads=1", "--kernels=scalar"]);
    assert_eq!(one, run(&["--threads=2", "--kernels=scalar"]));
    for row in ["avx2", "avx512"] {
        let outcome = room.gpt2(&["--kernels", row, "--model=tiny", "next", "Hi"]);
        match outcome.code {
            Some(0) => assert_eq!(one, run(&["--threads=2", "--kernels", row]), "{row}"),
            code => {
                assert_eq!(code, Some(2), "{}", outcome.stderr);
                assert!(outcome.stderr.contains("it can run `scalar`"), "{}", outcome.stderr);
            }
        }
    }
}

#[test]
fn a_stop_string_and_an_end_token_end_the_text_before_them() {
    let room = Room::new();
    let generate = |more: &[&str]| {
        room.json(&[&["generate", "T", "--model=tiny", "--greedy", "--max-new-tokens=12"], more].concat())
            .remove(0)
    };
    let whole = generate(&["--ignore-eos"]);
    let text = whole["text"].as_str().expect("a text");
    assert_eq!(text.len(), 12);
    let stop = &text[5..7];
    let cut = text.find(stop).expect("it is in there");
    let stopped = generate(&["--stop", stop, "--stop", "never"]);
    assert_eq!(stopped["text"].as_str(), Some(&text[..cut]));
    assert_eq!(stopped["finish_reason"], "stop");
    let end = &whole["tokens"][3];
    let first = whole["tokens"].as_array().expect("a list").iter().position(|id| id == end);
    let ended = generate(&["--eos-token-id", &end.to_string()]);
    assert_eq!(ended["finish_reason"], "eos");
    assert_eq!(ended["tokens"].as_array().map(Vec::len), first.map(|index| index + 1));
    assert_eq!(ended["tokens"].as_array().and_then(|tokens| tokens.last()), Some(end));
}

#[test]
fn the_context_ends_what_no_length_does() {
    let room = Room::new();
    let record =
        room.json(&["generate", "Hi", "--model=tiny", "--ignore-eos", "--max-new-tokens=1000"]).remove(0);
    assert_eq!(record["finish_reason"], "context");
    // The token behind a full context of 200 is still chosen.
    assert_eq!(record["usage"], json!({ "prompt_tokens": 2, "completion_tokens": 199 }));
}

#[test]
fn the_demo_model_in_the_program_writes_text() {
    let room = Room::new();
    let outcome = room.gpt2(&["generate", "Once upon a time", "--max-new-tokens=20"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("Once upon a time"), "{}", outcome.stdout);
    let notes: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("note:")).collect();
    assert_eq!(notes, ["note: using the demo model: `gpt2` is not downloaded; see `gpt2 download gpt2`"]);

    // Once a day is enough; it is remembered in a file.
    let again = room.gpt2(&["next", "Once upon a time"]);
    let signature = "this was the demo model, not GPT-2\n";
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), signature));
    std::fs::remove_file(room.path().join("cache/gpt2/demo-note")).expect("it is remembered");
    assert!(room.gpt2(&["next", "Once upon a time"]).stderr.starts_with("note: using the demo model"));
    std::fs::remove_file(room.path().join("cache/gpt2/demo-note")).expect("it is remembered");

    let asked_for = room.gpt2(&["generate", "Once upon a time", "--max-new-tokens=20", "--model=demo"]);
    assert!(!asked_for.stderr.contains("note:"), "{}", asked_for.stderr);
    let quiet = room.gpt2(&["generate", "Once upon a time", "--max-new-tokens=20", "--quiet"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
    assert!(!room.path().join("cache/gpt2/demo-note").exists(), "what was not shown was not said");
}

/// Packed copies need positioned reads and little-endian numbers; elsewhere there are none.
#[test]
#[cfg(all(unix, target_endian = "little"))]
fn packed_copies_are_kept_where_one_says_and_change_no_text() {
    let room = Room::new();
    let count =
        |directory: &str| std::fs::read_dir(room.path().join(directory)).map_or(0, |entries| entries.count());
    let generate = |more: &[&str]| {
        let outcome =
            room.gpt2(&[&["generate", "Hi", "--model=tiny", "--greedy", "--dtype=int8"], more].concat());
        assert_eq!(outcome.code, Some(0), "{more:?}: {}", outcome.stderr);
        outcome
    };
    let text = generate(&["--no-pack-cache"]).stdout;
    assert_eq!(count("cache/gpt2/packed"), 0);
    for _ in 0..2 {
        assert_eq!(generate(&[]).stdout, text);
        assert_eq!(count("cache/gpt2/packed"), 1);
    }
    assert_eq!(generate(&["--pack-cache=elsewhere"]).stdout, text);
    assert_eq!(count("elsewhere"), 1);

    // Below a file there is no directory.
    let outcome = generate(&["--pack-cache=tiny/config.json/packed"]);
    assert_eq!(outcome.stdout, text);
    assert!(
        outcome.stderr.contains("note: cannot keep a packed copy in `tiny/config.json/packed`"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn guesses_change_the_time_and_nothing_else() {
    let room = Room::new();
    for settings in
        [&["--greedy", "--seed=1"][..], &["--seed=7", "--num-return-sequences=2", "--repetition-penalty=1.1"]]
    {
        let run = |flags: &[&str]| {
            let line = ["--model=tiny", "generate", "Hi Hi Hi", "--max-new-tokens=60", "--ignore-eos"];
            let mut records = room.json(&[&line, settings, flags].concat());
            for record in &mut records {
                record.as_object_mut().expect("an object").remove("timing");
                let settings = record["settings"].as_object_mut().expect("an object");
                for guessing in
                    ["prompt_lookup_num_tokens", "max_matching_ngram_size", "num_assistant_tokens"]
                {
                    settings.remove(guessing);
                }
            }
            records
        };
        let plain = run(&[]);
        for flags in [
            &["--speculate=self"][..],
            &["--speculate=prompt-lookup", "--prompt-lookup-num-tokens=5", "--max-matching-ngram-size=2"],
            &["--assistant=./tiny", "--assistant-dtype=int8", "--num-assistant-tokens=4"],
        ] {
            let mut guessed = run(flags);
            for record in &mut guessed {
                let report =
                    record.as_object_mut().expect("an object").remove("speculation").expect("a report");
                let sum = |field: &str| {
                    let counts = report[field].as_array().expect("a list").iter();
                    counts.map(|count| count.as_u64().expect("a count")).sum::<u64>()
                };
                assert_eq!(report["accepted"], sum("accepted_by_position"));
                assert_eq!(report["drafted"], sum("drafted_by_position"));
                assert!(report["drafted"].as_u64() > Some(0), "{flags:?}");
            }
            assert_eq!(guessed, plain, "{flags:?}");
        }
    }
}
