//! The file format of a defect: a description, the tests that should catch it, and the edits.
//!
//! ```text
//! The forming frame never counts as starting inside a block. A power loss can destroy …
//!
//! tests: --test suite log::
//!
//! in: Queue::in_block
//! replace: self.block_boundary(self.forming.start) != self.forming.start
//! with: false
//! ```
//!
//! A field starts at the first column. Its value is the rest of that line and all indented lines
//! below it.
//!
//! - `tests:` holds the arguments of one run of `cargo test`. The quickest run comes first.
//! - `in:` names the function to edit: `publish`, `Queue::in_block` or `<Queue as Drop>::drop`. Where
//!   several functions have the name, put modules in front of it: `queue::publish`. Several edits may
//!   follow one `in:`.
//! - `replace:` holds tokens that occur exactly once in the body of the function, and `with:` the text that takes
//!   their place. Whitespace and comments do not matter. `…` stands for everything up to the closing
//!   bracket behind it: `sync().map_err(…)?`. In the `with:` text, the first `…` repeats what the
//!   first `…` of the `replace:` text stood for, and so on.
//! - `body:` holds the text that replaces everything between the braces of the function.
//!
//! All edits of a defect apply to the original source.

use std::path::Path;

/// A deliberate defect, as its file describes it.
#[derive(Debug, PartialEq)]
pub struct Defect {
    pub tests: Vec<String>,
    pub edits: Vec<Edit>,
}

/// One change within one function.
#[derive(Debug, PartialEq)]
pub struct Edit {
    pub function: String,
    pub change: Change,
}

#[derive(Debug, PartialEq)]
pub enum Change {
    Replace { old: String, new: String },
    Body(String),
}

impl Defect {
    pub fn read(path: &Path) -> Result<Defect, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Defect::parse(&text)
    }

    pub fn parse(text: &str) -> Result<Defect, String> {
        let (description, fields) = fields(text)?;
        if description.trim().is_empty() {
            return Err("the defect needs a first sentence that says what is broken".into());
        }
        let mut defect = Defect { tests: Vec::new(), edits: Vec::new() };
        let (mut function, mut old) = (None, None);
        for (name, value) in fields {
            if old.is_some() != (name == "with") {
                return Err("each `replace:` must be followed by its `with:`".into());
            }
            match name {
                "tests" => defect.tests.push(value),
                "in" => function = Some(value),
                "replace" => old = Some(value),
                _ => {
                    let function = function.clone().ok_or_else(|| format!("`{name}:` needs an `in:` above it"))?;
                    let change = match old.take() {
                        Some(old) => Change::Replace { old, new: value },
                        None => Change::Body(value),
                    };
                    defect.edits.push(Edit { function, change });
                }
            }
        }
        if old.is_some() {
            return Err("each `replace:` must be followed by its `with:`".into());
        }
        if defect.tests.is_empty() || defect.edits.is_empty() {
            return Err("the defect needs at least one `tests:` line and one edit".into());
        }
        Ok(defect)
    }
}

type Field<'a> = (&'a str, String);

/// The description and the fields in order, each with its value.
fn fields(text: &str) -> Result<(String, Vec<Field<'_>>), String> {
    const NAMES: [&str; 5] = ["tests", "in", "replace", "with", "body"];
    let mut description = String::new();
    let mut fields: Vec<Field> = Vec::new();
    for line in text.lines() {
        let field = line.split_once(':').filter(|(name, _)| NAMES.contains(name));
        match (field, fields.last_mut()) {
            (Some((name, value)), _) => fields.push((name, value.trim().to_string())),
            (None, None) => description.extend([line, "\n"]),
            (None, Some((_, value))) if line.trim().is_empty() || line.starts_with(' ') => {
                value.extend(["\n", line]);
            }
            (None, Some(_)) => return Err(format!("this line starts no field and is not indented: {line}")),
        }
    }
    let trimmed = fields.into_iter().map(|(name, value)| (name, value.trim().to_string()));
    Ok((description, trimmed.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_continue_on_indented_lines() {
        let text = "It breaks.\n\ntests: --lib a\ntests: --lib b\n\nin: A::b\nreplace: x\n\
            with:\n    y;\n\n    z\n\nin: c\nbody: false\n";
        let edit = |function: &str, change| Edit { function: function.into(), change };
        let expected = Defect {
            tests: vec!["--lib a".into(), "--lib b".into()],
            edits: vec![
                edit("A::b", Change::Replace { old: "x".into(), new: "y;\n\n    z".into() }),
                edit("c", Change::Body("false".into())),
            ],
        };
        assert_eq!(Defect::parse(text), Ok(expected));
    }

    #[test]
    fn incomplete_defects_are_refused() {
        for (text, fault) in [
            ("It breaks.\ntests: --lib\n", "at least one `tests:`"),
            ("tests: --lib\nin: a\nbody:\n", "first sentence"),
            ("It breaks.\ntests: --lib\nin: a\nreplace: x\n", "followed by its `with:`"),
            ("It breaks.\ntests: --lib\nin: a\nreplace: x\nbody: y\n", "followed by its `with:`"),
            ("It breaks.\ntests: --lib\nbody: y\n", "needs an `in:`"),
            ("It breaks.\ntests: --lib\nin: a\nbody: y\nz\n", "not indented"),
        ] {
            assert!(Defect::parse(text).is_err_and(|error| error.contains(fault)), "{text}");
        }
    }
}
