//! The reader of modules, on modules made for it.

use super::modules::{Modules, Target, tokens};
use super::{circles, names};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Modules from `path: text` pairs. Modules in files of their own are to be given too.
fn parsed(files: &[(&str, &str)]) -> Modules {
    let mut modules = Modules::default();
    for (path, text) in files {
        let file = format!("{}.rs", path.replace("::", "/"));
        modules.parse(names(path), Path::new(&file), text);
    }
    modules
}

fn imports(text: &str) -> BTreeMap<String, String> {
    let modules = parsed(&[("a", text)]);
    modules.0[&names("a")].imports.iter().map(|import| (import.name.clone(), import.path.join("::"))).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect()
}

fn items(modules: &Modules, at: &str) -> BTreeSet<String> {
    let targets = modules.targets(&names(at)).into_values();
    targets.filter_map(|target| if let Target::Item(of) = target { Some(of.join("::")) } else { None }).collect()
}

#[test]
fn comments_strings_and_lifetimes_hold_no_names() {
    let text = r####"
        // crate::a
        /* crate::b /* nested */ crate::c */
        let x = "crate::d \" crate::e"; let y = r#"crate::f " "#; let z = b'\''; let w = '"'; let v = '\u{1F600}';
        fn f<'a>(x: &'a str) {}
    "####;
    let found = tokens(text);
    assert!(!found.iter().any(|token| ["b", "c", "e", "f ", "crate"].contains(&token.as_str())), "{found:?}");
    assert!(found.ends_with(&["str", ")", "{", "}"].map(str::to_owned)));
}

#[test]
fn nested_braces_renamings_and_globs_are_read() {
    let found = imports("use crate::{b::{self, C, d::{E as F, G}}, h::*}; pub(crate) use i::J; fn k() { use l::M; }");
    let expected = [
        ("b", "crate::b"),
        ("C", "crate::b::C"),
        ("F", "crate::b::d::E"),
        ("G", "crate::b::d::G"),
        ("*", "crate::h"),
        ("J", "i::J"),
        ("M", "l::M"),
    ];
    assert_eq!(found, map(&expected));
}

#[test]
fn code_for_tests_is_left_out() {
    let text = "
        #[cfg(test)] use a::B;
        #[cfg(test)] #[path = \"x.rs\"] mod tests;
        #[cfg(all(not(any(loom, feature = \"x\")), test))] mod models { use a::C; }
        #[cfg(not(test))] use a::D;
        #[cfg(any(test, feature = \"x\"))] use a::E;
        struct F { #[cfg(test)] g: a::G<1>, h: u8 }
        fn i() { #[cfg(test)] a::j(1, 2)?; k::l(); }
        mod inline { use super::super::M; #[cfg(test)] mod tests { use a::N; } }
        mod other;
    ";
    let mut modules = Modules::default();
    let elsewhere = modules.parse(names("s::a"), Path::new("a.rs"), text);
    assert_eq!(elsewhere, [(names("other"), None)]);
    let module = &modules.0[&names("s::a")];
    assert_eq!(module.imports.iter().map(|import| &import.name).collect::<Vec<_>>(), ["D", "E"]);
    assert_eq!(module.paths, BTreeSet::from([names("k::l")]));
    assert_eq!(module.items, BTreeSet::from(["F", "i"].map(str::to_owned)));
    assert_eq!(modules.0.keys().collect::<Vec<_>>(), [&names("s::a"), &names("s::a::inline")]);
    assert_eq!(modules.0[&names("s::a::inline")].imports.len(), 1);
}

#[test]
fn paths_lead_to_the_module_that_defines_the_item() {
    let modules = parsed(&[
        ("s", "mod a; pub mod b; pub use a::{A, a}; pub use b::*;"),
        ("s::a", "mod deep; pub struct A; pub fn a() {} pub use deep::Deep; fn x() -> super::b::B { Deep }"),
        ("s::a::deep", "pub struct Deep; use super::super::b::B; use super::A;"),
        ("s::b", "pub struct B; use crate::{A, a}; fn x() -> a::Deep { self::B; std::fs::read() }"),
        ("tool", "use s::{A, B};"),
    ]);
    let resolve = |at: &str, path: &str| modules.resolve(&names(at), &names(path));
    let item = |path: &str| Target::Item(names(path));
    assert_eq!(resolve("s::b", "crate::A"), item("s::a"), "through a re-export");
    assert_eq!(resolve("s::b", "a::Deep"), item("s::a::deep"), "through an imported module and a re-export");
    assert_eq!(resolve("tool", "s::a"), item("s::a"), "a function with its module's name");
    assert_eq!(resolve("tool", "s::B::new"), item("s::b"), "through a glob, from another crate");
    assert_eq!(resolve("s::a::deep", "super::super::b"), Target::Module(names("s::b")));
    assert_eq!(resolve("s::b", "std::fs::read"), Target::Outside(names("std::fs::read"), names("s::b")));
    let all = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(items(&modules, "s"), all(&[]), "re-exports that are not used here");
    assert_eq!(items(&modules, "s::a"), all(&["s::a::deep", "s::b"]), "a re-export that is used here");
    assert_eq!(items(&modules, "s::a::deep"), all(&["s::a", "s::b"]));
    assert_eq!(items(&modules, "s::b"), all(&["s::a", "s::a::deep", "s::b"]));
    assert_eq!(items(&modules, "tool"), all(&["s::a", "s::b"]));
}

#[test]
fn circles_are_found_and_nothing_else() {
    let graph = |edges: &[(&'static str, &'static str)]| edges.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(circles(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])), Vec::<BTreeSet<_>>::new());
    let found = circles(&graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "f"), ("f", "e")]));
    assert_eq!(found, [BTreeSet::from(["a", "b", "c"]), BTreeSet::from(["e", "f"])]);
}
