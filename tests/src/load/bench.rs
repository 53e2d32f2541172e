//! The same read, through the router and past it.

use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool;
use diesel_async::pooled_connection::{ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use routing_core::DatabaseUrl;
use routing_diesel::Diesel;
use routing_seaorm::SeaOrm;
use sea_orm::{
    ColumnTrait as _, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, EntityTrait as _,
};
use sea_orm::{QueryFilter as _, QueryOrder as _, QuerySelect as _};

use crate::note::{entity, schema};
use crate::orm::Orm;

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// One note by its key: the least that a server can be asked for.
    Key,
    /// A page of a list: fifty notes in the order of their texts, for which the server sorts a thousand.
    Page,
}

/// How many rows a page has.
const PAGE: i64 = 50;

/// How users' code of an ORM reads notes, whoever hands it the connection: the one with the key, or a page that begins with it.
pub trait Bench: Orm {
    /// The ORM's own pool.
    type Own: Clone + Send + Sync + 'static;

    /// On a read handle of the router.
    fn routed(db: &Self::Read, query: Query, id: i32) -> impl Future<Output = String> + Send;

    /// On a connection of the router's pool, taken without the router.
    fn bare(connection: &mut Self::Connection, query: Query, id: i32) -> impl Future<Output = String> + Send;

    /// The pool that the ORM's users set up: one that asks each connection whether it lives before each use, or not.
    fn own(url: &DatabaseUrl, size: u32, careful: bool) -> impl Future<Output = Self::Own> + Send;

    /// On that pool.
    fn on_own(pool: &Self::Own, query: Query, id: i32) -> impl Future<Output = String> + Send;
}

async fn ask(db: &impl ConnectionTrait, query: Query, id: i32) -> String {
    let find = entity::Entity::find().select_only().column(entity::Column::Text);
    match query {
        Query::Key => {
            let found = find.filter(entity::Column::Id.eq(id)).into_tuple().one(db).await;
            found.expect("the query runs").expect("there is such a note")
        }
        Query::Page => {
            let page = find.order_by_asc(entity::Column::Text);
            let page = page.limit(PAGE as u64).into_tuple().all(db).await;
            let page: Vec<String> = page.expect("the query runs");
            assert_eq!(page.len() as i64, PAGE);
            format!("note {id}")
        }
    }
}

impl Bench for SeaOrm {
    type Own = DatabaseConnection;

    async fn routed(db: &Self::Read, query: Query, id: i32) -> String {
        ask(db, query, id).await
    }

    async fn bare(connection: &mut Self::Connection, query: Query, id: i32) -> String {
        ask(connection, query, id).await
    }

    async fn own(url: &DatabaseUrl, size: u32, careful: bool) -> DatabaseConnection {
        let mut options = ConnectOptions::new(url.expose());
        options.max_connections(size).test_before_acquire(careful).sqlx_logging(false);
        Database::connect(options).await.expect("the server lets us in")
    }

    async fn on_own(pool: &DatabaseConnection, query: Query, id: i32) -> String {
        ask(pool, query, id).await
    }
}

async fn ask_on(
    connection: &mut AsyncPgConnection,
    query: Query,
    id: i32,
) -> Result<String, diesel::result::Error> {
    use schema::note;
    let find = note::table.select(note::text);
    match query {
        Query::Key => find.filter(note::id.eq(id)).first(connection).await,
        Query::Page => {
            let page = find.order(note::text.asc()).limit(PAGE);
            let page: Vec<String> = page.load(connection).await?;
            assert_eq!(page.len() as i64, PAGE);
            Ok(format!("note {id}"))
        }
    }
}

impl Bench for Diesel {
    type Own = deadpool::Pool<AsyncPgConnection>;

    async fn routed(db: &Self::Read, query: Query, id: i32) -> String {
        db.run(async move |connection| ask_on(connection, query, id).await).await.expect("the query runs")
    }

    async fn bare(connection: &mut Self::Connection, query: Query, id: i32) -> String {
        ask_on(connection, query, id).await.expect("the query runs")
    }

    async fn own(url: &DatabaseUrl, size: u32, careful: bool) -> Self::Own {
        let mut config = ManagerConfig::default();
        config.recycling_method = if careful { RecyclingMethod::Verified } else { RecyclingMethod::Fast };
        let manager = AsyncDieselConnectionManager::new_with_config(url.expose(), config);
        deadpool::Pool::builder(manager).max_size(size as usize).build().expect("a valid pool")
    }

    async fn on_own(pool: &Self::Own, query: Query, id: i32) -> String {
        let mut connection = pool.get().await.expect("the server lets us in");
        ask_on(&mut connection, query, id).await.expect("the query runs")
    }
}
