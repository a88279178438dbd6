//! Token healing: a prompt that ends within a word goes on within it.
//!
//! `cargo run --release -p gpt2 --example token_healing`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{model::Formats, pretrained::Pretrained, tokenizer::SpecialText};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    // By itself, " loo" is followed by what follows " loo"; healed, it becomes a token that begins with it.
    for healing in [false, true] {
        let request = gpt2.generate("The old man loo")?.max_new_tokens(10);
        let mut stream = request.with(|config| config.token_healing = Some(healing)).text()?;
        let prompt = gpt2.tokenizer.decode(stream.generation().prompt(), SpecialText::Keep)?;
        stream.by_ref().try_for_each(|delta| delta.map(drop))?;
        println!("{prompt}|{}", stream.completions()[0].text);
    }
    Ok(())
}
