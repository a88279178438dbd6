//! The text that transformers writes after `torch.manual_seed(42)` on the CPU.
//!
//! `cargo run --release -p gpt2 --example torch_seed`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::generate::Rng;
use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2
        .generate("Once upon a time")?
        .max_length(50)
        .do_sample(true)
        .temperature(0.7)
        .top_p(0.95)
        .seed(42);
    println!("{}", request.with(|config| config.rng = Some(Rng::Torch)).run()?[0].text);
    Ok(())
}
