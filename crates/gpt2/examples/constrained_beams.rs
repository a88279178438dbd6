//! Constrained beam search: words that must occur.
//!
//! `cargo run --release -p gpt2 --example constrained_beams`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{generate::ForcedWords, tokenizer::SpecialTokens};
use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let words = ["sea", " sea"].map(|word| gpt2.tokenizer.encode_part(word, SpecialTokens::Parse));
    let words = words.into_iter().collect::<Result<_, _>>()?;
    let request = gpt2.generate("The old man looked at")?.max_new_tokens(20).num_beams(5);
    let texts =
        request.with(|config| config.force_words_ids = Some(vec![ForcedWords::OneOf(words)])).run()?;
    println!("{}", texts[0].text);
    Ok(())
}
