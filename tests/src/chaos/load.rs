//! What clients ask, and when.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::chaos::scene::Scene;
use crate::chaos::tally::{Answered, Outcome};
use crate::history::{Answer, Ask, Key, Operation, PULSE, Recorder, Served, Token, Value, WriteForm};
use crate::http::{Http, Lost, Reply};
use crate::open_loop;

/// How many people keep a watchlist.
const USERS: u32 = 12;
/// What a bound of the screen is.
const BOUND: Duration = Duration::from_secs(5);
/// What the pulse adds to its value, so that its stock leads every ranking.
const LEAD: f64 = 1_000_000.0;
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

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A page of stocks, without a token.
    List,
    /// One stock, or its closes, without a token.
    Detail,
    /// The screen, which asks for a bound.
    Screen,
    /// Somebody's own watchlist, with their newest token.
    Session,
    /// A new entry of a watchlist.
    Write,
}

impl Class {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u32(..100) {
            0..30 => Self::List,
            30..52 => Self::Detail,
            52..56 => Self::Screen,
            56..78 => Self::Session,
            _ => Self::Write,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Detail => "detail",
            Self::Screen => "screen",
            Self::Session => "watchlist",
            Self::Write => "write",
        })
    }
}

/// One person: what they have written, and the newest token that they were given.
#[derive(Debug, Default)]
struct User {
    written: Value,
    token: Option<(Token, Duration)>,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    recorder: Recorder,
    began: Instant,
    processes: Vec<(&'static str, Http)>,
    users: Mutex<HashMap<Key, User>>,
    answered: Mutex<Vec<Answered>>,
    /// Fresh writes that the application called old: each was run twice.
    repeated: Mutex<Vec<(Key, Value)>>,
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

/// What was drawn for one request.
#[derive(Clone, Copy)]
struct Drawn {
    class: Class,
    process: usize,
    user: Key,
    number: u32,
}

impl Drawn {
    fn new(rng: &mut Rng, processes: usize) -> Self {
        let (class, process) = (Class::draw(rng), rng.usize(..processes));
        Self { class, process, user: rng.u32(1..=USERS), number: rng.u32(..) }
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

impl Shared {
    /// Adds the user's next stock.
    async fn add(&self, process: usize, http: &Http, user: Key) -> Result<Reply, Lost> {
        let value = {
            let mut users = locked(&self.users);
            let user = users.entry(user).or_default();
            user.written += 1;
            user.written
        };
        let invoked = self.recorder.now();
        let (name, body) = (user_name(user), format!("{{\"stock_id\": {value}}}"));
        let exchange = http.ask("POST", "/watchlist", &[("x-user", &name)], Some(&body)).await;
        let answer = match (&exchange, Outcome::of(&exchange)) {
            (Ok(reply), Outcome::Done) => {
                if reply.status != 201 {
                    locked(&self.repeated).push((user, value));
                }
                Answer::Written(None)
            }
            (_, Outcome::Refused(code)) => Answer::Refused(code),
            (_, outcome) => Answer::Unknown(outcome.to_string()),
        };
        let asked = Ask::Write { key: user, value, form: WriteForm::Statement };
        let issued = self.record(process, user, invoked, Vec::new(), asked, answer, exchange.as_ref().ok());
        if let (Some(token), Outcome::Done) = (issued, Outcome::of(&exchange)) {
            let mut users = locked(&self.users);
            let user = users.entry(user).or_default();
            // The token of the request that began last covers most.
            if user.token.as_ref().is_none_or(|(_, since)| *since < invoked) {
                user.token = Some((token, invoked));
            }
        }
        exchange
    }

    /// Reads the user's watchlist with their newest token: in a cookie, as a browser, or in a header, as a script.
    async fn watchlist(&self, process: usize, http: &Http, user: Key) -> Result<Reply, Lost> {
        let token =
            locked(&self.users).entry(user).or_default().token.as_ref().map(|(token, _)| token.clone());
        let (name, mut headers) = (user_name(user), Vec::new());
        headers.push(("x-user", name.as_str()));
        let cookie = token.as_ref().map(|token| format!("theme=dark; db_session={token}"));
        match (&token, &cookie) {
            (Some(_), Some(cookie)) if user.is_multiple_of(2) => headers.push(("cookie", cookie)),
            (Some(token), _) => headers.push(("x-db-session", token)),
            (None, _) => {}
        }
        let invoked = self.recorder.now();
        let exchange = http.ask("GET", "/watchlist", &headers, None).await;
        let seen = |reply: &Reply| {
            let json = reply.json();
            let items = json["items"].as_array()?.iter();
            Some(items.filter_map(|item| item["stock_id"].as_u64()).max().unwrap_or(0))
        };
        let asked = Ask::Read { key: user, times: 1, bound: None };
        self.record_read(process, user, invoked, token.into_iter().collect(), asked, &exchange, seen);
        exchange
    }

    /// Reads the screen, which the stock of the pulse leads.
    async fn screen(&self, process: usize, http: &Http) -> Result<Reply, Lost> {
        let invoked = self.recorder.now();
        let exchange = http.get("/screen?window=2&sort=return&limit=1").await;
        let seen = |reply: &Reply| {
            let first = &reply.json()["items"][0];
            let value = first["return"].as_f64()? + 1.0 - LEAD;
            // It was a number of its own before it was a return.
            (first["symbol"] == "PULSE").then_some(value.round() as Value)
        };
        let asked = Ask::Read { key: PULSE, times: 1, bound: Some(BOUND) };
        self.record_read(process, PULSE, invoked, Vec::new(), asked, &exchange, seen);
        exchange
    }

    #[expect(clippy::too_many_arguments, reason = "what an operation is made of")]
    fn record_read(
        &self,
        process: usize,
        client: u32,
        invoked: Duration,
        presented: Vec<Token>,
        asked: Ask,
        exchange: &Result<Reply, Lost>,
        seen: impl Fn(&Reply) -> Option<Value>,
    ) {
        let answer = match (exchange, Outcome::of(exchange)) {
            (Ok(reply), Outcome::Done) => match seen(reply) {
                Some(value) => Answer::Read(vec![value]),
                None => Answer::Unknown(format!("not what was asked for: {}", reply.body)),
            },
            (_, Outcome::Refused(code)) => Answer::Refused(code),
            (_, outcome) => Answer::Unknown(outcome.to_string()),
        };
        self.record(process, client, invoked, presented, asked, answer, exchange.as_ref().ok());
    }

    #[expect(clippy::too_many_arguments, reason = "what an operation is made of")]
    fn record(
        &self,
        process: usize,
        client: u32,
        invoked: Duration,
        presented: Vec<Token>,
        asked: Ask,
        answer: Answer,
        reply: Option<&Reply>,
    ) -> Option<Token> {
        let header = |name| reply.and_then(|reply| reply.header(name)).map(str::to_owned);
        let served = header("x-db-node").zip(header("x-db-role")).zip(header("x-db-reason"));
        let served = served.map(|((node, role), reason)| Served { node, role, reason });
        let issued = header("x-db-session").map(Token::from);
        self.recorder.record(Operation {
            client,
            instance: Some(process),
            invoked,
            completed: self.recorder.now(),
            presented,
            asked,
            answer,
            issued: issued.clone(),
            served,
        });
        issued
    }
}

fn user_name(user: Key) -> String {
    format!("chaos-{user}")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
