//! Rules about any text: links, examples, and nothing that is true of one machine only.

use super::Finding;
use serde_json::Value;
use std::path::Path;

/// The length from which a file should be split.
const LONG: usize = 400;

/// The widest comment and line of a document, in characters, so that they fit beside another window.
const WIDEST_COMMENT: usize = 110;
const WIDEST_LINE: usize = 120;

/// How the names of package registries and mirrors begin, and their domains. No file names one, because the
/// machine's settings choose the registry.
const REGISTRIES: [&str; 10] =
    ["archive", "crates", "deb", "files", "index", "mirror", "npm", "proxy", "pypi", "registry"];
const DOMAINS: [&str; 4] = ["com", "io", "net", "org"];

/// Folders that only exist on one machine.
const HOMES: [&str; 2] = ["/home/", "/Users/"];

/// Applies every rule to a file. `own_root` is this clone's folder, which no file may name.
pub(super) fn check(root: &Path, path: &str, text: &str, own_root: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, message: String| {
        findings.push(Finding { path: path.to_owned(), line, message });
    };
    if path.starts_with("examples/")
        && path.ends_with(".conflist")
        && let Err(error) = serde_json::from_str::<Value>(text)
    {
        find(error.line(), format!("no valid JSON: {error}"));
    }
    for (line, message) in too_wide(path, text) {
        find(line, message);
    }
    for (index, line) in text.lines().enumerate() {
        if path.ends_with(".md") {
            for target in links(line).filter(|target| !resolves(root, path, target)) {
                find(index + 1, format!("the link to {target} leads nowhere"));
            }
        }
        // cargo writes its lock file, and the rules' own examples are here.
        if path != "Cargo.lock" && !path.starts_with("xtask/src/tidy/") {
            if let Some(host) = registry(line) {
                find(index + 1, format!("{host}: the machine says which registry it uses"));
            }
            if let Some(home) = HOMES.iter().chain([&own_root]).find(|home| line.contains(**home)) {
                find(index + 1, format!("{home}: a path of one machine"));
            }
        }
    }
    findings
}

/// Comments of Rust and paragraphs of documents that are too wide. Tables and code may have any width.
fn too_wide(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut is_code = false;
    let judge = |(index, line): (usize, &str)| {
        let width = line.chars().count();
        let trimmed = line.trim_start();
        let widest = if path.ends_with(".rs") && trimmed.starts_with("//") {
            WIDEST_COMMENT
        } else if path.ends_with(".md") {
            is_code ^= trimmed.starts_with("```");
            let is_free = is_code || line.starts_with("    ") || trimmed.starts_with('|');
            if is_free { usize::MAX } else { WIDEST_LINE }
        } else {
            usize::MAX
        };
        (width > widest).then(|| (index + 1, format!("{width} characters: {widest} at most")))
    };
    text.lines().enumerate().filter_map(judge).collect()
}

/// A warning about a long file, which is not a breach.
pub(super) fn length(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (path.ends_with(".rs") && lines > LONG).then(|| format!("{lines} lines; should it be split?"))
}

/// The first word of a line that looks like the host of a registry.
fn registry(line: &str) -> Option<&str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).find(|word| {
        let word = word.trim_end_matches('.');
        word.split_once('.').is_some_and(|(first, rest)| {
            REGISTRIES.contains(&first)
                && rest.rsplit('.').next().is_some_and(|domain| DOMAINS.contains(&domain))
        })
    })
}

/// The targets of a line's links, `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Whether a link leads out of the repository, within its page, or to a file that is there.
fn resolves(root: &Path, page: &str, target: &str) -> bool {
    let file = target.split(['#', ' ']).next().unwrap_or_default();
    let elsewhere = target.contains("://") || target.starts_with("mailto:");
    let folder = root.join(page).parent().map(Path::to_path_buf).unwrap_or_default();
    elsewhere || file.is_empty() || folder.join(file).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    /// The lines at which a file breaks a rule, in this workspace.
    fn lines(path: &str, text: &str) -> Vec<usize> {
        let root = crate::workspace::root();
        check(&root, path, text, "/srv/clone").iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn comments_and_paragraphs_have_a_widest_line() {
        let lines = |path: &str, text: &str| -> Vec<usize> {
            too_wide(path, text).into_iter().map(|(line, _)| line).collect()
        };
        let (comment, paragraph) = (format!("// {}", "x".repeat(108)), "x".repeat(121));
        assert_eq!(lines("a.rs", &format!("// short\n{comment}\nlet s = \"{paragraph}\";")), [2]);
        let text =
            format!("{paragraph}\n```\n{paragraph}\n```\n| {paragraph} |\n    {paragraph}\n{paragraph}");
        assert_eq!(lines("a.md", &text), [1, 7]);
        assert!(lines("a.json", &paragraph).is_empty());
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "[a](Cargo.toml) [b](nowhere.md)\n[c](https://example.org/x) [d](#part) [e](xtask#part)\n";
        assert_eq!(lines("README.md", text), [1]);
        assert_eq!(lines("xtask/README.md", "[up](../Cargo.toml)\n[wrong](Cargo.lock)"), [2]);
    }

    #[test]
    fn examples_are_json() {
        assert_eq!(lines("examples/a.conflist", "{\n\"a\": 1,\n}"), [3]);
        assert_eq!(lines("examples/a.conflist", "{\"a\": 1}"), NONE);
    }

    #[test]
    fn nothing_is_told_of_one_machine() {
        assert_eq!(lines("a.sh", "curl https://deb.example.org/x\nfiles.push(x)\ncrates.io.\n"), [1, 3]);
        assert_eq!(lines("a.sh", "cd /home/me\ncd /srv/clone/x\ncd /srv/other\n"), [1, 2]);
    }

    #[test]
    fn long_files_are_asked_about() {
        assert!(length("a.rs", &"x\n".repeat(LONG + 1)).is_some());
        assert!(length("a.rs", &"x\n".repeat(LONG)).is_none());
        assert!(length("a.md", &"x\n".repeat(LONG + 1)).is_none());
    }
}
