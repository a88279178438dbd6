//! One file of a checkpoint: mapped into memory, bytes that are there already, or the beginning of a file elsewhere.
//!
//! The only module of this crate that knows the operating system's memory and holds `unsafe` code.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::CheckpointError;

/// Holds the bytes of a file and the name to call it by in messages.
pub(super) struct File {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    /// The map, and what the system said of the file just before it was mapped.
    Mapped(Mmap, fs::Metadata),
    Memory(Cow<'static, [u8]>),
    /// The beginning of a file of that size.
    Beginning(Vec<u8>, u64),
}

impl File {
    /// Maps a file. Its pages are read when they are first used.
    pub(super) fn open(path: PathBuf) -> Result<File, CheckpointError> {
        match map(&path) {
            Ok((mmap, metadata)) => Ok(File { path, bytes: Bytes::Mapped(mmap, metadata) }),
            Err(source) => Err(CheckpointError::Io { path, source }),
        }
    }

    pub(super) fn from_bytes(path: PathBuf, bytes: Cow<'static, [u8]>) -> File {
        File { path, bytes: Bytes::Memory(bytes) }
    }

    /// Takes the beginning of a file that has `size` bytes.
    pub(super) fn beginning(path: PathBuf, bytes: Vec<u8>, size: u64) -> File {
        File { path, bytes: Bytes::Beginning(bytes, size) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that are here: all of them, unless there is a beginning alone.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(mmap, _) => mmap,
            Bytes::Memory(bytes) => bytes,
            Bytes::Beginning(bytes, _) => bytes,
        }
    }

    /// The bytes of the whole file.
    pub(super) fn size(&self) -> u64 {
        match &self.bytes {
            Bytes::Beginning(_, size) => *size,
            _ => self.bytes().len() as u64,
        }
    }

    /// What the system said of the file when it was opened; nothing for bytes that are of no file.
    pub(super) fn metadata(&self) -> Option<&fs::Metadata> {
        match &self.bytes {
            Bytes::Mapped(_, metadata) => Some(metadata),
            Bytes::Memory(_) | Bytes::Beginning(..) => None,
        }
    }

    /// Drops from memory the pages that hold these bytes, if they are of this file and it is mapped.
    ///
    /// Pages shared with a neighbour, which may be huge ones, are dropped as well, and come back when it is used.
    /// Failure is no error: the pages stay.
    pub(super) fn release(&self, bytes: &[u8]) {
        let Bytes::Mapped(mmap, _) = &self.bytes else { return };
        let (file, part) = (mmap.deref().as_ptr_range(), bytes.as_ptr_range());
        if bytes.is_empty() || part.start < file.start || part.end > file.end {
            return;
        }
        let start = part.start.addr() - file.start.addr();
        #[cfg(unix)]
        // SAFETY: the range is inside the map, which is a read-only shared map of a file: dropped pages come back
        // with the file's content, so that no byte a reference can see is changed by the call.
        let _ =
            unsafe { mmap.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, bytes.len()) };
        #[cfg(not(unix))]
        let _ = start;
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

fn map(path: &Path) -> io::Result<(Mmap, fs::Metadata)> {
    // Opening a pipe would wait for its other end, and a directory cannot be mapped.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    // SAFETY: a map is unsound if another process changes or truncates the file while it is in use, which no
    // program can prevent; whoever opens a checkpoint guarantees that its files are left alone, as every
    // program that maps its weights asks.
    let mmap = unsafe { Mmap::map(&file) }?;
    Ok((mmap, metadata))
}
