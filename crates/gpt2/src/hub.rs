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
mod error;
mod headers;
mod options;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::download::{RemoteFile, Session};
use crate::checkpoint::Checkpoint;
use crate::json;
use crate::tokenizer::COMPANION_FILES;

pub use self::error::HubError;
pub use self::headers::RemoteModel;
pub use self::options::HubOptions;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY: [&str; 2] = ["vocab.json", "merges.txt"];
/// Settings of generation, which a model need not have.
const SETTINGS: &str = "generation_config.json";
/// What makes a directory a LoRA adapter.
const ADAPTER: &str = "adapter_config.json";
/// Weights that are not read.
const OTHER_FORMATS: [&str; 4] =
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"];

/// The longest configuration or index that is read, as in a checkpoint.
const MAX_JSON: u64 = 100_000_000;
/// The longest commit or token that is read.
const MAX_LINE: u64 = 1 << 16;

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
        self.snapshot_where(id, revision, is_complete)
    }

    /// Returns the directory of a cached model that has its configuration and its weights, without any request.
    ///
    /// Enough to [inspect](crate::inspect) it.
    pub fn cached_weights(&self, id: &str, revision: &str) -> Option<PathBuf> {
        self.snapshot_where(id, revision, |snapshot| {
            snapshot.join(CONFIG).is_file() && missing_weights(snapshot).is_empty()
        })
    }

    /// Returns the directory of a cached tokenizer, whether or not its model is cached, without any request.
    pub fn cached_tokenizer(&self, id: &str, revision: &str) -> Option<PathBuf> {
        self.snapshot_where(id, revision, |snapshot| missing_tokenizer(snapshot).is_empty())
    }

    /// Returns the files that a cached model lacks to be complete, or nothing if no snapshot of it is there.
    pub fn missing(&self, id: &str, revision: &str) -> Vec<String> {
        self.snapshot_where(id, revision, Path::is_dir).map_or_else(Vec::new, |snapshot| missing(&snapshot))
    }

    /// Returns the snapshot that a revision was at when it was last asked for, if it passes.
    fn snapshot_where(&self, id: &str, revision: &str, passes: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let repository = Repository::new(&self.options.cache, id, revision).ok()?;
        let snapshot = repository.snapshot(&repository.cached_commit()?);
        passes(&snapshot).then_some(snapshot)
    }

    /// Returns what is cached if the hub need not be asked for anything newer, or must not be.
    fn settled(
        &self,
        id: &str,
        revision: &str,
        cached: Option<PathBuf>,
    ) -> Result<Option<PathBuf>, HubError> {
        match cached {
            None if self.options.offline => Err(self.offline(id, revision)),
            cached => Ok(cached.filter(|_| self.options.offline || is_commit(revision))),
        }
    }

    fn offline(&self, id: &str, revision: &str) -> HubError {
        let (id, cache, missing) = (id.to_owned(), self.options.cache.clone(), self.missing(id, revision));
        HubError::Offline { id, cache, missing }
    }

    /// Downloads what is missing of a model at its newest commit and returns the directory to load it from.
    ///
    /// Asks the hub even where the model is cached, but for a revision that is a commit: that cannot change.
    /// Files of an interrupted call are continued. While another process downloads the same file, this waits.
    ///
    /// # Errors
    ///
    /// When the hub cannot be reached, does not have the model or the revision, or does not allow it; when the
    /// model is no GPT-2, has no weights in safetensors format, or no tokenizer; when a download breaks off or is not what
    /// was announced; when the cache cannot be written. With [`HubOptions::offline`], when the model is not
    /// cached.
    pub fn fetch(
        &self,
        id: &str,
        revision: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, HubError> {
        let repository = Repository::new(&self.options.cache, id, revision)?;
        if let Some(snapshot) = self.settled(id, revision, self.cached(id, revision))? {
            return Ok(snapshot);
        }

        let (session, config) = Session::start(&self.options, &repository)?;
        let snapshot = repository.snapshot(session.commit());
        if !is_complete(&snapshot) || Checkpoint::open(&snapshot).is_err() {
            // Weights last: a snapshot with them has everything.
            let weights = match session.find(WEIGHTS)? {
                Some(weights) => vec![weights],
                None => {
                    let index = session.find(INDEX)?;
                    let index = index.map_or_else(|| Err(session.no_weights()), Ok)?;
                    session.land(&index, progress)?;
                    let shards = shards(&snapshot.join(INDEX))?;
                    session.require(&shards.iter().map(String::as_str).collect::<Vec<_>>(), "every shard")?
                }
            };
            let mut files = vec![config];
            files.extend(tokenizer_files(&session)?);
            files.extend(session.find(SETTINGS)?);
            for file in &files {
                session.land(file, progress)?;
            }
            // Before half a gigabyte comes in vain.
            if let Some(found) = other_kind(&snapshot) {
                return Err(HubError::OtherKind { id: id.to_owned(), found });
            }
            for file in &weights {
                session.land(file, progress)?;
            }
        }
        repository.remember(session.commit())?;
        Ok(snapshot)
    }

    /// Downloads what is missing of a model's tokenizer, and its configuration, and returns their directory.
    ///
    /// As [`Hub::fetch`] in everything else. A model that is cached stays as it is.
    ///
    /// # Errors
    ///
    /// As [`Hub::fetch`], but for the weights.
    pub fn fetch_tokenizer(
        &self,
        id: &str,
        revision: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, HubError> {
        let repository = Repository::new(&self.options.cache, id, revision)?;
        if let Some(snapshot) = self.settled(id, revision, self.cached_tokenizer(id, revision))? {
            return Ok(snapshot);
        }
        let (session, config) = Session::start(&self.options, &repository)?;
        let snapshot = repository.snapshot(session.commit());
        if !missing_tokenizer(&snapshot).is_empty() {
            for file in [config].iter().chain(&tokenizer_files(&session)?) {
                session.land(file, progress)?;
            }
        }
        // A whole model at an earlier commit is worth more than a tokenizer at this one.
        if self.cached(id, revision).is_none() {
            repository.remember(session.commit())?;
        }
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
                if !is_complete(&path) || other_kind(&path).is_some() {
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

/// Finds a tokenizer's files, all that the model has.
fn tokenizer_files(session: &Session<'_>) -> Result<Vec<RemoteFile>, HubError> {
    let mut files = match session.find(TOKENIZER)? {
        Some(tokenizer) => vec![tokenizer],
        None => session.require(&VOCABULARY, "`tokenizer.json`, or `vocab.json` and `merges.txt`")?,
    };
    for &name in COMPANION_FILES {
        files.extend(session.find(name)?);
    }
    Ok(files)
}

/// Says whether a snapshot has all that loading needs.
fn is_complete(snapshot: &Path) -> bool {
    missing(snapshot).is_empty()
}

/// Lists the files that a snapshot lacks to be loaded.
fn missing(snapshot: &Path) -> Vec<String> {
    let config = (!snapshot.join(CONFIG).is_file()).then(|| CONFIG.to_owned());
    config.into_iter().chain(missing_weights(snapshot)).chain(missing_tokenizer(snapshot)).collect()
}

fn missing_weights(snapshot: &Path) -> Vec<String> {
    let has = |name: &str| snapshot.join(name).is_file();
    if has(WEIGHTS) {
        return Vec::new();
    }
    match shards(&snapshot.join(INDEX)) {
        Ok(names) => names.into_iter().filter(|name| !has(name)).collect(),
        Err(_) if has(INDEX) => vec![INDEX.to_owned()],
        Err(_) => vec![WEIGHTS.to_owned()],
    }
}

fn missing_tokenizer(snapshot: &Path) -> Vec<String> {
    let has = |name: &str| snapshot.join(name).is_file();
    let parts: Vec<String> = VOCABULARY.into_iter().filter(|name| !has(name)).map(str::to_owned).collect();
    match parts.len() {
        _ if has(TOKENIZER) => Vec::new(),
        // Neither: the newer layout is the one to name.
        2 => vec![TOKENIZER.to_owned()],
        _ => parts,
    }
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

/// Returns the kind of model that a snapshot's configuration names, if it is another one.
fn other_kind(snapshot: &Path) -> Option<String> {
    let config = read(&snapshot.join(CONFIG), MAX_JSON).unwrap_or_default();
    let config: serde_json::Value = json::read(&config).unwrap_or_default();
    config["model_type"].as_str().filter(|kind| *kind != "gpt2").map(str::to_owned)
}

/// Reads the names of the shards from an index of weights.
fn shards(index: &Path) -> Result<BTreeSet<String>, HubError> {
    let json = read(index, MAX_JSON).map_err(|source| HubError::file(index, source))?;
    shards_in(index, &json)
}

/// Reads the names of the shards from the bytes of an index.
fn shards_in(path: &Path, bytes: &[u8]) -> Result<BTreeSet<String>, HubError> {
    let invalid = |reason: String| HubError::Index { path: path.to_owned(), reason };
    let index: serde_json::Value = json::read(bytes).map_err(|error| invalid(error.to_string()))?;
    let map = index["weight_map"].as_object().filter(|map| !map.is_empty());
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
