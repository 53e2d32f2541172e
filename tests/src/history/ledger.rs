//! An application as its users write it: it stores entries and reads the newest, on either ORM.
//!
//! | route | |
//! |---|---|
//! | `POST /entries/{key}/{value}?form=` | stores an entry: `statement`, `transaction`, `then_error`, `then_read` |
//! | `GET /entries/{key}?times=&pause=` | the newest entry, looked at so often in one request, with so many milliseconds between |
//! | `GET /entries/{key}/within/{bound}` | the same, at most one of [`BOUNDS`] old |
//! | `GET /careless/…` | the same, as an application would do it that breaks the promises |

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router as AxumRouter};
use routing_axum::{ReadDb, RoutingLayer, Unavailable, WriteDb, consistency};
use routing_core::{Consistency, Router, Session};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use crate::handle::Handle;
use crate::history::operation::{Key, Value, WriteForm};
use crate::orm::Orm;

/// The statements that make its table. Nothing in it keeps a write from being stored twice: that is to be noticed.
pub const CREATE: &str = "CREATE TABLE entry (key integer NOT NULL, value bigint NOT NULL); \
     CREATE INDEX entry_newest ON entry (key, value)";

/// How old a bounded read may be, in milliseconds. The first is about what can be proven at all.
pub const BOUNDS: [u64; 3] = [400, 1_000, 3_000];

/// Its code for an error of the handler after the commit.
pub const AFTER_COMMIT: &str = "after_commit";
/// Its code for a write whose outcome is unknown.
pub const COMMIT_UNKNOWN: &str = "commit_unknown";
/// Its code for a failed statement.
pub const INTERNAL: &str = "internal";

/// The statement that stores an entry: a key and a value.
const INSERT: &str = "INSERT INTO entry (key, value) \
     SELECT split_part($1, ' ', 1)::integer, split_part($1, ' ', 2)::bigint";

/// The whole application over one router.
pub fn app<O: Orm>(router: Router<O>) -> AxumRouter {
    let mut app = AxumRouter::new()
        .route("/entries/{key}/{value}", post(write::<O>))
        .route("/entries/{key}", get(read::<O>))
        .route("/careless/sessions/{key}", get(read_in_two_sessions::<O>))
        .route("/careless/eventual/{key}", get(read::<O>).layer(consistency(Consistency::Eventual)));
    for bound in BOUNDS {
        let within = consistency(Consistency::BoundedStaleness(Duration::from_millis(bound)));
        app = app.route(&format!("/entries/{{key}}/within/{bound}"), get(read::<O>).layer(within));
    }
    app.layer(RoutingLayer::new().debug_headers(true)).with_state(router)
}

#[derive(Debug, Deserialize)]
struct Writing {
    form: String,
}

#[derive(Debug, Deserialize)]
struct Reading {
    #[serde(default = "once")]
    times: u32,
    #[serde(default)]
    pause: u64,
}

fn once() -> u32 {
    1
}

/// What a request fails with.
enum Failed<O: Orm> {
    Database(O::Failure),
    AfterCommit,
}

impl WriteForm {
    /// Its name in a query.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Statement => "statement",
            Self::Transaction => "transaction",
            Self::ThenError => "then_error",
            Self::ThenRead => "then_read",
        }
    }
}

async fn write<O: Orm>(
    WriteDb(db): WriteDb<O>,
    ReadDb(reading): ReadDb<O>,
    Path((key, value)): Path<(Key, Value)>,
    Query(Writing { form }): Query<Writing>,
) -> Result<(StatusCode, Json<Vec<Value>>), Failed<O>> {
    if form == WriteForm::Transaction.as_str() {
        let insert = format!("INSERT INTO entry (key, value) VALUES ({key}, {value}) RETURNING value::text");
        db.transaction(&[&insert]).await.map_err(Failed::Database)?;
    } else {
        db.execute_with(INSERT, &format!("{key} {value}")).await.map_err(Failed::Database)?;
    }
    if form == WriteForm::ThenError.as_str() {
        return Err(Failed::AfterCommit);
    }
    let mut seen = Vec::new();
    if form == WriteForm::ThenRead.as_str() {
        // It is committed, whatever becomes of the read.
        seen.extend(newest::<O>(&reading, key).await.ok());
    }
    Ok((StatusCode::CREATED, Json(seen)))
}

async fn read<O: Orm>(
    ReadDb(db): ReadDb<O>,
    Path(key): Path<Key>,
    Query(Reading { times, pause }): Query<Reading>,
) -> Result<Json<Vec<Value>>, Failed<O>> {
    let mut seen = vec![newest::<O>(&db, key).await.map_err(Failed::Database)?];
    for _ in 1..times {
        sleep(Duration::from_millis(pause)).await;
        seen.push(newest::<O>(&db, key).await.map_err(Failed::Database)?);
    }
    Ok(Json(seen))
}

/// Each look is a request of its own to the router.
async fn read_in_two_sessions<O: Orm>(
    State(router): State<Router<O>>,
    Path(key): Path<Key>,
) -> Result<Json<Vec<Value>>, Failed<O>> {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let db = O::read(router.routed(Session::new(), Consistency::Session));
        seen.push(newest::<O>(&db, key).await.map_err(Failed::Database)?);
    }
    Ok(Json(seen))
}

async fn newest<O: Orm>(db: &O::Read, key: Key) -> Result<Value, O::Failure> {
    let newest =
        db.text(&format!("SELECT coalesce(max(value), 0)::text FROM entry WHERE key = {key}")).await?;
    Ok(newest.parse().expect("the statement asks for a number"))
}

impl<O: Orm> IntoResponse for Failed<O> {
    fn into_response(self) -> Response {
        let error = |status, code, message| {
            (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
        };
        match self {
            Self::AfterCommit => error(StatusCode::CONFLICT, AFTER_COMMIT, String::new()),
            Self::Database(failure) => match O::route_error(&failure) {
                Some(refused) => Unavailable::from(refused).into_response(),
                None if O::is_commit_unknown(&failure) => {
                    error(StatusCode::SERVICE_UNAVAILABLE, COMMIT_UNKNOWN, failure.to_string())
                }
                None => error(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL, failure.to_string()),
            },
        }
    }
}
