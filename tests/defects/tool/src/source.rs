//! The items of the source tree, found by name, and the edits to them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::defect::{Change, Defect, Edit};
use crate::tokens::{REST, Token, flat, matches, pattern};

/// The files of the tree, and the items in them.
pub struct Source {
    files: BTreeMap<PathBuf, File>,
    items: Vec<Item>,
}

struct File {
    text: String,
    tokens: Vec<Token>,
}

/// An item that a defect can name.
struct Item {
    file: PathBuf,
    modules: Vec<String>,
    /// Without modules: `publish`, `Queue::in_block`, `<Queue as Drop>::drop`.
    name: String,
    bytes: Range<usize>,
    /// Between the braces of a function.
    body: Option<Range<usize>>,
}

impl Source {
    /// Reads `src` and the `src` of each crate in `crates`, without the modules of tests.
    pub fn read(tree: &Path) -> Result<Source, String> {
        let mut source = Source { files: BTreeMap::new(), items: Vec::new() };
        let mut roots = vec![(tree.join("src"), Vec::new())];
        for folder in std::fs::read_dir(tree.join("crates")).into_iter().flatten().flatten() {
            let (name, src) = (folder.file_name().to_string_lossy().replace('-', "_"), folder.path().join("src"));
            if src.is_dir() {
                roots.push((src, vec![name]));
            }
        }
        for (root, crate_name) in roots {
            for path in rust_files(&root)? {
                let modules = [crate_name.clone(), modules(path.strip_prefix(&root).unwrap_or(&path))].concat();
                if !modules.iter().any(|name| name == "tests" || name.ends_with("_tests")) {
                    let text =
                        std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
                    source.add(path.strip_prefix(tree).unwrap_or(&path).to_path_buf(), modules, text)?;
                }
            }
        }
        Ok(source)
    }

    /// Parses one file and adds its items.
    fn add(&mut self, path: PathBuf, modules: Vec<String>, text: String) -> Result<(), String> {
        let fault = |error: &dyn std::fmt::Display| format!("{} does not parse: {error}", path.display());
        let stream: proc_macro2::TokenStream = text.parse().map_err(|error| fault(&error))?;
        let parsed = syn::parse2(stream.clone()).map_err(|error| fault(&error))?;
        let items = &mut self.items;
        Finder { file: &path, text: &text, modules, scope: Vec::new(), items }.visit_file(&parsed);
        let tokens = flat(stream, &text);
        self.files.insert(path, File { text, tokens });
        Ok(())
    }

    /// The new content of each file that the defect changes.
    pub fn edited(&self, defect: &Defect) -> Result<BTreeMap<PathBuf, String>, String> {
        let mut changes: BTreeMap<&Path, Vec<(Range<usize>, String)>> = BTreeMap::new();
        for edit in &defect.edits {
            let item = self.item(&edit.item)?;
            changes.entry(&item.file).or_default().push(self.change(edit, item)?);
        }
        let mut edited = BTreeMap::new();
        for (file, mut changes) in changes {
            changes.sort_by_key(|(bytes, _)| bytes.start);
            if changes.windows(2).any(|pair| pair[0].0.end > pair[1].0.start) {
                return Err(format!("two edits in {} overlap", file.display()));
            }
            let mut text = self.files[file].text.clone();
            for (bytes, new) in changes.into_iter().rev() {
                text.replace_range(bytes, &new);
            }
            if let Err(error) = syn::parse_file(&text) {
                let (line, reason) = (error.span().start().line, error);
                return Err(format!("{} does not parse after the edit: line {line}: {reason}", file.display()));
            }
            edited.insert(file.to_path_buf(), text);
        }
        Ok(edited)
    }

    /// The only item with this name.
    fn item(&self, wanted: &str) -> Result<&Item, String> {
        let found: Vec<&Item> = self.items.iter().filter(|item| item.is_named(wanted)).collect();
        match found.as_slice() {
            [item] => Ok(item),
            [] => {
                let last = |name: &str| name.rsplit("::").next().map(str::to_string);
                let similar = self.items.iter().filter(|item| last(&item.name) == last(wanted));
                Err(format!("no item is named {wanted}{}", self.list("; similar names: ", similar)))
            }
            _ => Err(format!("several items are named {wanted}{}", self.list(": ", found.into_iter()))),
        }
    }

    fn list<'a>(&self, title: &str, items: impl Iterator<Item = &'a Item>) -> String {
        let place = |item: &Item| {
            let line = self.files[&item.file].text[..item.bytes.start].matches('\n').count() + 1;
            format!("{} ({}:{line})", item.full_name(), item.file.display())
        };
        let places: Vec<String> = items.take(5).map(place).collect();
        if places.is_empty() { String::new() } else { format!("{title}{}", places.join(", ")) }
    }

    /// The bytes of the file that the edit replaces, and the text that takes their place.
    fn change(&self, edit: &Edit, item: &Item) -> Result<(Range<usize>, String), String> {
        let (old, new) = match &edit.change {
            Change::Replace { old, new } => (old, new),
            Change::Body(new) => {
                let body = item.body.clone().ok_or_else(|| format!("{} has no body", edit.item))?;
                return Ok((body, new.clone()));
            }
        };
        let file = &self.files[&item.file];
        let first = file.tokens.partition_point(|token| token.bytes.start < item.bytes.start);
        let end = file.tokens.partition_point(|token| token.bytes.end <= item.bytes.end);
        let wanted = pattern(old)?;
        if wanted.is_empty() {
            return Err(format!("an edit of {} replaces nothing", edit.item));
        }
        let (bytes, rests) = match matches(&file.tokens[first..end], &wanted).as_slice() {
            [place] => (place.bytes.clone(), place.rests.clone()),
            [] => return Err(format!("{} does not contain `{old}`", edit.item)),
            places => return Err(format!("{} contains `{old}` {} times", edit.item, places.len())),
        };
        let mut rests = rests.into_iter().map(|rest| &file.text[rest]);
        let mut parts = new.split(REST);
        let mut text = parts.next().unwrap_or_default().to_string();
        for part in parts {
            let rest = rests.next();
            text += rest.ok_or_else(|| format!("`{new}` has more `{REST}` than the text that it replaces"))?;
            text += part;
        }
        Ok((bytes, text))
    }
}

impl Item {
    fn full_name(&self) -> String {
        let mut parts = self.modules.clone();
        parts.push(self.name.clone());
        parts.join("::")
    }

    /// A name may leave out modules from the front, but not the type of a method.
    fn is_named(&self, wanted: &str) -> bool {
        let is_end =
            |all: &str, end: &str| all.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"));
        is_end(wanted, &self.name) && is_end(&self.full_name(), wanted)
    }
}

/// Collects the items of one file.
struct Finder<'a> {
    file: &'a Path,
    text: &'a str,
    modules: Vec<String>,
    /// The types, traits and functions around the present place. An `impl` of a trait has two names.
    scope: Vec<Vec<String>>,
    items: &'a mut Vec<Item>,
}

impl Finder<'_> {
    fn add(&mut self, name: &syn::Ident, bytes: Range<usize>, block: Option<&syn::Block>) {
        let body = block.map(|block| {
            let braces = block.brace_token.span;
            braces.open().byte_range().end..braces.close().byte_range().start
        });
        for scope in self.scopes() {
            self.push(format!("{scope}{name}"), bytes.clone(), body.clone());
        }
    }

    fn push(&mut self, name: String, bytes: Range<usize>, body: Option<Range<usize>>) {
        self.items.push(Item { file: self.file.into(), modules: self.modules.clone(), name, bytes, body });
    }

    /// Every spelling of the scope, each with a separator behind it.
    fn scopes(&self) -> Vec<String> {
        let mut all = vec![String::new()];
        for names in &self.scope {
            all = all.iter().flat_map(|front| names.iter().map(move |name| format!("{front}{name}::"))).collect();
        }
        all
    }

    fn within(&mut self, names: Vec<String>, visit: impl FnOnce(&mut Self)) {
        self.scope.push(names);
        visit(self);
        self.scope.pop();
    }

    /// The type's own name, without its path and parameters.
    fn type_name(&self, ty: &syn::Type) -> String {
        match ty {
            syn::Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
            _ => self.text.get(ty.span().byte_range()).map(str::to_string),
        }
        .unwrap_or_default()
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            self.modules.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.modules.pop();
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let ty = self.type_name(&item.self_ty);
        let mut names = vec![ty.clone()];
        if let Some((_, path, _)) = &item.trait_ {
            let of_trait =
                path.segments.last().map(|segment| format!("<{ty} as {}>", segment.ident)).unwrap_or_default();
            self.push(of_trait.clone(), item.span().byte_range(), None);
            names.push(of_trait);
        }
        self.within(names, |this| visit::visit_item_impl(this, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add(&item.ident, item.span().byte_range(), None);
        self.within(vec![item.ident.to_string()], |this| visit::visit_item_trait(this, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig.ident, item.span().byte_range(), Some(&item.block));
        self.within(vec![item.sig.ident.to_string()], |this| visit::visit_item_fn(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig.ident, item.span().byte_range(), Some(&item.block));
        self.within(vec![item.sig.ident.to_string()], |this| visit::visit_impl_item_fn(this, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.add(&item.sig.ident, item.span().byte_range(), item.default.as_ref());
        self.within(vec![item.sig.ident.to_string()], |this| visit::visit_trait_item_fn(this, item));
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.add(&item.ident, item.span().byte_range(), None);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.add(&item.ident, item.span().byte_range(), None);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.add(&item.ident, item.span().byte_range(), None);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add(&item.ident, item.span().byte_range(), None);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add(&item.ident, item.span().byte_range(), None);
    }
}

/// The Rust files below a folder, in the order of their paths.
pub fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The module that a file holds: `wal::queue` for `wal/queue.rs`, `wal` for `wal/mod.rs`.
pub fn modules(file: &Path) -> Vec<String> {
    let mut modules: Vec<String> =
        file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if modules.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        modules.pop();
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(files: &[(&str, &str)]) -> Source {
        let mut source = Source { files: BTreeMap::new(), items: Vec::new() };
        for (path, text) in files {
            source.add(path.into(), modules(Path::new(path)), text.to_string()).unwrap();
        }
        source
    }

    /// The only changed file after the edits, or the fault.
    fn edited(source: &Source, edits: &str) -> Result<String, String> {
        let defect = Defect::parse(&format!("It breaks.\ntests: --lib\n{edits}")).unwrap();
        source.edited(&defect).map(|files| files.into_values().next().unwrap())
    }

    const LOG: &str = "
impl<T> Log<T> {
    /// A comment.
    fn end(&self) -> u64 { self.start // of it
        + self.len }
}
impl Drop for Log<u8> { fn drop(&mut self) { self.stop(); } }
impl fmt::Debug for Log<u8> { fn fmt(&self) { one(1); one(2); } }
impl fmt::Display for Log<u8> { fn fmt(&self) {} }
const TABLE: [bool; 2] = [true, false];
mod tests { fn end() {} }
fn end() -> u64 { fn inner() -> u64 { 7 } inner() }
";

    #[test]
    fn an_item_is_found_by_its_name_whatever_its_file() {
        for path in ["log.rs", "wal/log/mod.rs"] {
            let source = source(&[(path, LOG), ("other.rs", "fn start() {}")]);
            let check = |edits: &str, old: &str, new: &str| {
                assert_eq!(edited(&source, edits), Ok(LOG.replacen(old, new, 1)), "{edits}");
            };
            check(
                "in: Log::end\nreplace: start + self.len\nwith: start",
                "start // of it\n        + self.len",
                "start",
            );
            check("in: Log::drop\nbody:", " self.stop(); ", "");
            check("in: <Log as Debug>::fmt\nreplace: (1)\nwith: (3)", "(1)", "(3)");
            check("in: <Log as Drop>\nreplace: stop\nwith: end", "stop", "end");
            check(
                "in: <Log as Debug>::fmt\nreplace: {one(…); …}\nwith: {two(…); …}",
                " one(1); one(2); ",
                "two(1);  one(2); ",
            );
            check("in: TABLE\nreplace: true\nwith: false", "true", "false");
            check("in: end::inner\nbody: 8", " 7 ", "8");
            check("in: log::end\nreplace: 7\nwith: 8", " 7 ", " 8 ");
        }
    }

    #[test]
    fn several_edits_apply_to_the_original_text() {
        let source = source(&[("log.rs", LOG)]);
        let both = "in: <Log as Debug>::fmt\nreplace: 1\nwith: 2\nreplace: 2\nwith: 1\n";
        assert_eq!(edited(&source, both), Ok(LOG.replace("one(1); one(2);", "one(2); one(1);")));
        let overlapping = "in: <Log as Debug>::fmt\nreplace: one(1); one\nwith: x\nreplace: one(2)\nwith: y\n";
        assert!(edited(&source, overlapping).unwrap_err().contains("overlap"));
    }

    #[test]
    fn what_does_not_resolve_is_named() {
        let source = source(&[("a/log.rs", LOG), ("b/queue.rs", "fn start() {}\nfn end() {}")]);
        for (edits, fault) in [
            ("in: Log::ends\nbody:", "no item is named Log::ends"),
            ("in: Queue::drop\nbody:", "no item is named Queue::drop; similar names: a::log::Log::drop (a/log.rs:7)"),
            ("in: drop\nbody:", "no item is named drop"),
            ("in: end\nbody:", "several items are named end: a::log::end (a/log.rs:12), b::queue::end (b/queue.rs:2)"),
            ("in: Log::fmt\nbody:", "several items are named Log::fmt"),
            ("in: TABLE\nbody:", "TABLE has no body"),
            ("in: Log::end\nreplace: self.end\nwith:", "Log::end does not contain `self.end`"),
            ("in: Log::end\nreplace: self\nwith:", "Log::end contains `self` 3 times"),
            ("in: Log::end\nreplace: // nothing\nwith: x", "replaces nothing"),
            ("in: end::inner\nreplace: {…}\nwith: {…} {…}", "has more `…`"),
            ("in: Log::end\nreplace: u64 {\nwith:", "balanced brackets"),
            ("in: Log::end\nreplace: u64\nwith:", "a/log.rs does not parse after the edit: line 4"),
        ] {
            let error = edited(&source, edits).unwrap_err();
            assert!(error.contains(fault), "{edits}: {error}");
        }
    }
}
