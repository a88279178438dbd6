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

/// Starts a command, waits for the beginning of its output, interrupts it, and gives what it printed.
fn interrupted(room: &Room, arguments: &[&str]) -> (String, String) {
    let mut command = room.command(binary());
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary can be run");
    let mut stdout = child.stdout.take().expect("it is piped");
    // The first text says that the command is at work.
    let mut text = vec![0; 2];
    stdout.read_exact(&mut text).expect("there is output");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("`kill` can be run").success());
    stdout.read_to_end(&mut text).expect("the pipe ends");
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(130), "{arguments:?}");
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(!text.contains('\x1b'), "no escape sequences in a pipe");
    (text, String::from_utf8(output.stderr).expect("UTF-8"))
}

#[test]
fn an_interrupt_keeps_the_text_so_far_and_says_its_seed() {
    let room = Room::new();
    let line = ["generate", "Hi", "--model=demo", "--ignore-eos", "--max-new-tokens=1000"];
    let whole = room.gpt2(&[&line[..], &["--seed=4"]].concat());
    let (text, told) = interrupted(&room, &[&line[..], &["--seed=4"]].concat());
    assert!(text.len() < whole.stdout.len() && text.ends_with('\n'), "{text}");
    assert!(whole.stdout.starts_with(text.trim_end_matches('\n')), "{text}");
    let end = " · temperature 0.7, top-k 50, top-p 0.95 · interrupted · seed 4\n";
    assert!(told.contains(" in ") && told.ends_with(end), "{told}");

    // Beams, of which nothing may be certain yet.
    let (text, told) = interrupted(&room, &[&line[..], &["--greedy", "--num-beams=3"]].concat());
    assert!(text.starts_with("Hi") && text.ends_with('\n'), "{text}");
    assert!(told.ends_with(" · beam search, num-beams 3 · interrupted\n"), "{told}");

    // In JSON a text that was interrupted has no reason to have ended.
    let (lines, told) = interrupted(&room, &[&line[..], &["--seed=4", "--json", "--stream"]].concat());
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["finish_reason"], &last["seed"]), (&serde_json::Value::Null, &4.into()));
    assert_eq!(last["usage"]["completion_tokens"], lines.lines().count() - 1);
    assert_eq!(told, "");
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
