//! What is counted, under the names that dashboards know.
//!
//! Everything goes through the `metrics` facade; install a recorder *before* the first cluster starts, since handles
//! are made once and kept. Per-node gauges are not set here: they are rendered from the status, so that a removed
//! node's are gone.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, SharedString, Unit};

use crate::decision::{Access, REASONS, Reason};
use crate::fault::{FAULTS, Fault};
use crate::role::Role;
use crate::token::InvalidToken;

const DECISIONS: &str = "db_routing_decisions_total";
const DECISION: &str = "db_routing_decision_seconds";
const CHECKOUT: &str = "db_routing_checkout_seconds";
const QUERY: &str = "db_routing_query_seconds";
const ERRORS: &str = "db_routing_errors_total";
const RETRIES: &str = "db_routing_retries_total";
const HEDGES: &str = "db_routing_hedges_total";
const FALLBACK: &str = "db_routing_fallback_total";
const SHED: &str = "db_routing_shed_total";
const STALENESS: &str = "db_routing_served_staleness_seconds";
const SESSION_READS: &str = "db_routing_session_reads_total";
const TOKENS_REJECTED: &str = "db_routing_tokens_rejected_total";
const PRIMARY_CHANGES: &str = "db_routing_primary_changes_total";

/// Why a write is shed: as many as allowed already wait for a primary.
pub(crate) const WRITE_WAITERS: &str = "write_waiters";

/// Tells the recorder what each metric means. Called once by each cluster as it starts; again does no harm.
pub(crate) fn describe() {
    metrics::describe_counter!(DECISIONS, "requests routed, by access, node, its role and the reason");
    metrics::describe_histogram!(
        DECISION,
        Unit::Seconds,
        "time to choose a node: from the picture to the permit, without waiting"
    );
    metrics::describe_histogram!(CHECKOUT, Unit::Seconds, "time to get a connection from a node's pool");
    metrics::describe_histogram!(QUERY, Unit::Seconds, "time that a connection was held");
    metrics::describe_counter!(ERRORS, "faults of a node, by kind");
    metrics::describe_counter!(RETRIES, "failed attempts: repeated, or given up for the limit or the budget");
    metrics::describe_counter!(
        HEDGES,
        "reads that kept their caller waiting, by what became of asking a second replica"
    );
    metrics::describe_counter!(FALLBACK, "reads that the primary served because no replica could");
    metrics::describe_counter!(SHED, "requests refused at once to protect the primary");
    metrics::describe_histogram!(
        STALENESS,
        Unit::Seconds,
        "how stale what a read was served may have been at most"
    );
    metrics::describe_counter!(
        SESSION_READS,
        "reads with a token: by a replica, by one that was waited for, by the primary"
    );
    metrics::describe_counter!(TOKENS_REJECTED, "session tokens that did not count, by reason");
    metrics::describe_counter!(PRIMARY_CHANGES, "accepted changes of the primary");
    begin_at_zero();
}

/// Counters of rare things exist from the start: a rate sees no rise in a series whose first sample is the first event.
fn begin_at_zero() {
    for reason in [Reason::FallbackNoReplica, Reason::FallbackBehindToken, Reason::PinnedBySession] {
        metrics::counter!(FALLBACK, "reason" => reason.as_str()).increment(0);
        metrics::counter!(SHED, "reason" => reason.as_str()).increment(0);
    }
    metrics::counter!(SHED, "reason" => WRITE_WAITERS).increment(0);
    for outcome in Repetition::ALL {
        metrics::counter!(RETRIES, "outcome" => outcome.as_str()).increment(0);
    }
    for outcome in Hedge::ALL {
        metrics::counter!(HEDGES, "outcome" => outcome.as_str()).increment(0);
    }
    for why in InvalidToken::ALL {
        metrics::counter!(TOKENS_REJECTED, "reason" => why.as_str()).increment(0);
    }
    metrics::counter!(PRIMARY_CHANGES).increment(0);
}

/// What became of a failed attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Repetition {
    Repeated,
    LimitReached,
    BudgetSpent,
}

impl Repetition {
    const ALL: [Self; 3] = [Self::Repeated, Self::LimitReached, Self::BudgetSpent];

    fn as_str(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::LimitReached => "limit_reached",
            Self::BudgetSpent => "budget_spent",
        }
    }
}

pub(crate) fn retry(outcome: Repetition) {
    metrics::counter!(RETRIES, "outcome" => outcome.as_str()).increment(1);
}

/// What became of asking a second replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hedge {
    /// Its answer was the first.
    Won,
    /// The first replica was faster after all.
    Lost,
    /// It failed.
    Failed,
    /// There was no other that could serve the same.
    NoNode,
    /// Too many had been asked already.
    BudgetSpent,
}

impl Hedge {
    const ALL: [Self; 5] = [Self::Won, Self::Lost, Self::Failed, Self::NoNode, Self::BudgetSpent];

    fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::NoNode => "no_node",
            Self::BudgetSpent => "budget_spent",
        }
    }
}

pub(crate) fn hedge(outcome: Hedge) {
    metrics::counter!(HEDGES, "outcome" => outcome.as_str()).increment(1);
}

pub(crate) fn fallback(reason: Reason) {
    static COUNTERS: [OnceLock<Counter>; REASONS] = [const { OnceLock::new() }; REASONS];
    COUNTERS[reason as usize]
        .get_or_init(|| metrics::counter!(FALLBACK, "reason" => reason.as_str()))
        .increment(1);
}

pub(crate) fn shed(reason: &'static str) {
    metrics::counter!(SHED, "reason" => reason).increment(1);
}

/// How a read that had a token was served.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SessionRead {
    Replica,
    Waited,
    Primary,
}

pub(crate) fn session_read(outcome: SessionRead) {
    static COUNTERS: [OnceLock<Counter>; 3] = [const { OnceLock::new() }; 3];
    let name = match outcome {
        SessionRead::Replica => "replica",
        SessionRead::Waited => "waited",
        SessionRead::Primary => "primary",
    };
    COUNTERS[outcome as usize]
        .get_or_init(|| metrics::counter!(SESSION_READS, "outcome" => name))
        .increment(1);
}

pub(crate) fn served_staleness(staleness: Duration) {
    static HISTOGRAM: OnceLock<Histogram> = OnceLock::new();
    HISTOGRAM.get_or_init(|| metrics::histogram!(STALENESS)).record(staleness);
}

pub(crate) fn decided(elapsed: Duration) {
    static HISTOGRAM: OnceLock<Histogram> = OnceLock::new();
    HISTOGRAM.get_or_init(|| metrics::histogram!(DECISION)).record(elapsed);
}

pub(crate) fn token_rejected(why: InvalidToken) {
    metrics::counter!(TOKENS_REJECTED, "reason" => why.as_str()).increment(1);
}

pub(crate) fn primary_changed() {
    metrics::counter!(PRIMARY_CHANGES).increment(1);
}

/// The handles of one node's metrics, made at first use and kept: counting takes no lock and allocates nothing.
pub(crate) struct NodeMeters {
    node: SharedString,
    decisions: [[[OnceLock<Counter>; REASONS]; 3]; 2],
    checkout: [OnceLock<Histogram>; 2],
    query: [OnceLock<Histogram>; 2],
    faults: [OnceLock<Counter>; FAULTS],
}

impl NodeMeters {
    pub(crate) fn new(node: &str) -> Self {
        Self {
            node: SharedString::from(node.to_owned()),
            decisions: Default::default(),
            checkout: Default::default(),
            query: Default::default(),
            faults: Default::default(),
        }
    }

    pub(crate) fn decision(&self, access: Access, role: Role, reason: Reason) {
        self.decisions[access as usize][role as usize][reason as usize]
            .get_or_init(|| {
                let labels = [
                    ("access", SharedString::from(access.as_str())),
                    ("node", self.node.clone()),
                    ("role", role.as_str().into()),
                    ("reason", reason.as_str().into()),
                ];
                metrics::counter!(DECISIONS, &labels)
            })
            .increment(1);
    }

    pub(crate) fn checkout(&self, access: Access, elapsed: Duration) {
        self.timed(&self.checkout, CHECKOUT, access).record(elapsed);
    }

    pub(crate) fn query(&self, access: Access, elapsed: Duration) {
        self.timed(&self.query, QUERY, access).record(elapsed);
    }

    fn timed<'a>(
        &self,
        handles: &'a [OnceLock<Histogram>; 2],
        name: &'static str,
        access: Access,
    ) -> &'a Histogram {
        handles[access as usize].get_or_init(|| {
            let labels = [("node", self.node.clone()), ("access", access.as_str().into())];
            metrics::histogram!(name, &labels)
        })
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.faults[fault as usize]
            .get_or_init(|| {
                let labels = [("node", self.node.clone()), ("fault", fault.as_str().into())];
                metrics::counter!(ERRORS, &labels)
            })
            .increment(1);
    }
}
