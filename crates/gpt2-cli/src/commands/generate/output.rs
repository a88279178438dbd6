//! How continuations are shown: as text while they are written, or as JSON.

use std::io::Write;

use gpt2::generate::{FinishReason, TextDelta, TextGeneration};
use gpt2::score::TokenDetails;
use serde::Serialize;

use super::record::{Inputs, Record};
use super::{Arguments, structure, summary, trace};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::model::Loaded;
use crate::terminal::{DIM, Terminal};

/// What is shown besides the texts.
pub(super) struct Shown<'a> {
    pub(super) prompt: &'a str,
    /// What the model thought of the prompt.
    pub(super) details: Option<&'a [TokenDetails]>,
    pub(super) loaded: &'a Loaded,
    pub(super) inputs: Inputs<'a>,
}

/// Prints a line as soon as its sequence is done, in the order of the sequences; with `stream`, one for every token too.
pub(super) fn json(
    mut texts: TextGeneration<'_>,
    shown: &Shown<'_>,
    stream: bool,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let Shown { prompt, details, loaded, inputs } = *shown;
    let _listening = Interrupts::listen();
    let mut done = 0;
    while !Interrupts::requested()
        && let Some(delta) = texts.next()
    {
        let delta = delta?;
        if stream {
            terminal.output.json(&Delta::new(&delta))?;
        }
        while texts.completions().get(done).is_some_and(|completion| completion.finish.is_some()) {
            terminal.output.json(&Record::of_texts(loaded, prompt, details, &texts, done, inputs))?;
            done += 1;
        }
    }
    if Interrupts::requested() {
        for index in done..texts.completions().len() {
            terminal.output.json(&Record::of_texts(loaded, prompt, details, &texts, index, inputs))?;
        }
        return Err(Failure::Interrupted);
    }
    terminal.output.flush()?;
    structure::check(texts.completions(), texts.generation().config().structured_outputs.as_ref())
}

/// What one token adds, as JSON.
#[derive(Serialize)]
struct Delta<'a> {
    sequence: usize,
    token: u32,
    text: &'a str,
    logprob: f32,
    finish_reason: Option<FinishReason>,
}

impl<'a> Delta<'a> {
    fn new(TextDelta { token, text }: &'a TextDelta) -> Self {
        Self {
            sequence: token.sequence,
            token: token.id,
            text,
            logprob: token.logprob,
            finish_reason: token.finish,
        }
    }
}

/// Shows the first continuation as it comes, and the others when it is done.
pub(super) fn text(
    mut texts: TextGeneration<'_>,
    shown: &Shown<'_>,
    arguments: &Arguments,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let Shown { details, loaded, .. } = *shown;
    let prompt = if arguments.no_prompt { "" } else { shown.prompt };
    let plain = anstyle::Style::new();
    let count = texts.completions().len();
    let heading = |terminal: &Terminal, index: usize| {
        if count > 1 {
            terminal.remark(&format!("{} of {count}", index + 1));
        }
    };
    terminal.report("Prompt:", &format!("'{}'", shown.prompt));
    terminal.report("Parameters:", &summary::parameters(texts.generation().config()));
    heading(terminal, 0);
    let listening = Interrupts::listen();
    terminal.output.prose(prompt, DIM)?;
    terminal.output.flush()?;
    let mut open = !prompt.is_empty();
    while !Interrupts::requested()
        && let Some(delta) = texts.next()
    {
        let delta = match delta {
            Ok(delta) => delta,
            Err(error) => {
                // The line that was begun is not the error's.
                if open {
                    terminal.output.end_prose()?;
                }
                return Err(error.into());
            }
        };
        if delta.token.sequence == 0 && !delta.text.is_empty() {
            terminal.output.prose(&delta.text, plain)?;
            terminal.output.flush()?;
            open = true;
        }
    }
    let interrupted = Interrupts::requested();
    drop(listening);
    terminal.output.end_prose()?;
    trace::prompt(details.unwrap_or_default(), &loaded.tokenizer, terminal);
    trace::tokens(&texts.completions()[0], &loaded.tokenizer, terminal);
    for (index, completion) in texts.completions().iter().enumerate().skip(1) {
        writeln!(terminal.output)?;
        terminal.output.flush()?;
        heading(terminal, index);
        terminal.output.prose(prompt, DIM)?;
        terminal.output.prose(&completion.text, plain)?;
        terminal.output.end_prose()?;
        trace::tokens(completion, &loaded.tokenizer, terminal);
    }
    let timing = texts.generation().timing();
    let seconds = (timing.prefill + timing.decode).as_secs_f64();
    terminal.report("Generation finished in", &format!("{seconds:.2} seconds."));
    terminal.remark(&summary::of_texts(&texts, interrupted));
    if interrupted {
        return Err(Failure::Interrupted);
    }
    structure::check(texts.completions(), texts.generation().config().structured_outputs.as_ref())
}
