//! What clients ask, and when.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::chaos::class::{Class, Drawn};
use crate::chaos::scene::Scene;
use crate::chaos::tally::{Answered, Outcome};
use crate::history::{Key, Recorder, Token, Value};
use crate::http::Http;
use crate::open_loop;

/// What the pulse adds to its value, so that its stock leads every ranking.
pub(super) const LEAD: f64 = 1_000_000.0;
/// The stock that the pulse writes, and its closes.
pub(super) const PULSE_SETUP: &str = "INSERT INTO stocks (symbol, name, industries, indices) VALUES ('PULSE', 'Pulse', '{}', '{}'); \
     INSERT INTO closes (stock_id, date, close) SELECT id, date '2000-01-01', 1 FROM stocks WHERE symbol = 'PULSE'; \
     INSERT INTO closes (stock_id, date, close) SELECT id, date '2000-01-02', 1000000 FROM stocks WHERE symbol = 'PULSE'";

/// Makes a value the newest that a screen can show.
pub(super) fn pulse_sql(value: Value) -> String {
    format!(
        "UPDATE closes SET close = {value} + {LEAD} WHERE date = '2000-01-02' \
         AND stock_id = (SELECT id FROM stocks WHERE symbol = 'PULSE')"
    )
}

/// One person: what they have written, and the newest token that they were given.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) written: Value,
    pub(super) token: Option<(Token, Duration)>,
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) recorder: Recorder,
    began: Instant,
    processes: Vec<(&'static str, Http)>,
    pub(super) users: Mutex<HashMap<Key, User>>,
    answered: Mutex<Vec<Answered>>,
    /// Fresh writes that the application called old: each was run twice.
    pub(super) repeated: Mutex<Vec<(Key, Value)>>,
}

/// Clients that ask at moments which were drawn in advance.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    running: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Begins: so many requests a second over all processes, until it is [stopped](Self::stop).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(scene: &Scene, per_second: f64, mut rng: Rng) -> Self {
        let shared = Arc::new(Shared {
            recorder: scene.recorder.clone(),
            began: Instant::now() - scene.recorder.now(),
            processes: scene
                .processes
                .iter()
                .map(|process| (process.name, Http::new(process.screener.address())))
                .collect(),
            users: Mutex::default(),
            answered: Mutex::default(),
            repeated: Mutex::default(),
        });
        let stop = watch::Sender::new(false);
        let (asking, stopped) = (shared.clone(), stop.subscribe());
        let running = tokio::spawn(async move {
            // A slice at a time, so that it can go on for as long as it is to.
            let slice = Duration::from_secs(1);
            let mut began = Instant::now();
            let mut slices = tokio::task::JoinSet::new();
            while !*stopped.borrow() {
                let arrivals = open_loop::arrivals(&mut rng, per_second, slice);
                let drawn: Vec<_> =
                    arrivals.iter().map(|_| Drawn::new(&mut rng, asking.processes.len())).collect();
                let asking = asking.clone();
                slices.spawn(async move {
                    open_loop::run(began, &arrivals, |number, moment| {
                        ask(asking.clone(), drawn[number], moment)
                    })
                    .await;
                });
                began += slice;
                tokio::time::sleep_until(began).await;
            }
            while let Some(ended) = slices.join_next().await {
                ended.expect("no request panics");
            }
        });
        Self { shared, running, stop }
    }

    /// Requests that were answered so far.
    #[must_use]
    pub fn count(&self) -> usize {
        locked(&self.shared.answered).len()
    }

    /// Stops and waits for the last answers: all requests, and the fresh writes that the application called old.
    ///
    /// # Panics
    /// When a request panicked.
    pub async fn stop(self) -> (Vec<Answered>, Vec<(Key, Value)>) {
        self.stop.send_replace(true);
        self.running.await.expect("the load does not panic");
        (
            std::mem::take(&mut locked(&self.shared.answered)),
            std::mem::take(&mut locked(&self.shared.repeated)),
        )
    }
}

async fn ask(shared: Arc<Shared>, drawn: Drawn, moment: Instant) {
    let Drawn { class, process, user, number } = drawn;
    let (name, http) = &shared.processes[process];
    let exchange = match class {
        Class::List => {
            let sort = ["symbol", "-employees", "name"][number as usize % 3];
            http.get(&format!("/stocks?page={}&page_size=20&sort={sort}", number % 50 + 1)).await
        }
        Class::Detail if number.is_multiple_of(4) => {
            http.get(&format!("/stocks/{}/closes", number % 50 + 1)).await
        }
        Class::Detail => http.get(&format!("/stocks/{}", number % 1_800 + 1)).await,
        Class::Screen => shared.screen(process, http).await,
        Class::Session => shared.watchlist(process, http, user).await,
        Class::Write => shared.add(process, http, user).await,
    };
    let outcome = Outcome::of(&exchange);
    let (due, ended) = (moment.duration_since(shared.began), shared.recorder.now());
    locked(&shared.answered).push(Answered { class, process: name, due, ended, outcome });
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
