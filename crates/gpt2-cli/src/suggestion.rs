//! What may have been meant by what is no model: a name misspelt, or a file or directory of another kind.

use std::path::Path;

use gpt2::published::PUBLISHED;

use crate::failure::{Failure, MODEL_DIRECTORY};
use crate::model::DEMO;

/// What to give instead of a GGUF file.
pub(crate) const NO_GGUF: &str =
    "GGUF files are not read: give the model's name on the hub, or its directory in Hugging Face format";

/// Endings of files that other programs keep models in.
const FILES: [&str; 9] = ["gguf", "ggml", "safetensors", "bin", "pt", "pth", "ckpt", "h5", "onnx"];

/// Returns the model that a misspelt name is closest to, if one is close.
pub(crate) fn model<'m>(name: &str, cached: impl Iterator<Item = &'m str>) -> Option<String> {
    /// More letters than this are no slip.
    const MOST: usize = 2;
    let published = PUBLISHED.iter().flat_map(|model| [(model.name, model.name), (model.id, model.id)]);
    let others = cached.chain([DEMO]).map(|name| (name, name));
    // Everyone's name for the smallest, which has no such name.
    let known = published.chain(others).chain([("gpt2-small", "gpt2")]);
    let typed = letters(name);
    let far = |known: &str| distance(&typed, &letters(known));
    let (closest, meant) = known.filter(|(_, meant)| *meant != name).min_by_key(|(known, _)| far(known))?;
    // Of a short name, few letters are left when two are others.
    (far(closest) <= MOST.min(typed.chars().count() / 3)).then(|| meant.to_owned())
}

/// A name as it sounds: in lower case, without dashes.
fn letters(name: &str) -> String {
    name.to_lowercase().chars().filter(|c| c.is_alphanumeric() || *c == '/').collect()
}

/// The fewest letters to insert, remove or exchange, and neighbours to swap, to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Of the first letters of `a`, none and then one more in each row, to the first letters of `b`.
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let exchanged = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = exchanged.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Says whether a name can only be that of a file.
pub(crate) fn is_file_name(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| FILES.contains(&ending.to_ascii_lowercase().as_str()))
}

/// Refuses what is no directory of a model, and says what to give instead.
pub(crate) fn check_directory(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    if path.is_dir() {
        return match other_directory(path) {
            Some(failure) => Err(failure),
            None => Ok(()),
        };
    }
    let has_ending = |ending: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    if !path.exists() {
        let failure = Failure::new(format!("`{shown}` does not exist"));
        return Err(if has_ending("gguf") {
            failure.hint(NO_GGUF)
        } else if path.starts_with("~") {
            failure.hint("shells expand `~` at the beginning of a word only: give the path in full")
        } else {
            failure.hint(MODEL_DIRECTORY)
        });
    }
    if has_ending("gguf") {
        return Err(Failure::new(format!("`{shown}` is a GGUF file, not a model directory")).hint(NO_GGUF));
    }
    let failure = Failure::new(format!("`{shown}` is a file, not a model directory"));
    let parent =
        path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    Err(match parent.filter(|parent| parent.join("config.json").is_file()) {
        Some(parent) => {
            failure.hint(format!("give the directory that it is in: `--model {}`", parent.display()))
        }
        None => failure.hint(MODEL_DIRECTORY),
    })
}

/// Says what a directory without weights that can be read is, if that is known.
fn other_directory(path: &Path) -> Option<Failure> {
    let has = |name: &str| path.join(name).is_file();
    if has("model.safetensors") || has("model.safetensors.index.json") || has("pytorch_model.bin") {
        return None;
    }
    let shown = path.display();
    if has("adapter_config.json") {
        let base = base_model(path).map(|base| format!(" to `{base}`")).unwrap_or_default();
        return Some(
            Failure::new(format!("`{shown}` is a LoRA adapter{base}, not a whole model")).hint(
                "merge it in Python, `model.merge_and_unload().save_pretrained(directory)`, and give that directory",
            ),
        );
    }
    if path.join("snapshots").is_dir() {
        let name = path.file_name()?.to_str()?.strip_prefix("models--")?.replacen("--", "/", 1);
        return Some(
            Failure::new(format!("`{shown}` is a folder of the cache, not a model directory"))
                .hint(format!("give the model's name: `--model {name}`")),
        );
    }
    let mut names = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    let gguf =
        names.find(|file| file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")))?;
    let name = gguf.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Some(Failure::new(format!("found `{name}` but no `model.safetensors` in `{shown}`")).hint(NO_GGUF))
}

/// The model that an adapter changes, if it says so in a name that can be shown.
fn base_model(adapter: &Path) -> Option<String> {
    use std::io::Read;

    const LONGEST: u64 = 1 << 20;
    let mut json = Vec::new();
    let file = std::fs::File::open(adapter.join("adapter_config.json")).ok()?;
    file.take(LONGEST).read_to_end(&mut json).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&json).ok()?;
    let name = config["base_model_name_or_path"].as_str()?;
    (name.len() < 200 && !name.contains(char::is_control)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_are_recognised_and_others_left_alone() {
        for (typed, meant) in [
            ("gpt-2", Some("gpt2")),
            ("GPT2", Some("gpt2")),
            ("gpt2-small", Some("gpt2")),
            ("gpt2-smal", Some("gpt2")),
            ("gtp2", Some("gpt2")),
            ("gtp2-medium", Some("gpt2-medium")),
            ("gpt2_xl", Some("gpt2-xl")),
            ("gpt2-larg", Some("gpt2-large")),
            ("distilgpt-2", Some("distilgpt2")),
            ("openai-comunity/gpt2", Some("openai-community/gpt2")),
            ("me/mine2", Some("me/mine")),
            ("dmo", Some("demo")),
            ("bert-base-uncased", None),
            ("opt", None),
            ("somebody/gpt2-finetuned", None),
            ("", None),
        ] {
            assert_eq!(model(typed, ["me/mine"].into_iter()).as_deref(), meant, "{typed}");
        }
    }

    #[test]
    fn distances_count_letters_and_swaps() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("gtp", "gpt", 1), ("é", "e", 1)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
