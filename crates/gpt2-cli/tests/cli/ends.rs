//! `generate`: what a text ends with, what it may not have, and prompts that are not as they should be.

use std::fs;

use serde_json::{Value, json};

use crate::support::Room;

/// The record of a greedy text of the demo model.
fn greedy(room: &Room, more: &[&str]) -> Value {
    let line = ["-m", "demo", "generate", "Once upon a time", "--greedy", "--max-new-tokens=30"];
    room.json(&[&line[..], more].concat()).remove(0)
}

/// The same for a line of a batch.
fn in_batch(room: &Room, settings: &Value) -> Value {
    let mut line = json!({"prompt": "Once upon a time", "do_sample": false, "max_new_tokens": 30});
    line.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
    fs::write(room.path().join("lines.jsonl"), line.to_string()).expect("it can be written");
    room.json(&["-m", "demo", "generate", "--batch", "lines.jsonl"]).remove(0)
}

#[test]
fn a_text_ends_before_its_stop_string_or_with_it() {
    let room = Room::new();
    let without = greedy(&room, &["--stop=king"]);
    let with = greedy(&room, &["--stop=king", "--include-stop-str-in-output"]);
    let text = without["text"].as_str().expect("a text");
    assert_eq!(with["text"], format!("{text}king"));
    assert_eq!((&with["tokens"], &with["finish_reason"]), (&without["tokens"], &json!("stop")));
    let batch = in_batch(&room, &json!({"stop_strings": ["king"], "include_stop_str_in_output": true}));
    assert_eq!(batch["text"], with["text"]);
    let guessed =
        greedy(&room, &["--stop=king", "--include-stop-str-in-output", "--speculate=prompt-lookup"]);
    assert_eq!(guessed["text"], with["text"]);
    // A stop string may be a file's.
    fs::write(room.path().join("settings.json"), r#"{"stop_strings": ["king"]}"#).expect("it can be written");
    let file = greedy(&room, &["--generation-config=settings.json", "--include-stop-str-in-output"]);
    assert_eq!(file["text"], with["text"]);
    let idle = room.gpt2(&["-m", "demo", "generate", "a", "--include-stop-str-in-output", "--strict"]);
    assert!(idle.stderr.contains("has no effect: there is no stop string"), "{}", idle.stderr);
}

#[test]
fn special_tokens_are_shown_when_they_are_not_skipped() {
    let room = Room::new();
    let line = ["-m", "demo", "generate", "Once upon a time", "--greedy", "--forced-eos-token-id=50256"];
    let text = |more: &[&str]| {
        let record = room.json(&[&line[..], &["--max-new-tokens=3"], more].concat()).remove(0);
        assert_eq!(record["finish_reason"], "eos");
        record["text"].as_str().expect("a text").to_owned()
    };
    let hidden = text(&[]);
    assert_eq!(text(&["--skip-special-tokens", "true"]), hidden);
    assert_eq!(text(&["--skip-special-tokens", "false"]), format!("{hidden}<|endoftext|>"));
    assert_eq!(text(&["--skip-special-tokens=false", "--stop=<|endoftext|>"]), hidden);
    let settings = json!({"max_new_tokens": 3, "forced_eos_token_id": 50256, "skip_special_tokens": false});
    assert_eq!(in_batch(&room, &settings)["text"], format!("{hidden}<|endoftext|>"));
}

#[test]
fn a_bad_word_may_be_a_line_s_own() {
    let room = Room::new();
    let free = greedy(&room, &[]);
    let text = free["text"].as_str().expect("a text");
    let word = text.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty()).expect("a word");
    let without = greedy(&room, &["--bad-words", word]);
    let mut words = without["text"].as_str().expect("a text").split(|c: char| !c.is_alphanumeric());
    assert!(words.all(|other| other != word), "{word}: {without}");
    assert_eq!(in_batch(&room, &json!({"bad_words": [word]}))["text"], without["text"]);
}

#[test]
fn half_a_surrogate_pair_spoils_no_batch() {
    let room = Room::new();
    let lines = "\"one\"\n\"\\ud83d two\"\n{\"prompt\": \"\\ud83d\\ude00\", \"id\": \"x\"}\n";
    fs::write(room.path().join("lines.jsonl"), lines).expect("it can be written");
    let outcome =
        room.gpt2(&["-m", "demo", "generate", "--batch=lines.jsonl", "--json", "--max-new-tokens=2"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let prompts: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["prompt"].clone())
        .collect();
    assert_eq!(prompts, ["one", "\u{fffd} two", "😀"]);
    let note = "line 2 of `lines.jsonl`: an unpaired surrogate was read as U+FFFD";
    assert!(outcome.stderr.contains(note), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("surrogate").count(), 1, "{}", outcome.stderr);
}

#[test]
fn a_prompt_that_ends_in_a_space_gets_a_note() {
    let room = Room::new();
    let told = |line: &[&str]| {
        let outcome = room.gpt2(&[&["-m", "demo", "generate", "--max-new-tokens=2"], line].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.stderr.matches("the prompt ends with a space").count()
    };
    assert_eq!(told(&["Hello "]), 1);
    assert_eq!(told(&["Hello ", "--json"]), 1);
    assert_eq!(told(&["--prompt=Hello ", "--prompt=Good day "]), 1);
    assert_eq!(told(&["Hello"]), 0);
    assert_eq!(told(&["Hello\n"]), 0);
    assert_eq!(told(&["Hello ", "--quiet"]), 0);
    assert_eq!(told(&["Hello ", "--token-healing"]), 0);
    assert_eq!(told(&["Is it? ", "--choice=y"]), 0);
}

#[test]
fn a_dead_end_is_said_to_be_the_structure_s() {
    let room = Room::new();
    // The tokenizer of this model has no token for the second character.
    let outcome = room.gpt2(&["--model=tiny", "generate", "Hi", "--regex=T☃"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let told =
        "the regex led into a dead end: the text is not complete after 1 token, and no token can follow";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
}
