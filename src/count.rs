//! A number with its noun in the right number, for messages.

use std::fmt;

/// A number, and its noun in singular and plural.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(crate) u64, pub(crate) &'static str, pub(crate) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, one, many) = self;
        write!(f, "{number} {}", if *number == 1 { one } else { many })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N7: one of a kind is not told as several.
    #[test]
    fn one_is_singular_and_every_other_number_is_plural() {
        let text = [0, 1, 2, 11].map(|number| Count(number, "copy", "copies").to_string());
        assert_eq!(text, ["0 copies", "1 copy", "2 copies", "11 copies"]);
    }
}
