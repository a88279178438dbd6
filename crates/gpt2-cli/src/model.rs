//! Which model a command works with, and loading it.
//!
//! ```text
//! --model demo                      the model in this program
//! --model ./dir, --model dir        a directory, if it is one with a `config.json` or is written as a path
//! --model name, --model owner/name  the hub's: as downloaded, else downloaded now
//! none                              `gpt2` in the same way, but the demo model where that fails
//! ```
//! A model that was named is never replaced by another.

use std::borrow::Cow;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpt2::checkpoint::Checkpoint;
use gpt2::config::{Config, ConfigError};
use gpt2::generate::GenerationConfig;
use gpt2::hub::{Hub, HubError, HubOptions};
use gpt2::model::Model;
use gpt2::pack::{PackCache, PackUse};
use gpt2::tokenizer::Tokenizer;
use gpt2_kernels::{Cpu, Kernels};

use crate::arguments::{MOST_THREADS, Options};
use crate::cores;
use crate::device;
use crate::failure::{Failure, MODEL_DIRECTORY};
use crate::memory;
use crate::terminal::{self, Terminal, Unit};

/// The name of the model in this program.
pub(crate) const DEMO: &str = "demo";
/// The model when none is named.
const DEFAULT: &str = "gpt2";
/// The branch when none is named.
pub(crate) const MAIN: &str = "main";

/// The files of the model in this program.
mod demo {
    macro_rules! file {
        ($name:literal) => {
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/", $name))
        };
    }
    pub(super) const CONFIG: &[u8] = file!("config.json");
    pub(super) const GENERATION_CONFIG: &[u8] = file!("generation_config.json");
    pub(super) const TOKENIZER: &[u8] = file!("tokenizer.json");
    pub(super) const WEIGHTS: &[u8] = file!("model.safetensors");
}

/// Longest JSON file that is read, but for tokenizers, which have their own limit.
const LONGEST_CONFIG: u64 = 1 << 24;

/// The published models.
pub(crate) const PUBLISHED: [&str; 5] = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"];

/// Names that the hub moved; caches may have either.
const MOVED: [(&str, &str); 5] = [
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("distilgpt2", "distilbert/distilgpt2"),
];

/// The files of a model, none of them read yet.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    /// What the user calls the model.
    pub(crate) name: String,
    place: Place,
}

/// Where a model's files are.
#[derive(Debug)]
enum Place {
    Program,
    Directory(PathBuf),
}

/// A model ready to run.
pub(crate) struct Loaded {
    /// What the user calls the model.
    pub(crate) name: String,
    /// The model.
    pub(crate) model: Model,
    /// Its tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// From nothing to ready.
    pub(crate) load_time: Duration,
}

impl ModelFiles {
    /// Finds the model that the options name, downloading it if need be.
    pub(crate) fn find(options: &Options, terminal: &Terminal) -> Result<Self, Failure> {
        let Some(name) = named(options) else { return Self::find_default(options, terminal) };
        let path = Path::new(name);
        let written_as_path = name.starts_with(['.', '/', '~'])
            || name.contains('\\')
            || name.ends_with('/')
            || name.matches('/').count() > 1;
        let exists_as_path =
            path.is_file() || path.is_dir() && (name.contains('/') || path.join("config.json").is_file());
        let files = |place| Self { name: name.to_owned(), place };
        if name == DEMO {
            refuse_revision(options)?;
            Ok(files(Place::Program))
        } else if written_as_path || exists_as_path {
            refuse_revision(options)?;
            check_directory(path)?;
            Ok(files(Place::Directory(path.to_owned())))
        } else {
            let revision = options.revision.as_deref().unwrap_or(MAIN);
            let hub = hub(options)?;
            let directory = match cached(&hub, name, revision) {
                Some(directory) => directory,
                None => fetch(&hub, name, revision, terminal).map_err(|error| {
                    let failure = Failure::from(error);
                    // `models/mine` may be meant as a directory, and misspelt.
                    if name.contains('/') {
                        failure.hint(format!("there is no directory `{name}` either"))
                    } else {
                        failure
                    }
                })?,
            };
            Ok(files(Place::Directory(directory)))
        }
    }

    /// The model in this program.
    pub(crate) fn demo() -> Self {
        Self { name: DEMO.to_owned(), place: Place::Program }
    }

    /// Finds `gpt2`, or says why the demo model takes its place.
    fn find_default(options: &Options, terminal: &Terminal) -> Result<Self, Failure> {
        if options.revision.is_some() {
            return Err(Failure::usage("`--revision` goes with a model of the hub: add `--model ID`"));
        }
        let found = HubOptions::from_variables(variable).and_then(|hub_options| {
            let hub = with_options(hub_options, options);
            cached(&hub, DEFAULT, MAIN).map_or_else(|| fetch(&hub, DEFAULT, MAIN, terminal), Ok)
        });
        match found {
            Ok(directory) => Ok(Self { name: DEFAULT.to_owned(), place: Place::Directory(directory) }),
            Err(error) => {
                let reason = match &error {
                    HubError::Offline { .. } => "`gpt2` is not downloaded".to_owned(),
                    HubError::Unreachable { server, .. } => {
                        format!("`gpt2` is not downloaded and `{server}` cannot be reached")
                    }
                    _ => {
                        let mut reason = format!("`gpt2` cannot be downloaded: {error}");
                        let mut cause = error.source();
                        while let Some(error) = cause {
                            reason.push_str(&format!(": {error}"));
                            cause = error.source();
                        }
                        reason
                    }
                };
                terminal.note(&format!("this is the small demo model, not GPT-2 itself: {reason}"));
                terminal.note(
                    "`gpt2 download gpt2` fetches the real one (0.5 GB); \
                     `--model demo` asks for the demo model without this note",
                );
                Ok(Self::demo())
            }
        }
    }

    /// Reads `config.json`.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        match self.read("config.json", demo::CONFIG)? {
            Some(json) => Config::from_json(&json).map_err(|error| self.in_file("config.json", error)),
            None => Err(Failure::new(format!("found no `config.json` in `{}`", self.directory().display()))
                .hint(MODEL_DIRECTORY)),
        }
    }

    /// Reads `generation_config.json`, which a model need not have.
    pub(crate) fn generation_config(&self) -> Result<GenerationConfig, Failure> {
        const NAME: &str = "generation_config.json";
        let json = self.read(NAME, demo::GENERATION_CONFIG)?;
        json.map_or_else(
            || Ok(GenerationConfig::default()),
            |json| GenerationConfig::from_json(&json).map_err(|error| self.in_file(NAME, error)),
        )
    }

    /// Opens the weights, reading their headers.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint, Failure> {
        Ok(match &self.place {
            Place::Program => Checkpoint::from_bytes(demo::WEIGHTS)?,
            Place::Directory(directory) => Checkpoint::open(directory)?,
        })
    }

    /// Reads the tokenizer.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, Failure> {
        Ok(match &self.place {
            Place::Program => Tokenizer::from_bytes(demo::TOKENIZER)?,
            Place::Directory(directory) => Tokenizer::from_directory(directory)?,
        })
    }

    /// Loads the model alone.
    pub(crate) fn load_model(&self, options: &Options, terminal: &Terminal) -> Result<Model, Failure> {
        let cpu = cpu(options)?;
        terminal.report("Using device:", &device::describe(&cpu, Some(options.formats())));
        self.load_on(Arc::new(cpu), options, terminal)
    }

    /// Loads the model alone, to compute with the threads of another.
    pub(crate) fn load_on(
        &self,
        cpu: Arc<Cpu>,
        options: &Options,
        terminal: &Terminal,
    ) -> Result<Model, Failure> {
        let config = self.config()?;
        let checkpoint = self.checkpoint()?;
        checkpoint.check(&config)?;
        memory::check(&self.name, &config, options.formats())?;
        let mut bar = terminal.progress("loading", Unit::Bytes);
        let mut progress = |done, total| bar.update(done, Some(total));
        let formats = options.formats();
        let Some(copies) = pack_cache(options) else {
            return Ok(Model::load(cpu, config, &checkpoint, formats, &mut progress)?);
        };
        let (model, found) =
            Model::load_with_copies(cpu, config, &checkpoint, formats, &copies, &mut progress)?;
        // Where nobody asked for a copy, nobody needs to know that there is none.
        if let (PackUse::NotWritten(error), Some(directory)) = (found, named_pack_cache(options)) {
            drop(bar);
            terminal.note(&format!("cannot keep a packed copy in `{directory}`: {error}"));
        }
        Ok(model)
    }

    /// Loads the model and its tokenizer.
    pub(crate) fn load(&self, options: &Options, terminal: &Terminal) -> Result<Loaded, Failure> {
        let begin = Instant::now();
        let (model, tokenizer) = std::thread::scope(|scope| {
            let tokenizer = std::thread::Builder::new().spawn_scoped(scope, || self.tokenizer());
            let model = self.load_model(options, terminal);
            // Without a thread to spare, or after it panicked, there is still this one.
            let tokenizer = tokenizer.ok().and_then(|thread| thread.join().ok());
            (model, tokenizer.unwrap_or_else(|| self.tokenizer()))
        });
        let model = model?;
        let tokenizer = tokenizer?.padded_to(model.config().vocab_size);
        let load_time = begin.elapsed();
        let seconds = format!("({}, {:.2} s)", self.name, load_time.as_secs_f64());
        terminal.report("Model and tokenizer loaded.", &seconds);
        Ok(Loaded { name: self.name.clone(), model, tokenizer, load_time })
    }

    /// The file itself, or what stands for it in the program.
    fn read(&self, name: &str, embedded: &'static [u8]) -> Result<Option<Cow<'static, [u8]>>, Failure> {
        let Place::Directory(directory) = &self.place else { return Ok(Some(embedded.into())) };
        let path = directory.join(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(LONGEST_CONFIG + 1).read_to_end(&mut bytes)) {
            Ok(size) if size as u64 > LONGEST_CONFIG => {
                let message = format!("expected at most {LONGEST_CONFIG} bytes, found more");
                Err(Failure::caused(format!("cannot read `{}`", path.display()), message))
            }
            Ok(_) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::caused(format!("cannot read `{}`", path.display()), error)),
        }
    }

    fn in_file(&self, name: &str, error: ConfigError) -> Failure {
        Failure::caused(format!("cannot use `{}`", self.directory().join(name).display()), error)
    }

    fn directory(&self) -> &Path {
        match &self.place {
            Place::Program => Path::new(DEMO),
            Place::Directory(directory) => directory,
        }
    }
}

/// The model that was named, if one was.
pub(crate) fn named(options: &Options) -> Option<&str> {
    options.model.as_deref().filter(|name| !name.is_empty())
}

fn refuse_revision(options: &Options) -> Result<(), Failure> {
    match &options.revision {
        Some(_) => Err(Failure::usage("`--revision` goes with models of the hub only")),
        None => Ok(()),
    }
}

fn check_directory(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Ok(());
    }
    let message = if path.exists() { "is not a directory" } else { "does not exist" };
    Err(Failure::new(format!("`{}` {message}", path.display())).hint(MODEL_DIRECTORY))
}

/// The directory of packed copies that was named, if one was.
fn named_pack_cache(options: &Options) -> Option<&str> {
    options.pack_cache.as_deref().filter(|directory| !directory.is_empty())
}

/// Where packed copies are, unless there shall be none, or nothing says where caches are.
fn pack_cache(options: &Options) -> Option<PackCache> {
    let named = named_pack_cache(options).map(PathBuf::from);
    let directory = || named.or_else(|| PackCache::directory_from_variables(variable));
    if options.no_pack_cache { None } else { directory().map(PackCache::new) }
}

/// The hub as the environment and the options have it.
pub(crate) fn hub(options: &Options) -> Result<Hub, Failure> {
    Ok(with_options(HubOptions::from_variables(variable)?, options))
}

fn with_options(mut hub_options: HubOptions, options: &Options) -> Hub {
    hub_options.offline |= options.offline;
    Hub::new(hub_options)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Finds a downloaded model under its name or the one it had before the hub moved it.
fn cached(hub: &Hub, id: &str, revision: &str) -> Option<PathBuf> {
    let twin = MOVED.into_iter().find_map(|(old, new)| match id {
        _ if id == old => Some(new),
        _ if id == new => Some(old),
        _ => None,
    });
    std::iter::once(id).chain(twin).find_map(|id| hub.cached(id, revision))
}

/// Downloads a model, with a bar for each file that takes long.
pub(crate) fn fetch(hub: &Hub, id: &str, revision: &str, terminal: &Terminal) -> Result<PathBuf, HubError> {
    let mut current: Option<(String, terminal::Progress)> = None;
    hub.fetch(id, revision, &mut |progress| {
        match &current {
            Some((file, _)) if file == progress.file => {}
            _ => {
                if let Some(total) = progress.total.filter(|total| *total > 10_000_000) {
                    terminal.note(&format!(
                        "downloading `{}` of `{id}`, {}",
                        progress.file,
                        terminal::bytes(total)
                    ));
                }
                current = Some((progress.file.to_owned(), terminal.progress(progress.file, Unit::Bytes)));
            }
        }
        if let Some((_, bar)) = &mut current {
            bar.update(progress.received, progress.total);
        }
    })
}

/// What computes, as the options have it.
pub(crate) fn cpu(options: &Options) -> Result<Cpu, Failure> {
    let kernels = match options.kernels {
        None => Kernels::detect(),
        Some(row) => Kernels::by_name(row.name()).ok_or_else(|| {
            let available: Vec<_> = Kernels::available().map(|row| format!("`{}`", row.name())).collect();
            let message = format!("this machine cannot run the kernels `{}`", row.name());
            Failure::usage(message).hint(format!("it can run {}", available.join(", ")))
        })?,
    };
    let threads = options.threads.unwrap_or_else(|| cores::usable().min(MOST_THREADS));
    Cpu::try_new(kernels, threads).map_err(|error| {
        Failure::caused(format!("cannot start {threads} threads"), error)
            .hint("ask for fewer with `--threads`")
    })
}
