//! The well-known notebook with the library: tokens, text, four ways to choose tokens, the architecture, the parameters.
//!
//! `cargo run --release -p gpt2 --example notebook`; `docs/notebook.md` explains it step by step.

use std::error::Error;
use std::io::Write;

use gpt2::inspect::{self, By};
use gpt2::model::Formats;
use gpt2::pretrained::Pretrained;
use gpt2::tokenizer::{SpecialText, SpecialTokens};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn Error>> {
    notebook(&mut std::io::stdout())
}

/// Writes what the notebook shows.
pub(crate) fn notebook(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let cpu = Cpu::new(Kernels::detect(), 2);
    let gpt2 = Pretrained::from_directory("models/demo", cpu, Formats::default())?;

    let text = "Natural language processing helps computers understand text.";
    let ids = gpt2.tokenizer.encode(text, SpecialTokens::Parse)?;
    let tokens: Result<Vec<_>, _> =
        ids.iter().map(|&id| gpt2.tokenizer.decode(&[id], SpecialText::Keep)).collect();
    writeln!(out, "Original Text: '{text}'")?;
    writeln!(out, "Input IDs    : {ids:?}")?;
    writeln!(out, "Tokens       : ['{}']", tokens?.join("', '"))?;

    let prompt = "The future of artificial intelligence is";
    let request = gpt2.generate(prompt)?.max_length(60).do_sample(true).temperature(0.7);
    for completion in request.top_k(50).top_p(0.95).seed(42).run()? {
        writeln!(out, "{prompt}{}", completion.text)?;
    }

    let prompt = "Once upon a time,";
    for (do_sample, top_k, top_p) in [(false, 0, 1.0), (true, 0, 1.0), (true, 50, 1.0), (true, 0, 0.92)] {
        let request = gpt2.generate(prompt)?.max_new_tokens(20).do_sample(do_sample).seed(42);
        for completion in request.top_k(top_k).top_p(top_p).run()? {
            writeln!(out, "{prompt}{}", completion.text)?;
        }
    }

    writeln!(out, "{}", inspect::architecture(gpt2.model.config()))?;
    let components = inspect::components(gpt2.model.config(), By::Component);
    for component in &components {
        writeln!(out, "  {:<40}: {:>12}", component.name, thousands(component.parameters))?;
    }
    let total: u64 = components.iter().map(|component| component.parameters).sum();
    writeln!(out, "{:<36}: {:>12}", "Total Trainable Parameters", thousands(total))?;
    Ok(())
}

/// A number with its thousands separated: `124,439,808`.
fn thousands(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}
