//! Prompts that begin alike: what they share is computed once.
//!
//! `cargo run --release -p gpt2 --example prefix_cache [DIRECTORY]`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{cache::PrefixCache, model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "models/demo".to_owned());
    let gpt2 = Pretrained::from_directory(directory, Cpu::new(Kernels::detect(), 2), Formats::default())?;
    // Of what was used last, as much as fits into 256 MiB.
    let prefixes = PrefixCache::new(&gpt2.model, 256 << 20);
    let tale =
        "Once upon a time there was a miller who had three sons, a mill, a donkey and a cat. ".repeat(20);
    for end in ["The eldest son", "The youngest son", "The cat"] {
        let request = gpt2.generate(&format!("{tale}{end}"))?.max_new_tokens(12).prefix_cache(&prefixes);
        let mut text = request.text()?;
        text.by_ref().try_for_each(|delta| delta.map(drop))?;
        let (prompt, prefill) = (text.generation().prompt().len(), text.generation().timing().prefill);
        println!("{end}{}", text.completions()[0].text);
        let reused = prefixes.stats().reused_tokens;
        println!("  {prompt} tokens read in {:.1} ms; reused so far: {reused}", 1e3 * prefill.as_secs_f64());
    }
    Ok(())
}
