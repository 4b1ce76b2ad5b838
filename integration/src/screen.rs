//! What a terminal shows after the bytes of a program (console_codes(4)): as much of it as our screen uses.

use std::fmt::Write;

/// The colour and weight of a letter, as parameters of SGR.
type Look = String;

/// A terminal's letters.
#[derive(Debug, Clone)]
pub struct TerminalScreen {
    cells: Vec<Vec<(char, Look)>>,
    column: usize,
    line: usize,
    look: Look,
    /// The private modes that are on, such as 1049 for the other screen.
    modes: Vec<String>,
}

impl TerminalScreen {
    /// The screen after these bytes.
    pub fn after(bytes: &[u8], columns: usize, lines: usize) -> TerminalScreen {
        let blank = vec![(' ', Look::new()); columns];
        let mut screen = TerminalScreen {
            cells: vec![blank; lines],
            column: 0,
            line: 0,
            look: Look::new(),
            modes: Vec::new(),
        };
        let text = String::from_utf8_lossy(bytes);
        let mut rest = text.as_ref();
        while let Some(char) = rest.chars().next() {
            rest = &rest[char.len_utf8()..];
            match char {
                '\x1b' => rest = screen.escape(rest),
                '\r' => screen.column = 0,
                '\n' => screen.line = (screen.line + 1).min(lines - 1),
                char => screen.put(char),
            }
        }
        screen
    }

    /// Its lines, without spaces at their ends.
    pub fn lines(&self) -> Vec<String> {
        let text = |cells: &Vec<(char, Look)>| cells.iter().map(|(char, _)| char).collect::<String>();
        self.cells.iter().map(|cells| text(cells).trim_end().to_owned()).collect()
    }

    /// Whether a letter has a colour.
    pub fn has_colour(&self) -> bool {
        self.cells.iter().flatten().any(|(_, look)| !look.is_empty())
    }

    /// Whether the program shows another screen than the one before it.
    pub fn is_other(&self) -> bool {
        self.modes.iter().any(|mode| mode == "1049")
    }

    fn put(&mut self, char: char) {
        if let Some(cell) = self.cells[self.line].get_mut(self.column) {
            *cell = (char, self.look.clone());
        }
        self.column += 1;
    }

    /// Obeys a control sequence, and returns what follows it. Panics at anything that we do not write.
    fn escape<'a>(&mut self, rest: &'a str) -> &'a str {
        let body = rest.strip_prefix('[').unwrap_or_else(|| panic!("an unknown sequence: {rest:?}"));
        let end = body.find(|char: char| char.is_ascii_alphabetic());
        // The end of the bytes so far.
        let Some(end) = end else { return "" };
        let (parameters, after) = (&body[..end], &body[end + 1..]);
        let blank = (' ', Look::new());
        match &body[end..=end] {
            "H" => {
                // A position outside is the nearest one inside, for example right after a resize.
                let mut numbers = parameters.split(';').map(|number| number.parse().unwrap_or(1));
                let line: usize = numbers.next().unwrap_or(1);
                let column: usize = numbers.next().unwrap_or(1);
                self.line = (line - 1).min(self.cells.len() - 1);
                self.column = (column - 1).min(self.cells[0].len() - 1);
            }
            "K" => self.cells[self.line].iter_mut().skip(self.column).for_each(|cell| *cell = blank.clone()),
            "J" => {
                self.cells[self.line].iter_mut().skip(self.column).for_each(|cell| *cell = blank.clone());
                self.cells.iter_mut().skip(self.line + 1).flatten().for_each(|cell| *cell = blank.clone());
            }
            "m" => self.look = parameters.trim_start_matches('0').to_owned(),
            "h" => self.modes.push(parameters.trim_start_matches('?').to_owned()),
            "l" => self.modes.retain(|mode| Some(mode.as_str()) != parameters.strip_prefix('?')),
            other => panic!("an unknown sequence: {parameters}{other}"),
        }
        after
    }

    /// The screen as a picture.
    pub fn to_svg(&self, title: &str) -> String {
        const STYLE: &str = "text { font: 14px ui-monospace, monospace; fill: #d0d7de; white-space: pre; } \
             .h { font-weight: bold; fill: #fff; } .f { fill: #7d8590; } .g { fill: #3fb950; } \
             .y { fill: #d29922; } .r { fill: #ff7b72; font-weight: bold; }";
        const LETTER: f64 = 8.43;
        let (width, height) = (self.cells[0].len() as f64 * LETTER + 24.0, self.cells.len() * 19 + 24);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height}\" width=\"{width:.0}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#0d1117\"/>\n"
        );
        for (number, cells) in self.cells.iter().enumerate() {
            let mut column = 0;
            for part in cells.chunk_by(|one, next| one.1 == next.1) {
                let text: String = part.iter().map(|(char, _)| char).collect();
                let class = match part[0].1.as_str() {
                    "1" => "h",
                    "2" => "f",
                    "32" => "g",
                    "33" => "y",
                    "1;31" => "r",
                    _ => "",
                };
                let (x, y) = (12.0 + column as f64 * LETTER, 26 + number * 19);
                column += part.len();
                let shown = text.trim_end();
                if shown.is_empty() {
                    continue;
                }
                let escaped = shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                // With its length, each letter is in its column whatever the font is.
                let length = shown.chars().count() as f64 * LETTER;
                let _ = writeln!(
                    svg,
                    "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" textLength=\"{length:.1}\" \
                     xml:space=\"preserve\">{escaped}</text>"
                );
            }
        }
        svg + "</svg>\n"
    }
}
