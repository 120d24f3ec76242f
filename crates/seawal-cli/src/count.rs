//! A number with its noun in singular or plural, for messages.

use std::fmt;

/// A number, and its noun in singular and plural.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(pub(super) u64, pub(super) &'static str, pub(super) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, one, many) = self;
        write!(f, "{number} {}", if *number == 1 { one } else { many })
    }
}
