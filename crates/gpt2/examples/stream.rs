//! A stream: the texts of several sequences as they come, and a stop string.
//!
//! `cargo run --release -p gpt2 --example stream`

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::io::Write;

use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2.generate("Once upon a time")?.do_sample(true).seed(3).num_return_sequences(2);
    let mut stream = request.max_new_tokens(40).stop(".").text()?;
    for delta in &mut stream {
        let delta = delta?;
        print!("[{}]{}", delta.token.sequence + 1, delta.text);
        std::io::stdout().flush()?;
    }
    println!();
    for completion in stream.into_completions() {
        println!("{:?} {:?}", completion.text, completion.finish);
    }
    Ok(())
}
