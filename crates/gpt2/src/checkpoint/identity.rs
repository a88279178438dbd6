//! What tells a checkpoint's files from others: where they are, what the system says of them, and samples of their
//! bytes.
//!
//! Whatever is derived from a checkpoint and kept, such as a [packed copy](crate::pack), is kept under this
//! identity. Reading all bytes to tell whether they changed would take as long as using them.

use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::header::LENGTH;
use super::{Checkpoint, TensorView};

/// Samples of a tensor, spread evenly from its start to its end.
const SAMPLES: usize = 8;
/// Bytes in a sample.
const SAMPLE: usize = 1024;

impl Checkpoint {
    /// Returns a digest of the checkpoint's files and of samples of `tensors`, or nothing where it is of no file.
    ///
    /// Of each file: the canonical path, the length, the time of its last change, the inode where there is one, all
    /// as they were when the checkpoint was opened, and the whole header. The samples notice a file of the same
    /// length that was given the time of the one it replaced.
    pub(crate) fn identity(&self, tensors: &[TensorView<'_>]) -> Option<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update((self.files.len() as u64).to_le_bytes());
        for file in &self.files {
            let metadata = file.metadata()?;
            // A time that the system does not know is no way to tell files apart.
            let changed = metadata.modified().ok()?;
            // Before 1970 the distance is the same, and a sign tells the two apart.
            let (sign, distance) = match changed.duration_since(UNIX_EPOCH) {
                Ok(distance) => (0, distance),
                Err(error) => (1, error.duration()),
            };
            let path = file.path().canonicalize().ok()?;
            let path = path.as_os_str().as_encoded_bytes();
            let header = header(file.bytes());
            let numbers = [path.len() as u64, metadata.len(), sign, inode(metadata), header.len() as u64];
            numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
            hash.update(distance.as_nanos().to_le_bytes());
            hash.update(path);
            hash.update(header);
        }
        for tensor in tensors {
            hash.update((tensor.name.len() as u64).to_le_bytes());
            hash.update(tensor.name);
            for sample in samples(tensor.bytes) {
                hash.update(sample);
            }
        }
        Some(hash.finalize().into())
    }
}

/// The header with its length, which were found to lie in the file when it was opened.
fn header(bytes: &[u8]) -> &[u8] {
    let length = bytes.first_chunk::<LENGTH>().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    bytes.get(..LENGTH + length).unwrap_or(bytes)
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &std::fs::Metadata) -> u64 {
    0
}

/// The first and the last bytes and some between, or all bytes if there are few.
fn samples(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let few = bytes.len() <= SAMPLES * SAMPLE;
    let (count, length) = if few { (1, bytes.len()) } else { (SAMPLES, SAMPLE) };
    let spread = bytes.len() - length;
    (0..count).map(move |index| {
        // `SAMPLES` is a small number, so the product does not overflow where a tensor fits in memory.
        let start = if count == 1 { 0 } else { spread / (count - 1) * index };
        &bytes[start..][..length]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_all_of_a_small_tensor_and_both_ends_of_a_large_one() {
        for length in [0, 1, SAMPLES * SAMPLE, SAMPLES * SAMPLE + 1, 100 * SAMPLE + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let found: Vec<&[u8]> = samples(&bytes).collect();
            if length <= SAMPLES * SAMPLE {
                assert_eq!(found, [&bytes[..]]);
            } else {
                assert_eq!(found.len(), SAMPLES);
                assert_eq!(found[0], &bytes[..SAMPLE]);
                let last = found[SAMPLES - 1].as_ptr_range().end.addr();
                assert!(bytes.as_ptr_range().end.addr() - last < SAMPLES);
            }
        }
    }
}
