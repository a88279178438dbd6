//! Rules about crates: ours, by their manifests; all others, by their licences.

use serde_json::Value;

use super::{File, Problem};

/// The one dependency that the kernels may have.
const KERNELS: (&str, &str) = ("gpt2-kernels", "half");
/// The model checker that they may have besides, and the condition that keeps it out of every build of a program.
const KERNELS_CHECKED: (&str, &str) = ("loom", "cfg(loom)");

/// Lists what is wrong with our manifests and with what they depend on.
///
/// `metadata` is what `cargo metadata` prints.
pub(super) fn problems(files: &[File], metadata: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in packages(metadata).filter(|package| package["source"].is_null()) {
        match manifest(files, package, metadata) {
            Some(manifest) => {
                problems.extend(lints(manifest));
                problems.extend(kernels(manifest, package));
            }
            None => problems.push(at(
                "Cargo.toml",
                1,
                format!("`{}` is not tracked", text(&package["manifest_path"])),
            )),
        }
    }
    problems.extend(licences(files, metadata));
    problems
}

fn at(path: &str, line: usize, message: String) -> Problem {
    Problem { path: path.to_owned(), line, message }
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The tracked manifest of a package of this workspace.
fn manifest<'a>(files: &'a [File], package: &Value, metadata: &Value) -> Option<&'a File> {
    let path =
        text(&package["manifest_path"]).strip_prefix(text(&metadata["workspace_root"]))?.replace('\\', "/");
    files.iter().find(|file| file.path == path.trim_start_matches('/'))
}

/// The lines of one table of a manifest, without the heading.
fn table<'a>(file: &'a File, heading: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    file.lines()
        .skip_while(move |(_, line)| line.trim() != heading)
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['))
}

/// Lints are chosen once, for all crates.
fn lints(manifest: &File) -> Vec<Problem> {
    if table(manifest, "[lints]").any(|(_, line)| line.trim() == "workspace = true") {
        return Vec::new();
    }
    vec![manifest.problem(1, "lacks `[lints]` with `workspace = true`")]
}

/// What runs on every machine brings nothing along. Tests may use what they like.
fn kernels(manifest: &File, package: &Value) -> Vec<Problem> {
    if package["name"] != KERNELS.0 {
        return Vec::new();
    }
    let used = package["dependencies"].as_array().into_iter().flatten();
    let used = used.filter(|used| used["kind"] != "dev");
    used.filter(|used| (text(&used["name"]), text(&used["target"])) != KERNELS_CHECKED)
        .map(|used| text(&used["name"]))
        .filter(|name| *name != KERNELS.1)
        .map(|name| {
            let line =
                manifest.lines().find(|(_, line)| line.starts_with(name)).map_or(1, |(number, _)| number);
            manifest.problem(line, format!("depends on `{name}`, may depend on `{}` at most", KERNELS.1))
        })
        .collect()
}

/// Every dependency, on any system, has a licence that `deny.toml` allows.
fn licences(files: &[File], metadata: &Value) -> Vec<Problem> {
    let deny = files.iter().find(|file| file.path == "deny.toml");
    let allowed = deny.map(allowed).unwrap_or_default();
    if allowed.is_empty() {
        return vec![at("deny.toml", 1, "has no list `allow` in `[licenses]`".to_owned())];
    }
    let lock = files.iter().find(|file| file.path == "Cargo.lock");
    let mut problems = Vec::new();
    for package in packages(metadata) {
        let licence = text(&package["license"]);
        if !allows(&allowed, licence) {
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            let entry = format!("name = \"{name}\"");
            let line =
                lock.and_then(|lock| lock.lines().find(|(_, line)| *line == entry)).map_or(1, |(n, _)| n);
            let message = match licence {
                "" => format!("`{name}` {version} names no licence"),
                _ => format!("`{name}` {version} is under `{licence}`, which `deny.toml` does not allow"),
            };
            problems.push(at("Cargo.lock", line, message));
        }
    }
    problems
}

/// The strings of the list `allow` in `[licenses]`.
fn allowed(deny: &File) -> Vec<&str> {
    let mut allowed = Vec::new();
    let lines = table(deny, "[licenses]").map(|(_, line)| line.split('#').next().unwrap_or(line).trim());
    for line in lines.skip_while(|line| !line.starts_with("allow = [")) {
        allowed.extend(line.split('"').skip(1).step_by(2));
        if line.ends_with(']') {
            break;
        }
    }
    allowed
}

/// Whether an SPDX expression can be satisfied with the allowed licences.
///
/// `/` is how old crates write `OR`. An expression that cannot be read is not allowed.
fn allows(allowed: &[&str], expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(allowed, &mut rest) == Some(true) && rest.is_empty()
}

fn any_of(allowed: &[&str], words: &mut &[&str]) -> Option<bool> {
    let mut result = all_of(allowed, words)?;
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        result |= all_of(allowed, words)?;
    }
    Some(result)
}

fn all_of(allowed: &[&str], words: &mut &[&str]) -> Option<bool> {
    let mut result = one(allowed, words)?;
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        result &= one(allowed, words)?;
    }
    Some(result)
}

fn one(allowed: &[&str], words: &mut &[&str]) -> Option<bool> {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let result = any_of(allowed, words)?;
            *words = words.strip_prefix(&[")"])?;
            Some(result)
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(allowed.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        [licence, rest @ ..] => {
            *words = rest;
            Some(allowed.contains(licence))
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n";
    const DENY: &str =
        "[licenses]\n# why\nallow = [\n  \"MIT\", # most\n  \"Zlib\",\n]\n[bans]\nallow = [\"foo\"]\n";

    fn messages(files: &[(&str, &str)], packages: Value) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text.as_bytes())).collect();
        let metadata = json!({ "workspace_root": "/here", "packages": packages });
        problems(&files, &metadata).iter().map(ToString::to_string).collect()
    }

    fn ours(name: &str, dependencies: Value) -> Value {
        json!([{
            "name": name, "version": "1.0.0", "license": "MIT", "source": null,
            "manifest_path": format!("/here/crates/{name}/Cargo.toml"), "dependencies": dependencies,
        }])
    }

    #[test]
    fn crates_without_the_lints_of_the_workspace_are_found() {
        for (manifest, good) in [
            (GOOD, true),
            ("[package]\nname = \"a\"\n[lints.rust]\nx = \"warn\"", false),
            ("[lints]\n[dependencies]\nworkspace = true", false),
        ] {
            let files = [("crates/a/Cargo.toml", manifest), ("deny.toml", DENY)];
            let expected: &[&str] =
                if good { &[] } else { &["crates/a/Cargo.toml:1: lacks `[lints]` with `workspace = true`"] };
            assert_eq!(messages(&files, ours("a", json!([]))), expected, "{manifest}");
        }
        let expected = "Cargo.toml:1: `/here/crates/a/Cargo.toml` is not tracked";
        assert_eq!(messages(&[("deny.toml", DENY)], ours("a", json!([]))), [expected]);
    }

    #[test]
    fn kernels_depend_on_half_at_most_and_on_loom_where_it_checks_them() {
        let manifest = format!("{GOOD}\n[dependencies]\nhalf = \"2\"\nlibc = \"1\"\n");
        let dependencies = json!([
            { "name": "half", "kind": null }, { "name": "libc", "kind": null }, { "name": "proptest", "kind": "dev" },
            { "name": "cc", "kind": "build" }, { "name": "loom", "kind": null, "target": "cfg(loom)" },
            { "name": "loom", "kind": null, "target": null }, { "name": "libc", "kind": null, "target": "cfg(loom)" },
        ]);
        let path = "crates/gpt2-kernels/Cargo.toml";
        let found =
            messages(&[(path, &manifest), ("deny.toml", DENY)], ours("gpt2-kernels", dependencies.clone()));
        assert_eq!(
            found,
            [
                "crates/gpt2-kernels/Cargo.toml:9: depends on `libc`, may depend on `half` at most",
                "crates/gpt2-kernels/Cargo.toml:1: depends on `cc`, may depend on `half` at most",
                "crates/gpt2-kernels/Cargo.toml:1: depends on `loom`, may depend on `half` at most",
                "crates/gpt2-kernels/Cargo.toml:9: depends on `libc`, may depend on `half` at most",
            ]
        );
        let files = [("crates/gpt2/Cargo.toml", GOOD), ("deny.toml", DENY)];
        assert_eq!(messages(&files, ours("gpt2", dependencies)), [""; 0]);
    }

    #[test]
    fn licences_that_are_not_allowed_are_found() {
        let files = [("deny.toml", DENY), ("Cargo.lock", "[[package]]\nname = \"foo\"\n")];
        let foo = |licence: Value| json!([{ "name": "foo", "version": "2.0.1", "license": licence, "source": "x" }]);
        assert_eq!(messages(&files, foo(json!("Zlib OR GPL-3.0-only"))), [""; 0]);
        let expected = "Cargo.lock:2: `foo` 2.0.1 is under `GPL-3.0-only`, which `deny.toml` does not allow";
        assert_eq!(messages(&files, foo(json!("GPL-3.0-only"))), [expected]);
        assert_eq!(messages(&files, foo(Value::Null)), ["Cargo.lock:2: `foo` 2.0.1 names no licence"]);
        for deny in ["", "[bans]\nallow = [\"MIT\"]", "[licenses]\nallow = []"] {
            let found = messages(&[("deny.toml", deny)], foo(json!("MIT")));
            assert_eq!(found, ["deny.toml:1: has no list `allow` in `[licenses]`"], "{deny:?}");
        }
    }

    #[test]
    fn licence_expressions_are_read_as_spdx() {
        let allowed = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"];
        for (expression, expected) in [
            ("MIT", true),
            ("mit", false),
            ("MIT OR GPL-3.0-only", true),
            ("GPL-3.0-only/MIT", true),
            ("MIT AND GPL-3.0-only", false),
            ("(GPL-3.0-only OR MIT) AND Zlib", true),
            ("GPL-3.0-only OR MIT AND GPL-3.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MIT WITH LLVM-exception", false),
            ("", false),
            ("(MIT", false),
            ("MIT Zlib", false),
            ("MIT OR", false),
        ] {
            assert_eq!(allows(&allowed, expression), expected, "{expression:?}");
        }
    }
}
