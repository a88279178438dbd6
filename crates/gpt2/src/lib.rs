//! GPT-2 from checkpoint to text.
//!
//! Nothing here reads the environment, prints, or keeps global state: a caller passes the
//! [`Cpu`](gpt2_kernels::Cpu), the seed, and every setting.

pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generate;
pub mod hub;
pub mod inspect;
pub mod logits;
pub mod model;
pub mod predict;
pub mod probe;
pub mod process;
pub mod sample;
pub mod score;
pub mod stream;
pub mod tokenizer;
pub mod weights;
pub mod workspace;
