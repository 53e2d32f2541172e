use std::time::Duration;

use super::*;
use crate::history::operation::{Served, WriteForm};

const KEY: Key = 1;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A history as it is written down by hand: one millisecond is one step.
struct Story(History);

impl Story {
    fn new() -> Self {
        Self(History { token_lifetime: ms(100_000), ..History::default() })
    }

    fn add(mut self, operation: Operation) -> Self {
        self.0.operations.push(operation);
        self
    }

    /// An acknowledged write that has a row in the end, and whose answer brings a token of this name.
    fn writes(self, time: (u64, u64), value: Value, token: &str) -> Self {
        self.loses(time, value, token).keeps(value)
    }

    /// The same without a row.
    fn loses(self, time: (u64, u64), value: Value, token: &str) -> Self {
        let operation = write(time, value, Answer::Written(None));
        self.add(Operation { issued: Some(token.into()), ..operation })
    }

    fn keeps(mut self, value: Value) -> Self {
        self.0.kept.push((KEY, value));
        self
    }

    fn reads(self, time: (u64, u64), tokens: &[&str], seen: &[Value]) -> Self {
        self.add(read(time, tokens, seen))
    }

    fn loses_primary(mut self, at: u64) -> Self {
        self.0.deposed.push(ms(at));
        self
    }

    fn broken(&self) -> Vec<Violation> {
        check(&self.0).violations
    }
}

fn operation(time: (u64, u64), asked: Ask, answer: Answer) -> Operation {
    Operation {
        client: 1,
        instance: Some(0),
        invoked: ms(time.0),
        completed: ms(time.1),
        presented: Vec::new(),
        asked,
        answer,
        issued: None,
        served: None,
    }
}

fn write(time: (u64, u64), value: Value, answer: Answer) -> Operation {
    operation(time, Ask::Write { key: KEY, value, form: WriteForm::Statement }, answer)
}

fn read(time: (u64, u64), tokens: &[&str], seen: &[Value]) -> Operation {
    let asked = Ask::Read { key: KEY, times: u32::try_from(seen.len()).unwrap(), bound: None };
    let presented = tokens.iter().map(|token| Token::from(*token)).collect();
    Operation { presented, ..operation(time, asked, Answer::Read(seen.to_vec())) }
}

#[test]
fn a_history_in_which_every_promise_holds_breaks_none() {
    let story = Story::new()
        // Without a token anything goes that was ever true.
        .reads((0, 1), &[], &[0])
        .writes((2, 4), 1, "a")
        .reads((5, 6), &["a"], &[1])
        .reads((5, 6), &[], &[0])
        // While a write is under way, old and new are both right.
        .reads((7, 10), &["a"], &[1, 2])
        .writes((8, 12), 2, "b")
        // An older token does not cover it.
        .reads((13, 14), &["a"], &[1])
        .reads((13, 14), &["b", "a"], &[2])
        // May be there or not, later or never.
        .add(write((15, 16), 3, Answer::Unknown("lost".to_owned())))
        .reads((17, 18), &["b"], &[2])
        .reads((17, 18), &["b"], &[3])
        .add(write((19, 20), 4, Answer::Refused("no primary".to_owned())))
        .reads((21, 22), &["b"], &[2])
        .writes((23, 24), 5, "c");
    assert_eq!(story.broken(), []);
    assert!(check(&story.0).lost.is_empty());
}

#[test]
fn a_read_that_misses_what_its_own_token_covers_is_stale() {
    let story = Story::new().writes((0, 2), 1, "a").writes((3, 5), 2, "b").reads((6, 7), &["b"], &[1]);
    assert_eq!(story.broken(), [Violation::Stale { read: 2, seen: 1, missed: 1, issuer: 1 }]);
    // Whatever the order in which they are told, and whichever of several tokens it is.
    let story = Story::new().reads((6, 7), &["a", "b"], &[0]).writes((3, 5), 2, "b").writes((0, 2), 1, "a");
    assert_eq!(story.broken(), [Violation::Stale { read: 0, seen: 0, missed: 1, issuer: 1 }]);
}

#[test]
fn a_token_covers_what_others_had_written_before_it_was_asked_for() {
    let other = |at: (u64, u64)| {
        let asked = Ask::Write { key: 2, value: 1, form: WriteForm::Statement };
        Operation { issued: Some("of-another".into()), ..operation(at, asked, Answer::Written(None)) }
    };
    let story = |asked_for| {
        let story = Story::new().writes((0, 2), 1, "a").add(other(asked_for));
        let mut story = story.reads((10, 11), &["of-another"], &[0]);
        story.0.kept.push((2, 1));
        story.broken()
    };
    assert_eq!(story((3, 5)), [Violation::Stale { read: 2, seen: 0, missed: 0, issuer: 1 }]);
    assert_eq!(story((1, 5)), [], "they overlap");
}

#[test]
fn tokens_that_have_expired_or_are_nobodys_cover_nothing() {
    let mut story = Story::new().writes((0, 2), 1, "a").reads((110, 111), &["a", "unheard-of"], &[0]);
    assert_eq!(story.broken().len(), 1);
    story.0.token_lifetime = ms(100);
    assert_eq!(story.broken(), []);
}

#[test]
fn two_reads_of_one_request_do_not_go_back() {
    let story = Story::new().writes((0, 2), 1, "a").writes((3, 5), 2, "b");
    assert_eq!(
        story.reads((6, 9), &[], &[0, 2, 1]).broken(),
        [Violation::WentBack { request: 2 }],
        "a token has no part in this"
    );
}

#[test]
fn a_request_reads_what_it_has_written() {
    let write = |seen| {
        let operation = write((3, 5), 2, Answer::Written(Some(seen)));
        Story::new().writes((0, 2), 1, "a").add(Operation { issued: Some("b".into()), ..operation }).keeps(2)
    };
    assert_eq!(write(1).broken(), [Violation::WentBack { request: 1 }]);
    assert_eq!(write(2).broken(), []);
}

#[test]
fn a_bounded_read_misses_nothing_older_than_its_bound() {
    let bounded = |at: u64, bound: u64, seen| {
        let asked = Ask::Read { key: KEY, times: 1, bound: Some(ms(bound)) };
        let read = operation((at, at + 50), asked, Answer::Read(vec![seen]));
        Story::new().writes((0, 10), 1, "a").writes((20, 30), 2, "b").add(read).broken()
    };
    let missed = |write, seen| [Violation::OlderThanBound { read: 2, seen, missed: write }];
    assert_eq!(bounded(100, 50, 1), missed(1, 1));
    assert_eq!(bounded(100, 50, 0), missed(1, 0));
    assert_eq!(bounded(70, 50, 0), missed(0, 0));
    // The second is exactly as old as the bound allows, or younger; the first is not known to be older.
    assert_eq!(bounded(80, 50, 1), []);
    assert_eq!(bounded(60, 50, 0), []);
    assert_eq!(bounded(100, 500, 0), []);
    assert_eq!(bounded(100, 50, 2), []);
}

#[test]
fn what_nobody_has_written_yet_is_not_read() {
    let story = Story::new().writes((10, 12), 1, "a").reads((0, 5), &[], &[1]).reads((0, 11), &[], &[1, 7]);
    assert_eq!(
        story.broken(),
        [Violation::NeverWritten { read: 1, seen: 1 }, Violation::NeverWritten { read: 2, seen: 7 }]
    );
}

#[test]
fn an_acknowledged_write_is_there_in_the_end_once() {
    let story = Story::new().writes((0, 2), 1, "a").loses((3, 5), 2, "b").writes((6, 8), 3, "c").keeps(3);
    assert_eq!(story.broken(), [Violation::Lost { write: 1 }, Violation::Twice { key: KEY, value: 3 }]);
}

#[test]
fn a_write_that_was_refused_was_not_done() {
    let refused = || write((0, 2), 1, Answer::Refused("no primary".to_owned()));
    let done = [Violation::RefusedAndDone { write: 0 }];
    assert_eq!(Story::new().add(refused()).keeps(1).broken(), done);
    assert_eq!(Story::new().add(refused()).reads((3, 4), &[], &[1]).broken(), done);
}

#[test]
fn a_client_gets_a_token_for_its_write_and_an_answer_to_each_request() {
    let without = write((0, 2), 1, Answer::Written(None));
    let past_the_router = Operation { instance: None, ..write((3, 5), 2, Answer::Written(None)) };
    let story = Story::new().add(without).add(past_the_router).keeps(1).keeps(2);
    let story = story.add(Operation { answer: Answer::Nothing, ..read((6, 9), &[], &[]) });
    assert_eq!(story.broken(), [Violation::NoToken { write: 0 }, Violation::Unanswered { request: 2 }]);
}

#[test]
fn what_goes_with_its_primary_is_told_and_is_no_violation() {
    let story = Story::new()
        .writes((0, 2), 1, "a")
        .loses((3, 5), 2, "lost")
        .reads((6, 7), &["lost"], &[2])
        .loses_primary(10)
        // The old token names the time before: what survived of that is there.
        .reads((11, 12), &["lost"], &[1])
        .writes((13, 15), 3, "new")
        .reads((16, 17), &["new", "lost"], &[3]);
    assert_eq!(story.broken(), []);
    assert_eq!(check(&story.0).lost, [1]);
}

#[test]
fn after_a_primary_was_lost_nothing_else_is_forgiven() {
    let story = || Story::new().writes((0, 2), 1, "a").loses((3, 5), 2, "lost").loses_primary(10);
    // What survived is missing.
    let stale = story().reads((11, 12), &["lost"], &[0]);
    assert_eq!(stale.broken(), [Violation::Stale { read: 2, seen: 0, missed: 0, issuer: 1 }]);
    // What comes after is lost as well.
    let lost = story().loses((11, 13), 3, "new");
    assert_eq!(lost.broken(), [Violation::Lost { write: 2 }]);
    // What is gone shows again to a client of the new timeline.
    let other = Ask::Write { key: 2, value: 1, form: WriteForm::Statement };
    let issued = Some("new".into());
    let mut abandoned =
        story().add(Operation { issued, ..operation((11, 13), other, Answer::Written(None)) });
    abandoned.0.kept.push((2, 1));
    let abandoned = abandoned.reads((14, 15), &["new"], &[2]);
    assert_eq!(abandoned.broken(), [Violation::Abandoned { read: 3, lost: 1 }]);
}

#[test]
fn one_node_at_a_time_acknowledges_writes() {
    let by = |node: &str, time, value| {
        let served =
            Some(Served { node: node.to_owned(), role: "primary".to_owned(), reason: "writer".to_owned() });
        let issued = Some("a token".into());
        Operation { served, issued, ..write(time, value, Answer::Written(None)) }
    };
    let story = |second: &str, third: &str| {
        let story = Story::new().add(by("pg1", (0, 2), 1)).add(by(second, (3, 5), 2)).loses_primary(10);
        // One that was on its way while the primary was lost may have met either.
        let story = story.add(by("pg1", (9, 11), 3)).add(by(third, (12, 13), 4));
        story.keeps(1).keeps(2).keeps(3).keeps(4).broken()
    };
    assert_eq!(story("pg1", "pg2"), []);
    assert_eq!(story("pg3", "pg2"), [Violation::SecondPrimary { first: 0, second: 1 }]);
    assert_eq!(story("pg1", "pg1"), [Violation::SecondPrimary { first: 0, second: 3 }]);
}

#[test]
fn a_report_counts_who_served_and_shows_the_operations_in_order() {
    let by = |role: &str, reason: &str| {
        Some(Served { node: "pg1".to_owned(), role: role.to_owned(), reason: reason.to_owned() })
    };
    let mut story = Story::new().reads((6, 7), &["a"], &[0]).writes((0, 2), 1, "a");
    for served in
        [by("replica", "waited_for_replay"), by("replica", "same_request"), by("primary", "strong"), None]
    {
        story = story.add(Operation { served, ..read((8, 9), &["a"], &[1]) });
    }
    story = story.reads((10, 11), &[], &[0]);
    let report = check(&story.0);
    let session = report.counts.session;
    assert_eq!((session.at_once, session.waited, session.primary), (1, 1, 3));
    assert_eq!(session.of_replicas(), 40);
    assert_eq!((report.counts.reads, report.counts.acknowledged), (6, 1));
    assert_eq!(
        report.describe(&story.0.operations),
        "stale: #0 saw 0 and missed #1, which the token that came with #1 covers\n    \
         #1 0.000000..0.002000 s, client 1 to process 0: write 1=1 (Statement) => committed\n    \
         #0 0.006000..0.007000 s, client 1 to process 0: read 1 => [0]"
    );
}
