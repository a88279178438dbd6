//! Beam-sample: beams that are drawn.
//!
//! `cargo run --release -p gpt2 --example beam_sample`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2.generate("The old man looked at the sea")?.max_new_tokens(30);
    println!("{}", request.do_sample(true).num_beams(4).seed(1).run()?[0].text);
    Ok(())
}
