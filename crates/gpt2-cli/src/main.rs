//! The `gpt2` command.

fn main() {}
