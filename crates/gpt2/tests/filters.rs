//! Temperature, top-k and top-p against transformers, alone and chained: `testdata/golden/filters`.

use std::path::Path;

use gpt2::process::{Context, Processor, Scores, Temperature, TopK, TopP};
use safetensors::SafeTensors;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    settings: Vec<Setting>,
    rows: Vec<Row>,
}

#[derive(Deserialize, Debug)]
struct Setting {
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
}

#[derive(Deserialize)]
struct Row {
    about: String,
    vocab: usize,
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    file.tensor(name).expect(name).data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

#[test]
fn filters_keep_what_transformers_keeps_and_score_it_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/filters");
    let json = std::fs::read(folder.join("expected.json")).expect("expected.json");
    let expected: Expected = serde_json::from_slice(&json).expect("expected.json");
    let bytes = std::fs::read(folder.join("expected.safetensors")).expect("expected.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("expected.safetensors");
    assert!(expected.rows.len() >= 30 && expected.settings.len() >= 10);
    for (index, row) in expected.rows.iter().enumerate() {
        let scores = floats(&tensors, &format!("row{index}.scores"));
        let after = floats(&tensors, &format!("row{index}.after"));
        for (setting, after) in expected.settings.iter().zip(after.chunks(row.vocab)) {
            let mut found = Scores::default();
            found.set(&scores);
            let mut apply = |processor: Option<Box<dyn Processor>>| {
                if let Some(mut processor) = processor {
                    processor.process(&Context { tokens: &[], prompt: 0, ..Context::default() }, &mut found);
                }
            };
            apply(setting.temperature.map(|t| Box::new(Temperature::new(t)) as _));
            apply(setting.top_k.map(|k| Box::new(TopK::new(k)) as _));
            apply(setting.top_p.map(|p| Box::new(TopP::new(p)) as _));
            for (token, (found, after)) in found.all().iter().zip(after).enumerate() {
                let same = found == after || (found - after).abs() <= 1e-6 * after.abs();
                assert!(
                    same,
                    "row {index} ({}), {setting:?}, token {token}: {found}, expected {after}",
                    row.about
                );
            }
        }
    }
}
