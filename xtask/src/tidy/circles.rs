//! Files of a crate that import each other in a circle, so that none of them can be read first. Imports
//! between a module and its own submodules do not count.

use super::Finding;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::visit::Visit;
use syn::{Attribute, ItemMod, ItemUse, UseTree};

/// The crates to check.
const CRATES: [&str; 8] = ["conf", "skel", "kernel", "pool", "ipam", "cni-plugin", "ctl", "xtask"];

/// A module's path from the root of its crate; the root's is empty.
type Module = Vec<String>;

/// Looks at every crate.
pub(super) fn check(root: &Path, paths: &[&str]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for krate in CRATES {
        let source = format!("{krate}/src/");
        let mut files = BTreeMap::new();
        for path in paths.iter().filter(|path| path.starts_with(&source) && path.ends_with(".rs")) {
            let text =
                std::fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))?;
            files.insert(module_of(&path[source.len()..]), ((*path).to_owned(), text));
        }
        findings.extend(circles(&files)?);
    }
    Ok(findings)
}

/// `a/b.rs` and `a/b/mod.rs` are module a::b.
fn module_of(file: &str) -> Module {
    let parts: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    let is_root = |part: &&str| ["lib", "main", "mod"].contains(part);
    let end = parts.len() - usize::from(parts.last().is_some_and(is_root));
    parts[..end].iter().map(|part| (*part).to_owned()).collect()
}

fn circles(files: &BTreeMap<Module, (String, String)>) -> Result<Vec<Finding>> {
    let mut uses: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for (module, (path, text)) in files {
        let file = syn::parse_file(text).with_context(|| format!("cannot parse {path}"))?;
        let mut names = Names { module, paths: Vec::new() };
        names.visit_file(&file);
        let used = names.paths.iter().filter_map(|path| file_of(files, path));
        uses.insert(
            module,
            used.filter(|used| !is_inside(used, module) && !is_inside(module, used)).collect(),
        );
    }
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        uses.keys().map(|module| (*module, reachable(&uses, module))).collect();
    let in_circle = |module: &&Module| reached[*module].contains(*module);
    let mut findings = Vec::new();
    let mut told: BTreeSet<&Module> = BTreeSet::new();
    for module in uses.keys().copied().filter(in_circle) {
        if told.contains(module) {
            continue;
        }
        let circle: Vec<&Module> =
            reached[module].iter().copied().filter(|other| reached[*other].contains(module)).collect();
        told.extend(&circle);
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        let message = format!("these files import each other in a circle: {}", names.join(", "));
        findings.push(Finding { path: files[module].0.clone(), line: 1, message });
    }
    Ok(findings)
}

/// The file of the longest module that a path names.
fn file_of<'a>(files: &'a BTreeMap<Module, (String, String)>, path: &[String]) -> Option<&'a Module> {
    (0..=path.len()).rev().find_map(|end| files.get_key_value(&path[..end]).map(|(module, _)| module))
}

fn is_inside(inner: &Module, outer: &Module) -> bool {
    inner.starts_with(outer)
}

fn reachable<'a>(uses: &BTreeMap<&'a Module, BTreeSet<&'a Module>>, from: &Module) -> BTreeSet<&'a Module> {
    let (mut seen, mut next) = (BTreeSet::new(), Vec::from_iter(&uses[from]));
    while let Some(module) = next.pop() {
        if seen.insert(*module) {
            next.extend(&uses[*module]);
        }
    }
    seen
}

/// The paths within the crate that a file names.
struct Names<'a> {
    module: &'a Module,
    paths: Vec<Vec<String>>,
}

impl Names<'_> {
    /// Notes a path that begins with `crate`, `self` or `super`.
    fn note(&mut self, path: &[String]) {
        let mut absolute = match path.first().map(String::as_str) {
            Some("crate") => Module::new(),
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        for part in path {
            match part.as_str() {
                "crate" | "self" => {}
                "super" => drop(absolute.pop()),
                other => absolute.push(other.to_owned()),
            }
        }
        self.paths.push(absolute);
    }

    fn note_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |last: &syn::Ident| [before, &[last.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.note_tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.note(&with(&name.ident)),
            UseTree::Rename(rename) => self.note(&with(&rename.ident)),
            UseTree::Glob(_) => self.note(before),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.note_tree(&[], &item.tree);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(&parts);
        syn::visit::visit_path(self, path);
    }
}

/// `#[cfg(test)]`
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|(path, text)| (module_of(path), ((*path).into(), (*text).into())));
        circles(&files.collect()).unwrap().into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_circle_is_found_by_imports_and_by_paths() {
        let there = "pub mod a;\npub mod b;\npub mod c;\n";
        let of = |a, b, c| found(&[("lib.rs", there), ("a.rs", a), ("b/mod.rs", b), ("c.rs", c)]);
        assert_eq!(of("use crate::b::B;", "use super::c;", "fn c() { crate::a::f() }").len(), 1);
        let two = of("use crate::{b::{self, B}, c::*};", "fn b() -> crate::a::A {}", "");
        assert_eq!(two, ["these files import each other in a circle: a, b"]);
        assert_eq!(of("use crate::b::B;", "use super::c;", "use std::a;"), Vec::<String>::new());
        let tested = "#[cfg(test)]\nmod tests {\n use crate::a;\n}\n#[cfg(test)]\nuse crate::a;";
        assert_eq!(of("use crate::b::B;", tested, ""), Vec::<String>::new());
    }

    #[test]
    fn a_module_and_its_parts_are_one_thing() {
        let inner = "use super::A;";
        assert_eq!(found(&[("a.rs", "mod b;\nuse b::B;"), ("a/b.rs", inner)]), Vec::<String>::new());
        // Imports between the parts and other files do count.
        let apart = [("a.rs", "mod b;"), ("a/b.rs", "use crate::c;"), ("c.rs", "use crate::a::b;")];
        assert_eq!(found(&apart), ["these files import each other in a circle: a::b, c"]);
    }
}
