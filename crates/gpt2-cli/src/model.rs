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
use gpt2::hub::{Hub, HubError, RemoteModel};
use gpt2::model::Model;
use gpt2::pack::{PackCache, PackUse};
use gpt2::published::Published;
use gpt2::tokenizer::Tokenizer;
use gpt2_kernels::{Cpu, Kernels};

use crate::arguments::{MOST_THREADS, Options};
use crate::contact::Contact;
use crate::cores;
use crate::device;
use crate::failure::{Failure, MODEL_DIRECTORY};
use crate::memory;
use crate::remembered::Remembered;
use crate::suggestion;
use crate::terminal::{self, Progress, Terminal, Unit};

/// The name of the model in this program.
pub(crate) const DEMO: &str = "demo";
/// The model when none is named.
const DEFAULT: &str = "gpt2";
/// How long what was said once need not be said again.
const DAY: Duration = Duration::from_secs(24 * 3600);
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

/// The file that describes the model.
const CONFIG: &str = "config.json";
/// Longest JSON file that is read, but for tokenizers, which have their own limit.
const LONGEST_CONFIG: u64 = 1 << 24;

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

/// What is known of a model without its weights.
pub(crate) enum Shapes {
    /// Its files are here.
    Files(ModelFiles),
    /// The hub said so.
    Remote(String, Box<RemoteModel>),
    /// Nobody can be asked, and it is known all the same.
    Published(String, &'static Published),
}

/// A model ready to run.
pub(crate) struct Loaded {
    /// What the user calls the model.
    pub(crate) name: String,
    /// The commit, if it is a model of the hub.
    pub(crate) revision: Option<String>,
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
        if let Some(files) = Self::find_here(name, options, terminal)? {
            return Ok(files);
        }
        let revision = options.revision.as_deref().unwrap_or(MAIN);
        let contact = Contact::new(options)?;
        let directory = contact
            .cached(name, revision, Hub::cached)
            .map_or_else(|| contact.ask(|hub| fetch(hub, name, revision, terminal)), Ok);
        let directory = directory.map_err(|error| not_found(&contact, error, name, revision))?;
        Ok(Self { name: name.to_owned(), place: Place::Directory(directory) })
    }

    /// Finds the files of the tokenizer that the options name, downloading them alone if need be.
    pub(crate) fn find_tokenizer(options: &Options, terminal: &Terminal) -> Result<Self, Failure> {
        let Some(name) = named(options) else { return Ok(Self::demo()) };
        if let Some(files) = Self::find_here(name, options, terminal)? {
            return Ok(files);
        }
        let revision = options.revision.as_deref().unwrap_or(MAIN);
        let contact = Contact::new(options)?;
        let directory = contact.cached(name, revision, Hub::cached_tokenizer).map_or_else(
            || contact.ask(|hub| fetch_with(Hub::fetch_tokenizer, hub, name, revision, terminal)),
            Ok,
        );
        match directory {
            Ok(directory) => Ok(Self { name: name.to_owned(), place: Place::Directory(directory) }),
            Err(error) if out_of_reach(&error) && published(name, revision).is_some() => {
                terminal.note(&format!(
                    "`{name}` is not downloaded: its tokenizer is GPT-2's, which is built in"
                ));
                Ok(Self { name: name.to_owned(), place: Place::Program })
            }
            Err(error) => Err(not_found(&contact, error, name, revision)),
        }
    }

    /// Finds what is known of the model that the options name without its weights: files that are here, what the hub
    /// says, or what was published.
    pub(crate) fn find_shapes(options: &Options, terminal: &Terminal) -> Result<Shapes, Failure> {
        let name = named(options).unwrap_or(DEFAULT);
        if named(options).is_none() && options.revision.is_some() {
            return Err(Failure::usage("`--revision` goes with a model of the hub: add `--model ID`"));
        }
        if named(options).is_some()
            && let Some(files) = Self::find_here(name, options, terminal)?
        {
            return Ok(Shapes::Files(files));
        }
        let revision = options.revision.as_deref().unwrap_or(MAIN);
        let contact = Contact::new(options)?;
        if let Some(directory) = contact.cached(name, revision, Hub::cached_weights) {
            return Ok(Shapes::Files(Self { name: name.to_owned(), place: Place::Directory(directory) }));
        }
        match (contact.ask(|hub| hub.headers(name, revision)), published(name, revision)) {
            (Ok(remote), _) => Ok(Shapes::Remote(name.to_owned(), Box::new(remote))),
            (Err(error), Some(model)) if out_of_reach(&error) => {
                terminal.note(&format!("`{name}` is not downloaded; showing its published shapes"));
                Ok(Shapes::Published(name.to_owned(), model))
            }
            (Err(error), _) => Err(not_found(&contact, error, name, revision)),
        }
    }

    /// Finds a model that is in the program or in a directory; none if the name is that of a model of the hub.
    fn find_here(name: &str, options: &Options, terminal: &Terminal) -> Result<Option<Self>, Failure> {
        let path = Path::new(name);
        let written_as_path = name.starts_with(['.', '/', '~'])
            || name.contains('\\')
            || name.ends_with('/')
            || name.matches('/').count() > 1
            || suggestion::is_file_name(name);
        let has = |file: &str| path.join(file).is_file();
        let exists_as_path = path.is_file()
            || path.is_dir() && (name.contains('/') || has("config.json") || has("adapter_config.json"));
        let place = if name == DEMO {
            Place::Program
        } else if written_as_path || exists_as_path {
            suggestion::check_directory(path)?;
            if has("adapter_config.json") {
                terminal.note(&format!(
                    "the LoRA adapter in `{name}` is not applied: merge it into the model first"
                ));
            }
            Place::Directory(path.to_owned())
        } else {
            return Ok(None);
        };
        refuse_revision(options)?;
        Ok(Some(Self { name: name.to_owned(), place }))
    }

    /// The model in this program.
    pub(crate) fn demo() -> Self {
        Self { name: DEMO.to_owned(), place: Place::Program }
    }

    /// Finds `gpt2`, or says that the demo model takes its place.
    fn find_default(options: &Options, terminal: &Terminal) -> Result<Self, Failure> {
        if options.revision.is_some() {
            return Err(Failure::usage("`--revision` goes with a model of the hub: add `--model ID`"));
        }
        let contact = match Contact::new(options) {
            Ok(contact) => contact,
            Err(error) => {
                terminal.note(&instead_of_gpt2(&error, None));
                return Ok(Self::demo());
            }
        };
        let asked_before = contact.next_try().is_some();
        let found = contact
            .cached(DEFAULT, MAIN, Hub::cached)
            .map_or_else(|| contact.ask(|hub| fetch(hub, DEFAULT, MAIN, terminal)), Ok);
        match found {
            Ok(directory) => Ok(Self { name: DEFAULT.to_owned(), place: Place::Directory(directory) }),
            Err(error) => {
                // Once a day, but for what was found out just now at the cost of seconds.
                let said = Remembered::new("demo-note");
                let new = !asked_before && contact.next_try().is_some();
                if new || said.age().is_none_or(|age| age > DAY) {
                    terminal.note(&instead_of_gpt2(&error, contact.next_try()));
                    if !options.quiet {
                        said.now("the note that the demo model stands in for gpt2 was shown; a day later it is again");
                    }
                } else {
                    terminal.sign("this was the demo model, not GPT-2");
                }
                Ok(Self::demo())
            }
        }
    }

    /// Reads `config.json`.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        Config::from_json(&self.config_json()?).map_err(|error| self.in_file(CONFIG, error))
    }

    /// Reads the settings that the model comes with.
    pub(crate) fn generation_config(&self) -> Result<GenerationConfig, Failure> {
        const NAME: &str = "generation_config.json";
        match self.read(NAME, demo::GENERATION_CONFIG)? {
            Some(json) => GenerationConfig::of_model(&json).map_err(|error| self.in_file(NAME, error)),
            None => GenerationConfig::from_model_config(&self.config_json()?)
                .map_err(|error| self.in_file(CONFIG, error)),
        }
    }

    fn config_json(&self) -> Result<Cow<'static, [u8]>, Failure> {
        self.read(CONFIG, demo::CONFIG)?.ok_or_else(|| {
            Failure::new(format!("found no `{CONFIG}` in `{}`", self.directory().display()))
                .hint(MODEL_DIRECTORY)
        })
    }

    /// Opens the weights, reading their headers.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint, Failure> {
        Ok(match &self.place {
            Place::Program => Checkpoint::from_bytes(demo::WEIGHTS)?,
            Place::Directory(directory) => Checkpoint::open(directory)?,
        })
    }

    /// Notes what is unusual about the weights, if they can be read.
    pub(crate) fn say_remarks(&self, terminal: &Terminal) {
        let remarks = self.checkpoint().map(|checkpoint| checkpoint.remarks());
        remarks.into_iter().flatten().for_each(|remark| terminal.note(&remark.to_string()));
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
        self.say_remarks(terminal);
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
        let (name, revision) = (self.name.clone(), self.revision());
        Ok(Loaded { name, revision, model, tokenizer, load_time })
    }

    /// The commit of a model of the hub: its cache has a directory for each, `models--gpt2/snapshots/COMMIT`.
    fn revision(&self) -> Option<String> {
        let Place::Directory(directory) = &self.place else { return None };
        let commit = directory.file_name()?.to_str()?;
        let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        let in_cache = directory.parent()?.file_name()? == "snapshots";
        (is_commit && in_cache).then(|| commit.to_owned())
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

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The published model of this name, unless another state of it is asked for.
fn published(name: &str, revision: &str) -> Option<&'static Published> {
    Published::find(name).filter(|_| revision == MAIN)
}

/// Says why a model that was named cannot be had.
fn not_found(contact: &Contact, error: HubError, name: &str, revision: &str) -> Failure {
    let absent = matches!(
        error,
        HubError::ModelNotFound { .. } | HubError::Offline { .. } | HubError::Unreachable { .. }
    );
    let failure = contact.failure(error, name, revision);
    // `models/mine` may be meant as a directory, and misspelt.
    match absent {
        true if Path::new(name).is_dir() => {
            failure.hint(format!("there is a directory `{name}`, but it has no `config.json`"))
        }
        true if name.contains('/') => failure.hint(format!("there is no directory `{name}` either")),
        _ => failure,
    }
}

/// Whether a hub was not asked, or did not answer as one.
fn out_of_reach(error: &HubError) -> bool {
    matches!(
        error,
        HubError::Offline { .. }
            | HubError::Unreachable { .. }
            | HubError::Answer { .. }
            | HubError::Status { .. }
    )
}

/// Says in a line that the demo model takes the place of `gpt2`, and why.
fn instead_of_gpt2(error: &HubError, next_try: Option<u64>) -> String {
    let reason = match (error, next_try) {
        (HubError::Offline { missing, .. }, _) => match missing.first() {
            None => "`gpt2` is not downloaded; see `gpt2 download gpt2`".to_owned(),
            Some(first) => format!("`gpt2` lacks `{first}`; see `gpt2 download gpt2`"),
        },
        (HubError::Unreachable { server, .. }, Some(minutes)) => {
            format!("no answer from {server}, next try in {minutes} min")
        }
        (HubError::Unreachable { server, .. }, None) => format!("cannot reach {server} for `gpt2`"),
        _ => {
            let mut reason = format!("`gpt2` cannot be downloaded: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                reason.push_str(&format!(": {error}"));
                cause = error.source();
            }
            match error {
                HubError::Answer { .. } => reason + " (is there a login page on this network?)",
                _ => reason,
            }
        }
    };
    format!("using the demo model: {reason}")
}

/// Downloads a model, with a bar for each file that takes long.
pub(crate) fn fetch(hub: &Hub, id: &str, revision: &str, terminal: &Terminal) -> Result<PathBuf, HubError> {
    fetch_with(Hub::fetch, hub, id, revision, terminal)
}

/// A method of the hub that downloads files.
type Fetch = fn(&Hub, &str, &str, &mut dyn FnMut(gpt2::hub::Progress<'_>)) -> Result<PathBuf, HubError>;

fn fetch_with(
    fetch: Fetch,
    hub: &Hub,
    id: &str,
    revision: &str,
    terminal: &Terminal,
) -> Result<PathBuf, HubError> {
    let mut current: Option<(String, Progress)> = None;
    fetch(hub, id, revision, &mut |progress| {
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
