//! Judges a history. Pure: neither a server nor a clock is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::history::operation::{Answer, Ask, Key, Operation, Token, Value};
use crate::history::report::{Counts, Report};
use crate::history::violation::Violation;

/// All that happened, and what is left of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// All requests, in any order.
    pub operations: Vec<Operation>,
    /// The rows of the primary in the end, when nothing ran any more.
    pub kept: Vec<(Key, Value)>,
    /// When a primary was lost for good, in rising order: the first moment at which it was certain to acknowledge nothing
    /// more. What it had acknowledged before may be lost with it.
    pub deposed: Vec<Duration>,
    /// How long tokens are honoured.
    pub token_lifetime: Duration,
}

/// Judges a history.
///
/// A token covers what its own request has written, and every write that was acknowledged before that request was
/// sent: all of that was committed when the token's position was read.
#[must_use]
pub fn check(history: &History) -> Report {
    let known = Known::of(history);
    let mut violations = Vec::new();
    for index in 0..history.operations.len() {
        known.check_answer(index, &mut violations);
        known.check_values(index, &mut violations);
        known.check_tokens(index, &mut violations);
        known.check_bound(index, &mut violations);
    }
    known.check_kept(&mut violations);
    known.check_primaries(&mut violations);
    let lost = known.lost.iter().copied().filter(|write| known.may_be_lost(*write)).collect();
    Report { counts: Counts::of(&history.operations), violations, lost }
}

/// What the operations say together.
struct Known<'h> {
    history: &'h History,
    /// Who asked to write an entry.
    writes: HashMap<(Key, Value), usize>,
    /// The acknowledged writes of a key that were not lost, by when they were acknowledged; each with the highest so far.
    acknowledged: HashMap<Key, Vec<(Duration, Value, usize)>>,
    /// Whose answers brought a token.
    issuers: HashMap<&'h Token, Vec<usize>>,
    /// Rows in the end.
    rows: BTreeMap<(Key, Value), usize>,
    /// Acknowledged writes that are gone.
    lost: BTreeSet<usize>,
}

impl<'h> Known<'h> {
    fn of(history: &'h History) -> Self {
        let mut known = Self {
            history,
            writes: HashMap::new(),
            acknowledged: HashMap::new(),
            issuers: HashMap::new(),
            rows: BTreeMap::new(),
            lost: BTreeSet::new(),
        };
        for row in &history.kept {
            *known.rows.entry(*row).or_default() += 1;
        }
        for (index, operation) in history.operations.iter().enumerate() {
            if let Some(token) = &operation.issued {
                known.issuers.entry(token).or_default().push(index);
            }
            let Some((key, value)) = operation.written() else { continue };
            known.writes.insert((key, value), index);
            if !operation.is_acknowledged() {
                continue;
            }
            if known.rows.contains_key(&(key, value)) {
                known.acknowledged.entry(key).or_default().push((operation.completed, value, index));
            } else {
                known.lost.insert(index);
            }
        }
        for writes in known.acknowledged.values_mut() {
            writes.sort_unstable();
            let mut highest = (0, 0);
            for (_, value, index) in writes {
                highest = highest.max((*value, *index));
                (*value, *index) = highest;
            }
        }
        known
    }

    fn operation(&self, index: usize) -> &'h Operation {
        &self.history.operations[index]
    }

    /// The highest entry of a key that was acknowledged before `time`, and who wrote it.
    fn acknowledged_before(&self, key: Key, time: Duration) -> Option<(Value, usize)> {
        let writes = self.acknowledged.get(&key)?;
        let after = writes.partition_point(|(completed, ..)| *completed < time);
        let (_, value, index) = writes[after.checked_sub(1)?];
        Some((value, index))
    }

    /// When the primary went that may have taken a write along.
    fn went_with(&self, write: usize) -> Option<Duration> {
        let invoked = self.operation(write).invoked;
        self.history.deposed.iter().copied().find(|deposed| invoked < *deposed)
    }

    fn may_be_lost(&self, write: usize) -> bool {
        self.went_with(write).is_some()
    }

    fn is_lost(&self, key: Key, value: Value) -> bool {
        self.writes.get(&(key, value)).is_some_and(|write| self.lost.contains(write))
    }

    fn check_answer(&self, index: usize, violations: &mut Vec<Violation>) {
        let operation = self.operation(index);
        if operation.answer == Answer::Nothing {
            violations.push(Violation::Unanswered { request: index });
        }
        if operation.is_acknowledged() && operation.instance.is_some() && operation.issued.is_none() {
            violations.push(Violation::NoToken { write: index });
        }
    }

    /// Whether what was read was ever written, and does not go back within the request.
    fn check_values(&self, index: usize, violations: &mut Vec<Violation>) {
        let operation = self.operation(index);
        let (key, seen) = operation.seen();
        // What a lost primary took along may have been seen, and is no measure of what comes after.
        let counts = |value: &Value| !self.is_lost(key, *value);
        let mut highest = operation.written().map_or(0, |(_, value)| value);
        highest = Some(highest).filter(counts).unwrap_or(0);
        let mut went_back = false;
        for value in seen.iter().copied() {
            went_back |= value < highest;
            highest = Some(value).filter(counts).unwrap_or(0).max(highest);
            if value == 0 {
                continue;
            }
            match self.writes.get(&(key, value)) {
                Some(write) if self.operation(*write).invoked <= operation.completed => {
                    if matches!(self.operation(*write).answer, Answer::Refused(_)) {
                        violations.push(Violation::RefusedAndDone { write: *write });
                    }
                }
                _ => violations.push(Violation::NeverWritten { read: index, seen: value }),
            }
        }
        if went_back {
            violations.push(Violation::WentBack { request: index });
        }
    }

    /// Whether nothing is missing that a presented token covers.
    fn check_tokens(&self, index: usize, violations: &mut Vec<Violation>) {
        let operation = self.operation(index);
        let (key, seen) = operation.seen();
        let Some(seen) = seen.first().copied() else { return };
        let mut worst: Option<(Value, usize, usize)> = None;
        for issuer in
            operation.presented.iter().filter_map(|token| self.issuers.get(token)).flatten().copied()
        {
            let issued = self.operation(issuer);
            if operation.invoked.saturating_sub(issued.completed) > self.history.token_lifetime {
                continue;
            }
            let own = issued
                .written()
                .filter(|(own, value)| *own == key && issued.is_acknowledged() && !self.is_lost(key, *value));
            let own = own.map(|(_, value)| (value, issuer));
            let covered = own.max(self.acknowledged_before(key, issued.invoked));
            worst = worst.max(covered.map(|(value, write)| (value, write, issuer)));
            if let Some(lost) = self.writes.get(&(key, seen)).filter(|write| self.lost.contains(write))
                && self.went_with(*lost).is_some_and(|deposed| issued.invoked > deposed)
            {
                violations.push(Violation::Abandoned { read: index, lost: *lost });
            }
        }
        if let Some((_, missed, issuer)) = worst.filter(|(value, ..)| seen < *value) {
            violations.push(Violation::Stale { read: index, seen, missed, issuer });
        }
    }

    /// Whether nothing is missing that was older than the bound when the read was asked.
    fn check_bound(&self, index: usize, violations: &mut Vec<Violation>) {
        let operation = self.operation(index);
        let Ask::Read { key, bound: Some(bound), .. } = operation.asked else { return };
        let Some(seen) = operation.seen().1.first().copied() else { return };
        let Some(time) = operation.invoked.checked_sub(bound) else { return };
        if let Some((_, missed)) = self.acknowledged_before(key, time).filter(|(value, _)| seen < *value) {
            violations.push(Violation::OlderThanBound { read: index, seen, missed });
        }
    }

    /// Whether one node alone acknowledged writes between two losses of a primary, and another one after each loss.
    fn check_primaries(&self, violations: &mut Vec<Violation>) {
        let mut primaries = BTreeMap::<usize, (&str, usize)>::new();
        let mut told = HashSet::new();
        let losses_before = |time| self.history.deposed.partition_point(|deposed| *deposed <= time);
        for (index, operation) in self.history.operations.iter().enumerate() {
            let Some(served) = operation.served.as_ref().filter(|_| operation.is_acknowledged()) else {
                continue;
            };
            let epoch = losses_before(operation.invoked);
            if epoch != losses_before(operation.completed) {
                continue;
            }
            let (node, first) = *primaries.entry(epoch).or_insert((&served.node, index));
            if node != served.node && told.insert(&served.node) {
                violations.push(Violation::SecondPrimary { first, second: index });
            }
        }
        for ((epoch, (node, first)), (next, (successor, second))) in
            primaries.iter().zip(primaries.iter().skip(1))
        {
            if epoch + 1 == *next && node == successor {
                violations.push(Violation::SecondPrimary { first: *first, second: *second });
            }
        }
    }

    /// Whether the rows in the end are those that were acknowledged, once each.
    fn check_kept(&self, violations: &mut Vec<Violation>) {
        let lost = self.lost.iter().copied().filter(|write| !self.may_be_lost(*write));
        violations.extend(lost.map(|write| Violation::Lost { write }));
        let twice = self.rows.iter().filter(|(_, rows)| **rows > 1);
        violations.extend(twice.map(|((key, value), _)| Violation::Twice { key: *key, value: *value }));
        let mut told = HashSet::new();
        for row in self.rows.keys() {
            let refused = self.writes.get(row).filter(|write| {
                matches!(self.operation(**write).answer, Answer::Refused(_)) && told.insert(**write)
            });
            violations.extend(refused.map(|write| Violation::RefusedAndDone { write: *write }));
        }
    }
}

#[cfg(test)]
mod tests;
