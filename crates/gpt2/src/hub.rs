//! Models from the Hugging Face hub, in the cache that `huggingface_hub` keeps.
//!
//! Files that Python has downloaded are found here, and the other way round:
//!
//! ```text
//! $HF_HUB_CACHE/
//!   models--openai-community--gpt2/
//!     refs/main                             the commit that the branch was at
//!     blobs/<etag>                          the files' contents: sha256 of large files, git's sha1 of small ones
//!     snapshots/<commit>/model.safetensors  → ../../blobs/<etag>
//!   .locks/models--openai-community--gpt2/<etag>.lock
//! ```
//!
//! A blob gets its name when its size is right and, for large files, its sha256; until then it is
//! `<etag>.incomplete`, which a later call resumes. The reference moves last, so that an interrupted update
//! leaves the previous snapshot in use.
//!
//! Nothing is asked of the hub but the files themselves. [`Hub::cached`] makes no request, and an unreachable
//! hub costs [`Hub::fetch`] less than three seconds. The environment is the caller's to read:
//! [`HubOptions::from_variables`] says what each variable means.
//!
//! This is `ureq` and some file names rather than the `hf-hub` crate, whose blocking client has no timeouts
//! that a caller could set, checks neither the size nor the digest of what it downloaded, and brings a progress
//! bar along; its version 1.0 is asynchronous, on `tokio`, `reqwest` and `hf-xet`.

mod download;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::download::Session;
use crate::checkpoint::Checkpoint;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY: [&str; 2] = ["vocab.json", "merges.txt"];
/// Read where a model has them.
const OPTIONAL: [&str; 2] = ["generation_config.json", "tokenizer_config.json"];

/// The longest configuration or index that is read, as in a checkpoint.
const MAX_JSON: u64 = 100_000_000;
/// The longest commit or token that is read.
const MAX_LINE: u64 = 1 << 16;

/// Where the hub and its cache are.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// The directory with the `models--…` directories.
    pub cache: PathBuf,
    /// The hub, or a mirror of it.
    pub endpoint: String,
    /// The access token, sent to `endpoint` and nowhere else.
    pub token: Option<String>,
    /// The file that holds the token, where there is no `token`.
    pub token_file: Option<PathBuf>,
    /// The proxy's URL.
    pub proxy: Option<String>,
    /// The hosts that the proxy is not for, comma-separated.
    pub no_proxy: Option<String>,
    /// Whether to use the cache alone.
    pub offline: bool,
}

impl HubOptions {
    /// Makes the options for the public hub, without a token, and a cache directory.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            token_file: None,
            proxy: None,
            no_proxy: None,
            offline: false,
        }
    }

    /// Makes the options from the variables that `huggingface_hub` reads, looked up by `variable`.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` | the cache; else `$HF_HOME/hub` |
    /// | `HF_HOME` | else `$XDG_CACHE_HOME/huggingface`, else `~/.cache/huggingface` |
    /// | `HF_ENDPOINT` | a mirror of the hub |
    /// | `HF_TOKEN` | the access token |
    /// | `HF_TOKEN_PATH` | the file that holds it; else `$HF_HOME/token` |
    /// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | when true, that file is left alone |
    /// | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | when true, no requests |
    /// | `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | also in lower case; `HTTP_PROXY` for an endpoint without TLS |
    ///
    /// True is `1`, `on`, `yes` or `true`. A variable that is set but empty counts as not set.
    ///
    /// # Errors
    ///
    /// When no variable says where the cache is, not even `HOME`.
    ///
    /// # Examples
    ///
    /// ```
    /// use gpt2::hub::HubOptions;
    ///
    /// let variables = |name: &str| (name == "HF_HOME").then(|| "/data".to_owned());
    /// let options = HubOptions::from_variables(variables)?;
    /// assert_eq!(options.cache, std::path::Path::new("/data/hub"));
    /// # Ok::<(), gpt2::hub::HubError>(())
    /// ```
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let first =
            |names: &[&str]| names.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty());
        let path = |names: &[&str]| first(names).map(PathBuf::from);
        let flag = |name: &str| {
            let value = first(&[name]).unwrap_or_default().to_ascii_lowercase();
            ["1", "on", "yes", "true"].contains(&value.as_str())
        };

        let user_cache =
            || path(&["XDG_CACHE_HOME"]).or_else(|| Some(path(&["HOME", "USERPROFILE"])?.join(".cache")));
        let home = path(&["HF_HOME"]).or_else(|| Some(user_cache()?.join("huggingface")));
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let cache = path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).or_else(|| in_home("hub"));

        let mut options = Self::new(cache.ok_or(HubError::NoCacheDirectory)?);
        if let Some(endpoint) = first(&["HF_ENDPOINT"]) {
            options.endpoint = endpoint;
        }
        options.token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
        if !flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            options.token_file = path(&["HF_TOKEN_PATH"]).or_else(|| in_home("token"));
        }
        let proxy = match options.endpoint.starts_with("http://") {
            true => first(&["HTTP_PROXY", "http_proxy"]),
            false => first(&["HTTPS_PROXY", "https_proxy"]),
        };
        options.proxy = proxy.or_else(|| first(&["ALL_PROXY", "all_proxy"]));
        options.no_proxy = first(&["NO_PROXY", "no_proxy"]);
        options.offline = flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE");
        Ok(options)
    }
}

/// A hub and its cache.
///
/// # Examples
///
/// ```no_run
/// use gpt2::hub::{Hub, HubOptions};
///
/// let hub = Hub::new(HubOptions::new("/data/hub".into()));
/// let directory = match hub.cached("gpt2", "main") {
///     Some(directory) => directory,
///     None => hub.fetch("gpt2", "main", &mut |progress| eprintln!("{progress:?}"))?,
/// };
/// # Ok::<(), gpt2::hub::HubError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hub {
    options: HubOptions,
}

/// Leaves out the token, the proxy, whose URL may hold a password, and one in the endpoint.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, endpoint, token, token_file, proxy: _, no_proxy, offline } = self;
        f.debug_struct("HubOptions")
            .field("cache", cache)
            .field("endpoint", &without_password(endpoint))
            .field("token", &token.as_ref().map(|_| "…"))
            .field("token_file", token_file)
            .field("no_proxy", no_proxy)
            .field("offline", offline)
            .finish_non_exhaustive()
    }
}

/// How far the download of one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name in the model's repository.
    pub file: &'a str,
    /// The bytes that are here, with those of an earlier call.
    pub received: u64,
    /// The bytes there are, if the hub says so.
    pub total: Option<u64>,
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CachedModel {
    /// The name on the hub, such as `openai-community/gpt2`.
    pub id: String,
    /// The branch or tag that is at this snapshot, else its commit.
    pub revision: String,
    /// The snapshot's directory.
    pub path: PathBuf,
    /// The size of its files.
    pub bytes: u64,
}

impl Hub {
    /// Makes a hub; no request is made and no file read.
    pub fn new(options: HubOptions) -> Self {
        Self { options }
    }

    /// Returns the options it was made with.
    pub fn options(&self) -> &HubOptions {
        &self.options
    }

    /// Returns the directory of a cached model that is complete enough to load, without any request.
    ///
    /// Complete is `config.json`, `model.safetensors` or every shard of its index, and `tokenizer.json` or
    /// `vocab.json` with `merges.txt`. `revision` is a branch, a tag or a commit.
    pub fn cached(&self, id: &str, revision: &str) -> Option<PathBuf> {
        let repository = Repository::new(&self.options.cache, id, revision).ok()?;
        let snapshot = repository.snapshot(&repository.cached_commit()?);
        is_complete(&snapshot).then_some(snapshot)
    }

    /// Downloads what is missing of a model at its newest commit and returns the directory to load it from.
    ///
    /// Asks the hub even where the model is cached, but for a revision that is a commit: that cannot change.
    /// Files of an interrupted call are continued. While another process downloads the same file, this waits.
    ///
    /// # Errors
    ///
    /// When the hub cannot be reached, does not have the model or the revision, or does not allow it; when the
    /// model has no weights in safetensors format, or no tokenizer; when a download breaks off or is not what
    /// was announced; when the cache cannot be written. With [`HubOptions::offline`], when the model is not
    /// cached.
    pub fn fetch(
        &self,
        id: &str,
        revision: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, HubError> {
        let repository = Repository::new(&self.options.cache, id, revision)?;
        let cached = self.cached(id, revision);
        if let Some(snapshot) = cached.filter(|_| self.options.offline || is_commit(revision)) {
            return Ok(snapshot);
        }
        if self.options.offline {
            return Err(HubError::Offline { id: id.to_owned(), cache: self.options.cache.clone() });
        }

        let (session, config) = Session::start(&self.options, &repository)?;
        let snapshot = repository.snapshot(session.commit());
        if !is_complete(&snapshot) || Checkpoint::open(&snapshot).is_err() {
            // Weights last: a snapshot with them has everything.
            let weights = match session.find(WEIGHTS)? {
                Some(weights) => vec![weights],
                None => {
                    let index = session.find(INDEX)?;
                    let index =
                        index.ok_or_else(|| session.missing(WEIGHTS, "that file or its index of shards"))?;
                    session.land(&index, progress)?;
                    let shards = shards(&snapshot.join(INDEX))?;
                    session.require(&shards.iter().map(String::as_str).collect::<Vec<_>>(), "every shard")?
                }
            };
            let mut files = vec![config];
            match session.find(TOKENIZER)? {
                Some(tokenizer) => files.push(tokenizer),
                None => files.extend(
                    session.require(&VOCABULARY, "`tokenizer.json`, or `vocab.json` and `merges.txt`")?,
                ),
            }
            for name in OPTIONAL {
                files.extend(session.find(name)?);
            }
            for file in files.iter().chain(&weights) {
                session.land(file, progress)?;
            }
        }
        repository.remember(session.commit())?;
        Ok(snapshot)
    }

    /// Lists the GPT-2 models in the cache that are complete enough to load, by name.
    ///
    /// # Errors
    ///
    /// When the cache is there but cannot be read.
    pub fn models(&self) -> Result<Vec<CachedModel>, HubError> {
        let mut models = Vec::new();
        for folder in entries(&self.options.cache)? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let Some(id) = name.strip_prefix("models--").map(|name| name.replacen("--", "/", 1)) else {
                continue;
            };
            let mut references = Vec::new();
            collect_references(&folder.join("refs"), "", &mut references)?;
            for path in entries(&folder.join("snapshots"))? {
                if !is_complete(&path) || !is_gpt2(&path) {
                    continue;
                }
                let commit = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let reference = references.iter().find(|(_, target)| *target == commit);
                let revision = reference.map_or(commit, |(name, _)| name.clone());
                let sizes = entries(&path)?.into_iter().filter_map(|file| fs::metadata(file).ok());
                let bytes = sizes.filter(|file| file.is_file()).map(|file| file.len()).sum();
                models.push(CachedModel { id: id.clone(), revision, path, bytes });
            }
        }
        models.sort();
        Ok(models)
    }
}

/// One model's folder in the cache; its names are checked, and safe in paths and URLs.
struct Repository<'a> {
    id: &'a str,
    revision: &'a str,
    cache: &'a Path,
}

impl<'a> Repository<'a> {
    fn new(cache: &'a Path, id: &'a str, revision: &'a str) -> Result<Self, HubError> {
        // `--` separates the parts of an id in the folder's name, so the hub allows it in none.
        let valid = id.len() <= 96 && id.split('/').count() <= 2 && !id.contains("--") && is_path(id);
        if !valid {
            return Err(HubError::InvalidId { id: id.to_owned() });
        }
        if revision.len() > 255 || !is_path(revision) {
            return Err(HubError::InvalidRevision { revision: revision.to_owned() });
        }
        Ok(Self { id, revision, cache })
    }

    fn folder_name(&self) -> String {
        format!("models--{}", self.id.replace('/', "--"))
    }

    fn folder(&self) -> PathBuf {
        self.cache.join(self.folder_name())
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    fn reference(&self) -> PathBuf {
        self.folder().join("refs").join(self.revision)
    }

    /// Returns the commit that the revision was at when it was last asked for.
    fn cached_commit(&self) -> Option<String> {
        if is_commit(self.revision) {
            return Some(self.revision.to_owned());
        }
        read_line(&self.reference()).ok().filter(|commit| is_commit(commit))
    }

    /// Records the commit that the revision is at.
    fn remember(&self, commit: &str) -> Result<(), HubError> {
        if is_commit(self.revision) || self.cached_commit().as_deref() == Some(commit) {
            return Ok(());
        }
        let reference = self.reference();
        create_parent(&reference)?;
        replace(&reference, |temporary| fs::write(temporary, commit))
    }
}

/// Says whether `path` is names of letters, digits, `.`, `_` and `-` with `/` between them, none of them a
/// hidden file or a way up.
fn is_path(path: &str) -> bool {
    path.split('/').all(is_name)
}

fn is_name(name: &str) -> bool {
    /// What file systems take.
    const LONGEST_NAME: usize = 255;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && !name.contains("..")
        && name.bytes().all(letters)
}

/// Says whether a revision is a whole commit hash, which names one state forever.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Says whether a snapshot has all that loading needs.
fn is_complete(snapshot: &Path) -> bool {
    let has = |name: &str| snapshot.join(name).is_file();
    let has_shards = || shards(&snapshot.join(INDEX)).is_ok_and(|names| names.iter().all(|name| has(name)));
    has(CONFIG)
        && (has(TOKENIZER) || VOCABULARY.into_iter().all(has))
        && (has(WEIGHTS) || (has(INDEX) && has_shards()))
}

/// Reads a file, unless it has more bytes than `limit`.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("expected at most {limit} bytes, found more"),
        ));
    }
    Ok(bytes)
}

/// Reads a file of one short line, such as a commit or a token.
fn read_line(path: &Path) -> io::Result<String> {
    let line = String::from_utf8(read(path, MAX_LINE)?);
    line.map(|line| line.trim().to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Returns a URL without the user and password that it may have.
fn without_password(url: &str) -> String {
    let start = url.find("://").map_or(0, |scheme| scheme + "://".len());
    match url.rfind('@') {
        Some(at) if at >= start => format!("{}…{}", &url[..start], &url[at..]),
        _ => url.to_owned(),
    }
}

/// Says whether a snapshot's configuration names no other architecture.
fn is_gpt2(snapshot: &Path) -> bool {
    let config = read(&snapshot.join(CONFIG), MAX_JSON).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    config["model_type"].as_str().is_none_or(|kind| kind == "gpt2")
}

/// Reads the names of the shards from an index of weights.
fn shards(index: &Path) -> Result<BTreeSet<String>, HubError> {
    let json = read(index, MAX_JSON).map_err(|source| HubError::file(index, source))?;
    let invalid = |reason: String| HubError::Index { path: index.to_owned(), reason };
    let json: serde_json::Value =
        serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
    let map = json["weight_map"].as_object().filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| invalid("it has no `weight_map`".to_owned()))?;
    map.values()
        .map(|shard| match shard.as_str() {
            Some(name) if is_name(name) => Ok(name.to_owned()),
            _ => Err(invalid(format!("`{shard}` is not the name of a shard"))),
        })
        .collect()
}

/// Gathers the references below a directory with the commits they are at.
fn collect_references(
    directory: &Path,
    prefix: &str,
    references: &mut Vec<(String, String)>,
) -> Result<(), HubError> {
    for path in entries(directory)? {
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            collect_references(&path, &format!("{name}/"), references)?;
        } else if let Ok(commit) = read_line(&path) {
            references.push((name, commit));
        }
    }
    Ok(())
}

/// Lists a directory in order; one that is not there is empty.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, HubError> {
    let listed = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    match listed {
        Ok(mut paths) => {
            paths.sort();
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(HubError::file(directory, source)),
    }
}

fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().expect("every path here is below the cache");
    fs::create_dir_all(parent).map_err(|source| HubError::file(parent, source))
}

/// Makes a file or link under another name and moves it to `path`, which is never half-written.
fn replace(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> Result<(), HubError> {
    let name = path.file_name().expect("every path here ends in a name").to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // Left over from a process with the same number, if it is there at all.
    let _ = fs::remove_file(&temporary);
    make(&temporary)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| HubError::file(path, source))
}

/// A model that could not be found or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name cannot be a model's.
    #[error(
        "`{id}` is not the name of a model: expected `name` or `owner/name` of letters, digits, `.`, `_`, `-`"
    )]
    InvalidId {
        /// The name.
        id: String,
    },
    /// The revision cannot be one.
    #[error("`{revision}` is not a revision: expected a branch, a tag or a commit")]
    InvalidRevision {
        /// The revision.
        revision: String,
    },
    /// The options do not make a client.
    #[error("cannot use the hub's {option}: {reason}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing says where the cache is.
    #[error("no cache directory: none of `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` and `HOME` is set")]
    NoCacheDirectory,
    /// The model is not cached, and requests are not allowed.
    #[error("`{id}` is not complete in the cache `{}`, and offline mode forbids to download it", cache.display())]
    Offline {
        /// The model.
        id: String,
        /// The cache.
        cache: PathBuf,
    },
    /// A server did not answer.
    #[error("cannot reach `{server}`")]
    Unreachable {
        /// The server: the hub, or the store that it redirected to.
        server: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The hub does not have the model, or hides it.
    #[error("`{server}` has no model `{id}`, or not for everyone")]
    ModelNotFound {
        /// The model.
        id: String,
        /// The hub.
        server: String,
    },
    /// The model has no such branch, tag or commit.
    #[error("model `{id}` has no revision `{revision}`")]
    RevisionNotFound {
        /// The model.
        id: String,
        /// The revision.
        revision: String,
    },
    /// The hub knows the model, and does not give it to this user.
    #[error("access to `{id}` is denied")]
    Denied {
        /// The model.
        id: String,
    },
    /// The model lacks a file without which it cannot run.
    #[error("model `{id}` has no `{name}`: expected {expected}")]
    MissingFile {
        /// The model.
        id: String,
        /// The file.
        name: String,
        /// What would do.
        expected: &'static str,
    },
    /// The server answered with another failure.
    #[error("`{url}` answered with HTTP status {status}")]
    Status {
        /// The address asked, without its query, which may hold a signature.
        url: String,
        /// The answer.
        status: u16,
    },
    /// The server's answer makes no sense.
    #[error("unexpected answer from `{url}`: {reason}")]
    Answer {
        /// The address asked, without its query, which may hold a signature.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The index of a sharded model makes no sense.
    #[error("`{}` is not an index of weights: {reason}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A download broke off.
    #[error("the download of `{file}` broke off after {received} bytes")]
    Interrupted {
        /// The file.
        file: String,
        /// The bytes that are here, for the next call to continue.
        received: u64,
        /// Why.
        source: io::Error,
    },
    /// A download has no end in sight: the server did not say how long it is.
    #[error("`{file}` has more than {limit} bytes, the most that is downloaded of a file of unknown size")]
    Endless {
        /// The file.
        file: String,
        /// The most bytes it may have.
        limit: u64,
    },
    /// A download has the wrong size.
    #[error("`{file}` has {found} bytes, expected {expected}")]
    Size {
        /// The file.
        file: String,
        /// The announced size.
        expected: u64,
        /// The size it has.
        found: u64,
    },
    /// A download has the wrong contents.
    #[error("`{file}` has the sha256 {found}, expected {expected}")]
    Digest {
        /// The file.
        file: String,
        /// The announced digest.
        expected: String,
        /// The digest it has.
        found: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HubError {
    /// Returns what the user can do about it, if there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { .. } => {
                "check the connection or set `HF_ENDPOINT` to a mirror; cached models work with `--offline`, \
                 and `--model demo` needs no hub"
            }
            Self::Offline { .. } => "download it without `--offline` first, or use `--model demo`",
            Self::ModelNotFound { .. } => "check the spelling; a private model needs `HF_TOKEN`",
            Self::Denied { .. } => {
                "accept the model's terms on its page, and set `HF_TOKEN` to a token that may read it"
            }
            Self::MissingFile { .. } => {
                "only models in safetensors format, with their tokenizer, can be loaded"
            }
            Self::Interrupted { .. } => "run the command again: the download continues where it broke off",
            Self::Size { .. } | Self::Digest { .. } => "run the command again: the file is downloaded anew",
            Self::NoCacheDirectory => "set `HF_HOME` to a directory",
            _ => return None,
        })
    }

    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
