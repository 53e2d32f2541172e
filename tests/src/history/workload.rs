//! Many clients at once.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::history::client::{Carelessness, Client};
use crate::history::ledger::BOUNDS;
use crate::history::operation::{Answer, Ask, Key, Token, Value, WriteForm};
use crate::history::pulse::PULSE;
use crate::history::recorder::Recorder;
use crate::history::seed::Seed;

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many there are.
    pub clients: u32,
    /// The longest pause of a client between two requests. Half of the requests follow at once.
    pub pause: Duration,
    /// What they do wrong.
    pub carelessness: Carelessness,
}

/// Messages on their way: where something was written, and the token that came with it.
type Mailbox = Arc<Mutex<Vec<(Key, Token)>>>;

/// More messages than this push older ones out.
const MOST_MESSAGES: usize = 32;

/// Many clients at once. Each writes entries of its own, and reads them, those of others whose token it was handed, and
/// the pulse, at any process.
#[derive(Debug)]
pub struct Workload {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Workload {
    /// Starts so many clients of the processes at these addresses.
    #[must_use]
    pub fn start(urls: &[String], recorder: &Recorder, plan: Plan, seed: Seed) -> Self {
        let (stop, mailbox) = (Arc::<AtomicBool>::default(), Mailbox::default());
        let mut tasks = JoinSet::new();
        for number in 1..=plan.clients {
            let client = Client::new(number, urls.to_vec(), recorder.clone(), plan.carelessness);
            let life = Life {
                client,
                key: number,
                value: 0,
                processes: urls.len(),
                rng: seed.part(u64::from(number)),
                mailbox: mailbox.clone(),
            };
            tasks.spawn(life.live(plan.pause, stop.clone()));
        }
        Self { stop, tasks }
    }

    /// Stops them after their requests under way.
    ///
    /// # Panics
    /// When a client panicked.
    pub async fn stop(mut self) {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client does not panic");
        }
    }
}

/// One client and what it does.
struct Life {
    client: Client,
    key: Key,
    value: Value,
    processes: usize,
    rng: Rng,
    mailbox: Mailbox,
}

impl Life {
    async fn live(mut self, pause: Duration, stop: Arc<AtomicBool>) {
        while !stop.load(Relaxed) {
            if self.rng.bool() {
                sleep(pause.mul_f64(self.rng.f64())).await;
            }
            match self.rng.u32(..100) {
                0..30 => self.write().await,
                30..58 => self.read(self.key, 1, None).await,
                58..66 => self.read(PULSE, 1, None).await,
                66..76 => {
                    let key = self.own_or_pulse();
                    self.read(key, 2, None).await;
                }
                76..86 => {
                    let (key, bound) = (self.own_or_pulse(), BOUNDS[self.rng.usize(..BOUNDS.len())]);
                    self.read(key, 1, Some(Duration::from_millis(bound))).await;
                }
                _ => self.read_message().await,
            }
        }
    }

    fn own_or_pulse(&mut self) -> Key {
        if self.rng.bool() { self.key } else { PULSE }
    }

    fn process(&mut self) -> usize {
        self.rng.usize(..self.processes)
    }

    async fn write(&mut self) {
        self.value += 1;
        let form = match self.rng.u32(..10) {
            0..5 => WriteForm::Statement,
            5..7 => WriteForm::Transaction,
            7 => WriteForm::ThenError,
            _ => WriteForm::ThenRead,
        };
        let (process, asked) = (self.process(), Ask::Write { key: self.key, value: self.value, form });
        let answer = self.client.ask(process, asked, None, 0).await;
        if let (Answer::Written(_), Some(token), true) = (answer, self.client.token(), self.rng.bool()) {
            let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
            if mailbox.len() == MOST_MESSAGES {
                mailbox.remove(0);
            }
            mailbox.push((self.key, token.clone()));
        }
    }

    async fn read(&mut self, key: Key, times: u32, bound: Option<Duration>) {
        let (process, pause) = (self.process(), self.rng.u64(..100));
        let own = self.client.token().cloned();
        // What holds without a token would not show beside one.
        if (times > 1 || bound.is_some()) && self.rng.bool() {
            self.client.keep(None);
        }
        self.client.ask(process, Ask::Read { key, times, bound }, None, pause).await;
        self.client.keep(own);
    }

    /// Reads what another client has written, with the token that came with that. Half of the time it presents no other.
    async fn read_message(&mut self) {
        let message = {
            let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
            if mailbox.is_empty() { None } else { Some(self.rng.usize(..mailbox.len())) }
                .map(|place| mailbox.remove(place))
        };
        let Some((key, token)) = message else { return };
        let (process, own) = (self.process(), self.client.token().cloned());
        if self.rng.bool() {
            self.client.keep(None);
        }
        self.client.ask(process, Ask::Read { key, times: 1, bound: None }, Some(&token), 0).await;
        self.client.keep(own);
    }
}
