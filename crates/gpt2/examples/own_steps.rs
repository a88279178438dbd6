//! A processor and a stopping criterion of one's own.
//!
//! `cargo run --release -p gpt2 --example own_steps`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2::{
    process::{Context, Processor, Scores},
    tokenizer::SpecialTokens,
};
use gpt2_kernels::{Cpu, Kernels};

/// Rules out the last token.
struct NoEcho;

impl Processor for NoEcho {
    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        if let Some(&last) = context.tokens.last() {
            scores.put(last, f32::NEG_INFINITY);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let request = gpt2.generate("The old man looked at the sea")?.max_new_tokens(30);
    let full_stop = gpt2.tokenizer.encode_part(".", SpecialTokens::Parse)?;
    // Never the same token twice in a row, and the end with the first sentence.
    let request =
        request.processor(NoEcho).stopping_criterion(move |context| context.tokens.ends_with(&full_stop));
    println!("{}", request.run()?[0].text);
    Ok(())
}
