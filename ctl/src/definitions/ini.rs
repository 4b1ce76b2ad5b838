//! The INI files of systemd and NetworkManager, with their drop-ins.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::files;

/// The values of a key in a section, in order.
pub(super) fn values<'a>(text: &'a str, section: &str, key: &str) -> Vec<&'a str> {
    let mut within = false;
    let mut values = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            within = name == section;
        } else if within
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            values.push(value.trim());
        }
    }
    values
}

/// The words of a list over all its lines. An empty value clears the list.
pub(super) fn words(text: &str, section: &str, key: &str) -> Vec<String> {
    let mut all = Vec::new();
    for value in values(text, section, key) {
        if value.is_empty() {
            all.clear();
        }
        // A leading `!` applies to each word.
        let (negation, rest) = value.strip_prefix('!').map_or(("", value), |rest| ("!", rest));
        let words = rest.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
        all.extend(words.map(|word| format!("{negation}{word}")));
    }
    all
}

/// The last value of a boolean key.
pub(super) fn boolean(text: &str, section: &str, key: &str) -> Option<bool> {
    match values(text, section, key).pop()?.to_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// The files of these directories by name. The first directory that has a name wins.
pub(super) fn by_name(folders: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for folder in folders {
        for name in files::names(folder)? {
            let path = folder.join(&name);
            found.entry(name).or_insert(path);
        }
    }
    Ok(found)
}

/// The text of a file and of its drop-ins; none if the file is masked: empty, or a link to `/dev/null`.
pub(super) fn with_drop_ins(path: &Path, drop_ins: &[PathBuf]) -> Result<Option<String>> {
    let Some(mut text) = text(path)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    for (_, path) in by_name(drop_ins)?.into_iter().filter(|(name, _)| name.ends_with(".conf")) {
        text += "\n";
        text += &self::text(&path)?.unwrap_or_default();
    }
    Ok(Some(text))
}

/// The text without comments, and with continued lines joined. None without a file.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(path.exists().then(String::new));
    }
    let Some(content) = files::read(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&content).replace("\\\n", " ");
    let is_setting = |line: &&str| !line.trim_start().starts_with(['#', ';']);
    Ok(Some(text.lines().filter(is_setting).collect::<Vec<_>>().join("\n")))
}

/// NAME.d in each of these directories.
pub(super) fn drop_in_folders(folders: &[&str], name: &str) -> Vec<PathBuf> {
    folders.iter().map(|folder| Path::new(folder).join(format!("{name}.d"))).collect()
}

/// The name of a file, as text.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}
