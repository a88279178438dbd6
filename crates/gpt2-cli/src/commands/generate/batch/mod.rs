//! `gpt2 generate --batch`: many prompts at once.

mod asked;
mod journal;
mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::vec;

use gpt2::cache::PrefixCache;
use gpt2::generate::{Batch, BatchEvent, Completion, DetailsRequest, Generate, GenerationConfig};
use gpt2::tokenizer::{SpecialText, Tokenizer};
use serde::Serialize;
use serde_json::{Map, Value};

use self::asked::asked_for;
use self::journal::{Journal, Record as Written, There};
use self::lines::Line;
use super::record::{Inputs, Record};
use super::settings::Settings;
use super::{Arguments, ENDS_IN_SPACE, UNGUIDED, blame, ends_in_space, sets, structure, summary, trace};
use crate::arguments::{Options, at_most};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::memory;
use crate::model::{Loaded, ModelFiles};
use crate::terminal::{DIM, Terminal, Unit, paint_error};

/// Sequences that go through the model together, unless a flag says something else.
const SLOTS: usize = 32;
/// Why what is said of guesses changes nothing.
const UNGUESSED: &str = "among many prompts no tokens are guessed";
/// How often Ctrl-C is looked for while a prompt is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// Full contexts of beginnings that are kept for prompts that begin alike.
const KEPT_CONTEXTS: u64 = 4;

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Several prompts")]
pub(super) struct BatchArguments {
    /// Continue every prompt of a file in JSON Lines: strings, or objects with `prompt` and optionally `id` and settings
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["text", "file", "prompts", "speculate", "assistant"])]
    batch: Option<String>,
    /// Prompt to continue; may be repeated
    #[arg(short = 'p', long = "prompt", value_name = "TEXT", allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["text", "file", "speculate", "assistant"])]
    prompts: Vec<String>,
    /// Number of sequences to process together; does not change the text [default: 32]
    #[arg(long, value_name = "N", value_parser = at_most(GenerationConfig::MOST_SEQUENCES))]
    #[arg(allow_negative_numbers = true)]
    batch_size: Option<usize>,
    /// Write the results as JSON Lines to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    output: Option<String>,
    /// Resume an interrupted run with the same `--output`
    #[arg(long, requires = "output")]
    resume: bool,
    /// Write results as they finish instead of in input order
    #[arg(long)]
    unordered: bool,
}

impl BatchArguments {
    /// Whether there are many prompts.
    pub(super) fn asked(&self) -> bool {
        self.batch.is_some() || !self.prompts.is_empty()
    }

    /// Refuses flags that mean nothing without many prompts.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let flags = [
            ("--batch-size", self.batch_size.is_some()),
            ("--output", self.output.is_some()),
            ("--unordered", self.unordered),
        ];
        if let Some((flag, _)) = flags.into_iter().find(|&(_, given)| given && !self.asked()) {
            return Err(Failure::usage(format!("`{flag}` goes with `--batch` or `--prompt`")));
        }
        let Some(path) = &self.output else { return Ok(()) };
        if path == "-" || std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Failure::usage(format!("`--output {path}` names no file that can be gone on with"))
                .hint("without `--output`, `--json` writes the same lines to standard output"));
        }
        Ok(())
    }

    /// The prompt, where there is but one and nothing else is asked for than for the prompt as an argument.
    pub(super) fn single(&self) -> Option<&str> {
        match &*self.prompts {
            [prompt] if self.batch.is_none() && self.output.is_none() => Some(prompt),
            _ => None,
        }
    }

    /// Whether prompts are continued as they come. What is written to a file may have to be resumed, for which all of them
    /// must be known.
    fn streams(&self) -> bool {
        self.batch.as_deref() == Some("-") && self.output.is_none()
    }

    /// The prompts that are known before anything is generated.
    fn lines(&self) -> Result<Vec<Line>, Failure> {
        match &self.batch {
            Some(_) if self.streams() => Ok(Vec::new()),
            Some(path) => lines::read(path),
            None => Ok(lines::of_texts(&self.prompts)),
        }
    }
}

/// A prompt with all its settings.
struct Job {
    line: Line,
    config: GenerationConfig,
}

/// What came of a prompt.
struct Done {
    prompt_tokens: Vec<u32>,
    scores: Vec<f32>,
    result: Result<Vec<Completion>, String>,
}

/// Continues all prompts.
pub(super) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let Arguments { settings, batch, .. } = arguments;
    if arguments.stream || arguments.prompt_logprobs.is_some() {
        let flag = if arguments.stream { "--stream" } else { "--prompt-logprobs" };
        return Err(Failure::usage(format!("`{flag}` is for a single prompt")));
    }
    let lines = batch.lines()?;
    let files = ModelFiles::find(options, terminal)?;
    let mut base = settings.config(arguments.files.read()?.or(files.generation_config()?));
    let given = GenerationConfig { structured_outputs: settings.structure()?, ..settings.given() };
    base.structured_outputs = given.structured_outputs.clone().or(base.structured_outputs);
    let interrupted = match batch.output.as_deref().filter(|_| batch.resume) {
        Some(path) => Journal::interrupted(path)?,
        None => None,
    };
    let seeded = given.seed.is_some();
    if let Some(seed) = interrupted.as_ref().and_then(|asked| asked.get("settings")?.get("seed")?.as_u64())
        && !seeded
    {
        base.seed = Some(seed);
    }
    let checked = base.check().and_then(|()| base.check_speculation(false));
    checked.map_err(|error| blame(error, &given))?;
    arguments.say_what_is_idle(&base, options, terminal)?;
    if given.prompt_lookup_num_tokens.is_some() {
        arguments.say_idle("--prompt-lookup-num-tokens", UNGUESSED, terminal)?;
    }
    let jobs = (0..).zip(lines).map(|(index, line)| Job::new(line, &base, index));
    let mut jobs = jobs.collect::<Result<Vec<Job>, Failure>>()?;
    let slots = batch.batch_size.unwrap_or(SLOTS);
    memory::check_batch(&files.name, &files.config()?, options.formats(), slots, KEPT_CONTEXTS)?;

    let loaded = files.load(options, terminal)?;
    let mut config = base.clone();
    settings.add_words(&mut config, &loaded.tokenizer)?;
    let request = loaded.model.generate(&[]).tokenizer(&loaded.tokenizer).config(config);
    request.check().map_err(|error| blame(error, &given))?;
    let mut said = BTreeSet::new();
    for job in &mut jobs {
        job.add_words(settings, &loaded.tokenizer)?;
        job.check(arguments, &loaded, &mut said, terminal)?;
    }
    let asked = asked_for(arguments, &loaded, &base, &jobs)?;
    let mut journal = match &batch.output {
        None => None,
        Some(path) => match open(path, batch.resume, interrupted, &asked, &jobs, seeded)? {
            Found::Open(journal) => Some(journal),
            Found::Complete(there) => {
                let message =
                    format!("`{path}` has all prompts already: their settings are not compared any more");
                terminal.note(&message);
                return Outcome::of(&there).judge();
            }
        },
    };
    let there = |index: usize| journal.as_ref().is_some_and(|journal| journal.there.done.contains(&index));
    let todo: Vec<_> = jobs.into_iter().enumerate().filter(|&(index, _)| !there(index)).collect();
    let prompts = match batch.streams() {
        true => Prompts::Incoming { lines: lines::incoming()?, index: 0, said },
        false => Prompts::Known(todo.into_iter()),
    };
    let headed = batch.batch.is_some() || batch.prompts.len() > 1;
    let run = Run { arguments, loaded: &loaded, base: &base, slots, headed };
    let came = run.generate(prompts, &mut journal, terminal)?;
    if let Some(journal) = journal {
        journal.finish()?;
    }
    came.judge()
}

impl Job {
    /// Joins a line's settings with those of all. Without a seed of its own each has another one, counted from the seed
    /// of all: with it, the prompt alone gives the same text.
    fn new(line: Line, base: &GenerationConfig, index: u64) -> Result<Self, Failure> {
        let seed = base.seed.map(|seed| seed.wrapping_add(index));
        let config = line.config.clone().or(GenerationConfig { seed, ..base.clone() });
        config.check().and_then(|()| config.check_speculation(false)).map_err(|error| line.wrong(&error))?;
        Ok(Self { line, config })
    }

    fn add_words(&mut self, settings: &Settings, tokenizer: &Tokenizer) -> Result<(), Failure> {
        Ok(settings.add_words(&mut self.config, tokenizer)?)
    }

    /// Checks what the line sets against the model and its vocabulary, for no text to be begun that it would end, and says
    /// what of it changes nothing, if that was not `said` of another line.
    fn check(
        &self,
        arguments: &Arguments,
        loaded: &Loaded,
        said: &mut BTreeSet<&'static str>,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        let Self { line, config } = self;
        if line.replaced {
            let message = format!("{}: an unpaired surrogate was read as U+FFFD", line.place);
            terminal.note(&message);
        }
        if ends_in_space(&line.prompt, config) && said.insert("prompt") {
            terminal.note(&format!("{ENDS_IN_SPACE} ({})", line.place));
        }
        if !line.has_settings() {
            return Ok(());
        }
        let request = loaded.model.generate(&[]).tokenizer(&loaded.tokenizer).config(config.clone());
        request.check().map_err(|error| line.wrong(&error))?;
        let idle = config.without_effect().into_iter().map(|idle| (idle.setting, idle.reason));
        let guesses =
            ["num_assistant_tokens", "prompt_lookup_num_tokens"].map(|setting| (setting, UNGUESSED));
        let idle = idle.chain(guesses).filter(|(setting, _)| sets(&line.config, setting));
        let negative = line.negative_prompt.is_some() && !config.guides();
        for (setting, reason) in idle.chain(negative.then_some(("negative_prompt", UNGUIDED))) {
            if said.insert(setting) {
                arguments.say_idle(setting, &format!("{reason} ({})", line.place), terminal)?;
            }
        }
        Ok(())
    }
}

/// The prompts that are still to be continued.
enum Prompts {
    /// With their indices.
    Known(vec::IntoIter<(usize, Job)>),
    /// Those of standard input.
    Incoming {
        lines: Receiver<Result<Line, Failure>>,
        /// The next one's.
        index: usize,
        /// The settings of which was said that they change nothing.
        said: BTreeSet<&'static str>,
    },
}

/// The file to write to.
enum Found {
    Open(Journal),
    /// There is nothing left to write.
    Complete(There),
}

/// What came of a run and the one that it goes on with, if there is one.
struct Outcome {
    prompts: usize,
    /// Prompts that could not be continued.
    failed: usize,
    /// Texts that were cut off before they had the structure that was asked for.
    cut: usize,
    /// Why nothing more was read.
    wrong: Option<Failure>,
}

impl Outcome {
    fn of(there: &There) -> Self {
        Self { prompts: there.done.len(), failed: there.failed, cut: there.cut, wrong: None }
    }

    /// Fails if something could not be done.
    fn judge(self) -> Result<(), Failure> {
        match self {
            Self { wrong: Some(wrong), .. } => Err(wrong),
            Self { failed: 0, cut, .. } => structure::check_count(cut),
            Self { failed, prompts, .. } => {
                Err(Failure::new(format!("{failed} of {prompts} prompts could not be continued"))
                    .hint("in JSON they have an `error`, which says why"))
            }
        }
    }
}

/// Opens the file to write to; `seeded` says whether the jobs' seeds are those of a given one.
fn open(
    path: &str,
    resume: bool,
    interrupted: Option<Map<String, Value>>,
    asked: &Map<String, Value>,
    jobs: &[Job],
    seeded: bool,
) -> Result<Found, Failure> {
    let model = asked.get("model").and_then(Value::as_str);
    let lines = |record: &Written| {
        let Job { line, config } = jobs.get(record.index)?;
        // A prompt that was healed is another one, and a seed that nobody gave is a new one every time.
        let prompt = config.token_healing == Some(true) || record.prompt == line.prompt;
        let model = record.model.as_deref().is_none_or(|name| Some(name) == model);
        let given = seeded || line.config.seed.is_some();
        let seed = record.seed.is_none_or(|seed| !given || Some(seed) == config.seed);
        let fits = prompt && model && seed;
        fits.then(|| config.sequences())
    };
    let ordered = asked.get("unordered") == Some(&Value::Bool(false));
    match interrupted {
        Some(before) => {
            if let Some(difference) = asked::difference(&before, asked) {
                let message =
                    format!("`{path}` was begun by a run that was asked for something else: {difference}");
                return Err(Failure::usage(message)
                    .hint("give the same again, or name another file; `--resume` finds the seed by itself"));
            }
            Journal::resume(path, ordered, lines).map(Found::Open)
        }
        // Nothing was interrupted: either it came to its end, or nothing has begun.
        None if resume && std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0) => {
            let there = Journal::read(path, ordered, lines)?;
            if there.done.len() == jobs.len() {
                return Ok(Found::Complete(there));
            }
            let there = there.done.len();
            let message =
                format!("`{path}` has {there} of {} prompts, and `{path}.resume` is missing", jobs.len());
            Err(Failure::usage(message).hint(
                "without it nothing says what they were asked for with: remove the file, or name another one",
            ))
        }
        None => Journal::begin(path, resume, asked).map(Found::Open),
    }
}

/// What a batch is made with.
struct Run<'a> {
    arguments: &'a Arguments,
    loaded: &'a Loaded,
    base: &'a GenerationConfig,
    slots: usize,
    /// Whether several prompts are shown, each with its name.
    headed: bool,
}

impl Run<'_> {
    /// Generates what is not there yet.
    fn generate(
        &self,
        mut todo: Prompts,
        journal: &mut Option<Journal>,
        terminal: &mut Terminal,
    ) -> Result<Outcome, Failure> {
        let Self { arguments, loaded, slots, .. } = *self;
        let begin = Instant::now();
        let _listening = Interrupts::listen();
        let mut came = Outcome::of(journal.as_ref().map_or(&There::default(), |journal| &journal.there));
        let there = came.prompts;
        let total = match &todo {
            Prompts::Known(jobs) => Some((there + jobs.len()) as u64),
            Prompts::Incoming { .. } => None,
        };
        let kept = memory::contexts(loaded.model.config(), loaded.model.formats(), KEPT_CONTEXTS);
        let prefixes = PrefixCache::new(&loaded.model, usize::try_from(kept).unwrap_or(usize::MAX));
        let mut batch = Batch::new(&loaded.model, slots);
        let mut progress = terminal.progress("generating", Unit::Prompts);
        let (mut open, mut held, mut next) = (BTreeMap::new(), BTreeMap::new(), 0);
        // Texts that appear one after the other show how far it is, and a bar would stand between them.
        let bar = journal.is_some() || !terminal.output.is_terminal();
        // Whether no text was shown yet.
        let mut first = true;
        while !Interrupts::requested() {
            // A few more than there are places: the next one must be there when a place is free.
            while batch.unfinished() < 2 * slots {
                match self.next(&mut todo, open.is_empty(), terminal) {
                    Ok(Some((index, job))) => {
                        let request = batch.push(self.request(&job)?.prefix_cache(&prefixes));
                        open.insert(request, (index, job));
                    }
                    Ok(None) => break,
                    Err(failure) => {
                        // What came before it is not lost.
                        came.wrong = Some(failure);
                        todo = Prompts::Known(Vec::new().into_iter());
                    }
                }
            }
            let Some(event) = batch.next() else { break };
            let BatchEvent::Finished { request, prompt: prompt_tokens, scores, result } = event else {
                continue;
            };
            let Some((index, job)) = open.remove(&request) else { continue };
            let result = result.map_err(|error| error.to_string());
            came.failed += usize::from(result.is_err());
            came.cut +=
                result.iter().flatten().filter(|completion| completion.complete == Some(false)).count();
            let place = if arguments.batch.unordered { next } else { request };
            held.insert(place, (index, job, Done { prompt_tokens, scores, result }));
            while let Some((index, job, done)) = held.remove(&next) {
                self.show(index, &job, &done, first, journal, terminal)?;
                first &= done.result.is_err();
                next += 1;
            }
            came.prompts = there + next;
            if bar {
                progress.update(came.prompts as u64, total);
            }
        }
        drop(progress);
        let interrupted = Interrupts::requested();
        let total = total.and_then(|total| usize::try_from(total).ok());
        let run = summary::Run {
            config: self.base,
            before: there,
            done: next,
            total,
            time: begin.elapsed(),
            stats: batch.stats(),
            reused: prefixes.stats().reused_tokens,
            interrupted,
        };
        terminal.report("Speed:", &run.speeds());
        terminal.remark(&run.line());
        if interrupted {
            if let (Some(_), Some(total)) = (&journal, total) {
                let done = there + next;
                terminal.note(&format!(
                    "{done} of {total} prompts are done; run the same command with `--resume` to continue"
                ));
            }
            return Err(Failure::Interrupted);
        }
        Ok(came)
    }

    /// The next prompt, which may be waited for.
    fn next(
        &self,
        todo: &mut Prompts,
        wait: bool,
        terminal: &Terminal,
    ) -> Result<Option<(usize, Job)>, Failure> {
        match todo {
            Prompts::Known(jobs) => Ok(jobs.next()),
            Prompts::Incoming { lines, index, said } => {
                let line = if wait { wait_for(lines) } else { lines.try_recv().ok() };
                let Some(line) = line else { return Ok(None) };
                let mut job = Job::new(line?, self.base, *index as u64)?;
                job.add_words(&self.arguments.settings, &self.loaded.tokenizer)?;
                job.check(self.arguments, self.loaded, said, terminal)?;
                *index += 1;
                Ok(Some((*index - 1, job)))
            }
        }
    }

    fn request(&self, Job { line, config }: &Job) -> Result<Generate<'_>, Failure> {
        let Self { arguments, loaded, .. } = *self;
        let special = arguments.prompt.special();
        let ids = loaded.tokenizer.encode(&line.prompt, special)?;
        let mut request = loaded.model.generate(&ids).tokenizer(&loaded.tokenizer).config(config.clone());
        if let Some(text) = line.negative_prompt.as_deref().or(arguments.settings.negative_prompt()) {
            request = request.negative_prompt(&loaded.tokenizer.encode(text, special)?);
        }
        if arguments.logprobs.is_some() || arguments.trace {
            let alternatives = arguments.logprobs.unwrap_or(0);
            request = request.details(DetailsRequest { alternatives, trace: arguments.trace });
        }
        Ok(request)
    }

    /// Gives out what came of a prompt.
    fn show(
        &self,
        index: usize,
        Job { line, config }: &Job,
        done: &Done,
        first: bool,
        journal: &mut Option<Journal>,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        let Self { arguments, loaded, .. } = *self;
        let Done { prompt_tokens, scores, result } = done;
        // A prompt that was healed is another one.
        let prompt = match config.token_healing {
            Some(true) if result.is_ok() => loaded.tokenizer.decode(prompt_tokens, SpecialText::Keep)?,
            _ => line.prompt.clone(),
        };
        if journal.is_none() && !arguments.format.json {
            return self.show_text(&line.place, &prompt, result, first, terminal);
        }
        let id = line.id.as_ref();
        let healed = prompt != line.prompt;
        let inputs = Inputs::new(arguments);
        let inputs = Inputs {
            given_prompt: healed.then_some(&*line.prompt),
            negative_prompt: line.negative_prompt.as_deref().or(inputs.negative_prompt),
            ..inputs
        };
        let mut lines = Vec::new();
        match result {
            Err(error) => add(&mut lines, &Refused { index, id, prompt: &prompt, error })?,
            Ok(completions) => {
                for (sequence, completion) in completions.iter().enumerate() {
                    let record = Record::new(loaded, &prompt, prompt_tokens, completion, config, inputs);
                    let record = record.with_score(scores.get(sequence).copied());
                    add(&mut lines, &Placed { index, id, sequence, record })?;
                }
            }
        }
        match journal {
            Some(journal) => journal.write(&lines)?,
            None => {
                terminal.output.write_all(&lines)?;
                terminal.output.flush()?;
            }
        }
        Ok(())
    }

    /// Shows the texts of a prompt, with an empty line before each but the first.
    fn show_text(
        &self,
        place: &str,
        prompt: &str,
        result: &Result<Vec<Completion>, String>,
        first: bool,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        let completions = match result {
            Ok(completions) => completions,
            Err(error) => {
                paint_error(anstyle::Style::new().bold(), "error:", &format!("{place}: {error}"));
                return Ok(());
            }
        };
        for (sequence, completion) in completions.iter().enumerate() {
            if !(first && sequence == 0) {
                writeln!(terminal.output)?;
                terminal.output.flush()?;
            }
            let which = match completions.len() {
                1 => String::new(),
                count => format!(", {} of {count}", sequence + 1),
            };
            if self.headed || completions.len() > 1 {
                terminal.remark(&format!("{place}{which}"));
            }
            if !self.arguments.no_prompt {
                terminal.output.prose(prompt, DIM)?;
            }
            terminal.output.prose(&completion.text, anstyle::Style::new())?;
            terminal.output.end_prose()?;
            trace::tokens(completion, &self.loaded.tokenizer, terminal);
        }
        Ok(())
    }
}

/// The next line, when it has come; none if there is none left, or Ctrl-C was pressed.
fn wait_for<T>(lines: &Receiver<T>) -> Option<T> {
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => return Some(line),
            Err(RecvTimeoutError::Timeout) if !Interrupts::requested() => {}
            Err(_) => return None,
        }
    }
}

/// A sequence as JSON, and where it belongs.
#[derive(Serialize)]
struct Placed<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    sequence: usize,
    #[serde(flatten)]
    record: Record<'a>,
}

/// A prompt that could not be continued, as JSON.
#[derive(Serialize)]
struct Refused<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    prompt: &'a str,
    error: &'a str,
}

fn add(lines: &mut Vec<u8>, record: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *lines, record).map_err(Failure::new)?;
    lines.push(b'\n');
    Ok(())
}
