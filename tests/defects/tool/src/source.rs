//! The functions of the source tree, found by name, and the edits to them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::defect::{Change, Defect, Edit};
use crate::tokens::{REST, Token, flat, matches, pattern};

/// The files of the tree, and the functions in them.
pub struct Source {
    files: BTreeMap<PathBuf, File>,
    functions: Vec<Function>,
}

struct File {
    text: String,
    tokens: Vec<Token>,
}

/// A function that a defect can name.
struct Function {
    file: PathBuf,
    modules: Vec<String>,
    /// Without modules: `publish`, `Queue::in_block`, `<Queue as Drop>::drop`.
    name: String,
    /// Between its braces.
    body: Range<usize>,
    /// Whether the body may become an `if` of several bodies.
    may_branch: bool,
}

/// A function body that a defect changes.
pub struct Body<'a> {
    file: &'a Path,
    bytes: Range<usize>,
    text: String,
}

/// Changes to a part of a file: the bytes that each replaces, and the text that takes their place.
type Changes = Vec<(Range<usize>, String)>;

impl Source {
    /// Reads `src` without the modules of tests.
    pub fn read(tree: &Path) -> Result<Source, String> {
        let mut source = Source { files: BTreeMap::new(), functions: Vec::new() };
        let root = tree.join("src");
        for path in rust_files(&root)? {
            let modules = modules(path.strip_prefix(&root).unwrap_or(&path));
            if !modules.iter().any(|name| name == "tests" || name.ends_with("_tests")) {
                let text =
                    std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
                source.add(path.strip_prefix(tree).unwrap_or(&path).to_path_buf(), modules, text)?;
            }
        }
        Ok(source)
    }

    /// Parses one file and adds its functions.
    fn add(&mut self, path: PathBuf, modules: Vec<String>, text: String) -> Result<(), String> {
        let fault = |error: &dyn std::fmt::Display| format!("{} does not parse: {error}", path.display());
        let stream: proc_macro2::TokenStream = text.parse().map_err(|error| fault(&error))?;
        let parsed = syn::parse2(stream.clone()).map_err(|error| fault(&error))?;
        let functions = &mut self.functions;
        Finder { file: &path, text: &text, modules, scope: Vec::new(), functions }.visit_file(&parsed);
        let tokens = flat(stream, &text);
        self.files.insert(path, File { text, tokens });
        Ok(())
    }

    /// The new content of each file that one of the defects changes. Each function that they change
    /// holds all of its bodies, and asks `crate::defect::is_active` which of them to run.
    pub fn combined(&self, defects: &[(String, Defect)]) -> Result<BTreeMap<PathBuf, String>, String> {
        let mut functions: BTreeMap<&Path, BTreeMap<(usize, usize), String>> = BTreeMap::new();
        for (name, defect) in defects {
            for Body { file, bytes, text } in self.bodies(defect).map_err(|fault| format!("{name}: {fault}"))? {
                let branches = functions.entry(file).or_default().entry((bytes.start, bytes.end)).or_default();
                *branches += &format!("if crate::defect::is_active({name:?}) {{{text}\n}} else ");
            }
        }
        let combined = functions.into_iter().map(|(file, functions)| {
            let old = &self.files[file].text;
            let whole = functions
                .into_iter()
                .map(|((start, end), branches)| (start..end, format!("\n{branches}{{{}\n}}\n", &old[start..end])));
            (file.to_path_buf(), replaced(old, 0..old.len(), whole.collect()))
        });
        Ok(combined.collect())
    }

    /// Each function body that the defect changes, with its new text.
    pub fn bodies(&self, defect: &Defect) -> Result<Vec<Body<'_>>, String> {
        let mut functions: BTreeMap<(&Path, usize, usize), Changes> = BTreeMap::new();
        for edit in &defect.edits {
            let function = self.function(&edit.function)?;
            let outermost = self.outermost(function).ok_or_else(|| {
                format!("{} cannot hold several bodies, because it is `const` or returns `impl`", edit.function)
            })?;
            let body = (outermost.file.as_path(), outermost.body.start, outermost.body.end);
            functions.entry(body).or_default().push(self.change(edit, function)?);
        }
        let mut bodies = Vec::new();
        for ((file, start, end), mut changes) in functions {
            changes.sort_by_key(|(bytes, _)| bytes.start);
            if changes.windows(2).any(|pair| pair[0].0.end > pair[1].0.start) {
                return Err(format!("two edits in {} overlap", file.display()));
            }
            let text = replaced(&self.files[file].text, start..end, changes);
            if let Err(error) = syn::parse_str::<syn::Block>(&format!("{{{text}\n}}")) {
                let line = self.line(file, start) + error.span().start().line - 1;
                return Err(format!("{} does not parse after the edit: line {line}: {error}", file.display()));
            }
            bodies.push(Body { file, bytes: start..end, text });
        }
        Ok(bodies)
    }

    /// The outermost function around this one, or itself, whose body may become an `if`.
    fn outermost(&self, inner: &Function) -> Option<&Function> {
        let is_around = |outer: &Function| {
            outer.file == inner.file && outer.body.start <= inner.body.start && inner.body.end <= outer.body.end
        };
        let around = self.functions.iter().filter(|function| function.may_branch && is_around(function));
        around.min_by_key(|function| function.body.start)
    }

    fn line(&self, file: &Path, offset: usize) -> usize {
        self.files[file].text[..offset].matches('\n').count() + 1
    }

    /// The only function with this name.
    fn function(&self, wanted: &str) -> Result<&Function, String> {
        let found: Vec<&Function> = self.functions.iter().filter(|function| function.is_named(wanted)).collect();
        match found.as_slice() {
            [function] => Ok(function),
            [] => {
                let last = |name: &str| name.rsplit("::").next().map(str::to_string);
                let similar = self.functions.iter().filter(|function| last(&function.name) == last(wanted));
                Err(format!("no function is named {wanted}{}", self.list("; similar names: ", similar)))
            }
            _ => Err(format!("several functions are named {wanted}{}", self.list(": ", found.into_iter()))),
        }
    }

    fn list<'a>(&self, title: &str, functions: impl Iterator<Item = &'a Function>) -> String {
        let place = |function: &Function| {
            let line = self.line(&function.file, function.body.start);
            format!("{} ({}:{line})", function.full_name(), function.file.display())
        };
        let places: Vec<String> = functions.take(5).map(place).collect();
        if places.is_empty() { String::new() } else { format!("{title}{}", places.join(", ")) }
    }

    /// The bytes of the file that the edit replaces, and the text that takes their place.
    fn change(&self, edit: &Edit, function: &Function) -> Result<(Range<usize>, String), String> {
        let (old, new) = match &edit.change {
            Change::Replace { old, new } => (old, new),
            Change::Body(new) => return Ok((function.body.clone(), new.clone())),
        };
        let file = &self.files[&function.file];
        let first = file.tokens.partition_point(|token| token.bytes.start < function.body.start);
        let end = file.tokens.partition_point(|token| token.bytes.end <= function.body.end);
        let wanted = pattern(old)?;
        if wanted.is_empty() {
            return Err(format!("an edit of {} replaces nothing", edit.function));
        }
        let (bytes, rests) = match matches(&file.tokens[first..end], &wanted).as_slice() {
            [place] => (place.bytes.clone(), place.rests.clone()),
            [] => return Err(format!("{} does not contain `{old}`", edit.function)),
            places => return Err(format!("{} contains `{old}` {} times", edit.function, places.len())),
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

/// This part of the text after the changes, which are in order.
fn replaced(text: &str, part: Range<usize>, changes: Changes) -> String {
    let (mut new, mut from) = (String::new(), part.start);
    for (bytes, replacement) in changes {
        new += &text[from..bytes.start];
        new += &replacement;
        from = bytes.end;
    }
    new + &text[from..part.end]
}

impl Function {
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

/// Whether each branch of an `if` may hold a body of this function: not in a `const fn`, and not
/// where each body would have an `impl` type of its own.
fn may_branch(signature: &syn::Signature) -> bool {
    struct Opaque(bool);
    impl Visit<'_> for Opaque {
        fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut opaque = Opaque(false);
    opaque.visit_return_type(&signature.output);
    signature.constness.is_none() && !opaque.0
}

/// Collects the functions of one file.
struct Finder<'a> {
    file: &'a Path,
    text: &'a str,
    modules: Vec<String>,
    /// The types, traits and functions around the present place. An `impl` of a trait has two
    /// names.
    scope: Vec<Vec<String>>,
    functions: &'a mut Vec<Function>,
}

impl Finder<'_> {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let braces = block.brace_token.span;
        for scope in self.scopes() {
            self.functions.push(Function {
                file: self.file.into(),
                modules: self.modules.clone(),
                name: format!("{scope}{}", signature.ident),
                body: braces.open().byte_range().end..braces.close().byte_range().start,
                may_branch: may_branch(signature),
            });
        }
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
            names.push(of_trait);
        }
        self.within(names, |this| visit::visit_item_impl(this, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.within(vec![item.ident.to_string()], |this| visit::visit_item_trait(this, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        self.within(vec![item.sig.ident.to_string()], |this| visit::visit_item_fn(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        self.within(vec![item.sig.ident.to_string()], |this| visit::visit_impl_item_fn(this, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        self.within(vec![item.sig.ident.to_string()], |this| visit::visit_trait_item_fn(this, item));
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
        let mut source = Source { files: BTreeMap::new(), functions: Vec::new() };
        for (path, text) in files {
            source.add(path.into(), modules(Path::new(path)), text.to_string()).unwrap();
        }
        source
    }

    fn defect(edits: &str) -> Defect {
        Defect::parse(&format!("It breaks.\ntests: --lib\n{edits}")).unwrap()
    }

    /// The file after the edits, or the fault.
    fn edited(source: &Source, edits: &str) -> Result<String, String> {
        let bodies = source.bodies(&defect(edits))?;
        let text = &source.files[bodies[0].file].text;
        let changes = bodies.into_iter().map(|body| (body.bytes, body.text)).collect();
        Ok(replaced(text, 0..text.len(), changes))
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
const fn zero() -> u64 { 0 }
fn all() -> impl Iterator<Item = u8> { 0..9 }
mod tests { fn end() {} }
fn end() -> u64 { fn inner() -> u64 { 7 } inner() }
";

    #[test]
    fn a_function_is_found_by_its_name_whatever_its_file() {
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
            check("in: <Log as Drop>::drop\nreplace: stop\nwith: end", "stop", "end");
            check("in: <Log as Debug>::fmt\nreplace: (1); one(…)\nwith: (…)", "(1); one(2)", "(2)");
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
    fn a_function_holds_its_body_of_each_defect_and_the_original() {
        let source = source(&[("log.rs", LOG), ("other.rs", "fn start() {}")]);
        let defects = [
            ("1-a", "in: Log::drop\nbody: // nothing\nin: end::inner\nreplace: 7\nwith: 8"),
            ("2-b", "in: <Log as Drop>::drop\nreplace: stop\nwith: end"),
        ];
        let combined = source.combined(&defects.map(|(name, edits)| (name.into(), defect(edits)))).unwrap();
        let drop = "\nif crate::defect::is_active(\"1-a\") {// nothing\n} \
            else if crate::defect::is_active(\"2-b\") { self.end(); \n} else { self.stop(); \n}\n";
        let end = "\nif crate::defect::is_active(\"1-a\") { fn inner() -> u64 { 8 } inner() \n} \
            else { fn inner() -> u64 { 7 } inner() \n}\n";
        let text = LOG.replace(" self.stop(); ", drop).replace(" fn inner() -> u64 { 7 } inner() ", end);
        assert_eq!(combined, BTreeMap::from([("log.rs".into(), text)]));
        syn::parse_file(&combined[Path::new("log.rs")]).unwrap();
    }

    #[test]
    fn what_does_not_resolve_is_named() {
        let source = source(&[("a/log.rs", LOG), ("b/queue.rs", "fn start() {}\nfn end() {}")]);
        for (edits, fault) in [
            ("in: Log::ends\nbody:", "no function is named Log::ends"),
            (
                "in: Queue::drop\nbody:",
                "no function is named Queue::drop; similar names: a::log::Log::drop (a/log.rs:7)",
            ),
            ("in: drop\nbody:", "no function is named drop"),
            (
                "in: end\nbody:",
                "several functions are named end: a::log::end (a/log.rs:13), b::queue::end (b/queue.rs:2)",
            ),
            ("in: Log::fmt\nbody:", "several functions are named Log::fmt"),
            ("in: zero\nbody: 1", "zero cannot hold several bodies"),
            ("in: all\nbody: 1..9", "all cannot hold several bodies"),
            ("in: Log::end\nreplace: self.end\nwith:", "Log::end does not contain `self.end`"),
            ("in: Log::end\nreplace: self\nwith:", "Log::end contains `self` 2 times"),
            ("in: Log::end\nreplace: // nothing\nwith: x", "replaces nothing"),
            ("in: Log::drop\nreplace: stop(…)\nwith: stop(…)(…)", "has more `…`"),
            ("in: Log::end\nreplace: u64 {\nwith:", "balanced brackets"),
            ("in: Log::end\nreplace: u64\nwith: u8", "Log::end does not contain `u64`"),
            ("in: Log::end\nreplace: len\nwith:", "a/log.rs does not parse after the edit: line 6"),
            ("in: Log::end\nbody: 1 } fn other() { 2", "a/log.rs does not parse after the edit: line 4"),
        ] {
            let error = edited(&source, edits).unwrap_err();
            assert!(error.contains(fault), "{edits}: {error}");
        }
    }
}
