//! Speculation: a copy of the model in four bits guesses what comes next, and the model looks at all of it at once.
//!
//! `cargo run --release -p gpt2 --example speculation`

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels, WeightFormat};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cpu = Arc::new(Cpu::new(Kernels::detect(), 2));
    let gpt2 = Pretrained::from_directory("models/demo", Arc::clone(&cpu), Formats::default())?;
    // Both compute on the same threads.
    let draft = Pretrained::from_directory("models/demo", cpu, WeightFormat::Int4.into())?;
    let request =
        || Ok::<_, Box<dyn std::error::Error>>(gpt2.generate("Once upon a time")?.max_new_tokens(60));
    let plain = request()?.run()?;
    let mut guessed = request()?.assistant(&draft.model).text()?;
    guessed.by_ref().try_for_each(|delta| delta.map(drop))?;
    println!("Once upon a time{}", guessed.completions()[0].text);
    println!("the same text without guesses: {}", guessed.completions() == plain);
    if let Some(report) = guessed.generation().speculation() {
        println!("{} of {} guesses were right; {} passes", report.accepted, report.drafted, report.passes);
    }
    Ok(())
}
