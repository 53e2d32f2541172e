//! A server in memory.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::lsn::Lsn;

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answers.
    Up,
    /// Its connections break and new ones are refused at once, as after `kill -9`.
    Refused,
    /// Nothing is answered and nothing breaks, as under SIGSTOP.
    Frozen,
}

/// What was written when, on which timeline.
pub(super) type Log = Arc<Mutex<Vec<(Instant, u32, Lsn)>>>;

/// One server.
pub struct FakeServer {
    name: String,
    number: u16,
    started: Mutex<Instant>,
    /// Rises with each crash: connections of the time before are dead.
    life: AtomicU32,
    state: Mutex<State>,
    reach: watch::Sender<Reach>,
    /// The log that it wrote while it was a primary, shared by all: when which position was written.
    log: Log,
    pub(super) connections: AtomicU32,
    pub(super) executing: AtomicU32,
    pub(super) statements: AtomicU32,
    pub(super) asked: AtomicU32,
    pub(super) probes: AtomicU32,
    pub(super) probe_connections: AtomicU32,
    pub(super) refusals_left: AtomicU32,
    pub(super) rejects_probes: AtomicBool,
    pub(super) panics: AtomicBool,
    pub(super) retired: [AtomicU32; 2],
    pub(super) opened: AtomicU32,
    pub(super) closed: AtomicU32,
    /// Connections that are being opened now, and at most.
    pub(super) opening: AtomicU32,
    pub(super) most_opening: AtomicU32,
    pub(super) hides_timeline: AtomicBool,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) primary: bool,
    pub(super) read_only: bool,
    pub(super) timeline: u32,
    pub(super) system_id: u64,
    /// The number of the server that it streams from.
    pub(super) follows: Option<u16>,
    pub(super) apply_lag: Duration,
    /// Replay is paused at this position.
    pub(super) paused_at: Option<Lsn>,
    /// What it has applied: replay never goes back.
    applied: Lsn,
    pub(super) latency: Duration,
    /// How long a statement that nobody waits for any more goes on at most.
    pub(super) last_word: Duration,
    /// How long a checkout takes.
    pub(super) connect: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeServer {
    /// `pg1` is a primary on timeline 1; the others stream from it without delay.
    pub(super) fn new(number: u16, log: Log) -> Self {
        let state = State {
            primary: number == 1,
            read_only: false,
            timeline: 1,
            system_id: 7,
            follows: (number != 1).then_some(1),
            apply_lag: Duration::ZERO,
            paused_at: None,
            applied: Lsn::default(),
            latency: Duration::from_millis(1),
            last_word: Duration::ZERO,
            connect: Duration::ZERO,
        };
        Self {
            name: format!("pg{number}"),
            number,
            started: Mutex::new(Instant::now()),
            life: AtomicU32::new(0),
            state: Mutex::new(state),
            reach: watch::Sender::new(Reach::Up),
            log,
            connections: AtomicU32::new(0),
            executing: AtomicU32::new(0),
            statements: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            probes: AtomicU32::new(0),
            probe_connections: AtomicU32::new(0),
            refusals_left: AtomicU32::new(0),
            rejects_probes: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            retired: [const { AtomicU32::new(0) }; 2],
            opened: AtomicU32::new(0),
            closed: AtomicU32::new(0),
            opening: AtomicU32::new(0),
            most_opening: AtomicU32::new(0),
            hides_timeline: AtomicBool::new(false),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Notes in the log that a timeline begins here.
    pub(super) fn begin_timeline(&self, timeline: u32) {
        let lsn = self.lsn();
        let mut state = self.state();
        (state.primary, state.follows, state.timeline, state.paused_at) = (true, None, timeline, None);
        lock(&self.log).push((Instant::now(), timeline, lsn));
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Its pools are taken to have been filled when it started.
    pub(super) fn started(&self) -> Instant {
        *lock(&self.started)
    }

    pub(super) fn life(&self) -> u32 {
        self.life.load(SeqCst)
    }

    /// One of its processes crashes: all connections break, and it comes back at once with its replay stopped at `lsn`,
    /// behind what it had shown, as was measured.
    pub fn crash_back_to(&self, lsn: Lsn) {
        *lock(&self.started) = Instant::now();
        self.life.fetch_add(1, SeqCst);
        self.state().paused_at = Some(lsn);
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// How long a checkout takes from now on.
    pub fn set_connect_time(&self, connect: Duration) {
        self.state().connect = connect;
    }

    /// Changes how it answers.
    pub fn set_reach(&self, reach: Reach) {
        self.reach.send_replace(reach);
    }

    /// How long each statement takes. Default 1 ms.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// How long a statement that nobody waits for any more goes on at most, with its connection; at first not at all.
    pub fn set_last_word(&self, last_word: Duration) {
        self.state().last_word = last_word;
    }

    /// How long after its primary it applies the log. Default zero.
    pub fn set_apply_lag(&self, lag: Duration) {
        self.state().apply_lag = lag;
    }

    /// Pauses replay where it is, or lets it go on.
    pub fn set_paused(&self, paused: bool) {
        let lsn = self.lsn();
        self.state().paused_at = paused.then_some(lsn);
    }

    /// Ends or restores its WAL receiver: without one its data stands still.
    pub fn set_receiving(&self, from: Option<u16>) {
        let lsn = self.lsn();
        let mut state = self.state();
        state.follows = from;
        state.paused_at = from.is_none().then_some(lsn);
    }

    /// Whether its sessions start read-only.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// Makes it a server of another cluster.
    pub fn set_system_id(&self, system_id: u64) {
        self.state().system_id = system_id;
    }

    /// Whether probes are answered with an error that shows the server alive, as after a change of the password.
    pub fn reject_probes(&self, reject: bool) {
        self.rejects_probes.store(reject, SeqCst);
    }

    /// Whether a standby's timeline, and whom it streams from, are hidden from the monitor, as from a plain LOGIN role.
    pub fn hide_timeline(&self, hide: bool) {
        self.hides_timeline.store(hide, SeqCst);
    }

    /// The next probe panics in the prober.
    pub fn panic_at_next_probe(&self) {
        self.panics.store(true, SeqCst);
    }

    /// The next `count` connection attempts are refused with 57P03.
    pub fn refuse_next(&self, count: u32) {
        self.refusals_left.store(count, SeqCst);
    }

    /// Writes one record of ten bytes; its position.
    pub fn append(&self) -> Lsn {
        let timeline = self.state().timeline;
        let mut log = lock(&self.log);
        let last =
            log.iter().rev().find(|(_, of, _)| *of == timeline).map_or(1_000, |(_, _, lsn)| lsn.as_u64());
        let lsn = Lsn::from(last + 10);
        log.push((Instant::now(), timeline, lsn));
        lsn
    }

    /// Its position: what a primary wrote, what a replica has replayed.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        let mut state = self.state();
        if let Some(paused_at) = state.paused_at {
            return paused_at;
        }
        let seen = Instant::now().checked_sub(if state.primary { Duration::ZERO } else { state.apply_lag });
        let log = lock(&self.log);
        let applied = log
            .iter()
            .rev()
            .find(|(at, timeline, _)| *timeline == state.timeline && seen.is_some_and(|seen| *at <= seen));
        let lsn = applied.or(log.first()).map_or(Lsn::default(), |(_, _, lsn)| *lsn);
        state.applied = state.applied.max(lsn);
        state.applied
    }

    pub(super) fn reach(&self) -> Reach {
        *self.reach.borrow()
    }

    /// Waits while it is frozen; `false` when it then refuses.
    pub(super) async fn answers(&self) -> bool {
        let mut reach = self.reach.subscribe();
        let answer = reach.wait_for(|reach| *reach != Reach::Frozen).await;
        answer.is_ok_and(|reach| *reach == Reach::Up)
    }

    /// Ends when it stops to answer with an error.
    pub(super) async fn breaks(&self) {
        let mut reach = self.reach.subscribe();
        let _ = reach.wait_for(|reach| *reach == Reach::Refused).await;
    }
}

impl fmt::Debug for FakeServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeServer")
            .field("name", &self.name)
            .field("reach", &self.reach())
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}
