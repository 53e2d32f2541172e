//! The same read by its key, through the router and past it.

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
use sea_orm::{QueryFilter as _, QuerySelect as _};

use crate::note::{entity, schema};
use crate::orm::Orm;

/// How users' code of an ORM reads a note by its key, whoever hands it the connection.
pub trait Bench: Orm {
    /// The ORM's own pool.
    type Own: Clone + Send + Sync + 'static;

    /// On a read handle of the router.
    fn routed(db: &Self::Read, id: i32) -> impl Future<Output = String> + Send;

    /// On a connection of the router's pool, taken without the router.
    fn bare(connection: &mut Self::Connection, id: i32) -> impl Future<Output = String> + Send;

    /// The pool that the ORM's users set up: one that asks each connection whether it lives before each use, or not.
    fn own(url: &DatabaseUrl, size: u32, careful: bool) -> impl Future<Output = Self::Own> + Send;

    /// On that pool.
    fn on_own(pool: &Self::Own, id: i32) -> impl Future<Output = String> + Send;
}

async fn by_key(db: &impl ConnectionTrait, id: i32) -> String {
    let query = entity::Entity::find().select_only().column(entity::Column::Text);
    let found = query.filter(entity::Column::Id.eq(id)).into_tuple().one(db).await;
    found.expect("the query runs").expect("there is such a note")
}

impl Bench for SeaOrm {
    type Own = DatabaseConnection;

    async fn routed(db: &Self::Read, id: i32) -> String {
        by_key(db, id).await
    }

    async fn bare(connection: &mut Self::Connection, id: i32) -> String {
        by_key(connection, id).await
    }

    async fn own(url: &DatabaseUrl, size: u32, careful: bool) -> DatabaseConnection {
        let mut options = ConnectOptions::new(url.expose());
        options.max_connections(size).test_before_acquire(careful).sqlx_logging(false);
        Database::connect(options).await.expect("the server lets us in")
    }

    async fn on_own(pool: &DatabaseConnection, id: i32) -> String {
        by_key(pool, id).await
    }
}

async fn by_key_on(connection: &mut AsyncPgConnection, id: i32) -> Result<String, diesel::result::Error> {
    schema::note::table.filter(schema::note::id.eq(id)).select(schema::note::text).first(connection).await
}

impl Bench for Diesel {
    type Own = deadpool::Pool<AsyncPgConnection>;

    async fn routed(db: &Self::Read, id: i32) -> String {
        db.run(async move |connection| by_key_on(connection, id).await).await.expect("the query runs")
    }

    async fn bare(connection: &mut Self::Connection, id: i32) -> String {
        by_key_on(connection, id).await.expect("the query runs")
    }

    async fn own(url: &DatabaseUrl, size: u32, careful: bool) -> Self::Own {
        let mut config = ManagerConfig::default();
        config.recycling_method = if careful { RecyclingMethod::Verified } else { RecyclingMethod::Fast };
        let manager = AsyncDieselConnectionManager::new_with_config(url.expose(), config);
        deadpool::Pool::builder(manager).max_size(size as usize).build().expect("a valid pool")
    }

    async fn on_own(pool: &Self::Own, id: i32) -> String {
        let mut connection = pool.get().await.expect("the server lets us in");
        by_key_on(&mut connection, id).await.expect("the query runs")
    }
}
