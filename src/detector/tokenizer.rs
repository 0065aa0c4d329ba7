//! A text to the tokens that a detector's text encoder takes.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

/// Why a text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The tokenizer's file cannot be used.
    #[error("{file}: is no tokenizer that this program reads: {reason}; export the bundle again")]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// The reader's reason.
        reason: String,
    },
    /// Nothing but white space.
    #[error("the text {text:?} is empty; say what to find, for example \"bear\"")]
    Empty {
        /// As given.
        text: String,
    },
    /// More tokens than the model reads.
    #[error(
        "the text {text:?} is too long: it has {found} tokens, and the model reads {most} (start and end included); use fewer words"
    )]
    TooLong {
        /// As given.
        text: String,
        /// Its tokens.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// The tokenizer cannot read it.
    #[error("the text {text:?} cannot be read: {reason}")]
    Unreadable {
        /// As given.
        text: String,
        /// The tokenizer's reason.
        reason: String,
    },
}

/// Turns texts into tokens, as the reference's `CLIPTokenizer` does.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    most: usize,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`; texts may have up to `most` tokens, their start and end included.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn open(file: &Path, most: usize) -> Result<Self, TextError> {
        let mut tokenizer = Tokenizer::from_file(file).map_err(|error| TextError::Tokenizer {
            file: file.to_path_buf(),
            reason: error.to_string(),
        })?;
        // A text is as long as it is, and one that is too long is refused rather than cut off.
        tokenizer.with_padding(None);
        let plain = tokenizer.with_truncation(None).map(|_| ());
        plain.map_err(|error| TextError::Tokenizer {
            file: file.to_path_buf(),
            reason: error.to_string(),
        })?;
        Ok(Self { tokenizer, most })
    }

    /// The tokens of a text, with those for its start and its end.
    ///
    /// # Errors
    /// A text that is empty, too long, or unreadable.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, TextError> {
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
        if tokens.len() > self.most {
            return Err(TextError::TooLong {
                text: text.to_owned(),
                found: tokens.len(),
                most: self.most,
            });
        }
        Ok(tokens)
    }
}
