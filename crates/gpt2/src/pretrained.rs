//! A model with its tokenizer and its settings, from one directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpt2_kernels::Cpu;
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{Config, ConfigError};
use crate::generate::{Generate, GenerationConfig};
use crate::model::{Formats, Model};
use crate::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};

/// What transformers' `from_pretrained` gives, for model and tokenizer at once.
#[derive(Debug)]
pub struct Pretrained {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its `generation_config.json`; if it has none, the settings in its `config.json`.
    pub generation_config: GenerationConfig,
}

/// Why a directory is no model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A configuration is not one of GPT-2.
    #[error("cannot use `{}`", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ConfigError,
    },
    /// The weights are not those of the configuration.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tokenizer is missing or damaged.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl Pretrained {
    /// Loads a directory in Hugging Face format: `config.json`, `model.safetensors` or its shards, `tokenizer.json` or
    /// `vocab.json` and `merges.txt`, and `generation_config.json` if there is one.
    ///
    /// A model of the hub has its directory from [`Hub::fetch`](crate::hub::Hub::fetch).
    ///
    /// # Errors
    /// If a file is missing or not what it should be.
    pub fn from_directory(
        directory: impl AsRef<Path>,
        cpu: impl Into<Arc<Cpu>>,
        formats: Formats,
    ) -> Result<Self, PretrainedError> {
        let directory = directory.as_ref();
        let path = directory.join("config.json");
        let json = read(&path)?.ok_or_else(|| PretrainedError::Read {
            path: path.clone(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        let wrong = |path: &Path| {
            let path = path.to_owned();
            |source| PretrainedError::Config { path, source }
        };
        let config = Config::from_json(&json).map_err(wrong(&path))?;
        let settings = directory.join("generation_config.json");
        let generation_config = match read(&settings)? {
            Some(json) => GenerationConfig::of_model(&json).map_err(wrong(&settings))?,
            None => GenerationConfig::from_model_config(&json).map_err(wrong(&path))?,
        };
        let tokenizer = Tokenizer::from_directory(directory)?.padded_to(config.vocab_size);
        let checkpoint = Checkpoint::open(directory)?;
        let model = Model::load(cpu, config, &checkpoint, formats, &mut |_, _| ())?;
        Ok(Self { model, tokenizer, generation_config })
    }

    /// Begins to say what is to be generated behind a text, with the model's own settings to start from.
    ///
    /// # Errors
    /// If the tokenizer cannot encode the text.
    pub fn generate(&self, prompt: &str) -> Result<Generate<'_>, TokenizerError> {
        let ids = self.tokenizer.encode(prompt, SpecialTokens::Parse)?;
        Ok(self.model.generate(&ids).tokenizer(&self.tokenizer).config(self.generation_config.clone()))
    }
}

/// A file's bytes, or none if there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, PretrainedError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PretrainedError::Read { path: path.to_owned(), source }),
    }
}
