//! Contrastive search: likely tokens that do not resemble the text so far.
//!
//! `cargo run --release -p gpt2 --example contrastive_search`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2.generate("The old man looked at the sea")?.max_new_tokens(40).top_k(4);
    let texts = request.with(|config| config.penalty_alpha = Some(0.6)).run()?;
    println!("{}", texts[0].text);
    Ok(())
}
