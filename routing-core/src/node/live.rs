//! What decisions read and write of a node.

use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use super::outcome::{FAULT_HALF_LIFE_MILLIS, LATENCY_HALF_LIFE_MILLIS};
use crate::fading::Fading;
use crate::gate::Gate;
use crate::slow_start::SlowStart;

/// What each decision reads of each node, and the request that it sends there writes: on one cache line, which is all of a
/// node that a decision of another thread has to fetch anew. What is seldom written is beside what often is, because whoever
/// reads one of them reads all.
// In this order: what is behind the line is not read while all is well.
#[repr(C, align(64))]
pub(super) struct Live {
    /// Requests in flight, and in the upper half how many there have been: one operation counts a request in and numbers it.
    pub(super) entered: AtomicU64,
    pub(super) weight: AtomicU32,
    pub(super) draining: AtomicBool,
    pub(super) reads: AtomicBool,
    /// It is in the zone of this process, or no zone counts.
    pub(super) local: AtomicBool,
    /// What it owes for its faults, in parts of a request in flight.
    pub(super) faults: Fading<FAULT_HALF_LIFE_MILLIS>,
    /// Microseconds; an average that follows peaks.
    pub(super) latency: Fading<LATENCY_HALF_LIFE_MILLIS>,
    pub(super) slow_start: SlowStart,
    pub(super) gate: Gate,
}

const _: () = assert!(offset_of!(Live, gate) + Gate::READ_BY_DECISIONS <= 64, "one cache line");
