//! What can go wrong between a hub, its cache and this program.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;

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
    #[error(
        "`{id}` is not {}in the cache `{}`{}, and offline mode forbids downloading it",
        if missing.is_empty() { "" } else { "complete " },
        cache.display(),
        lacking(missing)
    )]
    Offline {
        /// The model.
        id: String,
        /// The cache.
        cache: PathBuf,
        /// The files that the cached snapshot lacks; none if there is no snapshot.
        missing: Vec<String>,
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
    #[error("`{server}` has no model `{id}`, or it is private")]
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
    /// The model has weights in other formats alone.
    #[error(
        "model `{id}` has `{found}` but no `model.safetensors`; weights are read from safetensors files only"
    )]
    OtherFormat {
        /// The model.
        id: String,
        /// The file it has.
        found: &'static str,
    },
    /// The model is of another kind.
    #[error("`{id}` is a model of the type `{}`, not `gpt2`", found.escape_debug())]
    OtherKind {
        /// The model.
        id: String,
        /// What its configuration says.
        found: String,
    },
    /// The repository holds changes to another model.
    #[error("`{id}` is a LoRA adapter, not a whole model")]
    Adapter {
        /// The repository.
        id: String,
    },
    /// What the hub says of the weights is not what a checkpoint's files say.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
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
            Self::Unreachable { source, .. } if is_certificate(&**source) => {
                "is there a login page on this network, or a proxy that intercepts TLS?"
            }
            Self::Unreachable { .. } => {
                "check the connection or set `HF_ENDPOINT` to a mirror; cached models work with `--offline`, \
                 and `--model demo` needs no hub"
            }
            Self::Offline { .. } => "download it without `--offline` first, or use `--model demo`",
            Self::OtherFormat { .. } => {
                "load the model in Python, save it with `model.save_pretrained(directory)` and \
                 `tokenizer.save_pretrained(directory)`, and give that directory"
            }
            Self::Adapter { .. } => {
                "merge it into its base model in Python, `model.merge_and_unload().save_pretrained(directory)`, \
                 and give that directory"
            }
            Self::Answer { .. } => {
                "the answer is not the hub's: is there a login page on this network, or does `HF_ENDPOINT` name \
                 something else?"
            }
            Self::Status { status: 429, .. } => {
                "the hub has had too many requests: try again later, or set `HF_TOKEN`"
            }
            Self::Status { status: 500.., .. } => {
                "the hub has a problem: try again later; cached models work with `--offline`"
            }
            Self::Status { .. } => "does `HF_ENDPOINT` name a hub, and may `HF_TOKEN` read the model?",
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

    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// Says which files are missing.
fn lacking(missing: &[String]) -> String {
    let names: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => String::new(),
        1 => format!(": {} is missing", names[0]),
        _ => format!(": {} are missing", names.join(", ")),
    }
}

/// Says whether a connection failed because of who is at its other end.
fn is_certificate(error: &(dyn Error + 'static)) -> bool {
    let text = error.to_string();
    text.contains("certificate") || error.source().is_some_and(is_certificate)
}
