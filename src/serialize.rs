//! How statistics and reports are serialized with serde: times as seconds, errors as their text.

use crate::error::Error;
use serde::Serializer;
use std::time::Duration;

/// A time, as a number of seconds. The name of the field says so.
pub(crate) fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// An error, as its text.
pub(crate) fn text<S: Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    match error {
        Some(error) => serializer.collect_str(error),
        None => serializer.serialize_none(),
    }
}

/// A path, as the text that messages show.
pub(crate) fn path<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
