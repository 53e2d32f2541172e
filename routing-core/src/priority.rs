//! Who is let go first when the primary cannot serve everybody.

use std::fmt;

/// How much a read matters while the primary serves for lost or late replicas. It says nothing about the order in which reads
/// are served, and nothing while replicas serve them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Reports, exports, crawlers: shed once half of the cap is taken.
    Batch,
    /// What users wait for: shed when the cap is taken.
    #[default]
    Normal,
    /// What must go on, such as a login or a payment: it has a fifth of the cap beyond it.
    Critical,
}

impl Priority {
    /// All of them, the first to be shed first.
    pub const ALL: [Self; 3] = [Self::Batch, Self::Normal, Self::Critical];

    /// Its name in metrics and errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Normal => "normal",
            Self::Critical => "critical",
        }
    }

    /// How much of a limit it may use up.
    pub(crate) fn of(self, limit: u32) -> u32 {
        match self {
            Self::Batch => limit / 2,
            Self::Normal => limit,
            Self::Critical => limit.saturating_add(limit.div_ceil(5)),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_is_shed_first_and_critical_last() {
        let shares = |limit| Priority::ALL.map(|priority| priority.of(limit));
        assert_eq!(shares(10), [5, 10, 12]);
        assert_eq!(shares(1), [0, 1, 2]);
        assert_eq!(shares(0), [0, 0, 0]);
        assert_eq!(shares(u32::MAX)[2], u32::MAX);
    }
}
