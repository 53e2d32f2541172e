//! What the check of a history came to.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::operation::{Answer, Ask, Operation};
use crate::history::violation::Violation;

/// How many broken promises are shown with their operations.
const SHOWN: usize = 20;

/// What the check of a history came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// How much was looked at.
    pub counts: Counts,
    /// Every broken promise.
    pub violations: Vec<Violation>,
    /// Acknowledged writes that a lost primary took along, by their places in the history.
    pub lost: Vec<usize>,
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes by what came of them.
    pub acknowledged: usize,
    /// Refused before anything was done.
    pub writes_refused: usize,
    /// They may or may not have been done.
    pub writes_unknown: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Reads that were not.
    pub reads_failed: usize,
    /// Answered reads that presented a token and asked for no bound.
    pub session: Share,
    /// Answered reads that asked for a bound.
    pub bounded: Share,
    /// Answered reads of two in one request.
    pub repeated: usize,
    /// Answers of a write in which it was read back.
    pub read_back: usize,
    /// Why answered reads were served where they were: node, reason.
    pub reasons: BTreeMap<(String, String), usize>,
}

/// Who served some reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// A replica, at once.
    pub at_once: usize,
    /// A replica, after it had been waited for.
    pub waited: usize,
    /// The primary.
    pub primary: usize,
}

impl Share {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.at_once + self.waited + self.primary
    }

    /// The percentage that replicas served, rounded down; 100 of none.
    #[must_use]
    pub fn of_replicas(&self) -> usize {
        (100 * (self.at_once + self.waited)).checked_div(self.total()).unwrap_or(100)
    }

    fn add(&mut self, operation: &Operation) {
        match &operation.served {
            Some(served) if served.role == "replica" && served.reason == "waited_for_replay" => {
                self.waited += 1
            }
            Some(served) if served.role == "replica" => self.at_once += 1,
            _ => self.primary += 1,
        }
    }
}

impl Counts {
    pub(crate) fn of(operations: &[Operation]) -> Self {
        let mut counts = Self::default();
        for operation in operations.iter().filter(|operation| operation.instance.is_some()) {
            match (&operation.asked, &operation.answer) {
                (Ask::Write { .. }, Answer::Written(seen)) => {
                    counts.acknowledged += 1;
                    counts.read_back += usize::from(seen.is_some());
                }
                (Ask::Write { .. }, Answer::Refused(_)) => counts.writes_refused += 1,
                (Ask::Write { .. }, _) => counts.writes_unknown += 1,
                (Ask::Read { times, bound, .. }, Answer::Read(_)) => {
                    counts.reads += 1;
                    counts.repeated += usize::from(*times > 1);
                    if bound.is_some() {
                        counts.bounded.add(operation);
                    } else if !operation.presented.is_empty() {
                        counts.session.add(operation);
                    }
                    if let Some(served) = &operation.served {
                        let reason = (served.node.clone(), served.reason.clone());
                        *counts.reasons.entry(reason).or_default() += 1;
                    }
                }
                (Ask::Read { .. }, _) => counts.reads_failed += 1,
            }
        }
        counts
    }
}

impl Report {
    /// How many promises of a kind were broken.
    #[must_use]
    pub fn broken(&self, kind: impl Fn(&Violation) -> bool) -> usize {
        self.violations.iter().filter(|violation| kind(violation)).count()
    }

    /// The first broken promises, each with the operations that show it.
    #[must_use]
    pub fn describe(&self, operations: &[Operation]) -> String {
        let shown = self.violations.iter().take(SHOWN).map(|violation| violation.describe(operations));
        let mut text = shown.collect::<Vec<_>>().join("\n");
        if self.violations.len() > SHOWN {
            text.push_str(&format!("\nand {} more", self.violations.len() - SHOWN));
        }
        text
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_once, waited, primary } = self;
        write!(
            f,
            "{} ({at_once} by a replica at once, {waited} by a replica after waiting, {primary} by the primary: \
             {} % by replicas)",
            self.total(),
            self.of_replicas()
        )
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  writes: {} acknowledged, {} refused, {} unknown",
            self.acknowledged, self.writes_refused, self.writes_unknown
        )?;
        writeln!(
            f,
            "  reads: {} answered, {} failed; {} looked twice, {} read back in the request that wrote",
            self.reads, self.reads_failed, self.repeated, self.read_back
        )?;
        writeln!(f, "  session reads with a token: {}", self.session)?;
        writeln!(f, "  bounded reads: {}", self.bounded)?;
        let reasons: Vec<_> =
            self.reasons.iter().map(|((node, reason), count)| format!("{node} {reason} {count}")).collect();
        write!(f, "  all reads: {}", reasons.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.counts)?;
        write!(
            f,
            "  {} promises broken, {} writes lost with a primary",
            self.violations.len(),
            self.lost.len()
        )
    }
}
