//! The tensors of a checkpoint: found, checked, and lent out as bytes of the file.
//!
//! ```text
//! model.safetensors                        or  model.safetensors.index.json
//! ┌────────┬───────────────┬───────────┐       {"weight_map": {"wte.weight": "model-00001-of-00002.safetensors", …}}
//! │ length │ JSON header   │ bytes …   │       and the files it names
//! └────────┴───────────────┴───────────┘
//!   8 bytes  name → dtype, shape, range
//! ```
//!
//! Nothing is copied or converted here; that is the task of [`weights`](crate::weights). A linear layer's weight
//! is stored `[in, out]` (transformers' `Conv1D`), `wte` is `[V, C]` and `wpe` is `[n_positions, C]`.

mod error;
mod file;
mod header;
mod headers;
mod identity;
mod layout;
mod remark;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use gpt2_kernels::Dtype;

use crate::config::Config;
use file::File;

pub use error::CheckpointError;
pub use headers::{Beginning, Headers};
pub use layout::expected_tensors;
pub use remark::Remark;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const WTE: &str = "wte.weight";
const HEAD: &str = "lm_head.weight";
const PREFIX: &str = "transformer.";

/// Holds a checkpoint's files, mapped into memory, and where each tensor lies in them.
///
/// Tensors are asked for by the names of [`expected_tensors`]; whether the files put `transformer.` before them
/// is found out when the checkpoint is opened. So is what PyTorch's wrappers put there, such as `_orig_mod.`.
///
/// ```no_run
/// use gpt2::checkpoint::Checkpoint;
/// use gpt2::config::Config;
///
/// let config = Config::from_json(&std::fs::read("gpt2/config.json")?)?;
/// let checkpoint = Checkpoint::open("gpt2".as_ref())?;
/// checkpoint.check(&config)?;
/// let wpe = checkpoint.tensor("wpe.weight", &[config.n_positions, config.n_embd])?;
/// let mut first = vec![0.0; config.n_embd];
/// wpe.decode(0, &mut first);
/// checkpoint.release(wpe.bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    /// What messages name: the one file, or the index of several.
    path: PathBuf,
    files: Vec<File>,
    /// By the name in the files, prefix and all.
    entries: BTreeMap<String, Entry>,
    /// The names in the files by those that the tensors have without wrappers, but with `transformer.`.
    names: BTreeMap<String, String>,
    /// What stands before all names in the files.
    outer: String,
    prefixed: bool,
}

/// Says where a tensor lies.
#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl Checkpoint {
    /// Opens the `model.safetensors` in a directory, or else the shards that `model.safetensors.index.json` names.
    ///
    /// Only headers are read.
    ///
    /// # Errors
    /// If the directory holds neither, a file cannot be read or is damaged, the index and its shards disagree, or
    /// some tensors have the prefix `transformer.` and some have not.
    pub fn open(dir: &Path) -> Result<Checkpoint, CheckpointError> {
        let single = dir.join(SINGLE);
        if single.exists() {
            return Checkpoint::assemble(single.clone(), vec![File::open(single)?]);
        }
        let index = dir.join(INDEX);
        if !index.exists() {
            return Err(CheckpointError::no_weights(dir));
        }
        let weight_map = header::read_index(&index)?;
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        let files = shards.iter().map(|shard| File::open(dir.join(shard))).collect::<Result<_, _>>()?;
        Checkpoint::assemble(index.clone(), files)?.with_index(&index, &weight_map)
    }

    /// Checks that the shards beside an index hold what it says.
    fn with_index(
        self,
        index: &Path,
        weight_map: &BTreeMap<String, String>,
    ) -> Result<Checkpoint, CheckpointError> {
        for (name, shard) in weight_map {
            let found = self.entries.get(name).map(|entry| self.files[entry.file].path());
            let path = index.with_file_name(shard);
            // Some versions of transformers list a tied head, or masks, and then do not write them.
            let not_needed = || found.is_none() && layout::is_spare(&self.plain(name));
            if found != Some(&path) && !not_needed() {
                return Err(CheckpointError::NotInShard { path, name: name.clone() });
            }
        }
        Ok(self)
    }

    /// Takes the bytes of a whole safetensors file, such as one embedded in a program.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], with `<memory>` for the name of the file.
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Checkpoint, CheckpointError> {
        let path = PathBuf::from("<memory>");
        Checkpoint::assemble(path.clone(), vec![File::from_bytes(path, bytes.into())])
    }

    fn assemble(path: PathBuf, files: Vec<File>) -> Result<Checkpoint, CheckpointError> {
        let mut entries = BTreeMap::new();
        for (file, source) in files.iter().enumerate() {
            for (name, entry) in header::read(source, file)? {
                if entries.contains_key(&name) {
                    return Err(CheckpointError::Duplicate { path, name });
                }
                entries.insert(name, entry);
            }
        }
        let outer = layout::outer(entries.keys().map(String::as_str));
        let mut names = BTreeMap::new();
        for name in entries.keys() {
            if let Some(other) = names.insert(layout::plain(name, &outer), name.clone()) {
                return Err(CheckpointError::SameTensor { path, one: other, other: name.clone() });
            }
        }
        let prefixed = names.iter().find(|(plain, _)| plain.starts_with(PREFIX));
        let bare = names.iter().find(|(plain, _)| layout::is_trunk(plain));
        if let (Some((_, prefixed)), Some((_, bare))) = (prefixed, bare) {
            let (prefixed, bare) = (prefixed.clone(), bare.clone());
            return Err(CheckpointError::MixedPrefix { path, prefixed, bare });
        }
        let prefixed = prefixed.is_some();
        Ok(Checkpoint { path, files, entries, names, outer, prefixed })
    }

    /// Lends a tensor after checking its shape.
    ///
    /// # Errors
    /// If there is none of that name, its shape is another, or its values are not F32, F16, BF16 or F64.
    pub fn tensor(&self, name: &str, expected: &[usize]) -> Result<TensorView<'_>, CheckpointError> {
        let name = self.name_in_file(name);
        let Some((name, entry)) = self.entries.get_key_value(&name) else {
            let path = self.path.clone();
            return Err(CheckpointError::Missing { path, name, expected: expected.to_vec() });
        };
        let file = &self.files[entry.file];
        let path = || file.path().to_owned();
        if entry.shape != expected {
            let (expected, found) = (expected.to_vec(), entry.shape.clone());
            return Err(CheckpointError::Shape { path: path(), name: name.clone(), expected, found });
        }
        let dtype = match entry.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            safetensors::Dtype::F64 => Dtype::F64,
            found => {
                return Err(CheckpointError::Dtype {
                    path: path(),
                    name: name.clone(),
                    found: found.to_string(),
                });
            }
        };
        // Of `Headers` alone there are no bytes.
        let bytes = file.bytes().get(entry.range.clone()).unwrap_or_default();
        Ok(TensorView { name, dtype, shape: &entry.shape, bytes })
    }

    /// Lends `wte`, and the head where it is another matrix, by the rules of transformers.
    ///
    /// When `tie_word_embeddings` says that they are one and the files hold both, they are compared: equal
    /// matrices count as one, otherwise the head in the file is used. When the files hold `lm_head.weight` alone,
    /// it is the one. Bytes are compared, so that where the files hold both, both are read.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn embeddings(&self, config: &Config) -> Result<Embeddings<'_>, CheckpointError> {
        let shape = [config.vocab_size, config.n_embd];
        let wte = self.tensor(self.wte_name(config), &shape)?;
        let lm_head = match (config.tie_word_embeddings, self.contains(HEAD)) {
            (true, false) => None,
            (true, true) => Some(self.tensor(HEAD, &shape)?).filter(|head| !self.equal(*head, wte)),
            (false, _) => Some(self.tensor(HEAD, &shape)?),
        };
        Ok(Embeddings { wte, lm_head })
    }

    /// Checks, without reading weights, that the checkpoint holds a model of this configuration and nothing else.
    ///
    /// Besides the [`expected_tensors`] there may be what is known to be harmless: the causal masks
    /// `h.N.attn.bias` and `h.N.attn.masked_bias` that old versions of transformers saved, the
    /// `lm_head.weight` of a tied model, which [`Checkpoint::embeddings`] compares with `wte`, and the other head of a
    /// `GPT2DoubleHeadsModel`, which is left out, as [`Checkpoint::remarks`] says.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape or an unsupported type, or is one too many, such as the head of a
    /// classifier.
    pub fn check(&self, config: &Config) -> Result<(), CheckpointError> {
        let mut known: HashSet<&str> = self.model_tensors(config)?.iter().map(|view| view.name).collect();
        if self.contains(HEAD) {
            known.insert(self.tensor(HEAD, &[config.vocab_size, config.n_embd])?.name);
        }
        for (name, entry) in &self.entries {
            let plain = self.plain(name);
            let head = layout::HEADS.iter().find(|head| head.has(&plain));
            let left_out = head.is_some_and(|head| head.beside_language_model);
            if known.contains(name.as_str()) || self.is_mask(name, config.n_layer) || left_out {
                continue;
            }
            let (path, name) = (self.files[entry.file].path().to_owned(), name.clone());
            return Err(match head {
                Some(head) => CheckpointError::OtherHead { path, name, class: head.class },
                None => CheckpointError::Unknown { path, name },
            });
        }
        Ok(())
    }

    /// Says whether the checkpoint holds a tensor, whatever its shape.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(&self.name_in_file(name))
    }

    /// Tells the operating system that these bytes of a tensor have been used, so that they need no memory.
    ///
    /// To be called while loading, with a [`TensorView`]'s bytes or any part of them: then file and loaded weights
    /// are never both in memory. The bytes stay readable; reading them again fetches them from the file. Does
    /// nothing for bytes that are not of a mapped file.
    pub fn release(&self, bytes: &[u8]) {
        for file in &self.files {
            file.release(bytes);
        }
    }

    /// Returns the size of all files together, headers included.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(File::size).fold(0, u64::saturating_add)
    }

    /// Lends the [`expected_tensors`], in their order.
    pub(crate) fn model_tensors(&self, config: &Config) -> Result<Vec<TensorView<'_>>, CheckpointError> {
        let views = expected_tensors(config).map(|(name, shape)| {
            let name = if name == WTE { self.wte_name(config) } else { &name };
            self.tensor(name, &shape)
        });
        views.collect()
    }

    /// Lists the names and shapes of the tensors that are neither the model's nor causal masks.
    pub(crate) fn not_counted(&self, config: &Config) -> Result<Vec<(&str, &[usize])>, CheckpointError> {
        let counted: HashSet<&str> = self.model_tensors(config)?.iter().map(|view| view.name).collect();
        let entries = self.entries.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()));
        Ok(entries
            .filter(|(name, _)| !counted.contains(name) && !self.is_mask(name, config.n_layer))
            .collect())
    }

    /// Returns the name to look `wte` up by: a tied matrix may be stored as the head alone.
    fn wte_name(&self, config: &Config) -> &'static str {
        let head_alone = config.tie_word_embeddings && self.contains(HEAD) && !self.contains(WTE);
        if head_alone { HEAD } else { WTE }
    }

    /// Returns what a tensor is called in the files, or would be if they had it.
    fn name_in_file(&self, name: &str) -> String {
        let name = if self.prefixed && name != HEAD { format!("{PREFIX}{name}") } else { name.to_owned() };
        let found = self.names.get(&name).cloned();
        found.unwrap_or_else(|| format!("{}{name}", self.outer))
    }

    /// Returns what a tensor of the files is called without wrappers, but with `transformer.`.
    fn plain(&self, name: &str) -> String {
        layout::plain(name, &self.outer)
    }

    /// Says whether a name in the files is that of a causal mask of one of the blocks.
    fn is_mask(&self, name: &str, n_layer: usize) -> bool {
        let plain = self.plain(name);
        let name = if self.prefixed { plain.strip_prefix(PREFIX) } else { Some(plain.as_str()) };
        name.and_then(layout::mask_layer).is_some_and(|layer| layer < n_layer)
    }

    /// Compares two tensors byte by byte, holding little of either in memory.
    ///
    /// Equal values in unequal bytes (zeros of either sign, or other types) count as different, which costs
    /// memory and never changes a result.
    fn equal(&self, a: TensorView<'_>, b: TensorView<'_>) -> bool {
        const CHUNK: usize = 1 << 20;
        let chunks = a.bytes.chunks(CHUNK).zip(b.bytes.chunks(CHUNK));
        a.dtype == b.dtype
            && a.shape == b.shape
            && chunks.into_iter().all(|(a, b)| {
                let equal = a == b;
                self.release(a);
                self.release(b);
                equal
            })
    }
}

/// Lends the two ends of a model.
#[derive(Debug, Clone, Copy)]
pub struct Embeddings<'a> {
    /// The token embeddings.
    pub wte: TensorView<'a>, // (V, C)
    /// The head, where it is not `wte` itself.
    pub lm_head: Option<TensorView<'a>>, // (V, C)
}

/// Lends one tensor of a checkpoint: little-endian values in row-major order, not aligned.
#[derive(Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// The type of the values.
    pub dtype: Dtype,
    /// The lengths, outermost first; their product is the number of values.
    pub shape: &'a [usize],
    /// The values.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Writes `out.len()` values from number `start` on as `f32`: exactly, but for `F64`, which is rounded to the nearest.
    ///
    /// # Panics
    /// If the tensor has no `start + out.len()` values.
    pub fn decode(&self, start: usize, out: &mut [f32]) {
        let size = self.dtype.size();
        let len = self.bytes.len() / size;
        assert!(
            start <= len && out.len() <= len - start,
            "decode: `{}` has {len} values, {} from {start} on wanted",
            self.name,
            out.len()
        );
        let bytes = &self.bytes[start * size..][..out.len() * size];
        self.dtype.read_row(bytes, out);
    }
}

impl fmt::Debug for TensorView<'_> {
    /// Leaves the values out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorView")
            .field("name", &self.name)
            .field("dtype", &self.dtype)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}
