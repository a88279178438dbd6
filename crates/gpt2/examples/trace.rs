//! A trace: what the model thought of each token, and what every processor did.
//!
//! `cargo run --release -p gpt2 --example trace`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{generate::DetailsRequest, model::Formats, pretrained::Pretrained, tokenizer::SpecialText};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2.generate("The old man")?.max_new_tokens(8).do_sample(true).seed(1);
    let request = request.temperature(0.7).top_k(20).top_p(0.9);
    let text = request.details(DetailsRequest { alternatives: 2, trace: true }).run()?.remove(0);
    for (&id, details) in text.tokens.iter().zip(&text.details) {
        println!("{:?}, rank {}", gpt2.tokenizer.decode(&[id], SpecialText::Keep)?, details.rank);
        for step in details.trace.iter().flat_map(|trace| &trace.steps) {
            println!("    {} ruled out {}, {} left", step.name, step.removed, step.left);
        }
    }
    Ok(())
}
