//! One client of the application, over HTTP.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{COOKIE, SET_COOKIE};
use serde_json::Value as JsonValue;

use crate::history::ledger::{AFTER_COMMIT, COMMIT_UNKNOWN, INTERNAL};
use crate::history::operation::{Answer, Ask, Operation, Served, Token, Value};
use crate::history::recorder::Recorder;

/// No request takes as long as this, whatever the fault: the router's own deadlines are some seconds.
const NO_ANSWER: Duration = Duration::from_secs(30);
/// Cookie and header of the token.
const COOKIE_NAME: &str = "db_session";
const HEADER: &str = "x-db-session";

/// How a client keeps its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a browser, in a cookie beside others.
    Cookie,
    /// As a script, in a header.
    Header,
}

/// What a client or the application does wrong, to show that it is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carelessness {
    /// Nothing.
    #[default]
    None,
    /// The tokens are lost on the way.
    NoToken,
    /// The routes do not heed them.
    Eventual,
    /// The reads of one request do not share its session.
    TwoSessions,
    /// Routes that need a bound have none, and the tokens, which would help, are lost.
    NoBound,
}

/// One client. It asks one thing at a time, any of the processes, and keeps the token of its last write.
#[derive(Clone, Debug)]
pub struct Client {
    number: u32,
    form: Form,
    urls: Vec<String>,
    carelessness: Carelessness,
    http: reqwest::Client,
    recorder: Recorder,
    own: Option<Token>,
}

impl Client {
    /// A client of the processes at these addresses.
    ///
    /// # Panics
    /// When the system gives no randomness to the HTTP client.
    #[must_use]
    pub fn new(number: u32, urls: Vec<String>, recorder: Recorder, carelessness: Carelessness) -> Self {
        // A proxy of the environment has no part in what happens on this machine.
        let http = reqwest::Client::builder().no_proxy().timeout(NO_ANSWER).build().expect("an HTTP client");
        let form = if number.is_multiple_of(2) { Form::Cookie } else { Form::Header };
        Self { number, form, urls, carelessness, http, recorder, own: None }
    }

    /// The token of its last write.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.own.as_ref()
    }

    /// Gives it a token, as if a write had brought it.
    pub fn keep(&mut self, token: Option<Token>) {
        self.own = token;
    }

    /// Asks one process, with its own token and one that it was handed, and takes down what comes of it.
    pub async fn ask(&mut self, instance: usize, asked: Ask, handed: Option<&Token>, pause: u64) -> Answer {
        let mut request = match asked {
            Ask::Write { .. } => self.http.post(self.address(instance, asked, pause)),
            Ask::Read { .. } => self.http.get(self.address(instance, asked, pause)),
        };
        let mut presented: Vec<Token> = self.own.iter().cloned().collect();
        if !matches!(self.carelessness, Carelessness::NoToken | Carelessness::NoBound) {
            if let Some(own) = &self.own {
                request = match self.form {
                    Form::Cookie => {
                        request.header(COOKIE, format!("theme=dark; {COOKIE_NAME}={own}; lang=en"))
                    }
                    Form::Header => request.header(HEADER, &**own),
                };
            }
            if let Some(handed) = handed {
                request = request.header(HEADER, &**handed);
            }
        }
        presented.extend(handed.cloned());
        let invoked = self.recorder.now();
        let outcome = match request.send().await {
            Ok(response) => Outcome::of(response, self.form, asked).await,
            Err(error) => Outcome::from(error),
        };
        let completed = self.recorder.now();
        if let Some(token) = &outcome.token {
            self.own = Some(token.clone());
        }
        self.recorder.record(Operation {
            client: self.number,
            instance: Some(instance),
            invoked,
            completed,
            presented,
            asked,
            answer: outcome.answer.clone(),
            issued: outcome.token,
            served: outcome.served,
        });
        outcome.answer
    }

    fn address(&self, instance: usize, asked: Ask, pause: u64) -> String {
        let url = &self.urls[instance];
        match asked {
            Ask::Write { key, value, form } => format!("{url}/entries/{key}/{value}?form={}", form.as_str()),
            Ask::Read { key, times, bound } => {
                let path = match (self.carelessness, bound) {
                    (Carelessness::Eventual, _) => format!("careless/eventual/{key}"),
                    (Carelessness::TwoSessions, None) if times > 1 => format!("careless/sessions/{key}"),
                    (_, Some(bound)) if self.carelessness != Carelessness::NoBound => {
                        format!("entries/{key}/within/{}", bound.as_millis())
                    }
                    _ => format!("entries/{key}"),
                };
                format!("{url}/{path}?times={times}&pause={pause}")
            }
        }
    }
}

struct Outcome {
    answer: Answer,
    token: Option<Token>,
    served: Option<Served>,
}

impl From<reqwest::Error> for Outcome {
    fn from(error: reqwest::Error) -> Self {
        let answer = if error.is_timeout() { Answer::Nothing } else { Answer::Unknown(error.to_string()) };
        Self { answer, token: None, served: None }
    }
}

impl Outcome {
    async fn of(response: Response, form: Form, asked: Ask) -> Self {
        let header = |name: &str| {
            response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let served = header("x-db-node").zip(header("x-db-role")).zip(header("x-db-reason"));
        let served = served.map(|((node, role), reason)| Served { node, role, reason });
        let token = match form {
            Form::Header => header(HEADER),
            Form::Cookie => response.headers().get_all(SET_COOKIE).iter().find_map(|cookie| {
                let (name, rest) = cookie.to_str().ok()?.split_once('=')?;
                let value = rest.split(';').next().unwrap_or_default();
                (name == COOKIE_NAME).then(|| value.to_owned())
            }),
        };
        let token = token.map(Token::from);
        let success = response.status().is_success();
        let answer = match response.json::<JsonValue>().await {
            Ok(body) if success => read(&body, asked),
            Ok(body) => failed(&body, asked),
            Err(error) if error.is_timeout() => Answer::Nothing,
            Err(error) => Answer::Unknown(error.to_string()),
        };
        Self { answer, token, served }
    }
}

fn read(body: &JsonValue, asked: Ask) -> Answer {
    let seen: Option<Vec<Value>> =
        body.as_array().and_then(|seen| seen.iter().map(JsonValue::as_u64).collect());
    match (asked, seen) {
        (Ask::Write { .. }, Some(seen)) => Answer::Written(seen.first().copied()),
        (Ask::Read { .. }, Some(seen)) => Answer::Read(seen),
        (_, None) => Answer::Unknown(format!("not an answer of the ledger: {body}")),
    }
}

fn failed(body: &JsonValue, asked: Ask) -> Answer {
    let said = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    match (asked, said("code").as_str()) {
        (Ask::Write { .. }, AFTER_COMMIT) => Answer::Written(None),
        (_, code @ (COMMIT_UNKNOWN | INTERNAL | "")) => {
            Answer::Unknown(format!("{code} {}", said("message")))
        }
        (_, code) => Answer::Refused(code.to_owned()),
    }
}
