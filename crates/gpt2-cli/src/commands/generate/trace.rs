//! Why each token was chosen, for people: on standard error, behind the text.

use std::fmt::Write;

use gpt2::generate::{Completion, Details, TraceStep};
use gpt2::score::TokenDetails;
use gpt2::tokenizer::Tokenizer;

use crate::commands::next;
use crate::failure::Failure;
use crate::terminal::{Terminal, thousands};

/// Shows what the model thought of each token of the prompt.
pub(super) fn prompt(
    tokens: &[TokenDetails],
    tokenizer: &Tokenizer,
    terminal: &Terminal,
) -> Result<(), Failure> {
    for token in tokens {
        let mut line = format!("  prompt {:?}", next::text(tokenizer, token.id)?);
        if let (Some(logprob), Some(rank), Some(entropy)) = (token.logprob, token.rank, token.entropy) {
            let _ = write!(line, "  {}", judged(logprob, rank, entropy));
        }
        let others: Vec<_> = token.alternatives.iter().map(|other| (other.id, other.logprob)).collect();
        list(&mut line, &others, tokenizer)?;
        terminal.remark(&line);
    }
    Ok(())
}

/// Shows what there is to say of each token of a continuation.
pub(super) fn tokens(
    completion: &Completion,
    tokenizer: &Tokenizer,
    terminal: &Terminal,
) -> Result<(), Failure> {
    for (id, details) in completion.tokens.iter().zip(&completion.details) {
        let Details { logprob, probability, rank, entropy, alternatives, trace } = details;
        let mut line = format!("  {:?}  {}", next::text(tokenizer, *id)?, judged(*logprob, *rank, *entropy));
        let _ = write!(line, ", {} after the processors", percent(*probability));
        let others: Vec<_> = alternatives.iter().map(|other| (other.id, other.logprob)).collect();
        list(&mut line, &others, tokenizer)?;
        terminal.remark(&line);
        let Some(trace) = trace else { continue };
        for step in &trace.steps {
            terminal.remark(&format!("      {}", told(step, tokenizer)?));
        }
        if let Some(draw) = &trace.draw {
            let mut line = format!("      {}", draw.sampler);
            if let Some(random) = draw.chosen.random {
                let _ = write!(line, ": random number {random:.6}");
            }
            if let Some(second) = &draw.runner_up {
                let _ = write!(
                    line,
                    ", before {:?} ({}",
                    next::text(tokenizer, second.id)?,
                    percent(second.probability)
                );
                if let Some(random) = second.random {
                    let _ = write!(line, ", {random:.6}");
                }
                line.push(')');
            }
            terminal.remark(&line);
        }
    }
    Ok(())
}

/// What the model thought of a token.
fn judged(logprob: f32, rank: usize, entropy: f32) -> String {
    format!("{} by the model, rank {}, entropy {entropy:.2} nats", percent(logprob.exp()), thousands(rank))
}

/// What one processor did.
fn told(step: &TraceStep, tokenizer: &Tokenizer) -> Result<String, Failure> {
    let mut line = format!("{}:", step.name);
    if step.removed > 0 {
        let _ = write!(line, " removed {} ({}", thousands(step.removed), percent(step.removed_mass));
        for token in &step.likeliest_removed {
            let _ = write!(line, ", {:?} {}", next::text(tokenizer, token.id)?, percent(token.probability));
        }
        line.push_str(");");
    }
    if step.restored > 0 {
        let _ = write!(line, " let in {};", thousands(step.restored));
    }
    if step.changed > 0 {
        let _ = write!(line, " changed {};", thousands(step.changed));
    }
    if let (Some(before), Some(after)) = (step.score_before, step.score_after)
        && before != after
    {
        let _ = write!(line, " this token's score {before:.3} to {after:.3};");
    }
    let _ = write!(line, " {} left", thousands(step.left));
    Ok(line)
}

fn list(line: &mut String, others: &[(u32, f32)], tokenizer: &Tokenizer) -> Result<(), Failure> {
    for (index, (id, logprob)) in others.iter().enumerate() {
        let before = if index == 0 { "; of " } else { ", " };
        let _ = write!(line, "{before}{:?} {}", next::text(tokenizer, *id)?, percent(logprob.exp()));
    }
    Ok(())
}

fn percent(share: f32) -> String {
    format!("{:.2} %", 100.0 * share)
}
