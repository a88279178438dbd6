//! Every command of docs/generation.md runs, and says nothing of settings without effect.

use std::path::Path;

use crate::support::{Room, binary};

#[test]
fn the_guides_commands_run() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/generation.md");
    let guide = std::fs::read_to_string(guide).expect("the guide is there");
    let commands: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("    gpt2 ")).collect();
    assert!(commands.len() > 30);
    let room = Room::new();
    for command in commands {
        let output = room
            .command("sh")
            .args(["-c", &format!("exec '{}' {command} --strict", binary())])
            .output()
            .expect("there is a shell");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpt2 {command}\n{message}");
        assert!(!output.stdout.is_empty(), "gpt2 {command}");
    }
}
