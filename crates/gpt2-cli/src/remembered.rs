//! What is remembered from one run to the next: that something happened, and when.
//!
//! Each is a file in our own cache directory, next to the packed copies, and as old as what it stands for. Where there is
//! no such directory, nothing is remembered.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use gpt2::pack::PackCache;

/// Something that is remembered.
pub(crate) struct Remembered {
    path: Option<PathBuf>,
}

impl Remembered {
    /// Names what is remembered; the name is that of a file.
    pub(crate) fn new(name: &str) -> Self {
        let packed = PackCache::directory_from_variables(|name| std::env::var(name).ok());
        Self { path: packed.and_then(|packed| Some(packed.parent()?.join(name))) }
    }

    /// How long ago it happened; nothing if it did not, or the clock was changed since.
    pub(crate) fn age(&self) -> Option<Duration> {
        let modified = fs::metadata(self.path.as_ref()?).ok()?.modified().ok()?;
        SystemTime::now().duration_since(modified).ok()
    }

    /// Remembers that it happened now; `text` is for whoever finds the file.
    pub(crate) fn now(&self, text: &str) {
        let Some(path) = &self.path else { return };
        // What cannot be remembered happens again.
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(path, format!("{text}\n"));
    }

    /// Forgets it.
    pub(crate) fn forget(&self) {
        let _ = self.path.as_ref().map(fs::remove_file);
    }
}
