//! Packed copies: the matrices of a checkpoint in eight or four bits, kept on disk for the next start.
//!
//! Rounding a checkpoint takes many times as long as reading what comes out of it. So the packed bytes of every
//! matrix are written to a file of a cache, and later read from there into place, on all threads, a checksum checked
//! for every piece. Vectors are few bytes and are taken from the checkpoint always. In `f32` and `bf16` there are no
//! copies: they would be as large as the checkpoint, and packing it is about as fast as reading.
//!
//! ```text
//! <directory>/<32 digits>-int8.pack
//!   magic · version of this layout · version of packing · format · pieces
//!   identity                          of the checkpoint, see below
//!   check of each piece
//!   check of all before it, then zeros up to whole pages
//!   pieces                            the bytes of each matrix, cut into pieces of a mebibyte
//! ```
//!
//! The identity is a digest of the versions and the format, of each file's canonical path, length, time of last
//! change, inode and header, and of samples of every matrix. It names the file and stands in it again.
//!
//! A copy is used if every byte of it is as expected, and is absent otherwise: then the checkpoint is packed and the
//! copy replaced. It gets its name when it is whole, so that processes can share a cache. It is not forced to the
//! disk: what a crash leaves of it fails its checks. The checks find accidents, not malice: who can write to the
//! directory can change what the model says, as who can write to the checkpoint. So the directory and the files are
//! made for their owner alone.
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gpt2_kernels::quant::PACK_VERSION;
use gpt2_kernels::{Cpu, Matrix, WeightFormat};
use sha2::{Digest, Sha256};
use twox_hash::XxHash3_64;

/// The version of the file's layout; [`PACK_VERSION`] is that of the bytes in it.
const LAYOUT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"gpt2pack";
/// What is read and checked at a time: it stays in a processor's own cache between the two.
const PIECE: usize = 1 << 20;
/// The start of the pieces is a multiple of this.
const PAGE: usize = 4096;
/// Magic, two versions, format, number of pieces, identity.
const PREFIX: usize = 8 + 4 + 4 + 8 + 8 + 32;
/// The end of a copy's name.
const EXTENSION: &str = ".pack";
/// The end of the name of a copy that is being written.
const UNFINISHED: &str = ".unfinished";
/// Copies take at most this part of what would be free without them.
const SHARE_OF_DISK: u64 = 4;

/// A directory of packed copies.
///
/// ```
/// use gpt2::pack::{PackCache, PackUse};
/// use gpt2::{checkpoint::Checkpoint, config::Config, model::Model};
/// use gpt2_kernels::{Cpu, Kernels, WeightFormat};
///
/// # let temporary = tempfile::tempdir()?;
/// # let directory = temporary.path();
/// # let folder = &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/one-layer");
/// # /*
/// let (folder, directory) = (Path::new("gpt2"), Path::new("cache"));
/// # */
/// let copies = PackCache::new(directory);
/// for expected in [PackUse::Written, PackUse::Read] {
///     let config = Config::from_json(&std::fs::read(folder.join("config.json"))?)?;
///     let (checkpoint, cpu) = (Checkpoint::open(folder)?, Cpu::new(Kernels::detect(), 2));
///     let formats = WeightFormat::Int8.into();
///     let (model, found) = Model::load_with_copies(cpu, config, &checkpoint, formats, &copies, &mut |_, _| ())?;
///     # if gpt2::pack::SUPPORTED {
///     assert!(matches!((expected, found), (PackUse::Written, PackUse::Written) | (PackUse::Read, PackUse::Read)));
///     # }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackCache {
    /// Where the copies are; made when the first is written.
    pub directory: PathBuf,
    /// The most bytes that all copies together may have. Those that were used longest ago are given up first.
    pub limit: u64,
}

/// What became of the packed copy when a model was loaded.
#[derive(Debug)]
pub enum PackUse {
    /// None was looked for: the format or the machine has none, or the checkpoint is no file.
    None,
    /// The matrices came from it.
    Read,
    /// There was none, or a damaged one: the checkpoint was packed, and the copy written.
    Written,
    /// There was none, or a damaged one, and it could not be written. The model is as good.
    NotWritten(io::Error),
}

/// Whether this program has packed copies at all: reading at a position is Unix's, the byte order is little-endian.
pub const SUPPORTED: bool = cfg!(all(unix, target_endian = "little"));

impl PackCache {
    /// The limit when none is given: room for the four sizes of GPT-2 in eight bits.
    pub const DEFAULT_LIMIT: u64 = 4 << 30;

    /// Describes a cache in a directory, with the default limit; touches nothing.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), limit: Self::DEFAULT_LIMIT }
    }

    /// Returns the directory by the variables that say where caches are, looked up by `variable`.
    ///
    /// `$XDG_CACHE_HOME/gpt2/packed`, else `~/.cache/gpt2/packed`. A variable that is set but empty counts as not
    /// set.
    ///
    /// ```
    /// use gpt2::pack::PackCache;
    ///
    /// let variables = |name: &str| (name == "HOME").then(|| "/data/ada".to_owned());
    /// let directory = PackCache::directory_from_variables(variables);
    /// assert_eq!(directory, Some("/data/ada/.cache/gpt2/packed".into()));
    /// ```
    pub fn directory_from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || path("HOME").or_else(|| path("USERPROFILE"));
        let cache = path("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))?;
        Some(cache.join("gpt2").join("packed"))
    }

    /// Reads the matrices of a copy, of given inputs, outputs and formats, into place, or nothing where it is absent or not as expected in every byte.
    pub(crate) fn read(
        &self,
        cpu: &Cpu,
        key: &Key,
        shapes: &[(usize, usize, WeightFormat)],
    ) -> Option<Vec<Matrix>> {
        let path = self.directory.join(key.name());
        // Opening a pipe would wait for its other end.
        let file =
            fs::metadata(&path).ok().filter(fs::Metadata::is_file).and_then(|_| File::open(&path).ok())?;
        let lengths: Vec<usize> = shapes.iter().map(|&(i, o, format)| format.bytes(i, o)).collect();
        let header = Header::new(key, &lengths);
        if file.metadata().ok()?.len() != header.file_length() {
            return None;
        }
        let mut bytes = vec![0; header.length()];
        read_at(&file, &mut bytes, 0).ok()?;
        let checks = header.checks(&bytes)?;

        let zeroed = |&(inputs, outputs, format): &_| Matrix::zeroed(format, inputs, outputs);
        let mut matrices: Vec<Matrix> = shapes.iter().map(zeroed).collect();
        let pieces = matrices.iter_mut().flat_map(|matrix| matrix.as_bytes_mut().chunks_mut(PIECE));
        let damaged = AtomicBool::new(false);
        share_out(cpu, placed(header.length() as u64, pieces), |(index, offset, piece)| {
            let done = damaged.load(Ordering::Relaxed);
            if !done && (read_at(&file, piece, offset).is_err() || check_of(index, piece) != checks[index]) {
                damaged.store(true, Ordering::Relaxed);
            }
        });
        if damaged.into_inner() {
            return None;
        }
        // Copies are given up in the order of this time. Where it cannot be set, they go sooner.
        let _ = file.set_modified(SystemTime::now());
        Some(matrices)
    }

    /// Writes a copy, giving up others for it where they would be more than the limit together.
    pub(crate) fn write(&self, cpu: &Cpu, key: &Key, matrices: &[Matrix]) -> io::Result<()> {
        create_directory(&self.directory)?;
        let lengths: Vec<usize> = matrices.iter().map(|matrix| matrix.as_bytes().len()).collect();
        let header = Header::new(key, &lengths);
        let name = key.name();
        self.make_room(&name, header.file_length())?;

        let unfinished = Unfinished::create(&self.directory, &name)?;
        let checks: Vec<AtomicU64> = (0..header.pieces).map(|_| AtomicU64::new(0)).collect();
        let error = Mutex::new(None);
        let pieces = matrices.iter().flat_map(|matrix| matrix.as_bytes().chunks(PIECE));
        share_out(cpu, placed(header.length() as u64, pieces), |(index, offset, piece)| {
            if lock(&error).is_some() {
                return;
            }
            checks[index].store(check_of(index, piece), Ordering::Relaxed);
            if let Err(cause) = write_at(&unfinished.file, piece, offset) {
                lock(&error).get_or_insert(cause);
            }
        });
        if let Some(error) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let checks = checks.into_iter().map(AtomicU64::into_inner);
        write_at(&unfinished.file, &header.bytes(checks), 0)?;
        unfinished.rename(&self.directory.join(name))
    }

    /// Removes what is left of writers that are gone, and the copies that were used longest ago until a new one of
    /// `bytes` bytes fits.
    ///
    /// Writers at the same time do not see each other's copies, so that there may be more than the limit until the
    /// next one is written.
    fn make_room(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut copies: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let (path, found) = (entry.path(), entry.file_name());
            let found = found.to_string_lossy();
            // What is not ours is left alone, and gone in the meantime is as good as removed.
            if is_unfinished(&found) {
                remove_if_abandoned(&path);
            } else if is_copy(&found)
                && let Ok(metadata) = entry.metadata()
                && metadata.is_file()
            {
                if found == name {
                    // It is about to be replaced: it was found damaged, or another process wrote it just now.
                    continue;
                }
                copies.push((metadata.modified()?, path, metadata.len()));
            }
        }
        let held = copies.iter().map(|(_, _, bytes)| bytes).sum();
        let room = room(self.limit, held, free_bytes(&self.directory)?);
        if bytes > room {
            let message = format!("the copy has {bytes} bytes, and there is room for {room}");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
        }
        copies.sort();
        let mut held = held;
        for (_, path, length) in copies {
            if held <= room - bytes {
                break;
            }
            fs::remove_file(path)?;
            held -= length;
        }
        Ok(())
    }
}

/// What a copy is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    format: WeightFormat,
    digest: [u8; 32],
}

impl Key {
    /// Returns the key for a checkpoint, or nothing where it has no identity or there are no copies in the format.
    pub(crate) fn new(format: WeightFormat, identity: impl FnOnce() -> Option<[u8; 32]>) -> Option<Self> {
        if !format.rounds_activations() || !SUPPORTED {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(LAYOUT_VERSION.to_le_bytes());
        hash.update(PACK_VERSION.to_le_bytes());
        hash.update(code(format));
        hash.update(identity()?);
        Some(Self { format, digest: hash.finalize().into() })
    }

    fn name(&self) -> String {
        let digits: String = self.digest[..DIGITS / 2].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digits}-{}{EXTENSION}", self.format.name())
    }
}

/// Digits at the start of a copy's name.
const DIGITS: usize = 32;

fn is_copy(name: &str) -> bool {
    let digits = |digits: &[u8]| digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    name.ends_with(EXTENSION) && name.as_bytes().get(..DIGITS).is_some_and(digits)
}

fn is_unfinished(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(UNFINISHED));
    inner.and_then(|name| name.rsplit_once('.')).is_some_and(|(name, _)| is_copy(name))
}

/// The format's name in eight bytes.
fn code(format: WeightFormat) -> [u8; 8] {
    let mut code = [0; 8];
    let name = format.name().as_bytes();
    code[..name.len()].copy_from_slice(name);
    code
}

/// What stands before the pieces.
struct Header<'a> {
    key: &'a Key,
    pieces: usize,
    /// Bytes of all pieces.
    data: u64,
}

impl<'a> Header<'a> {
    fn new(key: &'a Key, lengths: &[usize]) -> Self {
        let pieces = lengths.iter().map(|length| length.div_ceil(PIECE)).sum();
        Self { key, pieces, data: lengths.iter().map(|&length| length as u64).sum() }
    }

    /// Bytes before the first piece.
    fn length(&self) -> usize {
        (PREFIX + (self.pieces + 1) * 8).next_multiple_of(PAGE)
    }

    fn file_length(&self) -> u64 {
        self.length() as u64 + self.data
    }

    fn bytes(&self, checks: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length());
        bytes.extend(MAGIC);
        bytes.extend(LAYOUT_VERSION.to_le_bytes());
        bytes.extend(PACK_VERSION.to_le_bytes());
        bytes.extend(code(self.key.format));
        bytes.extend((self.pieces as u64).to_le_bytes());
        bytes.extend(self.key.digest);
        checks.for_each(|check| bytes.extend(check.to_le_bytes()));
        bytes.extend(XxHash3_64::oneshot(&bytes).to_le_bytes());
        bytes.resize(self.length(), 0);
        bytes
    }

    /// Returns the checks of the pieces, if the header of a file is the one that is expected, and whole.
    fn checks(&self, found: &[u8]) -> Option<Vec<u64>> {
        let checks = found.get(PREFIX..)?.as_chunks::<8>().0.get(..self.pieces)?;
        let checks: Vec<u64> = checks.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        (self.bytes(checks.iter().copied()) == found).then_some(checks)
    }
}

/// The check of a piece: another one in another place.
fn check_of(index: usize, piece: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(index as u64, piece)
}

/// Numbers pieces and says where each one lies in a file, from `start` on.
fn placed<P: AsRef<[u8]>>(
    start: u64,
    pieces: impl Iterator<Item = P>,
) -> impl Iterator<Item = (usize, u64, P)> {
    let mut next = start;
    pieces.enumerate().map(move |(index, piece)| {
        let offset = next;
        next += piece.as_ref().len() as u64;
        (index, offset, piece)
    })
}

/// Calls `f` with every piece, on all threads, which begin with the first.
fn share_out<P: Send>(cpu: &Cpu, pieces: impl Iterator<Item = P>, f: impl Fn(P) + Sync) {
    let pieces: Vec<P> = pieces.collect();
    let count = pieces.len();
    let pieces = Mutex::new(pieces.into_iter());
    cpu.pool.run(count, |_, _| {
        let next = lock(&pieces).next();
        next.into_iter().for_each(&f);
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that all copies together may have, which now have `held`.
fn room(limit: u64, held: u64, free: u64) -> u64 {
    limit.min(free.saturating_add(held) / SHARE_OF_DISK)
}

/// A copy that is being written, removed when it is dropped before it has its name.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    /// Makes a file beside `name` that no other writer has.
    ///
    /// It is locked as long as it is written, which is how others see that its writer is alive.
    fn create(directory: &Path, name: &str) -> io::Result<Self> {
        const MOST_WRITERS: u32 = 100;
        let process = std::process::id();
        let mut number = 0;
        loop {
            let path = directory.join(format!(".{name}.{process}-{number}{UNFINISHED}"));
            match private_file(&path) {
                Ok(file) => match file.try_lock() {
                    // Another writer took it for abandoned before it was locked, and is about to remove it,
                    Err(TryLockError::WouldBlock) if number < MOST_WRITERS => number += 1,
                    // or has removed it.
                    _ if number < MOST_WRITERS && !is_named(&file, &path) => number += 1,
                    // Without locks on this file system, nothing is ever taken for abandoned.
                    _ => return Ok(Self { file, path }),
                },
                // Another thread is at it, or a process of this number died.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST_WRITERS => {
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the file its name, in place of an older copy.
    fn rename(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // What cannot be removed now is removed as abandoned by a later writer.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes an unfinished copy that no living process has locked.
fn remove_if_abandoned(path: &Path) {
    if let Ok(file) = File::open(path)
        && file.try_lock().is_ok()
        // Or another has removed it meanwhile, and a third has made one of that name.
        && is_named(&file, path)
    {
        let _ = fs::remove_file(path);
    }
}

/// Makes a directory, and those above it, for their owner alone.
fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes a file that was not there, for its owner alone.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn free_bytes(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether this is the file that the path names now.
#[cfg(unix)]
fn is_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let number = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|found| (found.dev(), found.ino()));
    number(file.metadata()).is_some_and(|file| number(fs::metadata(path)) == Some(file))
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn is_named(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(not(unix))]
fn free_bytes(_directory: &Path) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn read_at(_file: &File, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn write_at(_file: &File, _bytes: &[u8], _offset: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_leave_most_of_the_disk_free() {
        for (limit, held, free, expected) in [
            (100, 0, 4000, 100),
            (100, 0, 40, 10),
            (100, 40, 0, 10),
            (0, 40, 4000, 0),
            (u64::MAX, 8, u64::MAX, u64::MAX / 4),
        ] {
            assert_eq!(room(limit, held, free), expected, "limit {limit}, held {held}, free {free}");
        }
    }

    #[test]
    fn only_names_of_copies_are_taken_for_copies() {
        let digits = "0123456789abcdef0123456789abcdef";
        for (name, copy, unfinished) in [
            (format!("{digits}-int8.pack"), true, false),
            (format!(".{digits}-int8.pack.17-0.unfinished"), false, true),
            (format!("{digits}-int8.pack.17-0.unfinished"), false, false),
            ("notes.pack".to_owned(), false, false),
            (format!("{}é-int8.pack", &digits[..31]), false, false),
            (format!("{digits}-int8.txt"), false, false),
            (".notes.unfinished".to_owned(), false, false),
        ] {
            assert_eq!((is_copy(&name), is_unfinished(&name)), (copy, unfinished), "{name}");
        }
    }
}
