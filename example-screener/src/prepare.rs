//! Giving a database its tables and its data.

use std::collections::HashMap;
use std::time::Duration;

use routing_cluster::Progress;
use routing_core::{InvalidLsn, Lsn, Role, Router, RouterStatus};
use routing_seaorm::SeaOrm;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait,
    QuerySelect, Set, TransactionTrait, TryInsertResult,
};
use sea_orm_migration::MigratorTrait as _;
use tokio::time::Instant;

use crate::data::{self, CLOSES, COMPANIES};
use crate::migration::Migrator;
use crate::seaorm::entity::{close, stock};

/// How long the cluster may take to show a primary.
const PRIMARY_WAIT: Duration = Duration::from_secs(30);
/// How long replicas may take to receive what was written. A replica that is slower serves an empty database for a
/// while, which is a nuisance and no fault.
const REPLICA_WAIT: Duration = Duration::from_secs(15);
/// Rows of one INSERT: well below PostgreSQL's limit of 65,535 parameters, with 8 in a row.
const BATCH: usize = 5_000;
/// How many INSERTs a person is told about with one line.
const BATCHES_PER_STEP: usize = 4;
/// Keeps two instances that start at once from doing it both. Any number would do that no one else uses.
const ADVISORY_LOCK: i64 = 0x5C_4EE4E4;

/// What a prepared database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// How many stocks were added; 0 when all were there.
    pub stocks_added: u64,
    /// How many closes were added.
    pub closes_added: u64,
}

/// Why a database could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// No node was proven to be the primary in time.
    #[error("no primary was found in time ({0})")]
    NoPrimary(String),
    /// The primary failed a statement.
    #[error("the primary could not be given its tables and data")]
    Database(#[from] DbErr),
    /// The built-in data is damaged.
    #[error("the built-in data is damaged")]
    Data(#[from] csv::Error),
    /// A close belongs to no stock.
    #[error("the built-in data has closes of {0}, which is no stock")]
    UnknownSymbol(String),
    /// The primary's position cannot be read.
    #[error("the primary's position cannot be read")]
    Position(#[from] InvalidLsn),
}

/// Runs the migrations on the primary, loads the data that is missing, and waits until the replicas that serve have
/// received it. Done again it does nothing; begun by two instances at once it is done by one of them.
///
/// Everything is one transaction: no one ever sees half of it.
///
/// # Errors
/// Without a primary within 30 s, and when a statement fails; then nothing has changed.
///
/// # Cancel safety
/// Dropping the future rolls back.
pub async fn prepare(router: &Router<SeaOrm>, progress: &dyn Progress) -> Result<Prepared, PrepareError> {
    progress.step(&format!("looking for the primary, for up to {} s", PRIMARY_WAIT.as_secs()));
    router.cluster().settled(PRIMARY_WAIT).await;
    let status = router.status();
    if status.primary.is_none() {
        return Err(PrepareError::NoPrimary(why_no_primary(&status)));
    }
    let primary = routing_seaorm::connect_primary(router, PRIMARY_WAIT).await?;
    progress.step("creating the tables");
    let transaction = primary.begin().await?;
    transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")).await?;
    Migrator::up(&transaction, None).await?;
    let prepared = load(&transaction, progress).await?;
    transaction.commit().await?;
    await_replicas(router, &primary, progress).await?;
    primary.close().await?;
    progress.finish(&match prepared {
        Prepared { stocks_added: 0, closes_added: 0 } => "the data is complete".to_owned(),
        Prepared { stocks_added, closes_added } => {
            format!("the data is complete: {stocks_added} stocks and {closes_added} closes were added")
        }
    });
    Ok(prepared)
}

fn why_no_primary(status: &RouterStatus) -> String {
    let mut why = status.primary_missing.clone().unwrap_or_default();
    for node in &status.nodes {
        why.push_str(&format!("; {}: {}", node.name, node.refused.as_deref().unwrap_or("not the primary")));
    }
    why
}

async fn load(db: &DatabaseTransaction, progress: &dyn Progress) -> Result<Prepared, PrepareError> {
    let mut prepared = Prepared { stocks_added: 0, closes_added: 0 };
    let loaded = |count: u64, all: usize| usize::try_from(count).is_ok_and(|count| count >= all);
    if loaded(stock::Entity::find().count(db).await?, COMPANIES)
        && loaded(close::Entity::find().count(db).await?, CLOSES)
    {
        return Ok(prepared);
    }
    let companies: Vec<_> = data::companies()?.into_iter().map(stock_model).collect();
    progress.step(&format!("loading {COMPANIES} stocks"));
    for batch in companies.chunks(BATCH) {
        // What an earlier run or a client has added stays.
        let insert = stock::Entity::insert_many(batch.to_vec());
        let insert = insert.on_conflict_do_nothing_on([stock::Column::Symbol]);
        prepared.stocks_added += inserted(&insert.exec_without_returning(db).await?);
    }
    let ids: Vec<(String, i32)> = stock::Entity::find()
        .select_only()
        .columns([stock::Column::Symbol, stock::Column::Id])
        .into_tuple()
        .all(db)
        .await?;
    let ids: HashMap<_, _> = ids.into_iter().collect();
    let mut closes = Vec::with_capacity(CLOSES);
    for data::DailyClose { date, symbol, close } in data::closes()? {
        let Some(stock_id) = ids.get(&symbol) else { return Err(PrepareError::UnknownSymbol(symbol)) };
        closes.push(close::ActiveModel { stock_id: Set(*stock_id), date: Set(date), close: Set(close) });
    }
    for (number, batch) in closes.chunks(BATCH).enumerate() {
        if number % BATCHES_PER_STEP == 0 {
            progress.step(&format!("loading {CLOSES} closes: {} % done", number * BATCH * 100 / CLOSES));
        }
        let insert = close::Entity::insert_many(batch.to_vec());
        let insert = insert.on_conflict_do_nothing_on([close::Column::StockId, close::Column::Date]);
        prepared.closes_added += inserted(&insert.exec_without_returning(db).await?);
    }
    // Until the statistics are there, plans are guesses, on the replicas too.
    db.execute_unprepared("ANALYZE stocks; ANALYZE closes").await?;
    Ok(prepared)
}

fn inserted(result: &TryInsertResult<u64>) -> u64 {
    match result {
        TryInsertResult::Inserted(count) => *count,
        TryInsertResult::Conflicted | TryInsertResult::Empty => 0,
    }
}

fn stock_model(company: data::Company) -> stock::ActiveModel {
    stock::ActiveModel {
        symbol: Set(company.symbol),
        name: Set(company.name),
        country: Set(company.country),
        currency: Set(company.currency),
        industries: Set(company.industries),
        indices: Set(company.indices),
        founded: Set(company.founded),
        employees: Set(company.employees),
        ..Default::default()
    }
}

/// Without this the first reads could meet replicas that do not know the tables yet.
async fn await_replicas(
    router: &Router<SeaOrm>,
    primary: &DatabaseConnection,
    progress: &dyn Progress,
) -> Result<(), PrepareError> {
    progress.step("waiting for the replicas");
    let sql = "SELECT pg_current_wal_flush_lsn()::text";
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql);
    let row = primary.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the primary's position".to_owned()))?;
    let written: Lsn = row.try_get_by_index::<String>(0)?.parse()?;
    let interval = router.cluster().config().probe_interval;
    let deadline = Instant::now() + REPLICA_WAIT;
    while !have_received(router, written) && Instant::now() < deadline {
        tokio::time::sleep(interval).await;
    }
    Ok(())
}

fn have_received(router: &Router<SeaOrm>, written: Lsn) -> bool {
    let topology = router.cluster().topology();
    let mut replicas =
        topology.nodes.iter().filter(|node| node.role == Role::Replica && node.down_since.is_none());
    replicas.all(|replica| replica.lsn.is_some_and(|replayed| replayed >= written))
}
