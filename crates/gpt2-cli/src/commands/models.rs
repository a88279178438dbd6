//! `gpt2 models`: the models there are, what they need, and which of them are here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use clap::ValueEnum;
use gpt2::config::Config;
use gpt2::hub::CachedModel;
use gpt2::inspect::{By, components};
use gpt2::published::{PUBLISHED, Published};
use serde::Serialize;

use super::Format;
use crate::arguments::{Dtype, Options};
use crate::contact::Contact;
use crate::failure::Failure;
use crate::memory;
use crate::model::{DEMO, ModelFiles};
use crate::terminal::{DIM, Output, Terminal, bytes, thousands};

/// List the published models and those that are downloaded.
///
/// For each number format, the memory that the model needs with a full context, and the most precise format that fits
/// into the memory that is available now. Downloaded models are in the cache, which Python's `huggingface_hub`
/// shares.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    format: Format,
}

/// One model.
#[derive(Serialize)]
struct Record<'a> {
    model: &'a str,
    /// The branch, tag or commit that is in the cache.
    revision: Option<&'a str>,
    path: Option<&'a Path>,
    /// The size on disk, if it is here.
    bytes: Option<u64>,
    /// The size of the weights to download.
    download_bytes: Option<u64>,
    parameters: Option<u64>,
    /// The bytes of memory that each format needs with a full context.
    memory: BTreeMap<&'static str, u64>,
    /// The formats that fit into the memory that is available, if that is known.
    fits: Option<Vec<&'static str>>,
}

impl<'a> Record<'a> {
    fn new(model: &'a str, config: Option<&Config>) -> Self {
        let mut record = Self {
            model,
            revision: None,
            path: None,
            bytes: None,
            download_bytes: None,
            parameters: None,
            memory: BTreeMap::new(),
            fits: None,
        };
        let Some(config) = config else { return record };
        record.parameters = Some(components(config, By::Kind).iter().map(|part| part.parameters).sum());
        let needs = Dtype::value_variants().iter().map(|dtype| {
            let format = dtype.format();
            (format.name(), memory::in_full(config, format.into()))
        });
        let needs: Vec<(&'static str, u64)> = needs.collect();
        record.fits = memory::available(config).map(|available| {
            needs.iter().filter(|(_, need)| *need <= available).map(|(name, _)| *name).collect()
        });
        record.memory = needs.into_iter().collect();
        record
    }

    fn here(mut self, model: &'a CachedModel) -> Self {
        self.revision = Some(&model.revision);
        self.path = Some(&model.path);
        self.bytes = Some(model.bytes);
        self
    }
}

/// Lists the models.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let hub = Contact::new(options)?.hub;
    let cached = hub.models()?;
    let demo = ModelFiles::demo();
    let demo =
        Record { bytes: Some(demo.checkpoint()?.file_bytes()), ..Record::new(DEMO, Some(&demo.config()?)) };
    let mut records = vec![demo];
    for model in &PUBLISHED {
        let config = model.config();
        let record =
            || Record { download_bytes: Some(model.file_bytes), ..Record::new(model.name, Some(&config)) };
        let here = cached.iter().filter(|found| Published::find(&found.id) == Some(model));
        let before = records.len();
        records.extend(here.map(|found| Record { model: &found.id, ..record().here(found) }));
        if records.len() == before {
            records.push(record());
        }
    }
    let others = cached.iter().filter(|found| Published::find(&found.id).is_none());
    records.extend(others.map(|found| Record::new(&found.id, config(&found.path).as_ref()).here(found)));

    let out = &mut terminal.output;
    if arguments.format.json {
        return Ok(records.iter().try_for_each(|record| out.json(record))?);
    }
    let home = std::env::var_os("HOME");
    let home = home.as_ref().map(Path::new).filter(|home| home.is_absolute());
    let cache = short(&hub.options().cache, home);
    show_table(&records, out)?;
    if cached.is_empty() {
        out.flush()?;
        terminal.remark(&format!("none downloaded yet in {cache}: `gpt2 download gpt2` fetches GPT-2"));
        return Ok(());
    }
    let dim = out.style(DIM);
    writeln!(out, "\nDownloaded:")?;
    for CachedModel { id, revision, path, bytes: size } in &cached {
        writeln!(out, "{id}  {revision}  {}", bytes(*size))?;
        // The folder of all its snapshots: their names are forty characters long.
        let folder = path.ancestors().nth(2).unwrap_or(path);
        writeln!(out, "  {dim}{}{dim:#}", short(folder, home))?;
    }
    Ok(())
}

/// Shows what each model needs.
fn show_table(records: &[Record<'_>], out: &mut Output) -> io::Result<()> {
    let dim = out.style(DIM);
    // In the table a published model goes by its short name.
    let name = |record: &Record<'_>| {
        Published::find(record.model).map_or_else(|| record.model.to_owned(), |model| model.name.to_owned())
    };
    let formats: Vec<&str> = Dtype::value_variants().iter().map(|dtype| dtype.format().name()).collect();
    let columns = records.iter().map(|record| name(record).chars().count()).max().unwrap_or(0);
    write!(out, "{dim}{:columns$} {:>13} {:>8}", "model", "parameters", "size")?;
    for format in &formats {
        write!(out, " {format:>7}")?;
    }
    writeln!(out, "  fits here{dim:#}")?;
    for record in records {
        let parameters = record.parameters.map_or_else(|| "–".to_owned(), thousands);
        let size = record.download_bytes.or(record.bytes).map_or_else(|| "–".to_owned(), bytes);
        write!(out, "{:columns$} {parameters:>13} {size:>8}", name(record))?;
        for format in &formats {
            let need = record.memory.get(format).map_or_else(|| "–".to_owned(), |need| bytes(*need));
            let fits = record.fits.as_ref().is_none_or(|fits| fits.contains(format));
            let style = if fits { out.style(anstyle::Style::new()) } else { dim };
            write!(out, " {style}{need:>7}{style:#}")?;
        }
        let fits = match &record.fits {
            None => "–",
            Some(fits) => formats.iter().find(|format| fits.contains(format)).copied().unwrap_or("no"),
        };
        writeln!(out, "  {fits}")?;
    }
    Ok(())
}

/// A path, with `~` for the home directory.
fn short(path: &Path, home: Option<&Path>) -> String {
    match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) => Path::new("~").join(rest).display().to_string(),
        None => path.display().to_string(),
    }
}

/// The configuration in a directory, if it is one of a GPT-2.
fn config(directory: &Path) -> Option<Config> {
    const LONGEST: u64 = 1 << 24;
    let mut json = Vec::new();
    File::open(directory.join("config.json")).ok()?.take(LONGEST).read_to_end(&mut json).ok()?;
    Config::from_json(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_the_home_directory_are_short() {
        let home = Some(Path::new("/users/me"));
        assert_eq!(short(Path::new("/users/me/.cache/huggingface"), home), "~/.cache/huggingface");
        assert_eq!(short(Path::new("/users/meme/x"), home), "/users/meme/x");
        assert_eq!(short(Path::new("/data/hub"), home), "/data/hub");
        assert_eq!(short(Path::new("/data/hub"), None), "/data/hub");
    }
}
