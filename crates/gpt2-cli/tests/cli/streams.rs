//! Pipes that close, disks that are full, and Ctrl-C.
#![cfg(unix)]

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use crate::support::{Room, binary};

const ENDLESS: [&str; 6] =
    ["generate", "Hi", "--model=demo", "--greedy", "--ignore-eos", "--max-new-tokens=1000"];

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_in_peace() {
    let room = Room::new();
    let mut child = room
        .command(binary())
        .args(ENDLESS)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    let mut start = [0; 10];
    // Taken out of the child, the pipe closes at the end of this block.
    {
        let mut stdout = child.stdout.take().expect("it is piped");
        stdout.read_exact(&mut start).expect("there is output");
    }
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(start.starts_with(b"Hi"));
}

#[test]
fn an_interrupt_ends_the_command_with_code_130() {
    let room = Room::new();
    let mut child =
        room.command(binary()).args(ENDLESS).stdout(Stdio::piped()).spawn().expect("the binary can be run");
    let mut stdout = child.stdout.take().expect("it is piped");
    // The first text says that the command is at work.
    stdout.read_exact(&mut [0; 4]).expect("there is output");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("`kill` can be run").success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("the pipe ends");
    assert_eq!(child.wait().expect("the command ends").code(), Some(130));
    assert!(!rest.contains(&0x1b), "no escape sequences in a pipe");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_a_failure() {
    let room = Room::new();
    for command in [["generate", "Hi"], ["tokenize", "Hi"], ["next", "Hi"], ["generate", "--json"]] {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let output = room
            .command(binary())
            .args(command)
            .arg("--model=tiny")
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .expect("the binary can be run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(stderr.contains("error: cannot write to standard output"), "{command:?}: {stderr}");
    }
}

#[test]
fn output_in_a_pipe_has_no_colours_and_no_bars() {
    let room = Room::new();
    for command in [&["next", "Hi"][..], &["score", "Hi"], &["inspect"], &["tokenize", "Hi"], &["models"]] {
        let outcome = room.gpt2(&[command, &["--model=tiny"]].concat());
        assert_eq!(outcome.code, Some(0), "{command:?}: {}", outcome.stderr);
        assert!(!outcome.stdout.contains(['\x1b', '█']), "{command:?}: {}", outcome.stdout);
        assert!(!outcome.stderr.contains('\x1b'), "{command:?}: {}", outcome.stderr);
    }
}
