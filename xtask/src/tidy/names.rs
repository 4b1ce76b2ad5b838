//! Names of types: one name means one thing in all crates of the product, so that a name can be searched for.

use super::Finding;
use super::source::{is_product, is_test_file};
use std::collections::BTreeMap;

/// Files and types that may share their name, as all other files write it with its module.
const QUALIFIED: [(&str, &str); 2] = [
    // `link::Change` is a change of a link. Change alone is one of nftables' transaction.
    ("kernel/src/link.rs", "Change"),
    // `fdb::Kind` is the kind of an entry. Kind alone is that of a link.
    ("kernel/src/fdb.rs", "Kind"),
];

/// A type's definition.
struct Definition {
    path: String,
    line: usize,
}

/// The types of the files that were looked at, by name.
#[derive(Default)]
pub(super) struct Types(BTreeMap<String, Vec<Definition>>);

impl Types {
    /// Looks at one file. Only types of a file's own module count, which begin a line. Those of a test module
    /// are indented.
    pub(super) fn add(&mut self, path: &str, text: &str) {
        if !is_product(path) || is_test_file(path) {
            return;
        }
        for (index, name) in text.lines().map(defined).enumerate() {
            let Some(name) = name else { continue };
            if !QUALIFIED.contains(&(path, name)) {
                let definition = Definition { path: path.to_owned(), line: index + 1 };
                self.0.entry(name.to_owned()).or_default().push(definition);
            }
        }
    }

    /// Each further type of a name.
    pub(super) fn check(self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, definitions) in self.0 {
            let Some((first, others)) = definitions.split_first() else { continue };
            findings.extend(others.iter().map(|other| Finding {
                path: other.path.clone(),
                line: other.line,
                message: format!(
                    "{name} is a type in {}:{} already: name this one differently",
                    first.path, first.line
                ),
            }));
        }
        findings
    }
}

/// The name of the type that a line defines.
fn defined(line: &str) -> Option<&str> {
    let visible = line.strip_prefix("pub").unwrap_or(line);
    let visible =
        visible.strip_prefix('(').and_then(|scope| Some(scope.split_once(')')?.1)).unwrap_or(visible);
    let mut words = visible.strip_prefix(' ').unwrap_or(visible).split(' ');
    let is_type = ["struct", "enum", "trait", "type", "union"].contains(&words.next()?);
    let name = words.next().filter(|_| is_type)?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&str; 0] = [];

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut types = Types::default();
        files.iter().for_each(|(path, text)| types.add(path, text));
        types.check().into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_name_is_of_one_type_in_all_crates() {
        let one = ("conf/src/guard.rs", "/// A guard.\npub struct Guard {\n");
        let twice = ["Guard is a type in conf/src/guard.rs:2 already: name this one differently"];
        for other in [
            "struct Guard;",
            "pub(super) enum Guard {",
            "pub(in crate::a) union Guard {",
            "trait Guard<T> {",
            "type Guard = u8;",
        ] {
            assert_eq!(found(&[one, ("ctl/src/a.rs", other)]), twice, "{other}");
            assert_eq!(found(&[one, ("xtask/src/a.rs", other)]), NONE);
            assert_eq!(found(&[one, ("ctl/src/a/tests.rs", other)]), NONE);
        }
        for other in
            ["struct Guards;", "use Guard;", "impl Guard {", "    type Guard = u8;", "// struct Guard"]
        {
            assert_eq!(found(&[one, ("ctl/src/a.rs", other)]), NONE, "{other}");
        }
    }

    #[test]
    fn a_name_that_is_always_qualified_may_be_shared() {
        let kind = "pub enum Kind {";
        assert_eq!(found(&[("kernel/src/fdb.rs", kind), ("kernel/src/link/model.rs", kind)]), NONE);
        assert_eq!(
            found(&[("kernel/src/fdb.rs", kind), ("ctl/src/a.rs", kind), ("ipam/src/a.rs", kind)]).len(),
            1
        );
    }
}
