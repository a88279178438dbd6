//! Choosing a token takes no memory: what the usual chain needs it has from the first token on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gpt2::generate::{Chain, GenerationConfig, Setup};
use gpt2::process::{Context, Scores};
use gpt2::sample::Sampler;

thread_local! {
    /// Allocations of this thread.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, and a count.
struct Counting;

// SAFETY: everything is left to the system's allocator; the count is a number of the thread's own, without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: by this function's own conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: by this function's own conditions.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_usual_chain_allocates_nothing() {
    let vocabulary = 50_257;
    let greedy = GenerationConfig { do_sample: Some(false), ..GenerationConfig::default() };
    let usual = GenerationConfig {
        do_sample: Some(true),
        temperature: Some(0.7),
        top_k: Some(50),
        top_p: Some(0.95),
        ..GenerationConfig::default()
    };
    let long = GenerationConfig { min_new_tokens: Some(500), ..usual.clone() };
    let whole = GenerationConfig { top_k: Some(0), ..usual.clone() };
    for config in [greedy, usual, long, whole] {
        let setup = Setup { eos_token_ids: &[50_256], total_tokens: 1024, vocabulary, tokenizer: None };
        let mut chain = Chain::new(&config, &setup).expect("settings");
        let mut sampler = Sampler::new(&config);
        let mut scores = Scores::with_capacity(vocabulary);
        let mut tokens: Vec<u32> = Vec::with_capacity(1024);
        tokens.push(0);
        let mut logits = vec![0.0; vocabulary];
        for position in 1..60 {
            for (id, logit) in logits.iter_mut().enumerate() {
                *logit = ((id * 7919 + position * 104_729) % 10_007) as f32 * 1e-3;
            }
            let before = COUNT.get();
            scores.set(&logits);
            chain.process(&Context { tokens: &tokens, prompt: 1, ..Context::default() }, &mut scores);
            let token = sampler.choose(&scores, 0, position).expect("a token");
            // The first tokens make room.
            assert!(position < 10 || COUNT.get() == before, "{config:?} at {position}");
            tokens.push(token);
        }
    }
    assert!(COUNT.get() > 0, "nothing is counted");
}
