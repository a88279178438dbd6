//! Parts of a model: its headers, which are enough to inspect it, and its tokenizer.

use std::collections::BTreeMap;
use std::fs;

use gpt2::checkpoint::{CheckpointError, expected_tensors};
use gpt2::config::Config;
use gpt2::hub::{Hub, HubError, HubOptions, RemoteModel};
use gpt2::inspect::{Source, inspect_headers};
use serde_json::json;

use crate::server::{Reply, Server};
use crate::{COMMIT, Contents, NEXT_COMMIT, TestHub, answer_as_hub, gpt2_files, names, sha256};

const ID: &str = "openai-community/gpt2";

fn config() -> Config {
    let json = br#"{"model_type": "gpt2", "vocab_size": 300, "n_positions": 64, "n_embd": 40, "n_layer": 3, "n_head": 2}"#;
    Config::from_json(json).expect("a configuration")
}

/// A safetensors file of zeros, with the tensors that pass, and so many bytes of remarks in its header.
fn file_of(remarks: usize, passes: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt", "remarks": "x".repeat(remarks) }));
    let mut end = 0;
    for (name, shape) in expected_tensors(&config()).filter(|(name, _)| passes(name)) {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; end]].concat()
}

fn files(weights: Vec<u8>) -> BTreeMap<&'static str, Vec<u8>> {
    let config = br#"{"model_type": "gpt2", "vocab_size": 300, "n_positions": 64, "n_embd": 40, "n_layer": 3, "n_head": 2}"#;
    let mut files = gpt2_files();
    files.insert("config.json", config.to_vec());
    files.insert("model.safetensors", weights);
    files
}

/// Inspects what the hub said and checks that nothing is missing.
fn check(remote: &RemoteModel, file_bytes: usize) {
    let config = Config::from_json(&remote.config).expect("a configuration");
    let inspection = inspect_headers("mine", &config, &remote.headers).expect("a whole model");
    assert_eq!(inspection.source, Source::Headers);
    assert!(inspection.verified);
    let parameters =
        expected_tensors(&config).map(|(_, shape)| shape.iter().product::<usize>() as u64).sum::<u64>();
    assert_eq!((inspection.total_parameters, inspection.tensor_bytes), (parameters, 4 * parameters));
    assert_eq!(inspection.file_bytes, file_bytes as u64);
}

#[test]
fn a_model_is_described_by_one_range_of_its_weights_and_nothing_is_cached() {
    let weights = file_of(0, |_| true);
    let (size, store_path) = (weights.len(), format!("/{}", sha256(&weights)));
    let test = TestHub::new(files(weights));
    let remote = test.client().headers(ID, "main").expect("the hub has the model");
    assert_eq!(remote.commit, COMMIT);
    check(&remote, size);
    let requests = test.store.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (requests[0].path.as_str(), requests[0].headers["range"].as_str()),
        (&store_path[..], "bytes=0-65535")
    );
    assert!(!requests[0].headers.contains_key("authorization"));
    assert!(names(test.cache.path()).is_empty());
}

#[test]
fn the_rest_of_a_long_header_is_asked_for() {
    let weights = file_of(100_000, |_| true);
    let header = u64::from_le_bytes(*weights.first_chunk().expect("a length"));
    let test = TestHub::new(files(weights.clone()));
    check(&test.client().headers(ID, "main").expect("the hub has the model"), weights.len());
    let ranges: Vec<_> =
        test.store.requests().iter().map(|request| request.headers["range"].clone()).collect();
    assert_eq!(ranges, ["bytes=0-65535".to_owned(), format!("bytes=65536-{}", 8 + header - 1)]);
}

#[test]
fn a_store_without_ranges_sends_everything_and_is_read_as_far_as_needed() {
    for remarks in [0, 100_000] {
        let weights = file_of(remarks, |_| true);
        let (size, whole) = (weights.len(), weights.clone());
        let store = Server::start(move |_| Reply { body: whole.clone(), ..Reply::new(200) });
        let test = TestHub::new(files(weights.clone()));
        let contents = Contents { commit: COMMIT, files: files(weights), sabotage: |_| {} };
        let server = Server::start(move |request| answer_as_hub(request, &contents, &store.address));
        let options = HubOptions { endpoint: server.address.clone(), ..test.options() };
        check(&Hub::new(options).headers(ID, "main").expect("the hub has the model"), size);
    }
}

#[test]
fn the_headers_of_all_shards_are_read() {
    let first = |name: &str| name.starts_with('w');
    let shards = [file_of(0, first), file_of(0, |name| !first(name))];
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let map: BTreeMap<String, &str> = expected_tensors(&config())
        .map(|(name, _)| {
            let shard = names[usize::from(!first(&name))];
            (name, shard)
        })
        .collect();
    let mut all = files(Vec::new());
    all.remove("model.safetensors");
    all.insert("model.safetensors.index.json", json!({ "weight_map": map }).to_string().into_bytes());
    let size = shards.iter().map(Vec::len).sum();
    for (name, shard) in names.into_iter().zip(shards) {
        all.insert(name, shard);
    }
    let test = TestHub::new(all);
    check(&test.client().headers(ID, "main").expect("the hub has the model"), size);
    assert_eq!(test.store.requests().len(), 2);

    test.change(|contents| drop(contents.files.insert(names[1], file_of(0, |name| name == "ln_f.bias"))));
    let error = test.client().headers(ID, "main").expect_err("a tensor is in no shard");
    assert!(matches!(error, HubError::Checkpoint(CheckpointError::NotInShard { .. })), "{error}");
    test.change(|contents| drop(contents.files.remove(names[1])));
    let error = test.client().headers(ID, "main").expect_err("a shard is missing");
    assert!(matches!(error, HubError::MissingFile { .. }), "{error}");
}

#[test]
fn headers_that_make_no_sense_are_errors() {
    let header_of = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    for weights in [
        header_of(u64::MAX),
        header_of(1_000),
        header_of(2)[..5].to_vec(),
        b"version https://git-lfs.github.com/spec/v1".to_vec(),
    ] {
        let test = TestHub::new(files(weights));
        let error = test.client().headers(ID, "main").expect_err("no header");
        assert!(matches!(error, HubError::Checkpoint(_)), "{error}");
    }
    let test = TestHub::new(files(file_of(0, |_| true)));
    for (sabotage, expected) in [
        ((|reply| reply.status = 403) as fn(&mut Reply), "Status"),
        (|reply| reply.headers[0].1 = "bytes 7-9/10".to_owned(), "Answer"),
        (|reply| drop(reply.headers.remove(0)), "Answer"),
        (|reply| reply.withheld = 10, "Interrupted"),
    ] {
        test.change(|contents| contents.sabotage = sabotage);
        let error = test.client().headers(ID, "main").expect_err(expected);
        assert!(format!("{error:?}").starts_with(expected), "{expected}: {error:?}");
    }
    assert!(names(test.cache.path()).is_empty());
}

#[test]
fn a_tokenizer_comes_alone_and_serves_offline() {
    let mut all = gpt2_files();
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        all.insert(name, b"{}".to_vec());
    }
    let test = TestHub::new(all);
    let snapshot = test.client().fetch_tokenizer(ID, "main", &mut |_| {}).expect("the hub has it");
    let expected = [
        "added_tokens.json",
        "config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&snapshot), expected);
    assert!(test.store.requests().is_empty(), "weights are in the store");
    assert_eq!(test.client().cached(ID, "main"), None);
    assert_eq!(test.client().missing(ID, "main"), ["model.safetensors"]);

    test.hub.requests();
    let offline = Hub::new(HubOptions { offline: true, ..test.options() });
    assert_eq!(offline.cached_tokenizer(ID, "main").as_ref(), Some(&snapshot));
    assert_eq!(offline.fetch_tokenizer(ID, "main", &mut |_| {}).expect("cached"), snapshot);
    assert!(test.hub.requests().is_empty());
    let error = offline.fetch(ID, "main", &mut |_| {}).expect_err("there are no weights");
    assert!(error.to_string().contains("`model.safetensors` is missing"), "{error}");

    assert_eq!(test.fetch(ID).expect("the rest arrives"), snapshot);
    assert!(snapshot.join("model.safetensors").is_file() && snapshot.join("added_tokens.json").is_file());
    assert_eq!(offline.cached_weights(ID, "main").as_ref(), Some(&snapshot));
}

#[test]
fn a_newer_tokenizer_does_not_hide_a_whole_model() {
    let test = TestHub::new(gpt2_files());
    let whole = test.fetch(ID).expect("the hub has the model");
    test.change(|contents| contents.commit = NEXT_COMMIT);
    let newer = test.client().fetch_tokenizer(ID, "main", &mut |_| {}).expect("the hub has it");
    assert_ne!(newer, whole);
    assert_eq!(test.client().cached(ID, "main"), Some(whole));
}

#[test]
fn what_a_cached_model_lacks_is_named() {
    let test = TestHub::new(gpt2_files());
    let offline = Hub::new(HubOptions { offline: true, ..test.options() });
    let error = offline.fetch(ID, "main", &mut |_| {}).expect_err("nothing is cached");
    assert!(error.to_string().starts_with(&format!("`{ID}` is not in the cache")), "{error}");
    let snapshot = test.fetch(ID).expect("the hub has the model");
    for (name, missing) in [
        ("model.safetensors", &["model.safetensors"][..]),
        ("tokenizer.json", &["model.safetensors", "tokenizer.json"]),
        ("config.json", &["config.json", "model.safetensors", "tokenizer.json"]),
    ] {
        fs::remove_file(snapshot.join(name)).expect("it was there");
        assert_eq!(offline.missing(ID, "main"), missing);
        let error = offline.fetch(ID, "main", &mut |_| {}).expect_err("it is not complete").to_string();
        assert!(error.contains("is not complete in the cache"), "{error}");
        assert!(missing.iter().all(|name| error.contains(&format!("`{name}`"))), "{error}");
    }
    fs::write(snapshot.join("merges.txt"), "").expect("written");
    assert_eq!(offline.missing(ID, "main").last().map(String::as_str), Some("vocab.json"));
}

#[test]
fn adapters_and_other_formats_are_named_with_what_to_do() {
    let mut all = gpt2_files();
    all.remove("model.safetensors");
    all.insert("pytorch_model.bin", Vec::new());
    let test = TestHub::new(all);
    for result in [test.fetch(ID).map(|_| ()), test.client().headers(ID, "main").map(|_| ())] {
        let error = result.expect_err("no safetensors");
        assert!(matches!(error, HubError::OtherFormat { found: "pytorch_model.bin", .. }), "{error}");
        assert!(error.hint().expect("a hint").contains("save_pretrained"));
    }
    test.change(|contents| drop(contents.files.insert("adapter_config.json", b"{}".to_vec())));
    assert!(matches!(test.fetch(ID), Err(HubError::Adapter { .. })));
    test.change(|contents| drop(contents.files.remove("config.json")));
    let error = test.fetch(ID).expect_err("an adapter");
    assert_eq!(error.to_string(), format!("`{ID}` is a LoRA adapter, not a whole model"));
    assert!(error.hint().expect("a hint").contains("merge"));
    assert!(names(test.cache.path()).is_empty());
}

#[test]
fn a_model_of_another_kind_is_refused_before_its_weights_come() {
    let mut all = gpt2_files();
    all.insert("config.json", br#"{"model_type": "bert"}"#.to_vec());
    let test = TestHub::new(all);
    let error = test.fetch(ID).expect_err("another kind");
    assert_eq!(error.to_string(), format!("`{ID}` is a model of the type `bert`, not `gpt2`"));
    assert!(test.store.requests().is_empty(), "weights are in the store");
    assert_eq!(test.client().cached(ID, "main"), None);
}

#[test]
fn a_hub_in_trouble_gets_a_hint() {
    for (status, part) in
        [(500, "try again later"), (503, "try again later"), (429, "too many"), (418, "HF_ENDPOINT")]
    {
        let server = Server::start(move |_| Reply::new(status));
        let cache = tempfile::tempdir().expect("a directory");
        let options =
            HubOptions { endpoint: server.address.clone(), ..HubOptions::new(cache.path().to_owned()) };
        let error = Hub::new(options).headers(ID, "main").expect_err("no answer");
        assert!(error.hint().expect("a hint").contains(part), "{status}: {error}");
    }
}
