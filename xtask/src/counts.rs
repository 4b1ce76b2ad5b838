//! Adding up what test harnesses say at their end.

use std::fmt;
use std::ops::AddAssign;

/// Passed, failed and skipped tests, and from how many summaries that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
    pub(crate) summaries: u32,
}

impl Counts {
    /// Takes in a line of libtest's output; all but summaries say nothing.
    /// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`
    pub(crate) fn read(&mut self, line: &str) {
        let Some(summary) = line.trim().strip_prefix("test result: ") else { return };
        let count = |what: &str| {
            summary
                .split(['.', ';'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u32>().ok())
        };
        if let (Some(passed), Some(failed), Some(skipped)) =
            (count("passed"), count("failed"), count("ignored"))
        {
            *self += Counts { passed, failed, skipped, summaries: 1 };
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.summaries += other.summaries;
    }
}

/// The form that CI reads.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up() {
        let mut counts = Counts::default();
        counts.read("running 3 tests");
        counts.read(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
        );
        counts.read("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s");
        counts.read("test result: what?");
        assert_eq!(counts, Counts { passed: 6, failed: 2, skipped: 1, summaries: 2 });
        assert_eq!(counts.to_string(), "6 passed, 2 failed, 1 skipped");
    }
}
