//! Tokens of a text for the detector's text encoder.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

/// Why a text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The tokenizer's file cannot be used.
    #[error("{file}: cannot read the tokenizer: {reason}; export the bundle again")]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// The reader's reason.
        reason: String,
    },
    /// The text has only white space.
    #[error("the text {text:?} is empty; give one such as \"bear\"")]
    Empty {
        /// The text as given.
        text: String,
    },
    /// The text has more tokens than the model reads.
    #[error(
        "the text {text:?} is too long: it has {found} tokens, and the model reads at most {max} (start and end included); use fewer words"
    )]
    TooLong {
        /// The text as given.
        text: String,
        /// Its number of tokens.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The tokenizer cannot read it.
    #[error("the text {text:?} cannot be read: {reason}")]
    Unreadable {
        /// The text as given.
        text: String,
        /// The tokenizer's reason.
        reason: String,
    },
}

/// Turns texts into tokens, as the reference's `CLIPTokenizer` does.
pub(super) struct TextTokenizer {
    tokenizer: Tokenizer,
    max_tokens: usize,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`. A text may have up to `max_tokens` tokens, start and end included.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub(super) fn open(file: &Path, max_tokens: usize) -> Result<Self, TextError> {
        let mut tokenizer = Tokenizer::from_file(file).map_err(|error| TextError::Tokenizer {
            file: file.to_path_buf(),
            reason: error.to_string(),
        })?;
        // Texts are not padded, and one that is too long is refused instead of truncated.
        tokenizer.with_padding(None);
        let plain = tokenizer.with_truncation(None).map(|_| ());
        plain.map_err(|error| TextError::Tokenizer {
            file: file.to_path_buf(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            tokenizer,
            max_tokens,
        })
    }

    /// The tokens of a text, with the start and end tokens.
    ///
    /// # Errors
    /// A text that is empty, too long, or unreadable.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<i64>, TextError> {
        if text.trim().is_empty() {
            return Err(TextError::Empty {
                text: text.to_owned(),
            });
        }
        let encoding =
            self.tokenizer
                .encode(text, true)
                .map_err(|error| TextError::Unreadable {
                    text: text.to_owned(),
                    reason: error.to_string(),
                })?;
        let tokens: Vec<i64> = encoding.get_ids().iter().copied().map(i64::from).collect();
        if tokens.len() > self.max_tokens {
            return Err(TextError::TooLong {
                text: text.to_owned(),
                found: tokens.len(),
                max: self.max_tokens,
            });
        }
        Ok(tokens)
    }
}
