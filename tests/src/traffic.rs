//! Many concurrent writers, and what became of each of their writes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use routing_core::{Consistency, Lease, Router, Session};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::handle::Handle as _;
use crate::orm::Orm;
use crate::servers::Servers;
use crate::wait::{PATIENCE, eventually};

/// Who writes.
const AUTHOR: &str = "traffic";

/// Between two writes of one writer: an unoptimized build on two cores is busy with more.
const PAUSE: Duration = Duration::from_millis(100);

/// Between the starts of two writers: cold pools are not what a failover is about.
const STAGGER: Duration = Duration::from_millis(20);

/// What a writer was told of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is committed.
    Acknowledged,
    /// It may or may not be committed.
    Unknown(String),
    /// The router let nothing of it through, and said why.
    Refused(String),
    /// Any other error.
    Failed(String),
}

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    /// What it wrote: no two write the same.
    pub text: String,
    /// When it began.
    pub began: Instant,
    /// When its writer was told.
    pub ended: Instant,
    /// What its writer was told.
    pub fate: Fate,
}

/// What writers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Write,
    Hold,
    Stop,
}

/// Writers that write until they are told to stop, each time one row in a request of its own: by a statement, by a
/// transaction of the handle, and by the closure form in turn.
#[derive(Debug)]
pub struct Writers {
    writes: Arc<Mutex<Vec<Write>>>,
    running: Arc<AtomicUsize>,
    order: watch::Sender<Order>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts so many writers.
    #[must_use]
    pub fn start<O: Orm>(router: &Router<O>, count: usize) -> Self {
        let (writes, order) = (Arc::<Mutex<Vec<Write>>>::default(), watch::Sender::new(Order::Write));
        let running = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (router, writes, mut orders) = (router.clone(), writes.clone(), order.subscribe());
            let running = running.clone();
            tasks.spawn(async move {
                sleep(STAGGER * u32::try_from(number).unwrap_or(u32::MAX)).await;
                for round in 0.. {
                    loop {
                        match orders.wait_for(|order| *order != Order::Hold).await.map(|order| *order) {
                            Ok(Order::Write) => running.fetch_add(1, SeqCst),
                            _ => return,
                        };
                        // Whoever holds them looks at the number after the order.
                        if *orders.borrow() == Order::Write {
                            break;
                        }
                        running.fetch_sub(1, SeqCst);
                    }
                    let (text, began) = (format!("{number}-{round}"), Instant::now());
                    let fate = fate::<O>(write(&router, number + round, &text).await);
                    locked(&writes).push(Write { text, began, ended: Instant::now(), fate });
                    running.fetch_sub(1, SeqCst);
                    sleep(PAUSE).await;
                }
            });
        }
        Self { writes, running, order, tasks }
    }

    /// What they were told so far.
    #[must_use]
    pub fn writes(&self) -> Writes {
        Writes(locked(&self.writes).clone())
    }

    /// Waits until so many more writes are acknowledged.
    ///
    /// # Panics
    /// When they are not.
    pub async fn go_on(&self, number: usize) {
        let target = self.writes().acknowledged().count() + number;
        eventually(PATIENCE, "the writers go on", async || self.writes().acknowledged().count() >= target)
            .await;
    }

    /// Has them begin no write from now on, and waits for those that have begun.
    ///
    /// # Panics
    /// When one does not end.
    pub async fn hold(&self) {
        self.order.send_replace(Order::Hold);
        eventually(PATIENCE, "the writes that have begun end", async || self.running.load(SeqCst) == 0).await;
    }

    /// Has them write again.
    pub fn release(&self) {
        self.order.send_replace(Order::Write);
    }

    /// Stops them and waits for their last writes.
    ///
    /// # Panics
    /// When a writer panicked.
    pub async fn stop(mut self) -> Writes {
        self.order.send_replace(Order::Stop);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a writer does not panic");
        }
        self.writes()
    }
}

async fn write<O: Orm>(router: &Router<O>, form: usize, text: &str) -> Result<(), O::Failure> {
    let handle = || O::write(router.routed(Session::new(), Consistency::Strong));
    match form % 3 {
        0 => handle().insert_note(AUTHOR, text).await,
        1 => {
            let insert =
                format!("INSERT INTO note (author, text) VALUES ('{AUTHOR}', '{text}') RETURNING text");
            handle().transaction(&[&insert]).await.map(drop)
        }
        _ => {
            let text = text.to_owned();
            router
                .run_write(async move |lease: &mut Lease<O>| O::insert_note_on(lease, AUTHOR, &text).await)
                .await
        }
    }
}

/// What an outcome tells a writer.
fn fate<O: Orm>(outcome: Result<(), O::Failure>) -> Fate {
    match outcome {
        Ok(()) => Fate::Acknowledged,
        Err(error) if O::is_commit_unknown(&error) => Fate::Unknown(error.to_string()),
        Err(error) if O::route_error(&error).is_some() => Fate::Refused(error.to_string()),
        Err(error) => Fate::Failed(error.to_string()),
    }
}

/// Writes in the order in which their writers were told.
#[derive(Clone, Debug)]
pub struct Writes(Vec<Write>);

impl Writes {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Write> {
        self.0.iter()
    }

    /// Those that are committed.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Write> {
        self.all().filter(|write| write.fate == Fate::Acknowledged)
    }

    /// How many may or may not be committed.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.all().filter(|write| matches!(write.fate, Fate::Unknown(_))).count()
    }

    /// The longest time in which no write was acknowledged, of the time in which some were.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let mut told: Vec<Instant> = self.acknowledged().map(|write| write.ended).collect();
        told.sort_unstable();
        told.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// When the first write was acknowledged after a moment.
    #[must_use]
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        self.acknowledged().map(|write| write.ended).filter(|ended| *ended > moment).min()
    }

    /// Fails unless each write that is not acknowledged has its reason: refused by the router, or unknown.
    ///
    /// # Panics
    /// With the first that failed in another way.
    pub fn assert_typed(&self) {
        for write in self.all() {
            assert!(!matches!(write.fate, Fate::Failed(_)), "{write:?}");
        }
    }

    /// Fails unless all were acknowledged.
    ///
    /// # Panics
    /// With the first that was not.
    pub fn assert_all_acknowledged(&self) {
        let failed: Vec<&Write> = self.all().filter(|write| write.fate != Fate::Acknowledged).collect();
        assert!(failed.is_empty(), "{} of {} failed, the first: {:?}", failed.len(), self.0.len(), failed[0]);
    }

    /// The acknowledged writes that a node lacks.
    ///
    /// # Panics
    /// When the node has a write twice, or one that the router says it let nothing through of.
    pub async fn lost_on(&self, servers: &impl Servers, node: &str) -> Vec<&Write> {
        let rows = format!(
            "SELECT coalesce(string_agg(text || ' ' || number, ','), '') FROM \
             (SELECT text, count(*) AS number FROM note WHERE author = '{AUTHOR}' GROUP BY text) AS each"
        );
        let rows: String = servers.value(node, &rows).await;
        let rows: BTreeMap<&str, &str> = rows.split(',').filter_map(|row| row.split_once(' ')).collect();
        for (text, number) in &rows {
            assert_eq!(*number, "1", "{text} is there {number} times on {node}");
        }
        for write in self.all() {
            let refused = matches!(write.fate, Fate::Refused(_));
            assert!(!refused || !rows.contains_key(&*write.text), "{node} has it: {write:?}");
        }
        self.acknowledged().filter(|write| !rows.contains_key(&*write.text)).collect()
    }

    /// Waits until each of these nodes has every acknowledged write, once.
    ///
    /// # Panics
    /// When one lacks a write, or has one twice.
    pub async fn assert_kept(&self, servers: &impl Servers, nodes: &[&str]) {
        for node in nodes {
            eventually(PATIENCE, &format!("{node} has every acknowledged write"), async || {
                self.lost_on(servers, node).await.is_empty()
            })
            .await;
        }
    }
}

fn locked(writes: &Mutex<Vec<Write>>) -> MutexGuard<'_, Vec<Write>> {
    writes.lock().unwrap_or_else(PoisonError::into_inner)
}
