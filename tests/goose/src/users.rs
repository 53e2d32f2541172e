//! What people do with the screener: of 16 steps ten list stocks, five look at one, and one adds to the watchlist.

use std::time::Duration;

use goose::prelude::*;

/// The kinds of requests, as they are counted.
pub const KINDS: [&str; 3] = [LIST, DETAIL, WRITE];
const LIST: &str = "list";
const DETAIL: &str = "detail";
const WRITE: &str = "watchlist write";
/// How long a person thinks between two steps.
const THINKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
/// Stocks that everyone finds.
const STOCKS: u32 = 1_800;

/// One person.
pub fn scenario() -> Result<Scenario, GooseError> {
    Ok(scenario!("person")
        .set_wait_time(THINKS[0], THINKS[1])?
        .register_transaction(transaction!(list).set_weight(10)?)
        .register_transaction(transaction!(detail).set_weight(5)?)
        .register_transaction(transaction!(write).set_weight(1)?))
}

async fn list(user: &mut GooseUser) -> TransactionResult {
    let sort = ["symbol", "-employees", "name"][fastrand::usize(..3)];
    let path = format!("/stocks?page={}&page_size=20&sort={sort}", fastrand::u32(1..=50));
    user.get_named(&path, LIST).await.map(drop)
}

async fn detail(user: &mut GooseUser) -> TransactionResult {
    let path = format!("/stocks/{}", fastrand::u32(1..=STOCKS));
    user.get_named(&path, DETAIL).await.map(drop)
}

async fn write(user: &mut GooseUser) -> TransactionResult {
    let entry = format!("{{\"stock_id\": {}}}", fastrand::u32(1..=STOCKS));
    let request = user.get_request_builder(&GooseMethod::Post, "/watchlist")?;
    let request = request.header("x-user", format!("person-{}", user.weighted_users_index));
    let request = request.header("content-type", "application/json").body(entry);
    let named = GooseRequest::builder().method(GooseMethod::Post).path("/watchlist").name(WRITE);
    user.request(named.set_request_builder(request).build()).await.map(drop)
}
