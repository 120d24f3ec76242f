//! Reads the modules of a crate and resolves what each one names: imports, paths in bodies, and
//! re-exports.
//!
//! A tokenizer by hand serves: the questions concern `use`, `mod` and `::` alone, and no macro of
//! the crate makes any of them. Code under `#[cfg(test)]` is left out. A method call needs no
//! import, so this finds no dependency that consists of calls alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A path of names, from the crate's name on (`["seawal", "io", "disk"]`), or of another crate.
pub(crate) type Names = Vec<String>;

/// One name that a `use` declaration brings into a module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Import {
    pub(crate) path: Names,
    /// The name in this module; `*` for all names, `_` for none.
    pub(crate) name: String,
    /// Whether others may import it from here (`pub use`, `pub(crate) use`).
    pub(crate) public: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Relative to the repository.
    pub(crate) file: PathBuf,
    pub(crate) imports: Vec<Import>,
    /// Paths of two names or more outside of `use` declarations.
    pub(crate) paths: BTreeSet<Names>,
    /// All names outside of `use` declarations.
    pub(crate) words: BTreeSet<String>,
    /// What is defined here.
    pub(crate) items: BTreeSet<String>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// A module itself.
    Module(Names),
    /// Something that this module defines.
    Item(Names),
    /// Something of another crate, and the module that names it as such.
    Outside(Names, Names),
}

#[derive(Debug, Default)]
pub(crate) struct Modules(pub(crate) BTreeMap<Names, Module>);

impl Modules {
    /// Reads a crate from its first file on.
    pub(crate) fn read(&mut self, root: &Path, name: &str, first: &Path) {
        let dir = first.parent().unwrap().to_owned();
        self.read_file(root, vec![name.to_owned()], first, &dir);
    }

    fn read_file(&mut self, root: &Path, path: Names, file: &Path, dir: &Path) {
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for (child, file_of_child) in self.parse(path.clone(), file, &text) {
            let mut path = path.clone();
            path.extend(child.clone());
            let dir = child.iter().fold(dir.to_owned(), |dir, name| dir.join(name));
            let (flat, nested) = (dir.with_extension("rs"), dir.join("mod.rs"));
            let file = match file_of_child {
                Some(named) => file.parent().unwrap().join(named),
                None if root.join(&nested).exists() => nested,
                None => flat,
            };
            self.read_file(root, path, &file, &dir);
        }
    }

    /// Takes in a file's text. Returns the modules that lie in files of their own, each with the
    /// file that an attribute names.
    pub(crate) fn parse(&mut self, path: Names, file: &Path, text: &str) -> Vec<(Names, Option<String>)> {
        let tokens = tokens(text);
        let mut parser =
            Parser { modules: self, file, tokens: &tokens, at: 0, elsewhere: Vec::new(), root: path.len() };
        parser.module(path);
        parser.elsewhere
    }

    /// What a path means that stands in a module.
    pub(crate) fn resolve(&self, at: &Names, path: &[String]) -> Target {
        self.resolve_within(at, path, 16)
    }

    fn resolve_within(&self, at: &Names, path: &[String], depth: u32) -> Target {
        let (first, rest) = path.split_first().unwrap();
        let outside = || Target::Outside(path.to_vec(), at.clone());
        if depth == 0 {
            return outside();
        }
        let join = |from: &[String], rest: &[String]| [from, rest].concat();
        match first.as_str() {
            "crate" => self.descend(&at[..1], rest, depth),
            "self" => self.descend(at, rest, depth),
            "super" => {
                let up = rest.iter().take_while(|name| *name == "super").count();
                self.descend(&at[..at.len().saturating_sub(up + 1).max(1)], &rest[up..], depth)
            }
            _ if self.0.contains_key(&join(at, &path[..1])) => self.descend(at, path, depth),
            name => match self.0[at].imports.iter().find(|import| import.name == name && import.path[0] != name) {
                Some(import) => self.resolve_within(at, &join(&import.path, rest), depth - 1),
                None if self.0.contains_key(&path[..1]) => self.descend(&path[..1], rest, depth),
                None => outside(),
            },
        }
    }

    fn descend(&self, from: &[String], rest: &[String], depth: u32) -> Target {
        let Some((name, after)) = rest.split_first() else { return Target::Module(from.to_vec()) };
        let child = [from, &rest[..1]].concat();
        if self.0.contains_key(&child) && !(after.is_empty() && depth > 0 && self.exports(from, name)) {
            return self.descend(&child, after, depth);
        }
        let from = from.to_vec();
        let module = &self.0[&from];
        if module.items.contains(name) {
            return Target::Item(from);
        }
        if let Some(import) = module.imports.iter().find(|import| import.name == *name) {
            return self.resolve_within(&from, &[&import.path[..], after].concat(), depth - 1);
        }
        for glob in module.imports.iter().filter(|import| import.name == "*") {
            if let Target::Module(of) = self.resolve_within(&from, &glob.path, depth - 1)
                && self.0[&of].items.contains(name)
            {
                return Target::Item(of);
            }
        }
        Target::Item(from)
    }

    /// Whether a module shows an item of this name beside a module of this name (`pub use
    /// verify::verify`).
    fn exports(&self, module: &[String], name: &String) -> bool {
        let Some(module) = self.0.get(module) else { return false };
        module.items.contains(name)
            || module.imports.iter().any(|import| {
                import.name == *name && import.path.len() > 1 && import.path.ends_with(&[name.clone(), name.clone()])
            })
    }

    /// Everything that a module depends on. An import of a module counts where something is taken
    /// from it; a re-export of what lies below the module counts where the module itself uses it.
    pub(crate) fn targets(&self, at: &Names) -> BTreeMap<Names, Target> {
        let module = &self.0[at];
        let mut targets = BTreeMap::new();
        for path in &module.paths {
            targets.insert(path.clone(), self.resolve(at, path));
        }
        for Import { path, name, public } in &module.imports {
            let target = self.resolve(at, path);
            let reexport = |of: &Names| *public && of.starts_with(at) && !module.words.contains(name);
            match &target {
                Target::Module(_) if name != "*" => continue,
                Target::Item(of) | Target::Module(of) if reexport(of) => continue,
                _ => targets.insert(path.clone(), target),
            };
        }
        targets
    }
}

struct Parser<'a> {
    modules: &'a mut Modules,
    file: &'a Path,
    tokens: &'a [String],
    at: usize,
    elsewhere: Vec<(Names, Option<String>)>,
    /// How many names the file's own module has.
    root: usize,
}

impl Parser<'_> {
    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", String::as_str)
    }

    /// Reads to the end of a module, and past its brace.
    fn module(&mut self, path: Names) {
        let mut module = Module { file: self.file.to_owned(), ..Module::default() };
        let mut depth = 0;
        let mut public = false;
        let mut named = None;
        while self.at < self.tokens.len() {
            let token = self.peek(0).to_owned();
            match token.as_str() {
                "#" => named = self.attribute().or(named),
                "{" | "(" | "[" => depth += 1,
                "}" if depth == 0 => break,
                "}" | ")" | "]" => depth -= 1,
                "pub" => {
                    public = true;
                    if self.peek(1) == "(" {
                        self.at += 1;
                        self.skip_group();
                        continue;
                    }
                }
                "use" if self.peek(1) != "<" => {
                    self.at += 1;
                    self.imports(Vec::new(), public, &mut module.imports);
                    public = false;
                    continue;
                }
                "mod" => {
                    let name = self.peek(1).to_owned();
                    let inner = [path.clone(), vec![name]].concat();
                    self.at += 2;
                    match self.peek(0) {
                        "{" => {
                            self.at += 1;
                            self.module(inner);
                        }
                        _ => self.elsewhere.push((inner[self.root..].to_vec(), named.take())),
                    }
                }
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" if depth == 0 => {
                    module.items.insert(self.peek(1).to_owned());
                }
                "macro_rules" => {
                    module.items.insert(self.peek(2).to_owned());
                }
                ";" => public = false,
                _ if is_name(&token) => self.path(&mut module),
                _ => {}
            }
            self.at += 1;
        }
        self.modules.0.insert(path, module);
    }

    /// Reads a path, up to its last name.
    fn path(&mut self, module: &mut Module) {
        let mut path = vec![self.peek(0).to_owned()];
        while self.peek(1) == "::" && is_name(self.peek(2)) {
            path.push(self.peek(2).to_owned());
            self.at += 2;
        }
        module.words.extend(path.iter().cloned());
        if path.len() > 1 {
            module.paths.insert(path);
        }
    }

    /// Reads one tree of a `use` declaration, and the semicolon behind the last.
    fn imports(&mut self, mut path: Names, public: bool, imports: &mut Vec<Import>) {
        loop {
            let token = self.peek(0).to_owned();
            self.at += 1;
            match token.as_str() {
                "::" => continue,
                "{" => {
                    while self.peek(0) != "}" {
                        self.imports(path.clone(), public, imports);
                        if self.peek(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    break;
                }
                "*" => {
                    imports.push(Import { path, name: "*".to_owned(), public });
                    break;
                }
                _ => path.push(token),
            }
            if self.peek(0) != "::" {
                let mut name = path.last().unwrap().clone();
                if name == "self" && path.len() > 1 {
                    path.pop();
                    name = path.last().unwrap().clone();
                }
                if self.peek(0) == "as" {
                    name = self.peek(1).to_owned();
                    self.at += 2;
                }
                imports.push(Import { path, name, public });
                break;
            }
        }
    }

    /// Reads an attribute up to its last bracket, and what it stands before where that is compiled
    /// for tests only. Returns the file that it names.
    fn attribute(&mut self) -> Option<String> {
        let start = self.at;
        while self.peek(0) != "[" {
            self.at += 1;
        }
        self.skip_group();
        let words: Vec<_> = self.tokens[start..self.at].iter().map(String::as_str).collect();
        let test = matches!(words.as_slice(), ["#", "[", "cfg", "(", ..]) && holds(&words[4..]).0 == Some(false);
        if test {
            self.skip_item();
        }
        self.at -= 1;
        match words.as_slice() {
            ["#", "[", "path", "=", file, "]"] => Some(file.trim_matches('"').to_owned()),
            _ => None,
        }
    }

    /// Goes past a bracket and what it holds.
    fn skip_group(&mut self) {
        let mut depth = 0;
        loop {
            match self.peek(0) {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                "" => return,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Goes past an item, statement, field or arm.
    fn skip_item(&mut self) {
        let mut is_use = false;
        loop {
            match self.peek(0) {
                "" | "}" | ")" | "]" => return,
                ";" | "," => {
                    self.at += 1;
                    return;
                }
                "use" => is_use = true,
                "{" => {
                    self.skip_group();
                    if !is_use {
                        return;
                    }
                    continue;
                }
                "(" | "[" => {
                    self.skip_group();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }
}

/// Whether a condition holds that stands at the beginning of `words`, where no test is compiled,
/// and how many words it takes. `None` is for conditions on anything else.
fn holds(words: &[&str]) -> (Option<bool>, usize) {
    let [name, "(", inner @ ..] = words else { return ((words[0] == "test").then_some(false), 1) };
    let (mut at, mut each) = (0, Vec::new());
    while inner[at] != ")" {
        let (value, len) = holds(&inner[at..]);
        each.push(value);
        // a comma, or a value that is compared
        at += len
            + inner[at + len..].iter().take_while(|word| [",", "="].contains(word) || word.starts_with('"')).count();
    }
    let value = match *name {
        "not" => each[0].map(|value| !value),
        "all" if each.contains(&Some(false)) => Some(false),
        "all" if each.contains(&None) => None,
        "all" => Some(true),
        "any" if each.contains(&Some(true)) => Some(true),
        "any" if each.contains(&None) => None,
        "any" => Some(false),
        _ => None,
    };
    (value, at + 3)
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, numbers, `::` and single characters; a string literal is one token with its quotes.
/// Comments are left out.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let hashes = rest[word..].bytes().take_while(|b| *b == b'#').count();
        let after = &rest[word + hashes..];
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if ["r", "br", "cr"].contains(&&rest[..word]) && after.starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            word + hashes + 1 + after[1..].find(&end).unwrap() + end.len()
        } else if word == 1 && first == 'b' && after.starts_with('\'') {
            1 + character(after).unwrap()
        } else if word > 0 {
            tokens.push(rest[..word].to_owned());
            word
        } else if first == '"' {
            let len = string(rest);
            tokens.push(rest[..len].to_owned());
            len
        } else if first == '\'' {
            // a lifetime's name is left to the next turn
            character(rest).unwrap_or(1)
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[len..];
    }
    tokens
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            [] => return at,
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
}

/// The length of a string literal with both quotes.
fn string(text: &str) -> usize {
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return at + 1,
            '\\' if !escaped => escaped = true,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of a character literal, unless it is a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, c) = chars.next()?;
    if c == '\\' {
        let (escape, _) = chars.next()?;
        return Some(escape + 1 + text[escape + 1..].find('\'')? + 1);
    }
    let (end, quote) = chars.next()?;
    (quote == '\'').then_some(end + 1)
}
