//! A function of the text that says which tokens may come next.
//!
//! `cargo run --release -p gpt2 --example prefix_allowed_tokens`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{model::Formats, pretrained::Pretrained, tokenizer::SpecialTokens};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    // One of these answers, and nothing behind it.
    let answers = [" yes", " no", " perhaps"];
    let tokens = |text: &str| gpt2.tokenizer.encode_part(text, SpecialTokens::Parse);
    let answers = answers.into_iter().map(tokens).collect::<Result<Vec<_>, _>>()?;
    let (end, most) = (gpt2.model.config().eos_token_ids[0], 5);
    let request = gpt2.generate("Is the sea deep? The old man said:")?.max_new_tokens(most);
    let request = request.prefix_allowed_tokens_fn(move |context| {
        let said = &context.tokens[context.prompt..];
        let begun = answers.iter().filter(|answer| answer.starts_with(said));
        begun.map(|answer| answer.get(said.len()).copied().unwrap_or(end)).collect()
    });
    println!("{}", request.run()?[0].text);
    Ok(())
}
