//! Adds up the summaries of test harnesses.

use std::fmt;
use std::ops::AddAssign;

/// Passed, failed and skipped tests, and the number of summaries that they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
    pub(crate) summaries: u32,
    /// Tests that reported something as not tried, until the summary that counts them as passed.
    not_tried: u32,
}

impl Counts {
    /// Counts a line of a suite's output. Only summaries and the lines of `integration::not_tried` matter.
    /// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`
    pub(crate) fn read(&mut self, line: &str) {
        if line.trim_start().starts_with("not tried: ") {
            self.not_tried += 1;
            return;
        }
        let Some(summary) = line.trim().strip_prefix("test result: ") else { return };
        let count = |what: &str| {
            summary
                .split(['.', ';'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u32>().ok())
        };
        if let (Some(passed), Some(failed), Some(skipped)) =
            (count("passed"), count("failed"), count("ignored"))
        {
            // A test that failed afterwards is in `failed`. The run has failed in any case.
            let not_tried = std::mem::take(&mut self.not_tried).min(passed);
            let (passed, skipped) = (passed - not_tried, skipped + not_tried);
            *self += Counts { passed, failed, skipped, summaries: 1, not_tried: 0 };
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.summaries += other.summaries;
        self.not_tried += other.not_tried;
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
        assert_eq!(counts, Counts { passed: 6, failed: 2, skipped: 1, summaries: 2, not_tried: 0 });
        assert_eq!(counts.to_string(), "6 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_could_not_try_is_skipped_and_not_passed() {
        let mut counts = Counts::default();
        counts.read("not tried: nat::sctp: no SCTP in this kernel");
        counts.read("test nat::sctp ... ok");
        counts.read("note: the clock is not tried: it is slow");
        counts.read(
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        counts.read(
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        assert_eq!(counts.to_string(), "6 passed, 0 failed, 1 skipped");
    }
}
