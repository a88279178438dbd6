//! `gpt2 models`: what needs no download.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::Format;
use crate::arguments::Options;
use crate::failure::Failure;
use crate::model::{DEMO, ModelFiles, hub};
use crate::terminal::{DIM, Terminal, bytes};

/// List the models that need no download.
///
/// These are the built-in one and the GPT-2 models in the cache, which Python's `huggingface_hub` shares.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    format: Format,
}

/// One model.
#[derive(Serialize)]
struct Record<'a> {
    model: &'a str,
    revision: Option<&'a str>,
    path: Option<&'a Path>,
    bytes: u64,
}

/// Lists the models.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let hub = hub(options)?;
    let cached = hub.models()?;
    let mut records = vec![Record {
        model: DEMO,
        revision: None,
        path: None,
        bytes: ModelFiles::demo().checkpoint()?.file_bytes(),
    }];
    records.extend(cached.iter().map(|model| Record {
        model: &model.id,
        revision: Some(&model.revision),
        path: Some(&model.path),
        bytes: model.bytes,
    }));
    let out = &mut terminal.output;
    if arguments.format.json {
        return Ok(records.iter().try_for_each(|record| out.json(record))?);
    }
    let dim = out.style(DIM);
    let columns = records.iter().map(|record| record.model.len()).max().unwrap_or(0);
    for Record { model, revision, path, bytes: size } in &records {
        let size = bytes(*size);
        match path {
            Some(path) => {
                let revision = revision.unwrap_or_default();
                writeln!(out, "{model:columns$}  {size:>8}  {revision}  {dim}{}{dim:#}", path.display())?;
            }
            None => writeln!(out, "{model:columns$}  {size:>8}  {dim}built in{dim:#}")?,
        }
    }
    if cached.is_empty() {
        out.flush()?;
        let cache = hub.options().cache.display().to_string();
        terminal.remark(&format!("none downloaded yet in {cache}: `gpt2 download gpt2` fetches GPT-2"));
    }
    Ok(())
}
