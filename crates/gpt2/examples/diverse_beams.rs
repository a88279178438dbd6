//! Diverse beam search: groups of beams that differ from each other.
//!
//! `cargo run --release -p gpt2 --example diverse_beams`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2
        .generate("The old man looked at the sea")?
        .max_new_tokens(30)
        .num_beams(6)
        .num_return_sequences(3);
    let request = request.with(|config| {
        config.num_beam_groups = Some(3);
        config.diversity_penalty = Some(1.0);
    });
    for text in request.run()? {
        println!("{}", text.text);
    }
    Ok(())
}
