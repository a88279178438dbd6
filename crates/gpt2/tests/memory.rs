//! What a model is said to need is what it takes.

use std::path::Path;

use gpt2::cache::KvCache;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::memory::MemoryNeed;
use gpt2::model::{Formats, Model, Step, Want};
use gpt2_kernels::{Cpu, Kernels, WeightFormat};

#[test]
fn weights_and_a_full_cache_take_the_bytes_that_were_announced() {
    for case in ["one-layer", "untied-head", "head-80", "n-inner", "odd-vocabulary"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden").join(case);
        let json = std::fs::read(folder.join("config.json")).expect("a configuration");
        let config = Config::from_json(&json).expect("a configuration");
        let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
        for formats in WeightFormat::ALL.map(Formats::from) {
            let need = MemoryNeed::new(&config, formats, 1);
            let cpu = Cpu::new(Kernels::detect(), 1);
            let model =
                Model::load(cpu, config.clone(), &checkpoint, formats, &mut |_, _| ()).expect("a model");
            assert_eq!(need.weights, weight_bytes(&model), "{case} {formats:?}");

            let text = vec![0; config.n_positions];
            let mut cache = KvCache::new(&model);
            Step::new(&model, &text, &mut cache, Want::Nothing).expect("a text that fills the context");
            assert_eq!(need.cache, cache.bytes() as u64, "{case} {formats:?}");
            assert!(need.total() > need.weights + need.cache);
        }
    }
}

fn weight_bytes(model: &Model) -> u64 {
    let weights = model.weights();
    let mut bytes = weights.wte.as_bytes().len();
    bytes += weights.lm_head.as_ref().map_or(0, |head| head.as_bytes().len());
    let mut floats = weights.wpe.len() + weights.ln_f.weight.len() + weights.ln_f.bias.len();
    for block in &weights.h {
        for linear in [&block.c_attn, &block.attn_c_proj, &block.c_fc, &block.mlp_c_proj] {
            bytes += linear.weight.as_bytes().len();
            floats += linear.bias.len();
        }
        for norm in [&block.ln_1, &block.ln_2] {
            floats += norm.weight.len() + norm.bias.len();
        }
    }
    (bytes + 4 * floats) as u64
}

#[test]
fn the_largest_configuration_that_is_valid_can_be_told() {
    let size = 1 << 24;
    let config = Config {
        n_embd: size,
        n_head: size,
        n_inner: size,
        n_positions: size,
        vocab_size: size,
        n_layer: 1024,
        ..Config::default()
    };
    config.validate().expect("these are the limits");
    let need = MemoryNeed::new(&config, Formats::default(), usize::MAX);
    assert!(need.weights > 1 << 60, "{need:?}");
    assert_eq!((need.workspace, need.total()), (u64::MAX, u64::MAX));
}
