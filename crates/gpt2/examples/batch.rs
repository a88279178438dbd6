//! Many prompts at once: each text is what its prompt alone gives.
//!
//! `cargo run --release -p gpt2 --example batch`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::generate::{Batch, BatchEvent};
use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let prompts = ["Once upon a time", "In a village", "The fox said", "At night", "The old woman"];
    // Three at a time; who is done makes room for the next.
    let mut batch = Batch::new(&gpt2.model, 3);
    for (prompt, length) in prompts.iter().zip([8, 30, 16, 12, 20]) {
        batch.push(gpt2.generate(prompt)?.do_sample(true).seed(7).max_new_tokens(length));
    }
    for event in batch {
        if let BatchEvent::Finished { request, result, .. } = event {
            println!("{}|{}\n", prompts[request], result?[0].text);
        }
    }
    Ok(())
}
