//! Lines of a screen, and how they become what a terminal obeys. No I/O.

use crate::output::printable;

/// What a part of a line says by its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// A heading.
    Heading,
    /// Not important.
    Faint,
    Good,
    Doubtful,
    Bad,
}

impl Tone {
    /// The parameters of SGR (console_codes(4)).
    fn codes(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Heading => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "1;31",
        }
    }
}

/// A line, in parts of one colour each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ScreenLine(Vec<(Tone, String)>);

impl ScreenLine {
    /// Adds a part. Nothing in it controls the terminal.
    pub(super) fn and(mut self, tone: Tone, text: impl AsRef<str>) -> ScreenLine {
        self.0.push((tone, printable(text.as_ref()).into_owned()));
        self
    }

    /// A line of one part.
    pub(super) fn of(tone: Tone, text: impl AsRef<str>) -> ScreenLine {
        ScreenLine::default().and(tone, text)
    }

    /// The beginning of the line that fits.
    fn painted(&self, width: usize, has_colour: bool) -> String {
        let (mut text, mut left) = (String::new(), width);
        for (tone, part) in &self.0 {
            let shown: String = part.chars().take(left).collect();
            left -= shown.chars().count();
            match tone.codes() {
                codes if has_colour && !codes.is_empty() => text += &format!("\x1b[{codes}m{shown}\x1b[0m"),
                _ => text += &shown,
            }
        }
        text
    }
}

/// A part of the lines on a screen of this size. The screen is not cleared first, which would flicker.
pub(super) fn frame(
    lines: &[ScreenLine],
    (width, height): (usize, usize),
    top: usize,
    has_colour: bool,
) -> String {
    let room = height.saturating_sub(1);
    let shown = lines.iter().skip(top).take(room);
    let mut text = String::from("\x1b[H");
    for line in shown {
        text += &format!("{}\x1b[K\r\n", line.painted(width, has_colour));
    }
    let foot = match lines.len() <= room {
        true => "q ends".to_owned(),
        false => {
            let last = lines.len().min(top + room);
            format!("q ends, arrows scroll: {}-{last} of {} lines", top + 1, lines.len())
        }
    };
    text + &format!("\x1b[J\x1b[{height};1H{}", ScreenLine::of(Tone::Faint, foot).painted(width, has_colour))
}

/// The first line that is shown after these keys.
pub(super) fn scrolled(keys: &[u8], top: usize, lines: usize, height: usize) -> Option<usize> {
    let page = height.saturating_sub(2).max(1);
    let last = lines.saturating_sub(height.saturating_sub(1));
    let mut top = top.min(last);
    let mut rest = keys;
    while let Some((first, others)) = rest.split_first() {
        let known: [(&[u8], usize); 14] = [
            (b"\x1b[A", top.saturating_sub(1)),
            (b"\x1bOA", top.saturating_sub(1)),
            (b"k", top.saturating_sub(1)),
            (b"\x1b[B", top + 1),
            (b"\x1bOB", top + 1),
            (b"j", top + 1),
            (b"\x1b[5~", top.saturating_sub(page)),
            (b"\x1b[6~", top + page),
            (b" ", top + page),
            (b"\x1b[H", 0),
            (b"g", 0),
            (b"\x1b[F", last),
            (b"G", last),
            (b"\x1b[", top),
        ];
        if matches!(first, b'q' | b'Q') {
            return None;
        }
        let key = known.iter().find_map(|(key, to)| Some((rest.strip_prefix(*key)?, *to)));
        let (after, to) = key.unwrap_or((others, top));
        (rest, top) = (after, to.min(last));
    }
    Some(top)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<ScreenLine> {
        (0..count).map(|number| ScreenLine::of(Tone::Good, format!("line {number}"))).collect()
    }

    #[test]
    fn a_frame_fits_its_screen() {
        let text = frame(&lines(9), (6, 5), 2, false);
        assert_eq!(text.matches("\r\n").count(), 4);
        assert!(
            text.contains("line 2\x1b[K") && text.contains("line 5") && !text.contains("line 6"),
            "{text:?}"
        );
        assert!(!text.contains("\x1b[32m"), "{text:?}");
        assert!(text.ends_with("\x1b[5;1Hq ends"), "{text:?}");
        let text = frame(&lines(9), (80, 5), 2, true);
        assert!(text.contains("\x1b[32mline 2\x1b[0m") && text.contains("3-6 of 9 lines"), "{text:?}");
    }

    #[test]
    fn no_name_controls_the_terminal() {
        let line = ScreenLine::of(Tone::Plain, "br\x1b[2J").and(Tone::Bad, "a\nb");
        let text = frame(&[line], (80, 5), 0, false);
        assert!(text.contains("br\\u001b[2Ja\\u000ab\x1b[K"), "{text:?}");
    }

    #[test]
    fn keys_scroll_and_end() {
        let pressed = |keys: &[u8], top| scrolled(keys, top, 30, 11);
        assert_eq!(pressed(b"jj\x1b[B", 0), Some(3));
        assert_eq!(pressed(b"\x1b[A", 0), Some(0));
        assert_eq!(pressed(b"G", 0), Some(20));
        assert_eq!(pressed(b"\x1b[6~", 15), Some(20));
        assert_eq!(pressed(b"x\x1b[5~", 20), Some(11));
        assert_eq!(pressed(b"gq", 20), None);
        assert_eq!(scrolled(b"", 9, 5, 11), Some(0), "fewer lines than before");
    }
}
