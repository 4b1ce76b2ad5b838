//! The prose of a file: comments and string literals of Rust, paragraphs of Markdown.

/// Connected text. Its lines are joined by single spaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passage {
    pub(super) text: String,
    /// Where each line of the file begins in `text`: offset and line number.
    starts: Vec<(usize, usize)>,
}

impl Passage {
    fn push(&mut self, number: usize, line: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.starts.push((self.text.len(), number));
        self.text.push_str(line.trim());
    }

    /// The file's line that has the text at an offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.iter().take_while(|(start, _)| *start <= offset).last().map_or(1, |(_, line)| *line)
    }
}

/// The passages of a file. Only Rust and Markdown have any.
pub(super) fn passages(path: &str, text: &str) -> Vec<Passage> {
    match path.rsplit_once('.') {
        Some((_, "rs")) => rust(text),
        Some((_, "md")) => markdown(text),
        _ => Vec::new(),
    }
}

/// Collects lines to passages, and leaves out code in backquotes and the targets of links.
#[derive(Default)]
struct Collector {
    found: Vec<Passage>,
    open: Passage,
}

impl Collector {
    fn push(&mut self, number: usize, line: &str) {
        self.open.push(number, line);
    }

    fn close(&mut self) {
        let mut passage = std::mem::take(&mut self.open);
        if !passage.text.is_empty() {
            mask(&mut passage.text);
            self.found.push(passage);
        }
    }
}

/// Replaces code in backquotes and the targets of links by x, one for each byte, so that offsets stay.
fn mask(text: &mut String) {
    let mut masked = String::with_capacity(text.len());
    let (mut is_code, mut is_target) = (false, false);
    for c in text.chars() {
        is_code ^= c == '`';
        is_target &= c != ')';
        let hidden = c != '`' && (is_code || is_target);
        masked
            .extend(std::iter::repeat_n(if hidden { 'x' } else { c }, if hidden { c.len_utf8() } else { 1 }));
        is_target |= !is_code && masked.ends_with("](");
    }
    *text = masked;
}

/// Paragraphs and list items. Code, tables and headings are no prose.
fn markdown(text: &str) -> Vec<Passage> {
    let mut all = Collector::default();
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let is_fence = trimmed.starts_with("```");
        is_code ^= is_fence;
        let is_free = is_code || is_fence || line.starts_with("    ");
        let is_other = trimmed.is_empty() || trimmed.starts_with(['|', '#', '<']);
        let item = trimmed.strip_prefix("- ").or_else(|| numbered(trimmed));
        if is_free || is_other || item.is_some() {
            all.close();
        }
        if !is_free && !is_other {
            all.push(index + 1, item.unwrap_or(trimmed));
        }
    }
    all.close();
    all.found
}

/// The text of a list item such as `1. text`.
fn numbered(line: &str) -> Option<&str> {
    let (number, text) = line.split_once(". ")?;
    (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit())).then_some(text)
}

/// Comments, with adjacent lines of one kind together, and string literals.
fn rust(text: &str) -> Vec<Passage> {
    let mut all = Collector::default();
    let mut strings = Vec::new();
    let (mut is_code, mut open) = (false, None);
    for (index, line) in text.lines().enumerate() {
        let (comment, found) = split(line, &mut open, index + 1);
        strings.extend(found);
        let words = comment.map(|comment| comment.trim_start_matches(['/', '!']).trim());
        if !line.trim_start().starts_with("//") {
            // A comment behind code is a passage of its own.
            all.close();
        }
        is_code ^= words.is_some_and(|words| words.starts_with("```"));
        match words {
            Some(words) if !words.is_empty() && !is_code && !words.starts_with(['|', '#', '`']) => {
                if words.starts_with("- ") || words.starts_with("* ") {
                    all.close();
                }
                all.push(index + 1, words);
            }
            _ => all.close(),
        }
    }
    all.close();
    all.found.extend(strings);
    all.found
}

/// A string literal that a line has opened: how it ends, and what it has so far.
struct Literal {
    end: String,
    passage: Passage,
}

/// The comment of a line of Rust, and the string literals that end in it. `open` is the literal that a line
/// before has opened.
fn split<'a>(line: &'a str, open: &mut Option<Literal>, number: usize) -> (Option<&'a str>, Vec<Passage>) {
    let mut found = Vec::new();
    let mut rest = line;
    loop {
        if let Some(mut literal) = open.take() {
            let Some(at) = end_of(rest, &literal.end) else {
                literal.passage.push(number, rest.trim_end_matches('\\'));
                *open = Some(literal);
                return (None, found);
            };
            literal.passage.push(number, &rest[..at]);
            rest = &rest[at + literal.end.len()..];
            mask(&mut literal.passage.text);
            found.push(literal.passage);
        }
        let Some(at) = rest.find(['"', '/', '\'']) else { return (None, found) };
        let (before, token) = (&rest[..at], &rest[at..]);
        if token.starts_with("//") {
            return (Some(token), found);
        }
        if token.starts_with('"') {
            let hashes = before.len() - before.trim_end_matches('#').len();
            let is_raw = before.trim_end_matches('#').ends_with('r');
            let end = if is_raw { format!("\"{}", "#".repeat(hashes)) } else { "\"".to_owned() };
            *open = Some(Literal { end, passage: Passage::default() });
        }
        // A character such as '"' opens no string.
        rest = ["'\"'", "'\\\"'", "'/'"].iter().find_map(|c| token.strip_prefix(c)).unwrap_or(&token[1..]);
    }
}

/// Where a literal ends, without regard to escaped quotes.
fn end_of(rest: &str, end: &str) -> Option<usize> {
    let is_escaped = |at: usize| rest[..at].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
    rest.match_indices(end).map(|(at, _)| at).find(|at| end.len() > 1 || !is_escaped(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text and first line of each passage.
    fn found(path: &str, text: &str) -> Vec<(String, usize)> {
        passages(path, text).into_iter().map(|found| (found.text.clone(), found.line(0))).collect()
    }

    fn expect(path: &str, text: &str, expected: &[(&str, usize)]) {
        let expected: Vec<(String, usize)> =
            expected.iter().map(|(text, line)| ((*text).to_owned(), *line)).collect();
        assert_eq!(found(path, text), expected);
    }

    #[test]
    fn comments_and_strings_are_prose() {
        let text = "//! One\n//! two.\n//!\n//! Three.\nlet a = \"x \\\" y\"; // Four.\nlet b = r#\"p \" q\"#;\nlet c = '\"';\nlet d = \"u \\\n  v\";\n";
        let expected =
            [("One two.", 1), ("Three.", 4), ("Four.", 5), ("x \\\" y", 5), ("p \" q", 6), ("u v", 8)];
        expect("a.rs", text, &expected);
    }

    #[test]
    fn code_and_tables_are_not() {
        let text = "# Head\nOne `code` two\nthree.\n- Item\n  more.\n\n    code\n```\ncode\n```\n| a |\n[to](x.md) it.\n";
        expect("a.md", text, &[("One `xxxx` two three.", 2), ("Item more.", 4), ("[to](xxxx) it.", 12)]);
        expect("a.json", text, &[]);
    }

    #[test]
    fn an_offset_has_its_line() {
        let passages = passages("a.md", "One\ntwo\n");
        assert_eq!([0, 3, 4].map(|offset| passages[0].line(offset)), [1, 1, 2]);
    }
}
