//! What people should know of a checkpoint that is read although it is unusual.

use std::fmt;
use std::path::PathBuf;

use super::Checkpoint;
use super::layout::{self, Head};

/// Something that people should know of a checkpoint that can be used; [`Display`](fmt::Display) says it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remark {
    /// Parts of the tensors' names are ignored: wrappers of PyTorch put them there.
    Prefixes {
        /// The checkpoint.
        path: PathBuf,
        /// The parts, such as `_orig_mod.`.
        prefixes: Vec<String>,
    },
    /// Tensors are left out, for the language model does not use them.
    LeftOut {
        /// The checkpoint.
        path: PathBuf,
        /// How the names of the tensors begin, such as `multiple_choice_head.`.
        head: &'static str,
        /// The tensors, as the files name them.
        names: Vec<String>,
        /// The class of models that use them.
        class: &'static str,
    },
    /// Numbers in double precision are rounded to the nearest in single precision.
    Rounded {
        /// The checkpoint.
        path: PathBuf,
        /// How many tensors there are.
        tensors: usize,
    },
}

impl Checkpoint {
    /// Says what is unusual about the checkpoint, and what becomes of it.
    pub fn remarks(&self) -> Vec<Remark> {
        let path = || self.path.clone();
        let prefixes = layout::ignored(self.entries.keys().map(String::as_str), &self.outer);
        let prefixes = (!prefixes.is_empty()).then(|| Remark::Prefixes { path: path(), prefixes });
        let left_out = layout::HEADS.iter().filter(|head| head.beside_language_model).filter_map(|head| {
            let names = self.names.iter().filter(|(plain, _)| head.has(plain));
            let names: Vec<String> = names.map(|(_, name)| name.clone()).collect();
            let Head { prefix, class, .. } = *head;
            (!names.is_empty()).then(|| Remark::LeftOut { path: path(), head: prefix, names, class })
        });
        let doubles = self.entries.values().filter(|entry| entry.dtype == safetensors::Dtype::F64).count();
        let rounded = (doubles > 0).then(|| Remark::Rounded { path: path(), tensors: doubles });
        prefixes.into_iter().chain(left_out).chain(rounded).collect()
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefixes { path, prefixes } => {
                let prefixes: Vec<_> = prefixes.iter().map(|prefix| format!("`{prefix}`")).collect();
                let prefixes = prefixes.join(" and ");
                write!(f, "ignoring {prefixes} in the tensor names of `{}`", path.display())
            }
            Self::LeftOut { path, head, class, .. } => {
                write!(f, "ignoring `{head}*` in `{}`: the second head of a `{class}`", path.display())
            }
            Self::Rounded { path, tensors } => {
                let s = if *tensors == 1 { "" } else { "s" };
                write!(f, "rounding {tensors} F64 tensor{s} of `{}` to F32", path.display())
            }
        }
    }
}
