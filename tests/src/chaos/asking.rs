//! Requests whose answers are judged, as they are recorded.

use std::time::Duration;

use super::load::{LEAD, Shared, locked};
use super::tally::Outcome;
use crate::history::{Answer, Ask, Key, Operation, PULSE, Served, Token, Value, WriteForm};
use crate::http::{Http, Lost, Reply};

/// What a bound of the screen is.
const BOUND: Duration = Duration::from_secs(5);

/// What was asked: by whom, of which process, since when.
struct Question {
    process: usize,
    client: u32,
    invoked: Duration,
    presented: Vec<Token>,
    asked: Ask,
}

impl Shared {
    /// Adds the user's next stock.
    pub(super) async fn add(&self, process: usize, http: &Http, user: Key) -> Result<Reply, Lost> {
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
        let question = Question { process, client: user, invoked, presented: Vec::new(), asked };
        let issued = self.record(question, answer, exchange.as_ref().ok());
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
    pub(super) async fn watchlist(&self, process: usize, http: &Http, user: Key) -> Result<Reply, Lost> {
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
        let presented = token.into_iter().collect();
        self.record_read(Question { process, client: user, invoked, presented, asked }, &exchange, seen);
        exchange
    }

    /// Reads the screen, which the stock of the pulse leads.
    pub(super) async fn screen(&self, process: usize, http: &Http) -> Result<Reply, Lost> {
        let invoked = self.recorder.now();
        let exchange = http.get("/screen?window=2&sort=return&limit=1").await;
        let seen = |reply: &Reply| {
            let first = &reply.json()["items"][0];
            let value = first["return"].as_f64()? + 1.0 - LEAD;
            // It was a number of its own before it was a return.
            (first["symbol"] == "PULSE").then_some(value.round() as Value)
        };
        let asked = Ask::Read { key: PULSE, times: 1, bound: Some(BOUND) };
        let question = Question { process, client: PULSE, invoked, presented: Vec::new(), asked };
        self.record_read(question, &exchange, seen);
        exchange
    }

    fn record_read(
        &self,
        question: Question,
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
        self.record(question, answer, exchange.as_ref().ok());
    }

    fn record(&self, question: Question, answer: Answer, reply: Option<&Reply>) -> Option<Token> {
        let Question { process, client, invoked, presented, asked } = question;
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
