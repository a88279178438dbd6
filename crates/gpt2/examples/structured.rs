//! Texts that match a schema, an expression or a grammar.
//!
//! `cargo run --release -p gpt2 --example structured`

#![expect(clippy::print_stdout, reason = "an example prints")]

use gpt2::{generate::StructuredOutputs, model::Formats, pretrained::Pretrained};
use gpt2_kernels::{Cpu, Kernels};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
    let ship = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "masts": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["name", "masts"],
        "additionalProperties": false,
    });
    let structures = [
        StructuredOutputs::Json(ship),
        StructuredOutputs::Regex("[1-9][0-9]? (May|June|July) 18[0-9]{2}".to_owned()),
        StructuredOutputs::Choice(vec!["yes".to_owned(), "no".to_owned()]),
        StructuredOutputs::Grammar("root ::= [1-9] (\" + \" [1-9]){1,3}".to_owned()),
    ];
    for structure in structures {
        let request = gpt2.generate("The old man wrote: ")?.max_new_tokens(50).do_sample(true).seed(1);
        let text = request.structured_outputs(structure).run()?.remove(0);
        println!("{} (complete: {:?})", text.text, text.complete);
    }
    Ok(())
}
