//! `gpt2 tour`: it shows what the commands print, no more and no less.

use crate::support::{Outcome, Room};

/// The commands that a tour shows, each with what follows it on standard output.
fn shown(tour: &str) -> Vec<(&str, &str)> {
    tour.split("\n$ ")
        .skip(1)
        .map(|part| part.split_once('\n').expect("a command prints something"))
        .collect()
}

#[test]
fn each_command_prints_what_the_tour_shows() {
    let room = Room::new();
    for arguments in [&["tour", "--model", "tiny"][..], &["tour", "It's -5 degrees", "--model", "tiny"]] {
        let tour = room.gpt2(arguments);
        assert_eq!(tour.code, Some(0), "{}", tour.stderr);
        let commands = shown(&tour.stdout);
        assert!(commands.len() > 8, "{}", tour.stdout);
        for (command, output) in commands {
            let alone = Outcome::of(&mut room.shell(command));
            assert_eq!(alone.code, Some(0), "{command}\n{}", alone.stderr);
            assert!(!alone.stdout.is_empty(), "{command}");
            assert!(output.starts_with(&alone.stdout), "$ {command}\n{}\n{output}", alone.stdout);
        }
    }
}

#[test]
fn an_empty_variable_is_not_set_for_the_commands_of_a_tour_either() {
    let room = Room::new();
    let tour = Outcome::of(room.shell("gpt2 tour -m tiny").env("GPT2_THREADS", ""));
    assert_eq!(tour.code, Some(0), "{}", tour.stderr);
}

#[test]
fn a_tour_names_the_formats_it_was_asked_for() {
    let room = Room::new();
    let tour = room.gpt2(&["tour", "Hi", "--model", "tiny", "--dtype", "bf16", "--kv-dtype", "f32"]);
    for (command, _) in shown(&tour.stdout).into_iter().filter(|(command, _)| *command != "gpt2 models") {
        assert!(command.ends_with(" -m tiny --dtype bf16 --kv-dtype f32"), "{command}");
    }
}
