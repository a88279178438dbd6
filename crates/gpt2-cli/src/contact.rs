//! The hub as commands ask it: not again and again while it does not answer.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gpt2::hub::{Hub, HubError, HubOptions};
use gpt2::published::Published;
use sha2::{Digest, Sha256};

use crate::arguments::Options;
use crate::failure::Failure;
use crate::remembered::Remembered;
use crate::suggestion;

/// How long a hub that did not answer is left alone.
const PAUSE: Duration = Duration::from_secs(3600);
/// A failure that takes longer than this is worth avoiding: a name that cannot be resolved takes milliseconds.
const SLOW: Duration = Duration::from_secs(1);
/// A failure after this came in the middle of something, and says little about the next time.
const LATE: Duration = Duration::from_secs(5);

/// A hub, and whether it answered lately.
pub(crate) struct Contact {
    pub(crate) hub: Hub,
    silence: Remembered,
}

/// A hub was not asked because it did not answer a while ago.
#[derive(Debug)]
struct LeftAlone {
    minutes: u64,
}

impl Contact {
    /// Takes the hub that the environment and the options name.
    pub(crate) fn new(options: &Options) -> Result<Self, HubError> {
        let mut hub_options = HubOptions::from_variables(|name| std::env::var(name).ok())?;
        hub_options.offline |= options.offline;
        // Another mirror, or another way to it, may answer where this one does not.
        let way = format!("{} {:?}", hub_options.endpoint, hub_options.proxy);
        let digest = Sha256::digest(way.as_bytes());
        let key: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { hub: Hub::new(hub_options), silence: Remembered::new(&format!("hub-silent-{key}")) })
    }

    /// Finds a model in the cache under its name, or the other one that a published model has.
    pub(crate) fn cached(
        &self,
        id: &str,
        revision: &str,
        find: fn(&Hub, &str, &str) -> Option<PathBuf>,
    ) -> Option<PathBuf> {
        let other = Published::find(id).map(|model| model.other_name(id));
        std::iter::once(id).chain(other).find_map(|id| find(&self.hub, id, revision))
    }

    /// Asks the hub, unless it did not answer within the last hour.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&Hub) -> Result<T, HubError>) -> Result<T, HubError> {
        match self.silence.age().filter(|age| *age < PAUSE && !self.hub.options().offline) {
            Some(age) => {
                let source = LeftAlone { minutes: (PAUSE - age).as_secs().div_ceil(60) };
                Err(HubError::Unreachable { server: self.server(), source: Box::new(source) })
            }
            None => self.ask_at_once(ask),
        }
    }

    /// Asks the hub, whether or not it answered lately.
    pub(crate) fn ask_at_once<T>(
        &self,
        ask: impl FnOnce(&Hub) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let begin = Instant::now();
        let result = ask(&self.hub);
        match &result {
            Err(HubError::Unreachable { .. }) if (SLOW..LATE).contains(&begin.elapsed()) => {
                self.silence
                    .now(&format!("{} did not answer; an hour later it is asked again", self.server()));
            }
            Err(HubError::Unreachable { .. } | HubError::Offline { .. }) => {}
            _ => self.silence.forget(),
        }
        result
    }

    /// In how many minutes a hub is asked again that did not answer; nothing if it is at once.
    pub(crate) fn next_try(&self) -> Option<u64> {
        let left = PAUSE.checked_sub(self.silence.age()?)?;
        Some(left.as_secs().div_ceil(60))
    }

    /// Says why a model of the hub cannot be had, and what to do.
    pub(crate) fn failure(&self, error: HubError, id: &str, revision: &str) -> Failure {
        let unreachable = matches!(error, HubError::Unreachable { .. });
        let left_alone = unreachable && self.next_try().is_some();
        let absent =
            matches!(error, HubError::ModelNotFound { .. } | HubError::Offline { .. }) || unreachable;
        let invalid = matches!(error, HubError::InvalidId { .. });
        let nothing_cached = matches!(&error, HubError::Offline { missing, .. } if missing.is_empty());
        let mut failure = Failure::from(error);
        if absent || invalid {
            let cached = self.hub.models().unwrap_or_default();
            let others = cached.iter().map(|model| model.id.as_str());
            if let Some(meant) = suggestion::model(id, others) {
                failure = failure.first_hint(format!("did you mean `{meant}`?"));
            }
        }
        if id.to_ascii_lowercase().contains("gguf") {
            failure = failure.hint(suggestion::NO_GGUF);
        }
        if unreachable || nothing_cached {
            let other = Published::find(id).map(|model| model.other_name(id));
            let missing = |id: &str| (id.to_owned(), self.hub.missing(id, revision));
            for (id, missing) in std::iter::once(id).chain(other).map(missing) {
                let [first, rest @ ..] = &missing[..] else { continue };
                let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                failure = failure.hint(format!("the cache has `{id}` without `{first}`{more}"));
            }
        }
        if left_alone {
            failure = failure.hint(format!("`gpt2 download {id}` tries again now"));
        }
        failure
    }

    fn server(&self) -> String {
        let endpoint = &self.hub.options().endpoint;
        let start = endpoint.find("://").map_or(0, |scheme| scheme + "://".len());
        let host = endpoint[start..].split('/').next().unwrap_or_default();
        // What stands before an `@` may be a password.
        format!("{}{}", &endpoint[..start], host.rsplit('@').next().unwrap_or_default())
    }
}

impl fmt::Display for LeftAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it did not respond recently; the next attempt is in {} min", self.minutes)
    }
}

impl Error for LeftAlone {}
