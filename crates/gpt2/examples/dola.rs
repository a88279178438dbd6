//! DoLa: what the last layer knows and earlier ones do not.
//!
//! `cargo run --release -p gpt2 --example dola`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::generate::{DolaHalf, DolaLayers};
use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2.generate("The old man looked at the sea")?.max_new_tokens(30);
    let request = request.with(|config| {
        config.dola_layers = Some(DolaLayers::Half(DolaHalf::Low));
        config.repetition_penalty = Some(1.2);
    });
    println!("{}", request.run()?[0].text);
    Ok(())
}
