//! The hub's client against a hub of our own on this machine; no test reaches the network.

mod parts;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gpt2::hub::{Hub, HubError, HubOptions, Progress};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use server::{Reply, Request, Server};

const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";
const NEXT_COMMIT: &str = "11c5a3d5811f50298f278a704980280950aedb10";

/// What the hub of a test has; `*.safetensors` is in a store of its own, as on the real hub.
struct Contents {
    commit: &'static str,
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Applied to what the store answers.
    sabotage: fn(&mut Reply),
}

struct TestHub {
    hub: Server,
    store: Server,
    contents: Arc<Mutex<Contents>>,
    cache: TempDir,
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stands for git's sha1: only the length matters to the cache.
fn small_etag(bytes: &[u8]) -> String {
    sha256(bytes)[..40].to_owned()
}

/// A safetensors file of one tensor, large enough to be sent in several pieces.
fn weights() -> Vec<u8> {
    const COUNT: u32 = 700_000;
    let header = format!(r#"{{"x":{{"dtype":"F32","shape":[{COUNT}],"data_offsets":[0,{}]}}}}"#, 4 * COUNT);
    let values = (0..COUNT).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes());
    (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(values).collect()
}

fn gpt2_files() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("config.json", br#"{"model_type": "gpt2"}"#.to_vec()),
        ("generation_config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"version\": \"1.0\"}".to_vec()),
        ("model.safetensors", weights()),
        ("README.md", b"not needed".to_vec()),
    ])
}

fn answer_as_hub(request: &Request, contents: &Contents, store: &str) -> Reply {
    if let Some(rest) = request.path.strip_prefix("/gpt2/") {
        return Reply::new(307).with("location", format!("/openai-community/gpt2/{rest}"));
    }
    let failure = |status, code: &str| Reply::new(status).with("x-error-code", code);
    if request.path.starts_with("/meta/gated/") {
        return failure(401, "GatedRepo");
    }
    let Some(rest) = request.path.strip_prefix("/openai-community/gpt2/resolve/") else {
        return failure(401, "RepoNotFound");
    };
    let (revision, file) = rest.split_once('/').expect("a revision and a file");
    if !["main", "refs%2Fpr%2F1", contents.commit].contains(&revision) {
        return failure(404, "RevisionNotFound");
    }
    let Some(bytes) = contents.files.get(file) else {
        return failure(404, "EntryNotFound").with("x-repo-commit", contents.commit);
    };
    if file.ends_with(".safetensors") {
        let etag = sha256(bytes);
        return Reply::new(302)
            .with("x-repo-commit", contents.commit)
            .with("location", format!("{store}/{etag}"))
            .with("x-linked-etag", format!("\"{etag}\""))
            .with("x-linked-size", bytes.len().to_string());
    }
    let etag = format!("W/\"{}\"", small_etag(bytes));
    Reply { body: bytes.clone(), ..Reply::new(200) }.with("x-repo-commit", contents.commit).with("etag", etag)
}

fn answer_as_store(request: &Request, contents: &Contents) -> Reply {
    let bytes = contents.files.values().find(|bytes| request.path[1..] == sha256(bytes)).expect("a blob");
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let mut reply = match range.and_then(|range| range.split_once('-')) {
        Some((start, end)) => {
            let start: usize = start.parse().expect("a number");
            let last = end.parse().unwrap_or(usize::MAX).min(bytes.len() - 1);
            let range = format!("bytes {start}-{last}/{}", bytes.len());
            Reply { body: bytes[start..=last].to_vec(), ..Reply::new(206) }.with("content-range", range)
        }
        None => Reply { body: bytes.clone(), ..Reply::new(200) },
    };
    (contents.sabotage)(&mut reply);
    reply
}

impl TestHub {
    fn new(files: BTreeMap<&'static str, Vec<u8>>) -> Self {
        let contents = Arc::new(Mutex::new(Contents { commit: COMMIT, files, sabotage: |_| {} }));
        let shared = contents.clone();
        let store = Server::start(move |request| {
            answer_as_store(request, &shared.lock().expect("no thread panicked"))
        });
        let (shared, address) = (contents.clone(), store.address.clone());
        let hub = Server::start(move |request| {
            answer_as_hub(request, &shared.lock().expect("no thread panicked"), &address)
        });
        Self { hub, store, contents, cache: tempfile::tempdir().expect("a directory") }
    }

    fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.contents.lock().expect("no thread panicked"));
    }

    fn options(&self) -> HubOptions {
        let mut options = HubOptions::new(self.cache.path().to_owned());
        options.endpoint = self.hub.address.clone();
        options.token = Some("hf_secret\n".to_owned());
        options
    }

    fn client(&self) -> Hub {
        Hub::new(self.options())
    }

    fn fetch(&self, id: &str) -> Result<PathBuf, HubError> {
        self.client().fetch(id, "main", &mut |_| {})
    }

    fn folder(&self) -> PathBuf {
        self.cache.path().join("models--openai-community--gpt2")
    }

    /// Returns the names of all blobs.
    fn blobs(&self) -> Vec<String> {
        names(&self.folder().join("blobs"))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name();
    let mut names: Vec<_> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_fetched_model_lies_as_huggingface_hub_would_lay_it() {
    let test = TestHub::new(gpt2_files());
    let mut last = BTreeMap::new();
    let mut progress = |progress: Progress<'_>| {
        last.insert(progress.file.to_owned(), (progress.received, progress.total));
    };
    let snapshot =
        test.client().fetch("openai-community/gpt2", "main", &mut progress).expect("the hub has the model");

    assert_eq!(snapshot, test.folder().join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(test.folder().join("refs/main")).expect("a reference"), COMMIT);
    let expected = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(names(&snapshot), expected);
    let mut etags = Vec::new();
    for name in expected {
        let bytes = &gpt2_files()[name];
        let etag = if name == "model.safetensors" { sha256(bytes) } else { small_etag(bytes) };
        assert!(fs::read(snapshot.join(name)).expect("readable") == *bytes, "{name}");
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(snapshot.join(name)).expect("a link"),
            Path::new("../../blobs").join(&etag),
            "{name}"
        );
        let size = bytes.len() as u64;
        assert_eq!(last[name], (size, Some(size)), "progress of {name} ends with all of it");
        etags.push(etag);
    }
    etags.sort();
    assert_eq!(test.blobs(), etags, "nothing unfinished is left");

    let client = test.client();
    assert_eq!(client.cached("openai-community/gpt2", "main").as_ref(), Some(&snapshot));
    assert_eq!(client.cached("openai-community/gpt2", COMMIT).as_ref(), Some(&snapshot));
    let models = client.models().expect("readable");
    assert_eq!(models.len(), 1);
    assert_eq!((models[0].id.as_str(), models[0].revision.as_str()), ("openai-community/gpt2", "main"));
    assert_eq!(models[0].bytes, last.values().map(|(received, _)| received).sum::<u64>());
    assert_eq!(models[0].path, snapshot);
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_the_store() {
    let test = TestHub::new(gpt2_files());
    test.fetch("gpt2").expect("the hub has the model");
    let authorization = |request: &Request| request.headers.get("authorization").cloned();
    let hub = test.hub.requests();
    assert!(hub.iter().all(|request| authorization(request).as_deref() == Some("Bearer hf_secret")));
    let store = test.store.requests();
    assert_eq!(store.len(), 1);
    assert_eq!(authorization(&store[0]), None);
}

#[test]
fn a_redirected_name_keeps_the_folder_of_the_name_that_was_asked_for() {
    let test = TestHub::new(gpt2_files());
    let snapshot = test.fetch("gpt2").expect("the hub has the model");
    assert_eq!(snapshot, test.cache.path().join("models--gpt2/snapshots").join(COMMIT));
    assert_eq!(test.client().models().expect("readable")[0].id, "gpt2");
}

#[test]
fn a_second_fetch_asks_only_whether_there_is_news() {
    let test = TestHub::new(gpt2_files());
    let snapshot = test.fetch("openai-community/gpt2").expect("the hub has the model");
    test.hub.requests();
    assert_eq!(test.fetch("openai-community/gpt2").expect("it still does"), snapshot);
    let requests = test.hub.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].method, "HEAD");
    assert_eq!(test.store.requests().len(), 1, "the first fetch's");

    let pinned = test.client().fetch("openai-community/gpt2", COMMIT, &mut |_| {}).expect("cached");
    assert_eq!(pinned, snapshot);
    assert!(test.hub.requests().is_empty(), "a commit cannot change");
}

#[test]
fn a_file_that_was_damaged_in_the_cache_is_downloaded_again() {
    let test = TestHub::new(gpt2_files());
    let snapshot = test.fetch("openai-community/gpt2").expect("the hub has the model");
    let file = snapshot.join("model.safetensors");
    fs::write(&file, &weights()[..1000]).expect("written through the link");
    assert_eq!(test.fetch("openai-community/gpt2").expect("it still does"), snapshot);
    assert_eq!(fs::read(&file).expect("readable"), weights());
}

/// Signatures are in the query of the address that a store is redirected to.
#[test]
fn messages_name_an_address_without_what_it_was_signed_with() {
    let store = Server::start(|_| Reply::new(403));
    let signed = format!("{}/blob?signature=secret", store.address);
    let test = TestHub::new(gpt2_files());
    for location in [signed, "ftp://me:secret@host/blob?signature=secret".to_owned()] {
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => Reply::new(200)
                .with("x-repo-commit", COMMIT)
                .with("etag", "\"abc\"")
                .with("content-length", "3"),
            _ => Reply::new(302).with("location", location.clone()),
        });
        let options = HubOptions { endpoint: server.address.clone(), ..test.options() };
        let error = Hub::new(options).fetch("gpt2", "main", &mut |_| {}).expect_err("no such blob");
        assert!(matches!(error, HubError::Status { .. } | HubError::Answer { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        assert!(error.to_string().contains("/"), "{error}");
    }
}

#[test]
fn a_file_of_unknown_size_is_not_received_for_ever() {
    let server = Server::start(|request| {
        let reply = Reply::new(200).with("x-repo-commit", COMMIT).with("etag", "\"abc\"").without_length();
        match request.path.ends_with("/config.json") && request.method == "GET" {
            true => Reply { body: vec![b' '; 100_000_001], ..reply },
            false => reply,
        }
    });
    let cache = tempfile::tempdir().expect("a directory");
    let options = HubOptions { endpoint: server.address.clone(), ..HubOptions::new(cache.path().to_owned()) };
    let error =
        Hub::new(options).fetch("gpt2", "main", &mut |_| {}).expect_err("more than any configuration");
    assert!(matches!(&error, HubError::Endless { file, .. } if file == "config.json"), "{error:?}");
    let partial = cache.path().join("models--gpt2/blobs/abc.incomplete");
    assert_eq!(fs::metadata(partial).expect("it was begun").len(), 0, "what came is cleared away");
}

#[test]
fn files_of_the_cache_that_are_too_long_are_not_read() {
    let test = TestHub::new(gpt2_files());
    let grow = |path: &Path, length: u64| {
        let file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
        file.set_len(length).expect("resized");
    };
    let token = test.cache.path().join("token");
    fs::write(&token, "hf_from_file").expect("written");
    grow(&token, 1 << 17);
    let options = HubOptions { token: None, token_file: Some(token), ..test.options() };
    let error = Hub::new(options).fetch("gpt2", "main", &mut |_| {}).expect_err("no token is that long");
    let too_large = |error: &HubError| matches!(error, HubError::File { source, .. } if source.kind() == std::io::ErrorKind::FileTooLarge);
    assert!(too_large(&error), "{error:?}");

    test.fetch("openai-community/gpt2").expect("the hub has the model");
    assert!(test.client().cached("openai-community/gpt2", "main").is_some());
    let reference = test.folder().join("refs/main");
    fs::write(&reference, COMMIT.to_owned() + &" ".repeat(1 << 17)).expect("written");
    assert!(test.client().cached("openai-community/gpt2", "main").is_none(), "no commit is that long");
    assert_eq!(test.client().models().expect("readable")[0].revision, COMMIT);

    let index = format!("{{\"weight_map\": {{\"wte.weight\": \"a\"}}}}{}", " ".repeat(100_000_000));
    let mut files = gpt2_files();
    files.remove("model.safetensors");
    files.insert("model.safetensors.index.json", index.into());
    let test = TestHub::new(files);
    let error = test.fetch("openai-community/gpt2").expect_err("no index is that long");
    assert!(too_large(&error), "{error:?}");
}

#[test]
fn the_token_is_not_shown() {
    let mut options = HubOptions::new("cache".into());
    options.token = Some("hf_secret".to_owned());
    options.proxy = Some("http://me:secret@proxy".to_owned());
    options.endpoint = "https://me:secret@host".to_owned();
    assert!(!format!("{options:?} {:?}", Hub::new(options.clone())).contains("secret"));
}

#[test]
fn a_new_commit_takes_over_only_when_it_is_complete_and_shares_what_has_not_changed() {
    let test = TestHub::new(gpt2_files());
    let old = test.fetch("openai-community/gpt2").expect("the hub has the model");
    test.change(|contents| {
        contents.commit = NEXT_COMMIT;
        contents.files.get_mut("model.safetensors").expect("weights").reverse();
        contents.sabotage = |reply| reply.withheld = reply.body.len() / 2;
    });
    assert!(matches!(test.fetch("openai-community/gpt2"), Err(HubError::Interrupted { .. })));
    assert_eq!(test.client().cached("openai-community/gpt2", "main"), Some(old.clone()));

    test.hub.requests();
    test.change(|contents| contents.sabotage = |_| {});
    let new = test.fetch("openai-community/gpt2").expect("the hub has the model");
    assert!(new.ends_with(NEXT_COMMIT));
    assert_eq!(test.client().cached("openai-community/gpt2", "main"), Some(new));
    assert_eq!(test.client().cached("openai-community/gpt2", COMMIT), Some(old));
    let downloads = test.hub.requests().into_iter().filter(|request| request.method == "GET");
    assert_eq!(downloads.count(), 1, "only the weights are new");
}

#[test]
fn a_broken_download_leaves_nothing_under_its_final_name_and_is_continued() {
    let test = TestHub::new(gpt2_files());
    test.change(|contents| contents.sabotage = |reply| reply.withheld = 1_000_000);
    let error = test.fetch("openai-community/gpt2").expect_err("the store breaks off");
    let HubError::Interrupted { ref file, received, .. } = error else { panic!("{error:?}") };
    assert_eq!((file.as_str(), received), ("model.safetensors", weights().len() as u64 - 1_000_000));
    assert!(error.hint().expect("a hint").contains("continues"));
    let snapshot = test.folder().join("snapshots").join(COMMIT);
    assert!(!snapshot.join("model.safetensors").exists());
    assert!(!test.folder().join("blobs").join(sha256(&weights())).exists());
    assert!(test.blobs().contains(&format!("{}.incomplete", sha256(&weights()))));
    assert_eq!(test.client().cached("openai-community/gpt2", "main"), None);
    assert!(test.client().models().expect("readable").is_empty());

    test.store.requests();
    test.change(|contents| contents.sabotage = |_| {});
    let snapshot = test.fetch("openai-community/gpt2").expect("the rest arrives");
    assert!(fs::read(snapshot.join("model.safetensors")).expect("readable") == weights());
    let requests = test.store.requests();
    assert_eq!(requests[0].headers["range"], format!("bytes={received}-"));
}

#[test]
fn a_store_that_cannot_continue_starts_over() {
    let test = TestHub::new(gpt2_files());
    let blobs = test.folder().join("blobs");
    fs::create_dir_all(&blobs).expect("created");
    let partial = blobs.join(format!("{}.incomplete", sha256(&weights())));
    for left_over in [&b"something else"[..], &vec![7; weights().len() + 1]] {
        fs::write(&partial, left_over).expect("written");
        test.change(|contents| {
            contents.sabotage = |reply| {
                if reply.status == 206 {
                    *reply = Reply { body: weights(), ..Reply::new(200) };
                }
            };
        });
        let snapshot = test.fetch("openai-community/gpt2").expect("all of it arrives");
        assert!(fs::read(snapshot.join("model.safetensors")).expect("readable") == weights());
        fs::remove_dir_all(test.folder().join("snapshots")).expect("removed");
        fs::remove_file(blobs.join(sha256(&weights()))).expect("removed");
    }
}

#[test]
fn wrong_contents_are_refused_and_cleared_away() {
    let test = TestHub::new(gpt2_files());
    test.change(|contents| contents.sabotage = |reply| reply.body[5] ^= 1);
    assert!(matches!(test.fetch("openai-community/gpt2"), Err(HubError::Digest { .. })));
    test.change(|contents| contents.sabotage = |reply| reply.body.push(0));
    assert!(matches!(test.fetch("openai-community/gpt2"), Err(HubError::Size { .. })));
    assert!(!test.blobs().contains(&sha256(&weights())));
    test.change(|contents| contents.sabotage = |_| {});
    test.fetch("openai-community/gpt2").expect("a good copy arrives");
}

#[test]
fn a_sharded_model_is_its_index_and_every_shard() {
    let mut files = gpt2_files();
    files.remove("model.safetensors");
    files.insert("model-00001-of-00002.safetensors", b"one".to_vec());
    files.insert("model-00002-of-00002.safetensors", b"two".to_vec());
    let index = br#"{"metadata": {"total_size": 6}, "weight_map": {
        "wte.weight": "model-00001-of-00002.safetensors",
        "wpe.weight": "model-00001-of-00002.safetensors",
        "ln_f.bias": "model-00002-of-00002.safetensors"}}"#;
    files.insert("model.safetensors.index.json", index.to_vec());
    let test = TestHub::new(files);
    let snapshot = test.fetch("openai-community/gpt2").expect("the hub has the model");
    assert_eq!(fs::read(snapshot.join("model-00002-of-00002.safetensors")).expect("readable"), b"two");
    assert!(test.client().cached("openai-community/gpt2", "main").is_some());

    fs::remove_file(snapshot.join("model-00001-of-00002.safetensors")).expect("removed");
    assert!(test.client().cached("openai-community/gpt2", "main").is_none(), "a shard is missing");
    test.change(|contents| drop(contents.files.remove("model-00001-of-00002.safetensors")));
    let error = test.fetch("openai-community/gpt2").expect_err("the hub lost a shard");
    assert_eq!(
        error.to_string(),
        "model `openai-community/gpt2` has no `model-00001-of-00002.safetensors`: expected every shard"
    );
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    for index in [
        r#"{"weight_map": {"wte.weight": "../../../evil"}}"#,
        r#"{"weight_map": {"wte.weight": "/etc/passwd"}}"#,
        r#"{"weight_map": {"wte.weight": ".hidden"}}"#,
        r#"{"weight_map": {"wte.weight": 1}}"#,
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": ["#,
        &format!(r#"{{"weight_map": {{"wte.weight": "{}"}}}}"#, "a".repeat(70_000)),
    ] {
        let mut files = gpt2_files();
        files.remove("model.safetensors");
        files.insert("model.safetensors.index.json", index.into());
        let test = TestHub::new(files);
        let error = test.fetch("openai-community/gpt2").expect_err(index);
        assert!(matches!(error, HubError::Index { .. }), "{index}: {error}");
        assert_eq!(names(test.cache.path()), [".locks", "models--openai-community--gpt2"]);
    }
}

#[test]
fn vocabulary_and_merges_stand_in_for_a_tokenizer() {
    let mut files = gpt2_files();
    files.remove("tokenizer.json");
    files.insert("vocab.json", b"{}".to_vec());
    let test = TestHub::new(files);
    let error = test.fetch("openai-community/gpt2").expect_err("there are no merges");
    assert!(
        error.to_string().contains("no `merges.txt`: expected `tokenizer.json`, or `vocab.json`"),
        "{error}"
    );
    test.change(|contents| drop(contents.files.insert("merges.txt", b"#version: 0.2\n".to_vec())));
    let snapshot = test.fetch("openai-community/gpt2").expect("the hub has the model");
    assert!(snapshot.join("merges.txt").is_file());
    assert!(test.client().cached("openai-community/gpt2", "main").is_some());
}

#[test]
fn what_the_hub_lacks_or_refuses_is_named() {
    let test = TestHub::new(gpt2_files());
    let error = test.fetch("openai-community/gtp2").expect_err("a misspelt name");
    assert!(error.to_string().contains("no model `openai-community/gtp2`"), "{error}");
    assert!(error.hint().expect("a hint").contains("spelling"));
    let error = test.client().fetch("gpt2", "mian", &mut |_| {}).expect_err("a misspelt branch");
    assert_eq!(error.to_string(), "model `gpt2` has no revision `mian`");
    let error = test.fetch("meta/gated").expect_err("no access");
    assert!(matches!(error, HubError::Denied { .. }));
    test.client().fetch("gpt2", "refs/pr/1", &mut |_| {}).expect("a revision may have slashes");
    assert!(test.client().cached("gpt2", "refs/pr/1").is_some());
    assert_eq!(test.client().models().expect("readable")[0].revision, "refs/pr/1");

    test.change(|contents| drop(contents.files.remove("model.safetensors")));
    let test = TestHub { cache: tempfile::tempdir().expect("a directory"), ..test };
    let error = test.fetch("gpt2").expect_err("only other formats");
    assert!(error.to_string().contains("expected that file or its index of shards"), "{error}");
    assert!(names(test.cache.path()).is_empty(), "nothing is downloaded in vain");
    test.change(|contents| drop(contents.files.remove("config.json")));
    let error = test.fetch("gpt2").expect_err("no configuration");
    assert!(error.to_string().contains("has no `config.json`"), "{error}");
}

#[test]
fn offline_uses_the_cache_alone() {
    let test = TestHub::new(gpt2_files());
    let offline = Hub::new(HubOptions { offline: true, ..test.options() });
    let error = offline.fetch("gpt2", "main", &mut |_| {}).expect_err("nothing is cached");
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(test.hub.requests().is_empty());
    let snapshot = test.fetch("gpt2").expect("the hub has the model");
    test.hub.requests();
    assert_eq!(offline.fetch("gpt2", "main", &mut |_| {}).expect("cached"), snapshot);
    assert!(test.hub.requests().is_empty());
}

#[test]
fn an_unreachable_hub_is_named() {
    let closed =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let cache = tempfile::tempdir().expect("a directory");
    let endpoint = format!("http://{closed}");
    let options = HubOptions { endpoint: endpoint.clone(), ..HubOptions::new(cache.path().to_owned()) };
    let error = Hub::new(options).fetch("gpt2", "main", &mut |_| {}).expect_err("nobody listens");
    assert_eq!(error.to_string(), format!("cannot reach `{endpoint}`"));
    assert!(error.hint().expect("a hint").contains("HF_ENDPOINT"));
    assert!(names(cache.path()).is_empty());
}

#[test]
fn names_that_could_leave_the_cache_are_refused_before_any_request() {
    let test = TestHub::new(gpt2_files());
    for id in [
        "", "/", "a/b/c", "../x", "a/..", "a..b", ".a", "-a", "a--b", "a b", "a/", "é", "a\\b", "a?b",
        "a%2fb",
    ] {
        assert!(matches!(test.fetch(id), Err(HubError::InvalidId { .. })), "{id:?}");
        assert_eq!(test.client().cached(id, "main"), None);
    }
    for revision in ["", "..", "a/../b", "/etc", "a//b", "a b", "a#b"] {
        let result = test.client().fetch("gpt2", revision, &mut |_| {});
        assert!(matches!(result, Err(HubError::InvalidRevision { .. })), "{revision:?}");
    }
    assert!(test.hub.requests().is_empty());
}

#[test]
fn hostile_answers_are_errors() {
    type Answer = fn() -> Reply;
    let answers: [(&str, Answer); 10] = [
        ("login page", || Reply { body: b"<html>".to_vec(), ..Reply::new(200) }),
        ("commit", || Reply::new(200).with("x-repo-commit", "../../x").with("etag", "\"abc\"")),
        ("etag", || Reply::new(200).with("x-repo-commit", COMMIT).with("etag", "\"../../x\"")),
        ("no etag", || Reply::new(200).with("x-repo-commit", COMMIT)),
        ("size", || {
            Reply::new(302)
                .with("x-linked-etag", "abc")
                .with("x-linked-size", "-1")
                .with("location", "http://other/")
        }),
        ("loop", || Reply::new(302).with("location", "/again")),
        ("scheme", || Reply::new(302).with("location", "file:///etc/passwd")),
        ("no URL", || Reply::new(302).with("location", "http://")),
        ("failure", || Reply::new(500)),
        ("file server", || Reply::new(404)),
    ];
    for (what, reply) in answers {
        let server = Server::start(move |_| reply());
        let cache = tempfile::tempdir().expect("a directory");
        let options =
            HubOptions { endpoint: server.address.clone(), ..HubOptions::new(cache.path().to_owned()) };
        let error = Hub::new(options).fetch("gpt2", "main", &mut |_| {}).expect_err(what);
        match what {
            "failure" => assert!(matches!(error, HubError::Status { status: 500, .. }), "{error}"),
            "file server" => assert!(matches!(error, HubError::ModelNotFound { .. }), "{error}"),
            _ => {
                assert!(matches!(error, HubError::Answer { .. }), "{what}: {error}");
                assert!(error.hint().expect("a hint").contains("login page"), "{what}");
            }
        }
        assert!(names(cache.path()).is_empty(), "{what}");
    }
}

#[test]
fn models_of_other_kinds_are_not_listed() {
    let test = TestHub::new(gpt2_files());
    assert!(test.client().models().expect("an empty cache is no error").is_empty());
    let snapshot = test.fetch("gpt2").expect("the hub has the model");
    // As Python downloads them.
    fs::remove_file(snapshot.join("config.json")).expect("it is there");
    fs::write(snapshot.join("config.json"), br#"{"model_type": "bert"}"#).expect("written");
    assert!(test.client().models().expect("readable").is_empty());
    let nowhere = Hub::new(HubOptions::new(test.cache.path().join("nowhere")));
    assert!(nowhere.models().expect("an absent cache is no error").is_empty());
}

#[test]
fn options_follow_the_variables_of_huggingface_hub() {
    let from = |variables: &[(&str, &str)]| {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        HubOptions::from_variables(|name| variables.get(name).map(|&value| value.to_owned()))
    };
    for (variables, cache) in [
        (&[("HOME", "/me")][..], "/me/.cache/huggingface/hub"),
        (&[("HOME", "/me"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
        (&[("HOME", "/me"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/hf")], "/hf/hub"),
        (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")], "/c"),
        (&[("HOME", "/me"), ("HF_HOME", "")], "/me/.cache/huggingface/hub"),
    ] {
        assert_eq!(from(variables).expect("a cache").cache, Path::new(cache), "{variables:?}");
    }
    assert!(matches!(from(&[]), Err(HubError::NoCacheDirectory)));

    let plain = from(&[("HF_HOME", "/hf")]).expect("a cache");
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!((plain.token, plain.token_file), (None, Some("/hf/token".into())));
    assert!(!plain.offline);
    let all = from(&[
        ("HF_HOME", "/hf"),
        ("HF_ENDPOINT", "https://mirror/"),
        ("HF_TOKEN", "t"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
        ("HF_HUB_OFFLINE", "True"),
        ("https_proxy", "http://proxy:3128"),
        ("no_proxy", "localhost"),
    ])
    .expect("a cache");
    let expected = HubOptions {
        cache: "/hf/hub".into(),
        endpoint: "https://mirror/".to_owned(),
        token: Some("t".to_owned()),
        token_file: None,
        proxy: Some("http://proxy:3128".to_owned()),
        no_proxy: Some("localhost".to_owned()),
        offline: true,
    };
    assert_eq!(all, expected);
}

#[test]
fn the_token_file_serves_where_there_is_no_token() {
    let test = TestHub::new(gpt2_files());
    let file = test.cache.path().join("token");
    fs::write(&file, "hf_from_file\n").expect("written");
    let options = HubOptions { token: None, token_file: Some(file), ..test.options() };
    Hub::new(options).fetch("gpt2", "main", &mut |_| {}).expect("the hub has the model");
    assert_eq!(test.hub.requests()[0].headers["authorization"], "Bearer hf_from_file");
}

#[test]
fn options_that_make_no_client_are_errors() {
    let test = TestHub::new(gpt2_files());
    // A URL as it is, and none with the name of a file after it.
    let long = "a".repeat(65_500);
    for (what, options) in [
        ("endpoint", HubOptions { endpoint: "huggingface.co".to_owned(), ..test.options() }),
        ("endpoint", HubOptions { endpoint: "ftp://huggingface.co".to_owned(), ..test.options() }),
        ("endpoint", HubOptions { endpoint: "ftp://me:secret@host".to_owned(), ..test.options() }),
        ("endpoint", HubOptions { endpoint: "https://host/".to_owned() + &long, ..test.options() }),
        ("token", HubOptions { token: Some("a\nb".to_owned()), ..test.options() }),
        ("proxy", HubOptions { proxy: Some("::".to_owned()), ..test.options() }),
    ] {
        let error = Hub::new(options).fetch("gpt2", "main", &mut |_| {}).expect_err(what);
        let error = error.to_string();
        assert!(error.contains(what) && !error.contains("secret") && error.len() < 200, "{error}");
    }
    assert!(test.hub.requests().is_empty());
}

#[test]
fn the_proxy_is_asked_but_for_the_hosts_it_is_not_for() {
    let test = TestHub::new(gpt2_files());
    let proxy = Server::start(|_| Reply::new(502));
    let options = HubOptions { proxy: Some(proxy.address.clone()), ..test.options() };
    assert!(Hub::new(options.clone()).fetch("gpt2", "main", &mut |_| {}).is_err());
    assert!(!proxy.requests().is_empty() && test.hub.requests().is_empty());
    let options = HubOptions { no_proxy: Some("localhost, 127.0.0.1".to_owned()), ..options };
    Hub::new(options).fetch("gpt2", "main", &mut |_| {}).expect("the hub is asked directly");
    assert!(proxy.requests().is_empty());
}
