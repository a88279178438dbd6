//! Beam search: the likeliest texts as a whole, best first.
//!
//! `cargo run --release -p gpt2 --example beam_search`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let texts = gpt2
        .generate("The old man looked at the sea")?
        .max_new_tokens(30)
        .num_beams(4)
        .num_return_sequences(2)
        .run()?;
    for text in texts {
        println!("{}", text.text);
    }
    Ok(())
}
