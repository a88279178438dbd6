//! Why each token was chosen, for people: tables on standard error, after the text.
//!
//! ```text
//!   token     p model   p after    rank  entropy
//!   " was"    12.17 %   17.19 %       3     3.68
//!     ","     25.57 %   30.12 %       1             alternatives, as many as were asked for
//!     step          removed      mass     left
//!     top_k          50,207   23.10 %       50  " foo" 0.31 %, " bar" 0.30 %
//!     drawn, u 0.888332; next "," 49.64 %, u 0.173586
//! ```

use gpt2::generate::{Completion, TraceStep};
use gpt2::sample::Draw;
use gpt2::score::TokenDetails;
use gpt2::tokenizer::Tokenizer;

use crate::commands::token::quoted;
use crate::terminal::{DIM, Terminal, error_width, thousands};
use crate::wrap::{columns, fill, fit};

/// The width of a table where there is no terminal.
const WIDTH: usize = 80;
/// The widest that a token's column gets, and that of a step's name.
const TOKEN: usize = 20;
const STEP: usize = 28;

/// A line of the table: a token, or one that might have come in its place.
struct Row {
    token: String,
    /// Probabilities by the model and after the processors.
    model: Option<f32>,
    after: Option<f32>,
    rank: Option<usize>,
    entropy: Option<f32>,
    indent: usize,
}

/// How wide the columns are.
struct Layout {
    width: usize,
    token: usize,
    after: bool,
    entropy: bool,
    step: usize,
    mass: bool,
}

impl Layout {
    fn new<'a>(rows: impl Iterator<Item = &'a Row>, steps: &[TraceStep], after: bool) -> Self {
        let width = error_width().unwrap_or(WIDTH);
        let widest = rows.map(|row| row.indent + columns(&row.token)).max().unwrap_or(0);
        // Beside it: the blanks before it, a rank, and a probability or two.
        let others = 2 + 8 + 10 + if after { 10 } else { 0 };
        let token = widest.clamp(8, TOKEN).min(width.saturating_sub(others).max(8));
        let widest = steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
        let step = widest.clamp(8, STEP).min(width.saturating_sub(4 + 9 + 9).max(8));
        Self {
            width,
            token,
            after,
            entropy: others + token + 9 <= width,
            step,
            mass: 4 + step + 9 + 10 + 9 <= width,
        }
    }

    fn heading(&self, first: &str) -> String {
        let mut line = format!("  {}  {:>8}", fit(first, self.token), "p model");
        if self.after {
            line += &format!("  {:>8}", "p after");
        }
        line += &format!("  {:>6}", "rank");
        if self.entropy { line + "  entropy" } else { line }
    }

    fn row(&self, row: &Row) -> String {
        let indent = " ".repeat(row.indent);
        let token = fit(&format!("{indent}{}", row.token), self.token);
        let percent = |share: Option<f32>| share.map_or_else(|| "–".to_owned(), percent);
        let mut line = format!("  {token}  {:>8}", percent(row.model));
        if self.after {
            line += &format!("  {:>8}", percent(row.after));
        }
        line += &format!("  {:>6}", row.rank.map_or_else(|| "–".to_owned(), thousands));
        match row.entropy.filter(|_| self.entropy) {
            Some(entropy) => line + &format!("  {entropy:>7.2}"),
            None => line,
        }
    }

    fn step_heading(&self) -> String {
        let mass = if self.mass { format!("  {:>8}", "mass") } else { String::new() };
        format!("    {}  {:>7}{mass}  {:>7}", fit("step", self.step), "removed", "left")
    }

    /// What one processor did.
    fn step(&self, step: &TraceStep, tokenizer: &Tokenizer) -> String {
        let (removed, mass) = match step.removed {
            0 => ("–".to_owned(), "–".to_owned()),
            removed => (thousands(removed), percent(step.removed_mass)),
        };
        let mass = if self.mass { format!("  {mass:>8}") } else { String::new() };
        let mut line =
            format!("    {}  {removed:>7}{mass}  {:>7}", fit(step.name, self.step), thousands(step.left));
        let mut more = Vec::new();
        if let (Some(before), Some(after)) = (step.score_before, step.score_after)
            && before != after
        {
            more.push(format!("score {before:.3} → {after:.3}"));
        }
        if step.restored > 0 {
            more.push(format!("{} restored", thousands(step.restored)));
        }
        if step.changed > 0 && step.removed == 0 && more.is_empty() {
            more.push(format!("{} changed", thousands(step.changed)));
        }
        let removed = step.likeliest_removed.iter();
        more.extend(
            removed.map(|token| format!("{} {}", quoted(token.id, tokenizer), percent(token.probability))),
        );
        // As many of these as have room.
        for (index, part) in more.iter().enumerate() {
            let before = if index == 0 { "  " } else { ", " };
            if columns(&line) + before.len() + columns(part) > self.width {
                break;
            }
            line = line + before + part;
        }
        line
    }
}

/// Shows what the model thought of each token of the prompt.
pub(super) fn prompt(tokens: &[TokenDetails], tokenizer: &Tokenizer, terminal: &Terminal) {
    let mut rows = Vec::new();
    for token in tokens {
        rows.push(Row {
            token: quoted(token.id, tokenizer),
            model: token.logprob.map(f32::exp),
            after: None,
            rank: token.rank,
            entropy: token.entropy,
            indent: 0,
        });
        rows.extend((1..).zip(&token.alternatives).map(|(rank, other)| Row {
            token: quoted(other.id, tokenizer),
            model: Some(other.probability),
            after: None,
            rank: Some(rank),
            entropy: None,
            indent: 2,
        }));
    }
    if rows.is_empty() {
        return;
    }
    let layout = Layout::new(rows.iter(), &[], false);
    terminal.aside(DIM, &layout.heading("prompt"));
    for row in &rows {
        show(row, &layout, terminal);
    }
}

/// Shows what there is to say of each token of a continuation.
pub(super) fn tokens(completion: &Completion, tokenizer: &Tokenizer, terminal: &Terminal) {
    let rows = completion.tokens.iter().zip(&completion.details).map(|(&id, details)| {
        let token = Row {
            token: quoted(id, tokenizer),
            model: Some(details.logprob.exp()),
            after: Some(details.probability),
            rank: Some(details.rank),
            entropy: Some(details.entropy),
            indent: 0,
        };
        let others = (1..).zip(&details.alternatives).map(|(rank, other)| Row {
            token: quoted(other.id, tokenizer),
            model: Some(other.logprob.exp()),
            after: Some(other.probability),
            rank: Some(rank),
            entropy: None,
            indent: 2,
        });
        std::iter::once(token).chain(others).collect::<Vec<_>>()
    });
    let rows: Vec<Vec<Row>> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let traces = completion.details.iter().filter_map(|details| details.trace.as_ref());
    let steps: Vec<TraceStep> = traces.flat_map(|trace| trace.steps.iter().cloned()).collect();
    let layout = Layout::new(rows.iter().flatten(), &steps, true);
    terminal.aside(DIM, &layout.heading("token"));
    for (index, (rows, details)) in rows.iter().zip(&completion.details).enumerate() {
        for row in rows {
            show(row, &layout, terminal);
        }
        let Some(trace) = &details.trace else { continue };
        if index == 0 && !trace.steps.is_empty() {
            terminal.aside(DIM, &layout.step_heading());
        }
        for step in &trace.steps {
            terminal.aside(DIM, &layout.step(step, tokenizer));
        }
        if let Some(draw) = &trace.draw {
            let line = fill(&drawn(draw, tokenizer), layout.width, 4, 6);
            terminal.aside(DIM, &format!("    {line}"));
        }
    }
}

fn show(row: &Row, layout: &Layout, terminal: &Terminal) {
    let style = if row.indent == 0 { anstyle::Style::new() } else { DIM };
    terminal.aside(style, &layout.row(row));
}

/// How the token was chosen from those that were left.
fn drawn(draw: &Draw, tokenizer: &Tokenizer) -> String {
    // A number between 0 and 1, or torch's exponential.
    let (name, number) = match draw.sampler {
        "greedy" => ("the most likely", ""),
        "torch" => ("drawn as by torch", "q"),
        _ => ("drawn", "u"),
    };
    let random =
        |random: Option<f64>| random.map_or_else(String::new, |random| format!(", {number} {random:.6}"));
    let mut line = format!("{name}{}", random(draw.chosen.random));
    if let Some(second) = &draw.runner_up {
        line += &format!(
            "; next {} {}{}",
            quoted(second.id, tokenizer),
            percent(second.probability),
            random(second.random)
        );
    }
    line
}

fn percent(share: f32) -> String {
    format!("{:.2} %", 100.0 * share)
}
