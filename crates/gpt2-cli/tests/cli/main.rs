//! The command line, used as people and programs use it.
//!
//! Texts and numbers are those of a tiny model with fixed weights, made from a golden checkpoint and a tokenizer
//! that has one token for each character; the demo model is only asked whether it works.

mod batch;
mod ends;
mod generate;
mod generation_guide;
mod habits;
mod hub;
mod json;
#[cfg(target_os = "linux")]
mod memory;
mod odd_models;
#[expect(dead_code, reason = "the tests of the library use more of it")]
#[path = "../../../gpt2/tests/hub/server.rs"]
mod server;
mod streams;
mod support;
#[cfg(unix)]
mod tour;
#[cfg(unix)]
mod transcripts;
mod verbose;
