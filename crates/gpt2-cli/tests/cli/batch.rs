//! `generate --batch`: every text is what its prompt alone gives, and a run that was killed becomes what it would have
//! been.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Outcome, Room, binary};

/// Prompts of many lengths, some with settings of their own.
fn write_prompts(room: &Room, count: usize) {
    let mut lines = String::new();
    for index in 0..count {
        let prompt = format!("Hi {index} {}", "and so on ".repeat(index % 5)).repeat(1 + index % 2);
        let line = match index % 4 {
            0 => json!(prompt),
            1 => json!({ "prompt": prompt, "id": { "n": index }, "num_return_sequences": 2 }),
            2 => json!({ "prompt": prompt, "do_sample": false, "seed": 9 }),
            _ => json!({ "prompt": prompt, "id": index, "top_k": 3, "max_new_tokens": 4 + index % 9 }),
        };
        lines += &format!("{line}\n");
    }
    fs::write(room.path().join("prompts.jsonl"), lines).expect("a file can be written");
}

#[cfg(unix)]
fn records(room: &Room, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(room.path().join(file)).expect("the output is there");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn a_prompt_of_a_batch_gives_what_it_gives_alone() {
    let room = Room::new();
    write_prompts(&room, 12);
    let line = ["--model=tiny", "generate", "--batch=prompts.jsonl", "--seed=40", "--max-new-tokens=12"];
    let batch = room.json(&line);
    assert_eq!(batch.len(), 12 + 3);
    for (size, flags) in [("1", &[][..]), ("3", &["--threads=1"])] {
        let same = room.json(&[&line[..], &["--batch-size", size], flags].concat());
        assert_eq!(same, batch);
    }
    for record in &batch {
        let index = record["index"].as_u64().expect("an index");
        let (length, top_k) = if index % 4 == 3 { (4 + index % 9, 3) } else { (12, 50) };
        let seed = if index % 4 == 2 { 9 } else { 40 + index };
        assert_eq!(record["seed"], seed);
        let id = [Value::Null, json!({ "n": index }), Value::Null, json!(index)];
        assert_eq!(record.get("id").unwrap_or(&Value::Null), &id[(index % 4) as usize]);
        let [length, top_k, seed] = [("--max-new-tokens", length), ("--top-k", top_k), ("--seed", seed)]
            .map(|(flag, x)| format!("{flag}={x}"));
        let prompt = record["prompt"].as_str().expect("a prompt");
        let mut alone = vec!["--model=tiny", "generate", prompt, &length, &top_k, &seed];
        alone.extend(if index % 4 == 2 { &["--greedy"][..] } else { &[] });
        alone.extend(if index % 4 == 1 { &["--num-return-sequences=2"][..] } else { &[] });
        let alone = room.json(&alone);
        let sequence = &alone[record["sequence"].as_u64().expect("a sequence") as usize];
        for field in
            ["text", "prompt_tokens", "tokens", "logprobs", "finish_reason", "seed", "usage", "model"]
        {
            assert_eq!(record[field], sequence[field], "{field} of {index}");
        }
    }
    // As they are done: the same lines.
    let mut unordered = room.json(&[&line[..], &["--unordered", "--batch-size=4"]].concat());
    unordered.sort_by_key(|record| (record["index"].as_u64(), record["sequence"].as_u64()));
    assert_eq!(unordered, batch);
    // As text, and from standard input.
    let text = room.gpt2(&[&line[..], &["--quiet"]].concat());
    let shown = |record: &Value| {
        format!("{}{}\n", record["prompt"].as_str().unwrap(), record["text"].as_str().unwrap())
    };
    assert_eq!(text.stdout, batch.iter().map(shown).collect::<Vec<_>>().join("\n"));
    let mut command = room.command(binary());
    command.args([
        "--model=tiny",
        "--quiet",
        "generate",
        "--batch=-",
        "--seed=40",
        "--max-new-tokens=12",
        "--json",
    ]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary can be run");
    let prompts = fs::read(room.path().join("prompts.jsonl")).expect("the prompts are there");
    child.stdin.take().expect("a pipe").write_all(&prompts).expect("it reads all");
    let output = child.wait_with_output().expect("it ends");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>(), batch);
}

#[test]
fn prompts_may_be_arguments_and_one_that_fails_is_named() {
    let room = Room::new();
    let long = "x".repeat(500);
    let line =
        ["--model=tiny", "generate", "--prompt=Hi", "--prompt", &long, "--prompt=-n", "--seed=1", "--json"];
    let outcome = room.gpt2(&line);
    assert_eq!(outcome.code, Some(1));
    let told =
        "error: 1 of 3 prompts could not be continued\nhint: in JSON they have an `error`, which says why\n";
    assert!(outcome.stderr.ends_with(told), "{}", outcome.stderr);
    let records: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records.len(), 3);
    assert_eq!(
        records[1],
        json!({
            "index": 1,
            "prompt": long,
            "error": "500 tokens do not fit into the model's context of 200",
        })
    );
    assert_eq!((&records[0]["prompt"], &records[2]["prompt"]), (&json!("Hi"), &json!("-n")));
    // A file of which nothing is left to do says so too.
    for flags in [&[][..], &["--resume"]] {
        let written = room.gpt2(&[&line[..], &["--output=out.jsonl"], flags].concat());
        assert_eq!(written.code, Some(1), "{}", written.stderr);
        assert!(written.stderr.ends_with(told), "{}", written.stderr);
    }
}

#[test]
fn prompts_of_standard_input_are_continued_as_they_come() {
    let room = Room::new();
    let line = ["--model=tiny", "generate", "--batch=-", "--seed=1", "--max-new-tokens=9", "--json"];
    let spawn = || {
        let mut command = room.command(binary());
        command.args(line).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary can be run")
    };
    let mut child = spawn();
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    for (index, prompt) in ["Hi", "Ho", "Ha"].into_iter().enumerate() {
        // Each answer comes before the next question is asked.
        writeln!(input, "\n{}", json!(prompt)).expect("it reads");
        let mut record = String::new();
        output.read_line(&mut record).expect("it writes");
        let record: Value = serde_json::from_str(&record).expect("JSON");
        assert_eq!((&record["index"], &record["prompt"]), (&json!(index), &json!(prompt)));
        let seed = format!("--seed={}", 1 + index);
        let alone = room.json(&["--model=tiny", "generate", prompt, &seed, "--max-new-tokens=9"]);
        assert_eq!(record["text"], alone[0]["text"]);
    }
    drop(input);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));

    // What came before a line that is wrong is continued, what comes behind it is not.
    for (wrong, message) in [
        (
            "{\"prompt\": 7}",
            "error: cannot use line 2 of standard input\ncaused by: `prompt` must be a text, not 7",
        ),
        (
            "{\"prompt\": \"\", \"top_p\": 3}",
            "error: line 2 of standard input: `top_p` must be a number from 0 to 1",
        ),
        ("\"\u{0}", "error: cannot use line 2 of standard input\ncaused by: "),
    ] {
        let mut child = spawn();
        let lines = format!("\"Hi\"\n{wrong}\n\"Ho\"\n");
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
        let outcome = child.wait_with_output().expect("it ends");
        let (stdout, stderr) =
            [outcome.stdout, outcome.stderr].map(|text| String::from_utf8(text).unwrap()).into();
        assert!(matches!(outcome.status.code(), Some(1 | 2)), "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
    }
}

#[test]
fn the_closing_line_of_many_prompts_names_their_number_settings_and_first_seed() {
    let room = Room::new();
    let line = ["--model=tiny", "generate", "--prompt=Hi", "--prompt=Hello", "--max-new-tokens=9"];
    let outcome = room.gpt2(&[&line[..], &["--seed=5", "--ignore-eos"]].concat());
    let closing = outcome.stderr.lines().last().expect("a closing line");
    assert!(closing.starts_with("2 prompts · 18 tokens in "), "{closing}");
    assert!(closing.ends_with("/s · temperature 0.7, top-k 50, top-p 0.95 · first seed 5"), "{closing}");
    // A seed that nobody gave is said too, and gives the first text again.
    let outcome = room.gpt2(&line);
    let (_, seed) = outcome.stderr.trim_end().rsplit_once("first seed ").expect("a seed");
    let alone = room.gpt2(&["--model=tiny", "generate", "Hi", "--max-new-tokens=9", "--seed", seed]);
    let first = outcome.stdout.lines().next().expect("a text");
    assert_eq!(alone.stdout.lines().next(), Some(first));
    // How fast prompts were read and texts written is for those who want to know.
    let outcome = room.gpt2(&[&line[..], &["--verbose", "--ignore-eos"]].concat());
    let speeds = outcome.stderr.lines().rev().nth(1).expect("a line");
    assert!(
        speeds.starts_with("Speed: 7 prompt tokens read at ") && speeds.contains("/s, 18 tokens written at "),
        "{speeds}"
    );
}

#[test]
fn one_prompt_as_a_flag_is_the_same_as_an_argument() {
    let room = Room::new();
    let line = ["--model=tiny", "--seed=3", "--max-new-tokens=9"];
    let flag = room.gpt2(&[&["generate", "--prompt=Hi there"], &line[..]].concat());
    let argument = room.gpt2(&[&["generate", "Hi there"], &line[..]].concat());
    assert_eq!(flag.stdout, argument.stdout);
    let untimed = |text: &str| {
        let parts = text.split(" · ").filter(|part| !part.contains("/s")).map(str::to_owned);
        parts.map(|part| part.split(" in ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(untimed(&flag.stderr), untimed(&argument.stderr));
    // In JSON it has its number, as every prompt has.
    let records = room.json(&[&["generate", "--prompt=Hi there"], &line[..]].concat());
    assert_eq!(records[0]["index"], 0);
}

#[test]
fn several_prompts_each_have_a_heading() {
    let room = Room::new();
    let line = ["--model=tiny", "--greedy", "--max-new-tokens=3"];
    let headings = |arguments: &[&str]| {
        let stderr = room.gpt2(&[&["generate"], arguments, &line].concat()).stderr;
        let count = stderr.lines().count() - 1;
        stderr.lines().take(count).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(headings(&["--prompt=Hi", "--prompt=Ho"]), ["prompt 1", "prompt 2"]);
    assert_eq!(headings(&["--prompt=Hi"]), [""; 0]);
    fs::write(room.path().join("prompts.jsonl"), "\"Hi\"\n\n\"Ho\"\n").expect("it can be written");
    let expected = ["line 1 of `prompts.jsonl`", "line 3 of `prompts.jsonl`"];
    assert_eq!(headings(&["--batch=prompts.jsonl"]), expected);
    let expected = ["prompt 1, 1 of 2", "prompt 1, 2 of 2", "prompt 2, 1 of 2", "prompt 2, 2 of 2"];
    let several = ["--prompt=Hi", "--prompt=Ho", "--num-beams=2", "--num-return-sequences=2"];
    assert_eq!(headings(&several), expected);
}

#[cfg(unix)]
#[test]
fn a_batch_that_is_interrupted_says_how_far_it_came_and_how_to_go_on() {
    let room = Room::new();
    write_prompts(&room, 40);
    let line = ["--model=demo", "generate", "--batch=prompts.jsonl", "--batch-size=4", "--max-new-tokens=24"];
    let run = |more: &[&str]| room.gpt2(&[&line[..], &["--seed=3"], more].concat());
    assert_eq!(run(&["--output=whole.jsonl"]).code, Some(0));
    let mut command = room.command(binary());
    command.args(line).args(["--seed=3", "--output=out.jsonl"]).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary can be run");
    let path = room.path().join("out.jsonl");
    while fs::metadata(&path).map_or(0, |metadata| metadata.len()) == 0 {
        std::thread::yield_now();
    }
    let kill = room.command("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("`kill` can be run").success());
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let done =
        records(&room, "out.jsonl").last().and_then(|record| record["index"].as_u64()).expect("one") + 1;
    let lines: Vec<&str> = stderr.lines().rev().take(2).collect();
    assert_eq!(
        lines[0],
        format!("note: {done} of 40 prompts are done; run the same command with `--resume` to continue")
    );
    assert!(lines[1].starts_with(&format!("{done} of 40 prompts · ")), "{stderr}");
    assert!(lines[1].ends_with(" · interrupted · first seed 3"), "{stderr}");
    // And so it does.
    let outcome = run(&["--output=out.jsonl", "--resume"]);
    assert_eq!(outcome.code, Some(0));
    assert!(
        outcome.stderr.contains(&format!("40 prompts ({done} from earlier runs) · ")),
        "{}",
        outcome.stderr
    );
    let read = |name: &str| fs::read_to_string(room.path().join(name)).expect("the output is there");
    assert_eq!(read("out.jsonl"), read("whole.jsonl"));
}

#[test]
fn a_run_that_was_killed_becomes_what_it_would_have_been() {
    for flags in [&[][..], &["--unordered"]] {
        killed_and_resumed(flags);
    }
}

fn killed_and_resumed(flags: &[&str]) {
    let room = Room::new();
    write_prompts(&room, 40);
    let line = ["--model=demo", "generate", "--batch=prompts.jsonl", "--batch-size=4", "--max-new-tokens=24"];
    let run = |output: &str, more: &[&str]| -> Outcome {
        room.gpt2(&[&line[..], &["--seed=3", "--output", output], flags, more].concat())
    };
    assert_eq!(run("whole.jsonl", &[]).code, Some(0));
    let read = |name: &str| fs::read_to_string(room.path().join(name)).expect("the output is there");
    let whole = read("whole.jsonl");
    let path = room.path().join("out.jsonl");
    let length = || fs::metadata(&path).map_or(0, |metadata| metadata.len());
    // In the order of the prompts there is one file that it can be; else its lines are the same.
    let same = |text: &str| {
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        if flags.is_empty() {
            text == whole
        } else {
            text.len() == whole.len() && sorted(text) == sorted(&whole)
        }
    };
    // Any ten moments that are not the same on every machine will do.
    let (mut cuts, mut before) = (0, String::new());
    for kill in 0..10u64 {
        let target = whole.len() as u64 * (kill * kill + 1) / 110;
        let mut command = room.command(binary());
        command.args(line).args(["--seed=3", "--output=out.jsonl", "--resume"]).args(flags);
        let mut child = command.stderr(Stdio::null()).spawn().expect("the binary can be run");
        while length() < target && child.try_wait().expect("it can be asked").is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        let there = fs::read_to_string(&path).unwrap_or_default();
        let kept = before.rfind('\n').map_or("", |end| &before[..=end]);
        // Of several lines for a prompt the first may have been dropped without the second.
        let stays = kept.lines().filter(|line| there.contains(*line)).count() + 1 >= kept.lines().count();
        assert!(stays, "what was written stays");
        assert!(!flags.is_empty() || whole.starts_with(&there), "what was written is what should have been");
        cuts += usize::from(there.len() < whole.len());
        before = there;
        if kill % 3 == 1 {
            // As a kill in the middle of a write leaves it.
            before.truncate(before.len() - before.len().min(30));
            fs::write(&path, &before).expect("it can be cut");
        }
    }
    assert!(cuts >= 5, "only {cuts} runs were cut short");
    assert_eq!(run("out.jsonl", &["--resume"]).code, Some(0));
    assert!(same(&read("out.jsonl")));
    assert!(!room.path().join("out.jsonl.resume").exists());
    // Once more changes nothing, and without being asked to nothing is written over.
    let complete = read("out.jsonl");
    assert_eq!(run("out.jsonl", &["--resume"]).code, Some(0));
    assert_eq!(run("out.jsonl", &[]).code, Some(2));
    assert_eq!(read("out.jsonl"), complete);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_with_its_seed_and_with_nothing_else_changed() {
    let room = Room::new();
    write_prompts(&room, 8);
    let line = ["--model=tiny", "generate", "--batch=prompts.jsonl", "--output=out.jsonl"];
    let run = |more: &[&str]| room.gpt2(&[&line[..], more].concat());
    // A run without a seed chooses one.
    assert_eq!(run(&["--resume"]).code, Some(0));
    let whole = fs::read_to_string(room.path().join("out.jsonl")).expect("the output is there");
    let seed = records(&room, "out.jsonl")[0]["seed"].as_u64().expect("a seed").to_string();
    // The same again, and then as if it had been killed behind some lines.
    fs::remove_file(room.path().join("out.jsonl")).expect("it can be removed");
    assert_eq!(run(&["--seed", &seed]).code, Some(0));
    assert_eq!(fs::read_to_string(room.path().join("out.jsonl")).expect("the output is there"), whole);

    let keep: String = whole.split_inclusive('\n').take(4).collect();
    let notes = room.path().join("out.jsonl.resume");
    let interrupt = |lines: &str| {
        fs::remove_file(room.path().join("out.jsonl")).expect("it can be removed");
        // The system ends it when its file outgrows what the notes need.
        let mut command = room.command("sh");
        command.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\"", binary()]).args(line).args(["--seed", &seed]);
        let status = command.stderr(Stdio::null()).status().expect("a shell can be run");
        assert_eq!(status.code(), None, "it was not interrupted");
        assert!(notes.exists());
        fs::write(room.path().join("out.jsonl"), lines).expect("it can be written");
    };
    interrupt(&keep);
    assert_eq!(run(&["--resume"]).code, Some(0));
    assert_eq!(fs::read_to_string(room.path().join("out.jsonl")).expect("the output is there"), whole);

    let was_seed = format!("`seed` was {seed}, and is 1");
    for (more, told) in [
        (&["--resume", "--top-k=7"][..], "`top_k` was 50, and is 7"),
        (&["--resume", "--dtype=int8"], "`dtype` was \"f32\", and is \"int8\""),
        (&["--resume", "--seed=1"], &was_seed),
        (&["--resume", "--unordered"], "`unordered` was false, and is true"),
        (&["--resume", "--bad-words=the"], "`bad_words` was null, and is [\"the\"]"),
        (&["--resume", "--logprobs=1"], "`logprobs` was null, and is 1"),
        (&["--resume", "--special-tokens=text"], "`special_tokens` was true, and is false"),
        (&["--resume", "--negative-prompt=no"], "`negative_prompt` was null, and is \"no\""),
    ] {
        interrupt(&keep);
        let outcome = run(more);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    }
    interrupt(&keep);
    write_prompts(&room, 9);
    assert!(run(&["--resume"]).stderr.contains("something else: other `prompts`"));
    interrupt("{\"index\":70,\"sequence\":0}\n");
    assert!(run(&["--resume"]).stderr.contains("line 1 of `out.jsonl` is not of this run"));
    fs::remove_file(&notes).expect("it can be removed");
    assert!(run(&["--resume"]).stderr.contains("is not of this run"));

    // Nor is a model that is another one under the same name.
    interrupt(&keep);
    let weights = room.path().join("tiny/model.safetensors");
    let mut bytes = fs::read(&weights).expect("the weights are there");
    let (length, rest) = bytes.split_first_chunk().expect("a header");
    let (header, _) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let start = 8 + header.len();
    let header: Value = serde_json::from_slice(header).expect("JSON");
    // Fine-tuning often leaves all but these matrices as they are.
    let (_, tensor) = header
        .as_object()
        .into_iter()
        .flatten()
        .find(|(name, _)| name.ends_with("c_attn.weight"))
        .expect("a matrix");
    let [first, end] =
        [0, 1].map(|i| start + tensor["data_offsets"][i].as_u64().expect("an offset") as usize);
    bytes[first..end].as_chunks_mut::<4>().0.iter_mut().for_each(|value| value[3] ^= 0x80);
    fs::write(&weights, bytes).expect("they can be written");
    let told = run(&["--resume"]).stderr;
    assert!(told.contains("something else: other `weights`"), "{told}");
}
