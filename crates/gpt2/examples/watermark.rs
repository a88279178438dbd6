//! A watermark: a text that can be recognised, and the detector.
//!
//! `cargo run --release -p gpt2 --example watermark`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::generate::Watermarking;
use gpt2::watermark::{Detect, detect};
use gpt2::{model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let config = Watermarking::default();
    for mark in [None, Some(config)] {
        let request = gpt2.generate("The old man")?.max_new_tokens(100).do_sample(true).seed(1);
        let text = request.with(|settings| settings.watermarking_config = mark).run()?.remove(0);
        let found = detect(&text.tokens, gpt2.model.config().vocab_size, &config, &Detect::default())?;
        println!("z-score {:.1}, marked: {}", found.z_score, found.prediction);
    }
    Ok(())
}
