//! The names of the tests, which show without a build that a `tests:` line selects no test.

use std::collections::BTreeMap;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

use crate::source::{modules, rust_files};

/// The paths of the functions in each test target of the root package, one path a line.
pub struct TestNames(BTreeMap<String, String>);

impl TestNames {
    pub fn read(tree: &Path) -> Result<TestNames, String> {
        let mut targets: BTreeMap<String, String> = BTreeMap::new();
        for (folder, is_lib) in [("src", true), ("tests", false)] {
            let root = tree.join(folder);
            for path in rust_files(&root)? {
                let mut modules = modules(path.strip_prefix(&root).unwrap_or(&path));
                let target = match modules.first() {
                    _ if is_lib => "--lib".to_string(),
                    Some(_) => format!("--test {}", modules.remove(0)),
                    None => continue,
                };
                let text =
                    std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
                let stream = text.parse().map_err(|error| format!("{} does not parse: {error}", path.display()))?;
                add_functions(stream, &mut modules, targets.entry(target).or_default());
            }
        }
        Ok(TestNames(targets))
    }

    /// Whether these arguments of `cargo test` select at least one function.
    pub fn has(&self, arguments: &str) -> bool {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let (target, filter) = match words.as_slice() {
            ["--lib", filter @ ..] => ("--lib".to_string(), filter),
            ["--test", name, filter @ ..] => (format!("--test {name}"), filter),
            _ => return false,
        };
        let Some(functions) = self.0.get(&target) else { return false };
        match filter {
            [] => true,
            [filter] => functions.contains(filter),
            _ => false,
        }
    }
}

/// Appends the path of each function, also of those within macros, which hold most property tests.
fn add_functions(stream: TokenStream, modules: &mut Vec<String>, functions: &mut String) {
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match (tree, trees.peek()) {
            (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if word == "fn" => {
                functions.extend(modules.iter().flat_map(|module| [module.as_str(), "::"]));
                functions.extend([&name.to_string(), "\n"]);
            }
            (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if word == "mod" => {
                modules.push(name.to_string());
                trees.next();
                if let Some(TokenTree::Group(body)) = trees.next() {
                    add_functions(body.stream(), modules, functions);
                }
                modules.pop();
            }
            (TokenTree::Group(group), _) => add_functions(group.stream(), modules, functions),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_in_modules_and_macros() {
        let text = "mod other; fn one() {} mod tests { proptest! { #[test] fn two(x in 0..1) {} } } fn three() {}";
        let mut functions = String::new();
        add_functions(text.parse().unwrap(), &mut vec!["wal".into()], &mut functions);
        assert_eq!(functions, "wal::one\nwal::tests::two\nwal::three\n");
        let names = TestNames(BTreeMap::from([("--lib".into(), functions)]));
        assert!(names.has("--lib") && names.has("--lib wal::tests") && names.has("--lib wal::t"));
        assert!(!names.has("--lib queue::") && !names.has("--test suite") && !names.has("--lib wal:: --exact"));
    }
}
