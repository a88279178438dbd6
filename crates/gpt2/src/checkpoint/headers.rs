//! What the files of a checkpoint say about themselves, without their weights.
//!
//! Enough to [inspect](crate::inspect) a model that is elsewhere: the header of a safetensors file is its first few
//! kilobytes, of half a gigabyte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file::File;
use super::{Checkpoint, CheckpointError, Remark, header};

/// Holds the headers of a checkpoint's files.
///
/// ```
/// use gpt2::checkpoint::{Beginning, Headers};
///
/// let header = br#"{"x": {"dtype": "F32", "shape": [250], "data_offsets": [0, 1000]}}"#;
/// let bytes = [&(header.len() as u64).to_le_bytes()[..], header].concat();
/// let size = bytes.len() as u64 + 1000;
/// let file = Beginning { path: "model.safetensors".into(), bytes, size };
/// assert_eq!(Headers::single(file)?.file_bytes(), size);
/// # Ok::<(), gpt2::checkpoint::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct Headers(Checkpoint);

/// The beginning of a safetensors file: at least its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// What messages call the file.
    pub path: PathBuf,
    /// Its first bytes.
    pub bytes: Vec<u8>,
    /// The bytes of the whole file.
    pub size: u64,
}

impl Beginning {
    /// Returns how many bytes a file of `size` bytes begins with that say what is in it, as far as its first ones
    /// tell: never more than the file has, nor than a header may have.
    pub fn needed(first: &[u8], size: u64) -> u64 {
        let length = first.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        (header::LENGTH as u64).saturating_add(length.min(header::LIMIT)).min(size)
    }
}

impl Headers {
    /// Takes the header of a checkpoint of one file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn single(file: Beginning) -> Result<Self, CheckpointError> {
        let path = file.path.clone();
        Checkpoint::assemble(path, vec![open(file)]).map(Self)
    }

    /// Takes an index and the headers of the shards beside it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn sharded(path: &Path, index: &[u8], shards: Vec<Beginning>) -> Result<Self, CheckpointError> {
        let weight_map: BTreeMap<String, String> = header::parse_index(path, index)?;
        let files = shards.into_iter().map(open).collect();
        Checkpoint::assemble(path.to_owned(), files)?.with_index(path, &weight_map).map(Self)
    }

    /// Returns the size of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.0.file_bytes()
    }

    /// Says what is unusual about the checkpoint, as [`Checkpoint::remarks`].
    pub fn remarks(&self) -> Vec<Remark> {
        self.0.remarks()
    }

    /// The checkpoint, whose tensors have no bytes.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.0
    }
}

fn open(file: Beginning) -> File {
    File::beginning(file.path, file.bytes, file.size)
}
