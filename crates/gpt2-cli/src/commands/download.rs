//! `gpt2 download`: fetch a model from the hub.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Format;
use crate::arguments::Options;
use crate::contact::Contact;
use crate::failure::Failure;
use crate::model::{DEMO, MAIN, fetch};
use crate::terminal::Terminal;

/// Download a model from the Hugging Face hub, or update it.
///
/// Prints the model's directory. Files go to the cache that Python's `huggingface_hub` uses, so that neither downloads
/// what the other has. An interrupted download is resumed.
///
/// `HF_HOME` and `HF_HUB_CACHE` move the cache, `HF_ENDPOINT` names a mirror, and `HF_TOKEN` opens
/// private models.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Name of the model on the hub, such as `gpt2-medium` or `distilbert/distilgpt2`
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    format: Format,
}

/// A model that is there now.
#[derive(Serialize)]
struct Record<'a> {
    model: &'a str,
    revision: &'a str,
    path: &'a Path,
    bytes: u64,
}

/// Downloads the model.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    if arguments.id == DEMO {
        return Err(Failure::usage("the model `demo` is built in: there is nothing to download"));
    }
    let revision = options.revision.as_deref().unwrap_or(MAIN);
    let contact = Contact::new(options)?;
    let fetched = contact.ask_at_once(|hub| fetch(hub, &arguments.id, revision, terminal));
    let path: PathBuf = fetched.map_err(|error| contact.failure(error, &arguments.id, revision))?;
    if arguments.format.json {
        let record = Record { model: &arguments.id, revision, path: &path, bytes: size(&path) };
        return Ok(terminal.output.json(&record)?);
    }
    Ok(writeln!(terminal.output, "{}", path.display())?)
}

/// The size of the files in a directory.
fn size(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    // Links of the cache are followed, as the files they lead to are what takes the space.
    files
        .filter_map(|file| std::fs::metadata(file.path()).ok())
        .filter(|file| file.is_file())
        .map(|file| file.len())
        .sum()
}
