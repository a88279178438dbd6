//! The bytes that each id of a vocabulary stands for.

use tokenizers::models::bpe::Vocab;

use super::file::{AddedTokenEntry, refuse_unless};
use super::{MAX_FILE, TokenizerError};

/// The ids a vocabulary may use lie below this, so that a forged id cannot size the table.
pub(super) const MAX_VOCABULARY: usize = 1 << 20;

const _: () = assert!(MAX_FILE <= u32::MAX as usize, "the tokens of a file fit into a `TokenBytes`");

/// The bytes behind every id, end to end.
pub(crate) struct TokenBytes {
    bytes: Vec<u8>,
    /// Token `id` is `bytes[starts[id]..starts[id + 1]]`; an id without a token is empty.
    starts: Vec<u32>,
}

impl TokenBytes {
    pub(super) fn new(vocab: &Vocab, added: &[AddedTokenEntry]) -> Result<Self, TokenizerError> {
        #[derive(Clone, Copy, PartialEq)]
        enum Spelling<'a> {
            None,
            Letters(&'a str),
            Text(&'a str),
        }
        let letters = vocab.iter().map(|(token, &id)| (id, Spelling::Letters(token)));
        let texts = added.iter().map(|entry| (entry.id, Spelling::Text(&entry.token.content)));
        let mut spellings = Vec::new();
        for (id, spelling) in letters.chain(texts) {
            let (Spelling::Letters(token) | Spelling::Text(token)) = spelling else { continue };
            let index = id as usize;
            if index >= MAX_VOCABULARY {
                return Err(TokenizerError::IdTooHigh { token: token.to_owned(), id });
            }
            if index >= spellings.len() {
                spellings.resize(index + 1, Spelling::None);
            }
            match spellings[index] {
                // An added token is usually in the vocabulary too.
                Spelling::Letters(first) | Spelling::Text(first) if first != token => {
                    let (first, second) = (first.to_owned(), token.to_owned());
                    return Err(TokenizerError::DuplicateId { id, first, second });
                }
                // The id would stand for two texts: that of the letters, and that of the added token.
                Spelling::Letters(letters) if stands_for_other_text(letters) => {
                    let expected = "that the vocabulary does not spell with letters for other bytes";
                    refuse_unless(false, "added token", expected, letters.to_owned())?;
                }
                _ => spellings[index] = spelling,
            }
        }

        let mut table = Self { bytes: Vec::new(), starts: Vec::with_capacity(spellings.len() + 1) };
        table.starts.push(0);
        for spelling in spellings {
            match spelling {
                Spelling::None => {}
                Spelling::Text(text) => table.bytes.extend_from_slice(text.as_bytes()),
                Spelling::Letters(letters) => table.push_letters(letters),
            }
            let end = u32::try_from(table.bytes.len()).expect("all tokens are in a file of `MAX_FILE` bytes");
            table.starts.push(end);
        }
        Ok(table)
    }

    /// Appends the bytes that `letters` stand for, or `letters` themselves where one stands for none.
    fn push_letters(&mut self, letters: &str) {
        let start = self.bytes.len();
        for letter in letters.chars() {
            if let Some(byte) = byte_of(letter) {
                self.bytes.push(byte);
            } else {
                self.bytes.truncate(start);
                self.bytes.extend_from_slice(letters.as_bytes());
                return;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub(crate) fn get(&self, id: u32) -> Option<&[u8]> {
        let (&start, &end) = (self.starts.get(id as usize)?, self.starts.get(id as usize + 1)?);
        Some(&self.bytes[start as usize..end as usize])
    }
}

/// Says whether `text` is letters that stand for bytes, and for others than its own.
fn stands_for_other_text(text: &str) -> bool {
    !text.is_ascii() && text.chars().all(|letter| byte_of(letter).is_some())
}

/// Returns the byte that a letter of GPT-2's vocabulary stands for.
///
/// Printable bytes of Latin-1 stand for themselves; the others, in order, are written from U+0100 on.
pub(super) fn byte_of(letter: char) -> Option<u8> {
    let byte = match u32::from(letter) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => code,
        code @ 0x100..=0x120 => code - 0x100,
        code @ 0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}
