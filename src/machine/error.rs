//! What can go wrong with the bytes of a command or a state: they cannot be decoded, or a logged
//! command cannot be redone.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// A logged command that could not be redone.
#[derive(Debug)]
pub struct RedoFault {
    pub(crate) index: usize,
    pub(crate) unreadable: Option<DecodeError>,
}

impl RedoFault {
    /// The command at this index cannot be decoded.
    pub fn unreadable(index: usize, error: DecodeError) -> Self {
        RedoFault { index, unreadable: Some(error) }
    }

    /// The machine rejects the command at this index.
    pub fn rejected(index: usize) -> Self {
        RedoFault { index, unreadable: None }
    }
}

/// Bytes that are not a valid encoding, or an input that could not be read.
#[derive(Debug)]
pub struct DecodeError {
    reason: Cow<'static, str>,
    source: Option<io::Error>,
}

// an error is never changed once it was made
impl UnwindSafe for DecodeError {}
impl RefUnwindSafe for DecodeError {}

impl DecodeError {
    /// An error with a reason: what is wrong with the bytes.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        DecodeError { reason: reason.into(), source: None }
    }

    /// Returns the error of the input, if the input failed; otherwise returns this error unchanged.
    ///
    /// # Errors
    /// This error, if the bytes are invalid.
    pub fn into_io(self) -> Result<io::Error, Self> {
        match self.source {
            Some(source) => Ok(source),
            None => Err(self),
        }
    }
}

impl From<io::Error> for DecodeError {
    fn from(source: io::Error) -> Self {
        DecodeError { reason: Cow::Borrowed("the input could not be read"), source: Some(source) }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
