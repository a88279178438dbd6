//! What people type who come from transformers, llama.cpp, ollama and llm.

use crate::support::{Outcome, Room, binary};

/// Runs a command on the tiny model, which must succeed, and returns what it prints.
fn text(room: &Room, arguments: &[&str]) -> String {
    let outcome = Outcome::of(
        room.command(binary()).args(arguments).env("GPT2_MODEL", "tiny").env("GPT2_THREADS", "1"),
    );
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
    outcome.stdout
}

/// Runs a command that must be refused as wrong, and returns what it says.
fn refusal(room: &Room, arguments: &[&str]) -> String {
    let outcome = Outcome::of(room.command(binary()).args(arguments).env("GPT2_MODEL", "tiny"));
    assert_eq!(outcome.code, Some(2), "{arguments:?}: {}{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.stdout, "", "{arguments:?}");
    outcome.stderr
}

/// Flags of a short text that is the same every time.
const GREEDY: [&str; 3] = ["--greedy", "--max-new-tokens=4", "--quiet"];

#[test]
fn underscores_in_flags_are_dashes_and_stay_in_values() {
    let room = Room::new();
    let expected = text(&room, &["generate", "Hi", "--max-new-tokens=4", "--top-k=3", "--seed=1", "-q"]);
    for line in [
        &["generate", "Hi", "--max_new_tokens", "4", "--top_k", "3", "--seed", "1", "-q"][..],
        &["generate", "--max_new_tokens=4", "Hi", "--top_k=3", "--seed=1", "--num_return_sequences=1", "-q"],
        &["--kv_dtype=f32", "generate", "Hi", "--max-new_tokens", "4", "--top_k=3", "--seed=1", "-q"],
    ] {
        assert_eq!(text(&room, line), expected, "{line:?}");
    }
    assert_eq!(text(&room, &["next", "Hi", "--top_k=2"]), text(&room, &["next", "Hi", "-k2"]));
    text(&room, &["score", "Hi", "--special_tokens", "text"]);
    // `_` and `i_H` occur in values and texts.
    let printed =
        text(&room, &["generate", "x", "--stop", "--a_b", "--stop=c_d", "--print-config", "--seed=1"]);
    assert!(printed.contains("\"--a_b\"") && printed.contains("\"c_d\""), "{printed}");
    assert!(text(&room, &["generate", "--", "--top_k"]).starts_with("--top_k"));
}

#[test]
fn truth_values_may_follow_a_flag() {
    let room = Room::new();
    let config = |flags: &[&str]| text(&room, &[&["generate", "--print-config", "--seed=1"], flags].concat());
    for value in ["false", "False"] {
        let line = ["--do-sample", value];
        assert!(config(&line).contains("\"do_sample\": false"), "{line:?}");
        let line = format!("--do_sample={value}");
        assert!(config(&[&line]).contains("\"do_sample\": false"), "{line}");
        let line = ["--token_healing", value];
        assert!(config(&line).contains("\"token_healing\": false"), "{line:?}");
    }
    for line in
        [&["--do-sample"][..], &["--do-sample", "true"], &["--do-sample=True"], &["--greedy", "--do-sample"]]
    {
        assert!(config(line).contains("\"do_sample\": true"), "{line:?}");
    }
    assert!(config(&["--do-sample", "--greedy"]).contains("\"do_sample\": false"));
    for flag in ["--renormalize-logits", "--remove-invalid-values", "--token-healing"] {
        let name = flag.trim_start_matches('-').replace('-', "_");
        assert!(config(&[flag, "true"]).contains(&format!("\"{name}\": true")), "{flag}");
        assert!(config(&[flag]).contains(&format!("\"{name}\": true")), "{flag}");
        assert!(config(&[&format!("{flag}=false")]).contains(&format!("\"{name}\": false")), "{flag}");
    }
    assert!(config(&["--num-beams=2", "--early_stopping", "True"]).contains("\"early_stopping\": true"));
    // A prompt after the flag is no value of it.
    let expected = text(&room, &[&["generate", "Hi"], &GREEDY[..]].concat());
    assert_eq!(text(&room, &["generate", "--do-sample=false", "Hi", "-n4", "-q"]), expected);
    assert!(refusal(&room, &["generate", "Hi", "--do-sample=maybe"]).contains("expected `true` or `false`"));
}

#[test]
fn words_without_quotes_are_one_text() {
    let room = Room::new();
    let expected = text(&room, &[&["generate", "Once upon a time"], &GREEDY[..]].concat());
    assert_eq!(text(&room, &[&["generate", "Once", "upon", "a", "time"], &GREEDY[..]].concat()), expected);
    let between = ["generate", "Once", "upon", "--greedy", "a", "-n", "4", "time", "-q"];
    assert_eq!(text(&room, &between), expected);
    for command in ["next", "score", "tokenize"] {
        let joined = text(&room, &[command, "one", "two", "--json"]);
        assert_eq!(joined, text(&room, &[command, "one two", "--json"]), "{command}");
    }
    assert!(text(&room, &["generate", "If", "x=5", "then"]).starts_with("If x=5 then"));
    // Where something else may have been meant, it is asked for.
    for (line, said) in [
        (&["generate", "Once upon", "a time"][..], "put the whole text in one pair of quotes"),
        (&["next", "Once upon a", "time"], "put the whole text in one pair of quotes"),
        (&["generate", "-", "more"], "`-` stands for standard input"),
        (&["generate", "Once", "do_sample=False"], "--do-sample=False"),
        (&["generate", "Once", "max_length=60"], "--max-length=60"),
        (&["generate", "Once", "temperature=0.7"], "--temperature=0.7"),
        (&["next", "Once", "top_k", "5"], "--top-k"),
        (&["generate", "Once", "—top_k", "5"], "begins with a long dash"),
    ] {
        let error = refusal(&room, line);
        assert!(error.contains(said), "{line:?}: {error}");
    }
}

#[test]
fn a_text_alone_is_generated_from_and_a_misspelt_command_is_named() {
    let room = Room::new();
    let expected = text(&room, &[&["generate", "Once upon a time"], &GREEDY[..]].concat());
    for line in [
        &["Once upon a time", "--greedy", "-n", "4", "-q"][..],
        &["--quiet", "Once upon a time", "--greedy", "-n4"],
        &["-q", "--greedy", "--max_new_tokens", "4", "Once upon a time"],
        &["-q", "-p", "Once upon a time", "--greedy", "-n", "4"],
    ] {
        assert_eq!(text(&room, line), expected, "{line:?}");
    }
    let error = refusal(&room, &["genrate"]);
    assert!(error.contains("a similar subcommand exists: 'generate'"), "{error}");
    let error = refusal(&room, &["Once", "upon", "a", "time"]);
    assert!(error.contains("gpt2 generate \"Once upon a time\""), "{error}");
}

#[test]
fn a_text_may_begin_with_a_dash() {
    let room = Room::new();
    for prompt in
        ["-5 degrees", "- a point", "-- he said", "--top-k is a flag", "-nothing to see", "-5", "-q quit"]
    {
        let line = ["generate", prompt, "--greedy", "-n4", "-q"];
        let printed = text(&room, &line);
        assert!(printed.starts_with(prompt), "{prompt}: {printed}");
        assert_eq!(printed, text(&room, &["generate", "--greedy", "-n4", "-q", "--", prompt]), "{prompt}");
        let line = ["tokenize", "--json", prompt];
        assert_eq!(text(&room, &line), text(&room, &["tokenize", "--json", "--", prompt]), "{prompt}");
    }
    let printed = text(&room, &["generate", "It", "was", "-5", "outside", "--greedy", "-n4", "-q"]);
    assert!(printed.starts_with("It was -5 outside"), "{printed}");
    assert!(refusal(&room, &["generate", "--temprature", "1"]).contains("'--temperature'"));
}

#[test]
fn short_flags_have_the_meaning_of_llama_cpp() {
    let room = Room::new();
    let expected = text(
        &room,
        &["generate", "Hi", "--max-new-tokens=4", "--seed=7", "--top-k=5", "--temperature=2", "-q"],
    );
    let short = ["generate", "Hi", "-n", "4", "-s", "7", "-k", "5", "--temp", "2", "-t", "1", "-q"];
    assert_eq!(text(&room, &short), expected);
    assert_eq!(text(&room, &["generate", "Hi", "-n4", "-s7", "-k5", "--temp=2", "-qt1"]), expected);
    let error = refusal(&room, &["generate", "Hi", "-t", "0.7"]);
    assert!(error.contains("the temperature is `--temp`"), "{error}");
}

#[test]
fn every_command_that_takes_a_text_takes_a_file() {
    let room = Room::new();
    std::fs::write(room.path().join("prompt.txt"), "Hi\n").expect("a file can be written");
    for command in ["next", "tokenize"] {
        let expected = text(&room, &[command, "Hi", "--json"]);
        assert_eq!(text(&room, &[command, "--file", "prompt.txt", "--json"]), expected, "{command}");
    }
    let expected = text(&room, &[&["generate", "Hi"], &GREEDY[..]].concat());
    assert_eq!(text(&room, &[&["generate", "-f", "prompt.txt"], &GREEDY[..]].concat()), expected);
    assert_eq!(text(&room, &[&["-f", "prompt.txt"], &GREEDY[..]].concat()), expected);
    text(&room, &["score", "-f", "prompt.txt"]);
    let piped = Outcome::of(
        room.command("sh").args(["-c", &format!("echo Hi | '{}' next -m tiny --json -f -", binary())]),
    );
    assert_eq!(piped.stdout, text(&room, &["next", "Hi", "--json"]), "{}", piped.stderr);
    assert!(refusal(&room, &["generate", "Hi", "--file", "prompt.txt"]).contains("cannot be used with"));
}

#[test]
fn seed_minus_one_is_another_one_every_time() {
    let room = Room::new();
    std::fs::write(room.path().join("fixed.json"), r#"{"seed": 5}"#).expect("a file can be written");
    let seed = |flags: &[&str]| {
        let line = ["generate", "Hi", "--model=tiny", "--max-new-tokens=1"];
        room.json(&[&line, flags].concat())[0]["seed"].as_u64().expect("the seed is a number")
    };
    assert_ne!(seed(&["--seed", "-1"]), seed(&["--seed=-1"]));
    assert_eq!(seed(&["--generation-config=fixed.json"]), 5);
    assert_ne!(seed(&["--generation-config=fixed.json", "--seed=-1"]), 5);
    assert!(refusal(&room, &["generate", "Hi", "--seed", "-2"]).contains("or -1 for a random one"));
}

#[test]
fn commands_of_other_programs_lead_to_those_of_this_one() {
    let room = Room::new();
    for (name, said) in [
        ("run", "gpt2 generate"),
        ("run", "gpt2 generate --model gpt2 "),
        ("show", "gpt2 inspect --model gpt2`"),
        ("info", "gpt2 inspect --model"),
        ("chat", "gpt2 generate"),
        ("serve", "gpt2 generate --batch -"),
        ("rm", "gpt2 models"),
        ("quantize", "--dtype int8"),
        ("perplexity", "gpt2 score"),
    ] {
        let error = refusal(&room, &[name, "gpt2"]);
        assert!(error.contains(said), "{name}: {error}");
        assert!(!error.contains("similar"), "{name}: {error}");
    }
    // What has a blank is the text, whatever stands before it.
    let prompt = r#"`gpt2 generate "Hello there"` continues"#;
    assert!(refusal(&room, &["complete", "Hello there"]).contains(prompt));
    let both = r#"`gpt2 generate --model gpt2 "Hello there"` continues"#;
    assert!(refusal(&room, &["run", "gpt2", "Hello there"]).contains(both));
    for name in ["list", "ls"] {
        assert_eq!(text(&room, &[name]), text(&room, &["models"]), "{name}");
    }
    assert!(refusal(&room, &["pull", "demo"]).contains("`demo` is built in"));
    assert_eq!(text(&room, &["version"]), text(&room, &["--version"]));
    assert_eq!(text(&room, &["help"]), text(&room, &["--help"]));
    assert_eq!(text(&room, &["help", "generate"]), text(&room, &["generate", "--help"]));
}

#[test]
fn tips_are_about_what_was_meant() {
    let room = Room::new();
    for (line, said) in [
        (&["next", "Hi", "-n", "3"][..], "`-n` is an option of `gpt2 generate`"),
        (&["generate", "Hi", "--stride", "3"], "`--stride` is an option of `gpt2 score`"),
        (&["--seed", "3", "generate", "Hi"], "`--seed` comes after the command: `gpt2 generate --seed`"),
        (&["generate", "Hi", "-i"], "there is no interactive mode"),
        (&["generate", "Hi", "--n-gpu-layers", "3"], "computes on the CPU only"),
        (&["inspect", "gpt2-medium"], "`--model gpt2-medium`"),
        (&["generate", "Hi", "--pad_token_id", "50256"], "prompts are not padded"),
        (&["tour", "Once", "upon"], "put the prompt in quotes"),
        (&["help", "nonsense"], "unrecognized subcommand 'nonsense'"),
        (&["generate", "Hi", "--device", "cuda"], "this build computes on the CPU only"),
        (&["--device=cuda:0", "next", "Hi"], "this build computes on the CPU only"),
    ] {
        let error = refusal(&room, line);
        assert!(error.contains(said), "{line:?}: {error}");
        assert!(!error.contains("as a value"), "{line:?}: {error}");
        let usage = error.lines().find(|line| line.starts_with("Usage:")).unwrap_or("[OPTIONS]");
        assert!(usage.contains("[OPTIONS]"), "{line:?}: {error}");
    }
    for device in ["auto", "cpu"] {
        text(&room, &["next", "Hi", "--device", device]);
    }
}

#[test]
fn an_error_about_a_variable_names_the_variable() {
    let room = Room::new();
    let refused = |name: &str, value: &str, arguments: &[&str]| {
        let outcome = Outcome::of(room.command(binary()).args(arguments).env(name, value));
        assert_eq!(outcome.code, Some(2), "{name}: {}", outcome.stderr);
        outcome.stderr
    };
    for (name, value) in
        [("GPT2_THREADS", "x"), ("GPT2_DTYPE", "f64"), ("GPT2_DEVICE", "cuda"), ("GPT2_COLOR", "x")]
    {
        let error = refused(name, value, &["next", "Hi"]);
        assert!(error.starts_with(&format!("error: invalid value '{value}' for '{name}'")), "{error}");
    }
    // What turns out later to be wrong is said of the flag, and where it comes from.
    let error = refused("GPT2_REVISION", "main", &["next", "Hi", "--model", "demo"]);
    assert!(error.contains("`--revision` is set by the environment variable `GPT2_REVISION`"), "{error}");
    let error = refusal(&room, &["next", "Hi", "--revision", "main"]);
    assert!(!error.contains("GPT2_REVISION"), "{error}");
    let error = refused("GPT2_THREADS", "2", &["next", "Hi", "--threads", "x"]);
    assert!(error.contains("'--threads <N>'"), "{error}");
    // An empty variable is as good as none.
    let outcome = Outcome::of(room.command(binary()).args(["models"]).env("GPT2_THREADS", ""));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn colors_are_used_when_they_are_asked_for() {
    let room = Room::new();
    let coloured = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = room.command(binary());
        command.args(["next", "Hi", "--model=tiny"]).args(arguments).env_remove("FORCE_COLOR");
        let outcome = Outcome::of(command.envs(variables.iter().copied()));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.stdout.contains('\x1b')
    };
    assert!(!coloured(&[], &[]));
    assert!(!coloured(&["--color=auto"], &[]));
    assert!(coloured(&["--color", "always"], &[]));
    assert!(coloured(&["--color=always"], &[("NO_COLOR", "1")]));
    assert!(coloured(&[], &[("GPT2_COLOR", "always")]));
    assert!(coloured(&[], &[("FORCE_COLOR", "1")]));
    assert!(coloured(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[], &[("FORCE_COLOR", "1"), ("NO_COLOR", "1")]));
    assert!(!coloured(&["--color=never"], &[("FORCE_COLOR", "1")]));
    let error = Outcome::of(room.command(binary()).args(["--color=always", "nonsense"]));
    assert!(error.stderr.contains('\x1b'), "{}", error.stderr);
}

#[test]
fn global_options_are_accepted_on_both_sides_of_every_command() {
    let room = Room::new();
    for command in [&["tokenize", "Hi"][..], &["models"], &["detokenize", "1"]] {
        let expected = text(&room, command);
        assert_eq!(text(&room, &[&["--dtype", "int8", "--threads=1"], command].concat()), expected);
        assert_eq!(text(&room, &[command, &["--dtype", "int8", "--threads=1", "-v"]].concat()), expected);
    }
}

#[test]
fn there_is_a_script_for_five_shells() {
    let room = Room::new();
    let help = text(&room, &["completions", "--help"]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&room, &["completions", shell]);
        assert!(script.contains("GPT2_COMPLETE") && script.contains("gpt2"), "{shell}: {script}");
        assert!(help.contains(&format!("gpt2 completions {shell}")), "{shell}: {help}");
    }
}

/// What a shell is offered in the place of the last argument.
#[cfg(unix)]
fn offered(room: &Room, line: &[&str]) -> Vec<String> {
    let mut command = room.command(binary());
    command.arg("--").args(line).env("GPT2_COMPLETE", "fish");
    let outcome = Outcome::of(&mut command);
    assert_eq!(outcome.code, Some(0), "{line:?}: {}", outcome.stderr);
    let names = outcome.stdout.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned());
    names.collect()
}

#[test]
#[cfg(unix)]
fn models_and_values_are_completed() {
    let room = Room::new();
    let snapshot = room.path().join("cache/hub/models--someone--mine/snapshots/abc");
    std::fs::create_dir_all(&snapshot).expect("a directory can be made");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(room.path().join("tiny").join(file), snapshot.join(file))
            .expect("a file can be copied");
    }
    let refs = room.path().join("cache/hub/models--someone--mine/refs");
    std::fs::create_dir_all(&refs).expect("a directory can be made");
    std::fs::write(refs.join("main"), "abc").expect("a file can be written");

    for line in
        [&["gpt2", "generate", "-m", ""][..], &["gpt2", "--model", ""], &["gpt2", "next", "--model", ""]]
    {
        let models = offered(&room, line);
        for model in
            ["demo", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "someone/mine", "tiny/"]
        {
            assert!(models.iter().any(|name| name == model), "{line:?}: {model} in {models:?}");
        }
    }
    let models = offered(&room, &["gpt2", "download", "gpt2-"]);
    assert_eq!(models, ["gpt2-medium", "gpt2-large", "gpt2-xl"]);
    assert_eq!(offered(&room, &["gpt2", "generate", "--early-stopping", ""]), ["true", "false", "never"]);
    assert_eq!(offered(&room, &["gpt2", "generate", "--dola-layers", ""]), ["low", "high"]);
    let samplers = offered(&room, &["gpt2", "generate", "--samplers", "top_k,to"]);
    assert_eq!(samplers, ["top_k,top_n_sigma", "top_k,top_h", "top_k,top_p"]);
    for (command, shown) in [("next", true), ("score", true), ("tokenize", false), ("models", false)] {
        let flags = offered(&room, &["gpt2", command, "--"]);
        assert_eq!(flags.contains(&"--dtype".to_owned()), shown, "{command}: {flags:?}");
    }
}
