//! Classifier-free guidance: towards the prompt, and away from another.
//!
//! `cargo run --release -p gpt2 --example guidance`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::tokenizer::SpecialTokens;
use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let negative = gpt2.tokenizer.encode("The law says", SpecialTokens::Parse)?;
    let request = gpt2.generate("Once upon a time")?.max_new_tokens(30).negative_prompt(&negative);
    println!("{}", request.with(|config| config.guidance_scale = Some(1.5)).run()?[0].text);
    Ok(())
}
