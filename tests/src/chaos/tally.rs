//! What clients were answered, by what was broken meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::chaos::class::Class;
use crate::http::{Lost, Reply};

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A 2xx.
    Done,
    /// A 503 that says when to try again, with its code: nothing was done.
    Refused(String),
    /// A 503 that says that nobody knows whether the write was done.
    Unknown,
    /// Any other answer: its status and code.
    Wrong(u16, String),
    /// No whole answer.
    Unanswered(String),
}

impl Outcome {
    /// What an exchange came to.
    #[must_use]
    pub fn of(exchange: &Result<Reply, Lost>) -> Self {
        match exchange {
            Err(Lost::NotConnected(why) | Lost::Unanswered(why)) => Self::Unanswered(why.clone()),
            Ok(reply) if reply.is_success() => Self::Done,
            Ok(reply) => match (reply.status, reply.code()) {
                (503, code) if code == "commit_unknown" => Self::Unknown,
                (503, code) if reply.header("retry-after").is_some() => Self::Refused(code),
                (status, code) => Self::Wrong(status, code),
            },
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused(code) => write!(f, "503 {code}"),
            Self::Unknown => f.write_str("503 commit_unknown"),
            Self::Wrong(status, code) => write!(f, "{status} {code}"),
            Self::Unanswered(why) => write!(f, "no answer ({why})"),
        }
    }
}

/// One request and its end. Times count from the beginning of the history.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What was asked for.
    pub class: Class,
    /// Which process was asked.
    pub process: &'static str,
    /// When it was to begin.
    pub due: Duration,
    /// When its answer was there.
    pub ended: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// What was broken, from when until everything served again.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its kind.
    pub kind: String,
    /// Whether it took the primary, or its timeline, from somebody.
    pub of_primary: bool,
    /// When it began.
    pub from: Duration,
    /// When all was well again.
    pub to: Duration,
}

/// All requests, and what was broken when.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Every request.
    pub answered: Vec<Answered>,
    /// Every fault, in its order.
    pub broken: Vec<Broken>,
}

/// A failure is counted to a fault if its request was due while the fault lasted, or waited in its line.
const WAKE: Duration = Duration::from_secs(6);

impl Tally {
    /// What was broken while a request was under way, or shortly before.
    pub fn causes(&self, answered: &Answered) -> impl Iterator<Item = &Broken> {
        let (due, ended) = (answered.due, answered.ended);
        self.broken.iter().filter(move |broken| broken.from <= ended && due <= broken.to + WAKE)
    }

    /// Failures that nothing which was broken explains. A read without a token fails for nothing that happens here: some node
    /// could serve it at any time. Any other request may be refused while something is broken, and a write be of unknown
    /// outcome while the primary is away. A full disk is the server's own word.
    #[must_use]
    pub fn unexplained(&self) -> Vec<&Answered> {
        let unexplained = |answered: &&Answered| match (&answered.outcome, answered.class) {
            (Outcome::Done, _) => false,
            (Outcome::Refused(_), Class::List | Class::Detail) => true,
            (Outcome::Refused(_), _) => self.causes(answered).next().is_none(),
            (Outcome::Unknown, _) => !self.causes(answered).any(|broken| broken.of_primary),
            (Outcome::Wrong(500, code), Class::Write) if code == "internal" => {
                !self.causes(answered).any(|broken| broken.kind == "disk full")
            }
            _ => true,
        };
        self.answered.iter().filter(unexplained).collect()
    }

    /// Requests that were refused although nothing of the primary was broken: there should be next to none.
    #[must_use]
    pub fn refused_beside_a_primary(&self) -> Vec<&Answered> {
        let refused = self.answered.iter().filter(|answered| matches!(answered.outcome, Outcome::Refused(_)));
        refused.filter(|answered| !self.causes(answered).any(|broken| broken.of_primary)).collect()
    }

    /// How many requests ended in a way.
    #[must_use]
    pub fn count(&self, kind: impl Fn(&Answered) -> bool) -> usize {
        self.answered.iter().filter(|answered| kind(answered)).count()
    }

    /// The longest time without a success of some requests between two moments.
    fn gap(&self, from: Duration, to: Duration, kind: impl Fn(Class) -> bool) -> Duration {
        let done =
            self.answered.iter().filter(|answered| kind(answered.class) && answered.outcome == Outcome::Done);
        let mut moments: Vec<_> =
            done.map(|answered| answered.ended).filter(|at| (from..to).contains(at)).collect();
        moments.extend([from, to]);
        moments.sort_unstable();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    /// A table: what was asked for and how it ended, by kind of fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, write) = (|class: Class| class != Class::Write, |class: Class| class == Class::Write);
        let mut kinds = BTreeMap::<&str, Vec<&Broken>>::new();
        for broken in &self.broken {
            kinds.entry(&broken.kind).or_default().push(broken);
        }
        writeln!(
            f,
            "{:<24} {:>5} {:>8} {:>8}  slowest  longest gap of reads, writes",
            "fault", "times", "requests", "failed"
        )?;
        for (kind, all) in kinds {
            let within =
                |answered: &&Answered| all.iter().any(|one| (one.from..one.to).contains(&answered.due));
            let answered: Vec<_> = self.answered.iter().filter(within).collect();
            let mut failed = BTreeMap::<(&Outcome, Class), usize>::new();
            for one in answered.iter().filter(|one| one.outcome != Outcome::Done) {
                *failed.entry((&one.outcome, one.class)).or_default() += 1;
            }
            let slowest =
                answered.iter().map(|one| one.ended.saturating_sub(one.due)).max().unwrap_or_default();
            let longest = |kind: fn(Class) -> bool| {
                all.iter().map(|one| self.gap(one.from, one.to, kind)).max().unwrap_or_default().as_millis()
            };
            writeln!(
                f,
                "{kind:<24} {:>5} {:>8} {:>8} {:>5} ms {:>6} ms {:>6} ms",
                all.len(),
                answered.len(),
                failed.values().sum::<usize>(),
                slowest.as_millis(),
                longest(least),
                longest(write)
            )?;
            for ((outcome, class), count) in failed {
                writeln!(f, "    {count} x {outcome} of a {class}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn answered(class: Class, due: u64, outcome: Outcome) -> Answered {
        Answered { class, process: "SeaORM", due: at(due), ended: at(due), outcome }
    }

    #[test]
    fn a_failure_needs_a_cause_that_explains_it() {
        let broken = |kind: &str, of_primary, from| Broken {
            kind: kind.to_owned(),
            of_primary,
            from: at(from),
            to: at(from + 2),
        };
        let refused = || Outcome::Refused("no_primary".to_owned());
        let full = || Outcome::Wrong(500, "internal".to_owned());
        let table = [
            (Class::Write, 11, refused(), true),
            (Class::Session, 11, refused(), true),
            (Class::Write, 11, Outcome::Unknown, true),
            (Class::List, 11, refused(), false),
            (Class::Session, 31, refused(), true),
            (Class::Session, 1, refused(), false),
            (Class::Write, 31, Outcome::Unknown, false),
            (Class::Write, 51, full(), true),
            (Class::Write, 11, full(), false),
            (Class::Detail, 51, full(), false),
            (Class::List, 11, Outcome::Unanswered("reset".to_owned()), false),
        ];
        for (class, due, outcome, explained) in table {
            let tally = Tally {
                answered: vec![answered(class, due, Outcome::Done), answered(class, due, outcome.clone())],
                broken: vec![
                    broken("kill primary", true, 10),
                    broken("kill replica", false, 30),
                    broken("disk full", true, 50),
                ],
            };
            assert_eq!(tally.unexplained().is_empty(), explained, "{outcome} of a {class} at {due} s");
        }
    }
}
