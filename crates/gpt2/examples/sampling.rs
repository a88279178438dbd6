//! Sampling, as in the well-known notebook: three continuations, printed as they are written.
//!
//! `cargo run --release -p gpt2 --example sampling`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2.generate("Once upon a time")?.max_length(50).num_return_sequences(3);
    for delta in request.do_sample(true).temperature(0.7).top_k(50).top_p(0.95).seed(42).text()? {
        let delta = delta?;
        println!("{}: {:?}", delta.token.sequence, delta.text);
    }
    Ok(())
}
