//! Blocks of positions that other texts begin with, kept to be used again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gpt2_kernels::attention::{BLOCK, CacheBlock};

use super::KvCache;
use crate::model::Model;

/// Keys and values of what texts began with: a prompt that begins like an earlier one need not be computed again there.
///
/// Whole blocks of 64 positions are kept, and found by the hash of their tokens and of the block before them. Keys and
/// values are a function of the tokens from the beginning on, so a text is the same to the last bit with and without. Of
/// the blocks that nothing kept goes on from, the one not used for the longest time makes room first.
///
/// One can be used by several threads at once, and for one model only: [`Generate::prefix_cache`] checks that.
///
/// [`Generate::prefix_cache`]: crate::generate::Generate::prefix_cache
///
/// ```
/// # use gpt2::{cache::PrefixCache, model::Formats, pretrained::Pretrained};
/// # use gpt2_kernels::{Cpu, Kernels};
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
/// # let gpt2 = Pretrained::from_directory(folder, Cpu::new(Kernels::detect(), 2), Formats::default())?;
/// let prefixes = PrefixCache::new(&gpt2.model, 1 << 30);
/// let rules = "Once upon a time there was a king. ".repeat(20);
/// for question in ["One day", "At night"] {
///     gpt2.generate(&format!("{rules}{question}"))?.max_new_tokens(5).prefix_cache(&prefixes).run()?;
/// }
/// assert_eq!(prefixes.stats().reused_tokens, 128);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PrefixCache<'m> {
    model: &'m Model,
    /// Most blocks to keep.
    most: usize,
    state: Mutex<State>,
}

/// What a [`PrefixCache`] holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixStats {
    /// Blocks that are kept.
    pub blocks: usize,
    /// Their size in bytes, whether or not running texts use them too.
    pub bytes: usize,
    /// Tokens that were looked for: those of all prompts.
    pub tokens: usize,
    /// How many of them need not be computed.
    pub reused_tokens: usize,
    /// Blocks that made room for others.
    pub evicted_blocks: usize,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// Counts uses, and names blocks.
    clock: u64,
    tokens: usize,
    reused: usize,
    evicted: usize,
}

/// The block that this one follows, 0 for the first, and its own tokens: texts with equal keys are equal so far.
type Key = (u64, [u32; BLOCK]);

#[derive(Debug)]
struct Entry {
    name: u64,
    block: Arc<CacheBlock>,
    last_use: u64,
    /// Kept blocks that follow this one.
    followers: usize,
}

impl<'m> PrefixCache<'m> {
    /// Makes an empty cache for a model, that keeps at most so many bytes.
    #[must_use]
    pub fn new(model: &'m Model, bytes: usize) -> Self {
        Self { model, most: bytes / model.cache_shape().block_bytes(), state: Mutex::default() }
    }

    /// What it holds, and has done so far.
    #[must_use]
    pub fn stats(&self) -> PrefixStats {
        let state = self.state();
        let blocks = state.entries.len();
        PrefixStats {
            blocks,
            bytes: blocks * self.model.cache_shape().block_bytes(),
            tokens: state.tokens,
            reused_tokens: state.reused,
            evicted_blocks: state.evicted,
        }
    }

    /// Forgets all blocks.
    pub fn clear(&self) {
        self.state().entries.clear();
    }

    /// Whether it is for this very model.
    pub(crate) fn is_for(&self, model: &Model) -> bool {
        std::ptr::eq(self.model, model)
    }

    /// The cache of a text as far as it is kept, but for its last token, whose logits are wanted.
    pub(crate) fn begin(&self, tokens: &[u32]) -> KvCache {
        let mut cache = KvCache::new(self.model);
        let mut state = self.state();
        state.clock += 1;
        let (mut before, now) = (0, state.clock);
        for key in keys(&tokens[..tokens.len().saturating_sub(1)]) {
            let Some(entry) = state.entries.get_mut(&(before, key)) else { break };
            entry.last_use = now;
            before = entry.name;
            cache.blocks.push(Arc::clone(&entry.block));
        }
        cache.length = cache.blocks.len() * BLOCK;
        state.tokens += tokens.len();
        state.reused += cache.length;
        cache
    }

    /// How many blocks of a text are kept.
    pub(crate) fn known(&self, tokens: &[u32]) -> usize {
        let (state, mut before) = (self.state(), 0);
        let follow = |key: &[u32; BLOCK]| match state.entries.get(&(before, *key)) {
            Some(entry) => {
                before = entry.name;
                true
            }
            None => false,
        };
        keys(tokens).take_while(follow).count()
    }

    /// Keeps the whole blocks of a text, of which `cache` holds the first tokens at least.
    pub(crate) fn keep(&self, tokens: &[u32], cache: &KvCache) {
        let mut state = self.state();
        state.clock += 1;
        let (mut before, now) = (0, state.clock);
        let mut parent: Option<Key> = None;
        for (key, block) in keys(&tokens[..cache.len().min(tokens.len())]).zip(&cache.blocks) {
            let key = (before, key);
            if let Some(entry) = state.entries.get_mut(&key) {
                entry.last_use = now;
                before = entry.name;
            } else {
                if state.entries.len() >= self.most && !state.evict(now) {
                    return;
                }
                state.clock += 1;
                before = state.clock;
                let entry = Entry { name: before, block: Arc::clone(block), last_use: now, followers: 0 };
                state.entries.insert(key, entry);
                if let Some(parent) = parent.and_then(|parent| state.entries.get_mut(&parent)) {
                    parent.followers += 1;
                }
            }
            parent = Some(key);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever a thread that panicked was about, every block there is right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room for a block: of those that nothing follows, the one not used for the longest time goes, unless that
    /// is in use now. Says whether there is room.
    fn evict(&mut self, now: u64) -> bool {
        let ends = self.entries.iter().filter(|(_, entry)| entry.followers == 0 && entry.last_use < now);
        let Some((&oldest, _)) = ends.min_by_key(|(_, entry)| (entry.last_use, entry.name)) else {
            return false;
        };
        self.entries.remove(&oldest);
        if let Some(parent) = self.entries.values_mut().find(|entry| entry.name == oldest.0) {
            parent.followers -= 1;
        }
        self.evicted += 1;
        true
    }
}

/// The tokens of the whole blocks of a text.
fn keys(tokens: &[u32]) -> impl Iterator<Item = [u32; BLOCK]> {
    tokens.as_chunks::<BLOCK>().0.iter().copied()
}
