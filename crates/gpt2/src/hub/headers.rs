//! What a model of the hub consists of, without downloading its weights.
//!
//! ```text
//! GET .../config.json
//! GET .../model.safetensors    Range: bytes=0-65535         all of the header, for every published GPT-2
//!                              Range: bytes=65536-…         the rest of a longer one
//! ```
//!
//! A server that knows no ranges sends the whole file, and the connection is closed after the header. Nothing of this is
//! written to the cache.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ureq::http::{Method, StatusCode};

use super::download::{RemoteFile, Session, address, answer, header};
use super::{Hub, HubError, INDEX, MAX_JSON, Repository, WEIGHTS, shards_in};
use crate::checkpoint::{Beginning, Headers};

/// Enough for the header of `gpt2-xl`, whose file has the most tensors.
const FIRST: u64 = 1 << 16;

/// What the hub says of a model.
#[derive(Debug)]
pub struct RemoteModel {
    /// The commit that the revision is at.
    pub commit: String,
    /// The bytes of `config.json`.
    pub config: Vec<u8>,
    /// The headers of the weights.
    pub headers: Headers,
}

impl Hub {
    /// Asks for a model's configuration and the headers of its weights; a few kilobytes, of which none is cached.
    ///
    /// # Errors
    ///
    /// When the hub cannot be reached, does not have the model or does not allow it, when the model has no weights in
    /// safetensors format, and when what it has is damaged. With [`HubOptions::offline`](super::HubOptions::offline),
    /// always.
    pub fn headers(&self, id: &str, revision: &str) -> Result<RemoteModel, HubError> {
        let repository = Repository::new(&self.options.cache, id, revision)?;
        if self.options.offline {
            return Err(self.offline(id, revision));
        }
        let (session, config) = Session::start(&self.options, &repository)?;
        let config = session.read_small(&config)?;
        let path = |name: &str| Path::new(id).join(name);
        let headers = match session.find(WEIGHTS)? {
            Some(weights) => Headers::single(session.beginning(&weights, path(WEIGHTS))?)?,
            None => {
                let index = session.find(INDEX)?.map_or_else(|| Err(session.no_weights()), Ok)?;
                let index = session.read_small(&index)?;
                let names = shards_in(&path(INDEX), &index)?;
                let beginning = |name: &String| {
                    let shard = session.require(&[name], "every shard")?;
                    session.beginning(&shard[0], path(name))
                };
                let shards: Vec<Beginning> = names.iter().map(beginning).collect::<Result<_, HubError>>()?;
                Headers::sharded(&path(INDEX), &index, shards)?
            }
        };
        Ok(RemoteModel { commit: session.commit().to_owned(), config, headers })
    }
}

impl Session<'_> {
    /// Reads the header of a safetensors file, and what comes with it.
    fn beginning(&self, file: &RemoteFile, path: PathBuf) -> Result<Beginning, HubError> {
        let (mut bytes, size) = self.read_range(file, 0, FIRST)?;
        let needed = Beginning::needed(&bytes, size);
        let received = bytes.len() as u64;
        if received < needed {
            bytes.extend(self.read_range(file, received, needed)?.0);
        }
        Ok(Beginning { path, bytes, size })
    }

    /// Reads the bytes of a file from `start` up to `end`, or less where it ends before, and finds out its size.
    fn read_range(&self, file: &RemoteFile, start: u64, end: u64) -> Result<(Vec<u8>, u64), HubError> {
        let range = format!("bytes={start}-{}", end - 1);
        let (url, response) = self.request(&Method::GET, &file.name, Some(&range), None)?;
        let headers = response.headers();
        let (skip, told) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(headers, "content-range").unwrap_or_default();
                let total =
                    range.strip_prefix(&format!("bytes {start}-")).and_then(|rest| rest.split_once('/'));
                let (_, total) =
                    total.ok_or_else(|| answer(&url, format!("`{range}` is not the range asked for")))?;
                (0, Some(total))
            }
            // All of it, from the first byte on.
            StatusCode::OK => (start, header(headers, "content-length")),
            status => return Err(HubError::Status { url: address(&url), status: status.as_u16() }),
        };
        let told = told.and_then(|size| size.parse().ok());
        let size: u64 = file
            .size
            .or(told)
            .ok_or_else(|| answer(&url, format!("it does not say how large `{}` is", file.name)))?;
        let mut body = response.into_body().into_reader();
        let wanted = end.min(size).saturating_sub(start);
        let mut bytes = Vec::new();
        let read = io::copy(&mut body.by_ref().take(skip), &mut io::sink())
            .and_then(|_| body.take(wanted).read_to_end(&mut bytes));
        let broken = |source| HubError::Interrupted { file: file.name.clone(), received: 0, source };
        match read.map_err(broken)? as u64 {
            read if read < wanted => Err(broken(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok((bytes, size)),
        }
    }

    /// Reads a whole file that must be short.
    fn read_small(&self, file: &RemoteFile) -> Result<Vec<u8>, HubError> {
        let (url, response) = self.request(&Method::GET, &file.name, None, None)?;
        if response.status() != StatusCode::OK {
            return Err(HubError::Status { url: address(&url), status: response.status().as_u16() });
        }
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(MAX_JSON + 1).read_to_end(&mut bytes);
        let found = bytes.len() as u64;
        read.map_err(|source| HubError::Interrupted { file: file.name.clone(), received: found, source })?;
        if found > MAX_JSON {
            return Err(HubError::Endless { file: file.name.clone(), limit: MAX_JSON });
        }
        match file.size {
            Some(expected) if expected != found => {
                Err(HubError::Size { file: file.name.clone(), expected, found })
            }
            _ => Ok(bytes),
        }
    }
}
