//! Standard output and standard error: what goes where, in which colours.
//!
//! Results go to standard output, everything else to standard error. Colours, bars and moving progress
//! appear on a terminal only, and the environment variable `NO_COLOR` switches colours off.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use console::Term;
use serde::Serialize;

pub(crate) use crate::progress::{Progress, Unit};
use crate::wrap::{Wrap, columns, fill};

/// A space at which no line is broken; it is shown as a space.
pub(crate) const NO_BREAK: char = '\u{a0}';

/// Secondary text.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Both streams of a command.
pub(crate) struct Terminal {
    /// Where results go.
    pub(crate) output: Output,
    volume: Volume,
    /// What is to be said below the results.
    signature: Cell<Option<&'static str>>,
}

/// How much is told beside the results and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Volume {
    /// Nothing.
    Quiet,
    /// Notes and progress.
    Normal,
    /// How the results come about as well.
    Verbose,
}

/// Decides about colours for the whole program: as `--color` says, else as `GPT2_COLOR`, `NO_COLOR` and `FORCE_COLOR` say,
/// else on a terminal only. `CLICOLOR_FORCE` is known to the library that is asked then.
pub(crate) fn decide_color(flag: Option<&str>) -> clap::ColorChoice {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let named = flag.map(str::to_owned).or_else(|| variable("GPT2_COLOR"));
    let forced = || {
        let forced = variable("FORCE_COLOR").is_some_and(|value| !matches!(value.as_str(), "0" | "false"));
        forced && variable("NO_COLOR").is_none()
    };
    let (library, parser) = match named.as_deref() {
        Some("always") => (ColorChoice::Always, clap::ColorChoice::Always),
        Some("never") => (ColorChoice::Never, clap::ColorChoice::Never),
        None if forced() => (ColorChoice::Always, clap::ColorChoice::Always),
        // A flag that says `auto` leaves the terminal and the variables of other programs to decide.
        _ => (ColorChoice::Auto, clap::ColorChoice::Auto),
    };
    library.write_global();
    parser
}

impl Terminal {
    /// Takes hold of the streams.
    pub(crate) fn new(volume: Volume) -> Self {
        Self { output: Output::new(), volume, signature: Cell::default() }
    }

    /// Changes how much it says, and returns how much it said before.
    pub(crate) fn set_volume(&mut self, volume: Volume) -> Volume {
        std::mem::replace(&mut self.volume, volume)
    }

    /// Whether `--verbose` asks for a report of what is done.
    pub(crate) fn is_verbose(&self) -> bool {
        self.volume == Volume::Verbose
    }

    fn is_quiet(&self) -> bool {
        self.volume == Volume::Quiet
    }

    /// Reports what is done, with `--verbose`: a heading and what there is to say.
    pub(crate) fn report(&self, heading: &str, message: &str) {
        if self.is_verbose() {
            paint_error(Style::new().bold(), heading, message);
        }
    }

    /// Tells something about how the results come about.
    pub(crate) fn note(&self, message: &str) {
        if !self.is_quiet() {
            paint_error(Style::new().bold(), "note:", message);
        }
    }

    /// Shows a line of secondary text, which is not broken at no-break spaces.
    pub(crate) fn remark(&self, message: &str) {
        if !self.is_quiet() {
            paint_error(DIM, message, "");
        }
    }

    /// Keeps a remark for the end of the results.
    pub(crate) fn sign(&self, message: &'static str) {
        self.signature.set(Some(message));
    }

    /// Sends off what is left of the results, and shows the remark that was kept for their end.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.output.finish()?;
        if let Some(message) = self.signature.take() {
            self.remark(message);
        }
        Ok(())
    }

    /// Shows a line of a table, which is as wide as it is.
    pub(crate) fn aside(&self, style: Style, line: &str) {
        if !self.is_quiet() {
            // There is nowhere left to tell that standard error is gone.
            let _ = writeln!(anstream::stderr(), "{style}{line}{style:#}");
        }
    }

    /// Makes a line for work that may take long; it appears if it does.
    pub(crate) fn progress(&self, label: &str, unit: Unit) -> Progress {
        let visible = !self.is_quiet() && io::stderr().is_terminal();
        Progress::new(label, unit, visible)
    }
}

/// Standard output.
pub(crate) struct Output {
    writer: BufWriter<Stdout>,
    terminal: bool,
    coloured: bool,
    wrap: Wrap,
}

impl Output {
    fn new() -> Self {
        let stdout = io::stdout();
        let coloured = AutoStream::choice(&stdout) != ColorChoice::Never;
        let wrap = Wrap::default();
        Self { terminal: stdout.is_terminal(), coloured, writer: BufWriter::new(stdout), wrap }
    }

    /// Whether it is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A style as it is to be used here: none where there are no colours.
    pub(crate) fn style(&self, style: Style) -> Style {
        if self.coloured { style } else { Style::new() }
    }

    /// Whether there are colours.
    pub(crate) fn is_coloured(&self) -> bool {
        self.coloured
    }

    /// The columns of the terminal; `None` if it is not one.
    pub(crate) fn width(&self) -> Option<usize> {
        self.terminal.then(|| width(&Term::stdout())).flatten()
    }

    /// Writes a text as [`text`](Self::text) does, on a terminal with its lines broken between words: a word is shown when
    /// it is whole. Ends with [`end_prose`](Self::end_prose).
    pub(crate) fn prose(&mut self, text: &str, style: Style) -> io::Result<()> {
        match self.width() {
            None => self.text(text, style),
            Some(width) => {
                let lines: Vec<String> = text.split('\n').map(visible).collect();
                let style = self.style(style);
                self.wrap.push(&lines.join("\n"), style, width, &mut self.writer)
            }
        }
    }

    /// Writes what is left of a text, and a line end.
    pub(crate) fn end_prose(&mut self) -> io::Result<()> {
        // Where the width was known before, there may be a word.
        self.wrap.finish(self.width().unwrap_or(usize::MAX), &mut self.writer)?;
        self.writer.write_all(b"\n")?;
        self.writer.flush()
    }

    /// Writes a text of the model's or the user's: as it is, but on a terminal without control characters,
    /// which could do anything to it.
    pub(crate) fn text(&mut self, text: &str, style: Style) -> io::Result<()> {
        let style = self.style(style);
        // Styles begin and end on every line, so that a pager or a break-off leaves no colour behind.
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            if self.terminal {
                write!(self.writer, "{style}{}{style:#}{end}", visible(line))?;
            } else {
                write!(self.writer, "{style}{line}{style:#}{end}")?;
            }
        }
        Ok(())
    }

    /// Writes one line of JSON and sends it off.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")?;
        self.writer.flush()
    }

    /// Sends off what is left.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Replaces control characters but for tabs by their pictures.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => c,
            '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
            '\x7f' => '\u{2421}',
            '\u{80}'..='\u{9f}' => char::REPLACEMENT_CHARACTER,
            _ => c,
        })
        .collect()
}

/// Writes a line to standard error: a styled word and a plain message.
pub(crate) fn paint_error(style: Style, word: &str, message: &str) {
    let mut stderr = anstream::stderr().lock();
    let space = if message.is_empty() { "" } else { " " };
    let (word, message) = match error_width() {
        None => (word.to_owned(), message.to_owned()),
        Some(width) => (fill(word, width, 0, 2), fill(message, width, columns(word) + 1, 2)),
    };
    let word = word.replace(NO_BREAK, " ");
    // There is nowhere left to tell that standard error is gone.
    let _ = writeln!(stderr, "{style}{word}{style:#}{space}{message}");
}

/// The columns of the terminal that standard error is; `None` if it is not one.
pub(crate) fn error_width() -> Option<usize> {
    io::stderr().is_terminal().then(|| width(&Term::stderr())).flatten()
}

/// The columns of a terminal that says so.
fn width(term: &Term) -> Option<usize> {
    term.size_checked().map(|(_, columns)| usize::from(columns)).filter(|&columns| columns >= 2)
}

/// A horizontal bar of up to `width` columns for a share from 0 to 1, to an eighth of a column.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.extend(['▏', '▎', '▍', '▌', '▋', '▊', '▉'].get(eighths % 8 - 1));
    }
    bar
}

/// A number with its thousands separated: `124,439,808`.
pub(crate) fn thousands(number: impl Display) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of things: `1 token`, `1,024 tokens`.
pub(crate) fn counted(number: usize, thing: &str) -> String {
    format!("{} {thing}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A number of bytes for people: `548 MB`, in the powers of ten that the hub counts in.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        0..1_000 => format!("{number} bytes"),
        1_000..1_000_000 => format!("{:.0} kB", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", number as f64 / 1e6),
        _ => format!("{:.2} GB", number as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_by_eighths() {
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(1.0 / 32.0, 4), "▏");
        assert_eq!(bar(31.0 / 32.0, 4), "███▉");
        assert_eq!(bar(f64::NAN, 4), "");
        assert_eq!(bar(2.0, 1), "█");
    }

    #[test]
    fn thousands_are_separated() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (124_439_808, "124,439,808")] {
            assert_eq!(thousands(number), expected);
        }
    }

    #[test]
    fn control_characters_become_pictures() {
        assert_eq!(visible("a\tb\x1b[31m\r\x7f\u{9b}é"), "a\tb␛[31m␍␡\u{fffd}é");
    }
}
