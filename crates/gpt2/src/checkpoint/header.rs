//! Reading what a file says about itself: the header of a safetensors file, and the index of several.
//!
//! Everything here comes from a file and is believed only once checked. Offsets, shapes and types are checked
//! against each other by the `safetensors` crate; this module checks them against the file.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use safetensors::tensor::Metadata;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::file::File;
use super::{CheckpointError, Entry};
use crate::json;

/// The longest header or index that is parsed: the format's own limit, a thousand times what any GPT-2 needs.
pub(super) const LIMIT: u64 = 100_000_000;

/// How the stand-in for a large file begins that git leaves behind where git-lfs is not installed.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The bytes that hold the length of the header.
pub(super) const LENGTH: usize = 8;

/// Reads the header of a file, which is number `file` of its checkpoint.
pub(super) fn read(source: &File, file: usize) -> Result<Vec<(String, Entry)>, CheckpointError> {
    let bytes = source.bytes();
    let path = || source.path().to_owned();
    if bytes.starts_with(LFS_POINTER) {
        return Err(CheckpointError::LfsPointer { path: path() });
    }
    let found = source.size();
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Err(CheckpointError::Truncated { path: path(), expected: LENGTH as u64, found });
    };
    let length = u64::from_le_bytes(*length);
    if length > LIMIT {
        return Err(CheckpointError::TooLong { path: path(), found: length, limit: LIMIT });
    }
    let Some(header) = rest.get(..length as usize) else {
        return Err(CheckpointError::Truncated { path: path(), expected: LENGTH as u64 + length, found });
    };
    let malformed = |source| CheckpointError::Malformed { path: path(), source };
    // `Metadata` would keep the last of two tensors of one name.
    let names: UniqueMap<IgnoredAny> = serde_json::from_slice(header).map_err(malformed)?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(malformed)?;
    let data = LENGTH + header.len();
    // Offsets may be anything up to here; from here on they lie within the file, whose size may be a server's word.
    let expected = data.checked_add(metadata.data_len()).map(|expected| expected as u64);
    if expected != Some(found) {
        let expected = expected.unwrap_or(u64::MAX);
        return Err(CheckpointError::Length { path: path(), expected, found });
    }
    let entries = names.0.into_keys().filter_map(|name| {
        let info = metadata.info(&name)?; // none for `__metadata__` alone, which is no tensor
        let (start, end) = info.data_offsets;
        let entry =
            Entry { file, dtype: info.dtype, shape: info.shape.clone(), range: data + start..data + end };
        Some((name, entry))
    });
    Ok(entries.collect())
}

/// Reads an index: the name of each tensor and of the file beside the index that holds it.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let file = File::open(path.to_owned())?;
    parse_index(path, file.bytes())
}

/// Parses the bytes of an index.
pub(super) fn parse_index(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, String>, CheckpointError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: UniqueMap<String>,
    }
    let found = bytes.len() as u64;
    if found > LIMIT {
        return Err(CheckpointError::TooLong { path: path.to_owned(), found, limit: LIMIT });
    }
    let index: Index =
        json::read(bytes).map_err(|source| CheckpointError::Malformed { path: path.to_owned(), source })?;
    match index.weight_map.0.values().find(|shard| !is_file_name(shard)) {
        Some(shard) => Err(CheckpointError::ShardName { path: path.to_owned(), shard: shard.clone() }),
        None => Ok(index.weight_map.0),
    }
}

/// Says whether a name can only be that of a file in the same directory, on any operating system.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

/// A JSON object none of whose names occurs twice.
struct UniqueMap<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = UniqueMap<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueMap<T>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((name, value)) = access.next_entry::<String, T>()? {
                    if map.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("`{name}` occurs twice")));
                    }
                    map.insert(name, value);
                }
                Ok(UniqueMap(map))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}
