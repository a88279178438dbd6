//! GPT-2 from checkpoint to text.
//!
//! Nothing here reads the environment, prints, or keeps global state: a caller passes the
//! [`Cpu`](gpt2_kernels::Cpu), the seed, and every setting.
//!
//! ```
//! use gpt2::{checkpoint::Checkpoint, config::Config, model::{Formats, Model}, tokenizer::*};
//! use gpt2_kernels::{Cpu, Kernels};
//! use std::path::Path;
//!
//! # let folder = &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
//! # /*
//! let folder = Path::new("models/demo");
//! # */
//! let config = Config::from_json(&std::fs::read(folder.join("config.json"))?)?;
//! let checkpoint = Checkpoint::open(folder)?;
//! let model = Model::load(Cpu::new(Kernels::detect(), 2), config, &checkpoint, Formats::default(), &mut |_, _| ())?;
//! let tokenizer = Tokenizer::from_directory(folder)?;
//!
//! let prompt = tokenizer.encode("Once upon a time", SpecialTokens::Parse)?;
//! let request = model.generate(&prompt).tokenizer(&tokenizer).max_length(50).do_sample(true);
//! for delta in request.temperature(0.7).top_k(50).top_p(0.95).seed(42).text()? {
//!     print!("{}", delta?.text);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`config`], [`checkpoint`], [`tokenizer`], [`hub`] | what is read: `config.json`, weights, vocabulary, downloads |
//! | [`pack`], [`memory`] | copies of packed weights for the next start; the bytes that a model needs |
//! | [`weights`], [`model`], [`cache`], [`workspace`], [`logits`] | the network: parameters, forward pass, its state |
//! | [`process`], [`sample`], [`generate`], [`stream`] | from logits to tokens to text |
//! | [`predict`], [`score`], [`divergence`] | to judge: next tokens, likelihoods, the distance between two models |
//! | [`probe`], [`inspect`] | to look: inside the model, and at its files |

pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod divergence;
pub mod generate;
pub mod hub;
pub mod inspect;
pub mod logits;
pub mod memory;
pub mod model;
pub mod pack;
pub mod predict;
pub mod probe;
pub mod process;
pub mod sample;
pub mod score;
pub mod stream;
pub mod tokenizer;
pub mod weights;
pub mod workspace;
