//! Models of the hub: what is asked for, how often, and what is done where nobody answers.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::{Reply, Request, Server};
use crate::support::{Outcome, Room, binary};

const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";

/// Prepares a command that asks the hub at this address.
fn online(room: &Room, endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = room.command(binary());
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", endpoint).args(arguments);
    command
}

/// Answers with the files of a model, as a hub does that knows ranges.
fn hub_of(model: PathBuf) -> Server {
    Server::start(move |request: &Request| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let Ok(bytes) = fs::read(model.join(name)) else {
            return Reply::new(404).with("x-error-code", "EntryNotFound").with("x-repo-commit", COMMIT);
        };
        let reply = Reply::new(200).with("x-repo-commit", COMMIT).with("etag", format!("\"{name}\""));
        let range =
            request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        match range {
            Some((start, end)) => {
                let start: usize = start.parse().expect("a number");
                let last = end.parse().unwrap_or(usize::MAX).min(bytes.len() - 1);
                let range = format!("bytes {start}-{last}/{}", bytes.len());
                Reply { status: 206, body: bytes[start..=last].to_vec(), ..reply }
                    .with("content-range", range)
            }
            None => Reply { body: bytes, ..reply },
        }
    })
}

#[test]
fn inspecting_a_model_of_the_hub_downloads_none_of_it() {
    let room = Room::new();
    let hub = hub_of(room.path().join("tiny"));
    let outcome = Outcome::of(&mut online(&room, &hub.address, &["inspect", "--model=me/tiny"]));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(outcome.stdout, room.gpt2(&["inspect", "--model=tiny"]).stdout);
    assert!(outcome.stdout.ends_with("\n(Total count verified)\n"), "{}", outcome.stdout);
    let asked: Vec<_> =
        hub.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
    assert!(asked.iter().all(|line| !line.contains("tokenizer")), "{asked:?}");
    assert!(!room.path().join("cache/hub").exists(), "nothing is cached");
    let json = Outcome::of(&mut online(&room, &hub.address, &["inspect", "--model=me/tiny", "--json"]));
    assert!(json.stdout.contains(r#""source":"headers""#), "{}", json.stdout);
}

#[test]
fn a_tokenizer_of_the_hub_comes_without_its_model() {
    let room = Room::new();
    let hub = hub_of(room.path().join("tiny"));
    let outcome =
        Outcome::of(&mut online(&room, &hub.address, &["tokenize", "Hi", "--model=me/tiny", "--json"]));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert!(outcome.stdout.contains(r#""ids":[39,72]"#), "{}", outcome.stdout);
    assert!(hub.requests().iter().all(|request| !request.path.contains("safetensors")));
    // The cache holds nothing else, and that is enough.
    let offline = room.gpt2(&["detokenize", "39", "72", "--model=me/tiny"]);
    assert_eq!((offline.code, offline.stdout.as_str(), offline.stderr.as_str()), (Some(0), "Hi\n", ""));
    let generate = room.gpt2(&["generate", "Hi", "--model=me/tiny"]);
    assert_eq!(generate.code, Some(1));
    assert!(generate.stderr.contains(": `model.safetensors` is missing, and offline"), "{}", generate.stderr);

    let fetch = ["tokenize", "Hi", "--model=openai-community/gpt2-xl"];
    assert_eq!(Outcome::of(&mut online(&room, &hub.address, &fetch)).code, Some(0));
    let generate = room.gpt2(&["generate", "Hi", "--model=gpt2-xl"]);
    let hint = "hint: the cache has `openai-community/gpt2-xl` without `model.safetensors`\n";
    assert!(generate.stderr.contains(hint), "{}", generate.stderr);
}

#[test]
fn the_shapes_of_published_models_are_known_offline() {
    let room = Room::new();
    for (model, total) in [
        ("gpt2", "124,439,808"),
        ("openai-community/gpt2", "124,439,808"),
        ("gpt2-medium", "354,823,168"),
        ("gpt2-large", "774,030,080"),
        ("openai-community/gpt2-xl", "1,557,611,200"),
        ("distilbert/distilgpt2", "81,912,576"),
    ] {
        let outcome = room.gpt2(&["inspect", "--model", model]);
        let note = format!("note: `{model}` is not downloaded; showing its published shapes\n");
        assert_eq!((outcome.code, outcome.stderr), (Some(0), note));
        let line = format!("Total Trainable Parameters          : {total:>12}\n");
        assert!(outcome.stdout.contains(&line), "{}", outcome.stdout);
    }
    let record = room.json(&["inspect", "--model=gpt2-xl"]).remove(0);
    assert_eq!((&record["source"], &record["verified"]), (&"published".into(), &false.into()));
    // Another commit may be another model, and so may any other name.
    assert_eq!(room.gpt2(&["inspect", "--model=gpt2", "--revision=v1"]).code, Some(1));
    assert_eq!(room.gpt2(&["inspect", "--model=me/gpt2"]).code, Some(1));
}

#[test]
fn the_notebook_is_met_without_a_model_named() {
    let outcome = Room::new().gpt2(&["inspect"]);
    let distribution = outcome.stdout.rsplit_once("\n)\n\n").expect("behind the modules").1;
    let block =
        |layer: &str| format!("  {:<40}:    7,087,872\n", format!("transformer.h.{layer} (Block {layer})"));
    let blocks: String = ["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"].map(block).concat();
    let expected = blocks
        + "  transformer.ln_f (Final LayerNorm)      :        1,536\n"
        + "  transformer.wpe (Position Embeddings)   :      786,432\n"
        + "  transformer.wte (Word Embeddings)       :   38,597,376\n"
        + "------------------------------------------------------------\n"
        + "Total Trainable Parameters          :  124,439,808\n"
        + "(Total count as published: no file was read)\n";
    assert_eq!(distribution, expected);
}

#[test]
fn the_tokenizer_of_published_models_is_built_in() {
    let room = Room::new();
    let outcome = room.gpt2(&["tokenize", "Hello world", "--model=gpt2-large", "--json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains(r#""ids":[15496,995]"#), "{}", outcome.stdout);
    assert_eq!(
        outcome.stderr,
        "note: `gpt2-large` is not downloaded: its tokenizer is GPT-2's, which is built in\n"
    );
    assert_eq!(room.gpt2(&["tokenize", "Hello world", "--model=me/gpt2"]).code, Some(1));
}

/// Takes connections and answers none; counts them.
fn silent_hub() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("a bound socket"));
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
        }
    });
    (address, count)
}

#[test]
fn a_hub_that_does_not_answer_is_asked_once_an_hour() {
    let room = Room::new();
    let (address, count) = silent_hub();
    let run = |arguments: &[&str]| Outcome::of(&mut online(&room, &address, arguments));
    let first = run(&["next", "Hi"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let note = format!("note: using the demo model: no answer from {address}, next try in 60 min\n");
    assert_eq!((first.stderr, count.load(Ordering::SeqCst)), (note, 1));

    let second = run(&["next", "Hi"]);
    assert_eq!((second.code, second.stderr.as_str()), (Some(0), "this was the demo model, not GPT-2\n"));
    let named = run(&["next", "Hi", "--model=gpt2-xl"]);
    assert_eq!(named.code, Some(1));
    for part in [
        format!("error: cannot reach `{address}`\n"),
        "caused by: it did not respond recently; the next attempt is in ".to_owned(),
        "hint: `gpt2 download gpt2-xl` tries again now\n".to_owned(),
    ] {
        assert!(named.stderr.contains(&part), "{part}: {}", named.stderr);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "it was left alone");

    assert_eq!(run(&["download", "gpt2"]).code, Some(1));
    assert_eq!(count.load(Ordering::SeqCst), 2, "a download tries again now");
    // Another endpoint is another matter, and so is one that answers again.
    let hub = hub_of(room.path().join("tiny"));
    let other = Outcome::of(&mut online(&room, &hub.address, &["inspect", "--model=me/tiny"]));
    assert_eq!(other.code, Some(0), "{}", other.stderr);
}

#[test]
#[cfg(unix)]
fn waiting_for_the_hub_can_be_interrupted() {
    let room = Room::new();
    for command in
        [&["inspect", "--model=me/mine"][..], &["tokenize", "Hi", "--model=me/mine"], &["download", "gpt2"]]
    {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("a bound socket"));
        let mut child = online(&room, &address, command).spawn().expect("the binary can be run");
        // It waits for an answer from here on.
        let connection = listener.accept().expect("it asks the hub");
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(killed.expect("`kill` can be run").success());
        assert_eq!(child.wait().expect("the command ends").code(), Some(130), "{command:?}");
        drop(connection);
    }
}

#[test]
fn a_login_page_is_named() {
    let room = Room::new();
    let portal = Server::start(|_| Reply { body: b"<html>Please log in</html>".to_vec(), ..Reply::new(200) });
    let named = Outcome::of(&mut online(&room, &portal.address, &["next", "Hi", "--model=me/mine"]));
    assert_eq!(named.code, Some(1));
    assert!(
        named.stderr.contains("hint: the answer is not the hub's: is there a login page on this network"),
        "{}",
        named.stderr
    );
    let default = Outcome::of(&mut online(&room, &portal.address, &["next", "Hi"]));
    assert_eq!(default.code, Some(0), "{}", default.stderr);
    assert!(
        default.stderr.starts_with("note: using the demo model: ") && default.stderr.contains("login page"),
        "{}",
        default.stderr
    );
}

#[test]
fn a_misspelt_name_that_the_hub_does_not_know_is_recognised() {
    let room = Room::new();
    let hub = Server::start(|_| Reply::new(401).with("x-error-code", "RepoNotFound"));
    for arguments in [["generate", "Hi", "--model=gpt-2"], ["download", "gtp2", "--quiet"]] {
        let outcome = Outcome::of(&mut online(&room, &hub.address, &arguments));
        assert_eq!(outcome.code, Some(1));
        let hint = outcome.stderr.lines().find(|line| line.starts_with("hint: "));
        assert_eq!(hint, Some("hint: did you mean `gpt2`?"), "{}", outcome.stderr);
    }
}

#[test]
fn models_lists_what_is_downloaded_with_short_paths() {
    let room = Room::new();
    let hub = hub_of(room.path().join("tiny"));
    for id in ["me/tiny", "openai-community/gpt2"] {
        let outcome = Outcome::of(&mut online(&room, &hub.address, &["download", id]));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
    let outcome = Outcome::of(room.command(binary()).arg("models").env("HOME", room.path()));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let (table, downloaded) = outcome.stdout.split_once("\nDownloaded:\n").expect("two parts");
    assert!(table.lines().any(|line| line.starts_with("me/tiny ") && line.contains(" 22,400 ")), "{table}");
    assert_eq!(table.lines().filter(|line| line.starts_with("gpt2 ")).count(), 1, "{table}");
    let lines: Vec<&str> = downloaded.lines().collect();
    assert!(lines[0].starts_with("me/tiny  main  "), "{downloaded}");
    assert_eq!(lines[1], "  ~/cache/hub/models--me--tiny");
    assert_eq!(lines[3], "  ~/cache/hub/models--openai-community--gpt2");

    let records = room.json(&["models"]);
    let gpt2 = &records[1];
    assert_eq!((&gpt2["model"], &gpt2["revision"]), (&"openai-community/gpt2".into(), &"main".into()));
    assert!(gpt2["path"].as_str().is_some_and(|path| path.ends_with(COMMIT)), "{gpt2}");
    assert_eq!(records.last().map(|record| &record["parameters"]), Some(&22_400.into()));
}

#[test]
fn an_adapter_beside_a_model_is_not_applied_and_that_is_said() {
    let room = Room::new();
    fs::write(room.path().join("tiny/adapter_config.json"), "{}").expect("a file can be written");
    let outcome = room.gpt2(&["next", "Hi", "--model=tiny"]);
    let note = "note: the LoRA adapter in `tiny` is not applied: merge it into the model first\n";
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), note));
}
