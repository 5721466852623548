//! How many tests passed, failed and were skipped, and how that is read from libtest's output.

use std::fmt;
use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Count {
    /// One test that passed: a step that is no test program counts as one test.
    pub(super) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// One test that failed.
    pub(super) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    /// One test that could not run.
    pub(super) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// What a test program's output says: `test result: ok. 12 passed; 0 failed; 1 ignored; …`. None without it,
    /// as when the program crashed.
    pub(super) fn of_libtest(output: &str) -> Option<Self> {
        let line = output.lines().rfind(|line| line.starts_with("test result: "))?;
        let number = |what: &str| -> Option<usize> {
            let before = line.split(';').find(|part| part.trim_end().ends_with(what))?;
            before.split_ascii_whitespace().rev().nth(1)?.parse().ok()
        };
        Some(Self { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn libtest_output_is_counted() {
        let output = "running 4 tests\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.01s\n";
        assert_eq!(Count::of_libtest(output), Some(Count { passed: 2, failed: 1, skipped: 1 }));
        assert_eq!(Count::of_libtest("running 4 tests\nSegmentation fault"), None);
    }

    #[test]
    fn the_last_line_is_exact() {
        let mut total = Count::PASSED;
        total += Count::SKIPPED;
        assert_eq!(total.to_string(), "1 passed, 0 failed, 1 skipped");
    }
}
