//! What can be wrong with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Says what is wrong with a checkpoint, and in which file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory holds no weights, or is none.
    #[error("found no `model.safetensors` and no `model.safetensors.index.json` in `{}`", dir.display())]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds weights in another format alone.
    #[error(
        "found `{found}` but no `model.safetensors` in `{}`; weights are read from safetensors files only",
        dir.display()
    )]
    OtherFormat {
        /// The directory.
        dir: PathBuf,
        /// The file there is.
        found: &'static str,
    },
    /// A file ends before its header does.
    #[error("`{}` is truncated or not a safetensors file: expected {expected} bytes or more, found {found}",
        path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The bytes its header takes.
        expected: u64,
        /// The bytes it has.
        found: u64,
    },
    /// A file is what git leaves behind in place of a large file.
    #[error("`{}` is a git-lfs pointer to the weights, not the weights themselves", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A header or index is longer than any model needs.
    #[error("`{}` is no safetensors file, or damaged: expected a header of at most {limit} bytes, found one of {found}",
        path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The length it gives.
        found: u64,
        /// The greatest length accepted.
        limit: u64,
    },
    /// A header or index is not what its format says.
    #[error("`{}` has a damaged header or index", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },
    /// A file is longer or shorter than its header says.
    #[error("`{}` is damaged or not fully downloaded: expected {expected} bytes, found {found}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The bytes its header accounts for.
        expected: u64,
        /// The bytes it has.
        found: u64,
    },
    /// An index names a shard that is not the name of a file beside it.
    #[error("`{}` names the shard `{shard}`; expected the name of a file beside it", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The name.
        shard: String,
    },
    /// An index puts a tensor into a shard that does not hold it.
    #[error("tensor `{name}` is not in `{}`, where the index puts it", path.display())]
    NotInShard {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Two shards hold a tensor of the same name.
    #[error("tensor `{name}` is in two shards of `{}`", path.display())]
    Duplicate {
        /// The index.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Two names are those of one tensor, less what wrappers of PyTorch put there.
    #[error("`{one}` and `{other}` in `{}` are names of the same tensor", path.display())]
    SameTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The one name.
        one: String,
        /// The other name.
        other: String,
    },
    /// Some tensors have the prefix `transformer.` and some have not.
    #[error("expected all tensors of `{}` or none to begin with `transformer.`, found `{prefixed}` and `{bare}`",
        path.display())]
    MixedPrefix {
        /// The checkpoint.
        path: PathBuf,
        /// A tensor with the prefix.
        prefixed: String,
        /// A tensor without.
        bare: String,
    },
    /// A tensor the model needs is not there.
    #[error("tensor `{name}` of shape {expected:?} is missing from `{}`", path.display())]
    Missing {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor, as it would be called in this checkpoint.
        name: String,
        /// The shape the configuration gives it.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the configuration gives it.
    #[error("tensor `{name}` in `{}`: expected shape {expected:?}, found {found:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape the configuration gives it.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has values of a type that is not supported.
    #[error("tensor `{name}` in `{}`: expected F32, F16, BF16 or F64, found {found}", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type in the file.
        found: String,
    },
    /// A tensor is the head of a model for something else.
    #[error(
        "tensor `{name}` in `{}` is the head of a `{class}`; expected a language model, such as a `GPT2LMHeadModel`",
        path.display()
    )]
    OtherHead {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The class of models that have it.
        class: &'static str,
    },
    /// A tensor has no place in the model.
    #[error("tensor `{name}` in `{}` has no place in a GPT-2 language model of this configuration", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
}

impl CheckpointError {
    /// Says why a directory holds no weights that can be read.
    pub(super) fn no_weights(dir: &Path) -> CheckpointError {
        let dir = dir.to_owned();
        let others =
            ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"];
        match others.into_iter().find(|name| dir.join(name).exists()) {
            Some(found) => CheckpointError::OtherFormat { dir, found },
            None => CheckpointError::NoWeights { dir },
        }
    }
}
