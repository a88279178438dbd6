//! `--verbose`: what computes, and how long loading took, on standard error.

use crate::support::{Outcome, Room, binary};

/// The line that names the device, which must be the only one.
fn device(stderr: &str) -> &str {
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("Using device: cpu (")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    lines[0]
}

#[test]
fn verbose_names_the_device_on_every_command_that_computes() {
    let room = Room::new();
    let commands = [
        &["generate", "Hi", "--max-new-tokens=2"][..],
        &["generate", "--prompt=Hi", "--max-new-tokens=2", "--json"],
        &["next", "Hi"],
        &["score", "Hi"],
        &["bench", "--prompt-tokens=4", "--new-tokens=2", "--repetitions=1"],
    ];
    for command in commands {
        let plain = room.gpt2(&[command, &["--model=tiny", "--threads=1", "--kernels=scalar"]].concat());
        assert!(!plain.stderr.contains("Using device"), "{command:?}: {}", plain.stderr);
        let options = ["--model=tiny", "--threads=1", "--kernels=scalar", "--dtype=int8"];
        let verbose = room.gpt2(&[command, &options, &["-v"]].concat());
        assert_eq!(verbose.code, Some(0), "{command:?}: {}", verbose.stderr);
        let device = device(&verbose.stderr);
        assert!(
            device.ends_with("scalar kernels, 1 thread, int8 weights, f16 cache)"),
            "{command:?}: {device}"
        );
        assert!(!verbose.stdout.contains("Using device"), "{command:?}: {}", verbose.stdout);
        let loaded = verbose.stderr.contains("Model and tokenizer loaded. (tiny, ");
        assert_eq!(loaded, command[0] != "bench", "{command:?}: {}", verbose.stderr);
    }
}

#[test]
fn quiet_and_verbose_are_decided_by_the_last_one() {
    let room = Room::new();
    let next = ["next", "Hi", "--model=tiny", "--threads=1"];
    for (flags, told) in [(["-q", "-v"], true), (["-v", "-q"], false)] {
        let outcome = room.gpt2(&[&next[..], &flags].concat());
        assert_eq!(outcome.code, Some(0), "{flags:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.contains("Using device"), told, "{flags:?}: {}", outcome.stderr);
    }
    let outcome = Outcome::of(room.command(binary()).args(next).env("GPT2_VERBOSE", "1"));
    device(&outcome.stderr);
}
