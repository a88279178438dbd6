//! GPT-2 from checkpoint to text.
//!
//! Nothing here reads the environment, prints, or keeps global state: a caller passes the
//! [`Cpu`](gpt2_kernels::Cpu), the seed, and every setting.
//!
//! The well-known notebook, in Rust:
//!
//! ```
//! use gpt2::{inspect, model::Formats, pretrained::Pretrained, tokenizer::SpecialTokens};
//! use gpt2_kernels::{Cpu, Kernels};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
//!     let gpt2 = Pretrained::from_directory("models/demo", Cpu::new(Kernels::detect(), 2), Formats::default())?;
//!     println!("ids: {:?}", gpt2.tokenizer.encode("Natural language processing", SpecialTokens::Parse)?);
//!     let request = gpt2.generate("Once upon a time")?.max_length(50).num_return_sequences(2);
//!     for text in request.do_sample(true).temperature(0.7).top_k(50).top_p(0.95).seed(42).run()? {
//!         println!("{}", text.text);
//!     }
//!     println!("{}", inspect::architecture(gpt2.model.config()));
//!     for component in inspect::components(gpt2.model.config(), inspect::By::Component) {
//!         println!("{}: {} parameters", component.name, component.parameters);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A text as it is written: `for delta in request.text()? { print!("{}", delta?.text) }`. Each mode of generation has a
//! program under `examples`.
//!
//! | module | holds |
//! |---|---|
//! | [`config`], [`checkpoint`], [`tokenizer`], [`hub`] | what is read: `config.json`, weights, vocabulary, downloads |
//! | [`pack`], [`memory`] | copies of packed weights for the next start; the bytes that a model needs |
//! | [`pretrained`] | all of these from one directory |
//! | [`weights`], [`model`], [`cache`], [`workspace`], [`logits`] | the network: parameters, forward pass, its state |
//! | [`process`], [`sample`], [`generate`], [`stream`] | from logits to tokens to text |
//! | [`predict`], [`score`], [`divergence`] | to judge: next tokens, likelihoods, the distance between two models |
//! | [`watermark`] | a pattern in the choice of tokens, and how to find it |
//! | [`probe`], [`inspect`] | to look: inside the model, and at its files |

pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod divergence;
pub mod generate;
pub mod hub;
pub mod inspect;
mod json;
pub mod logits;
pub mod memory;
pub mod model;
mod mt19937;
pub mod pack;
pub mod predict;
pub mod pretrained;
pub mod probe;
pub mod process;
pub mod published;
pub mod sample;
pub mod score;
pub mod stream;
pub mod tokenizer;
pub mod watermark;
pub mod weights;
pub mod workspace;
