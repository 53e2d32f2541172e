//! A plain connection to the primary.

use std::time::Duration;

use routing_core::{RouteError, Router};
use sea_orm::{DatabaseConnection, DbErr, SqlxPostgresConnector};
use sqlx::postgres::PgPoolOptions;

use crate::backend::SeaOrm;
use crate::error::{Error, wrap};
use crate::target::Target;

/// A SeaORM `DatabaseConnection` to the node that is the primary *now*, for what needs SeaORM's own type: migrations,
/// and administration. It does not follow a failover; close it when done.
///
/// It waits up to `wait` for a primary to be known.
///
/// # Errors
/// `RouteError::NoPrimary` within the `DbErr` (see [`route_error`](crate::route_error)) when none becomes known; SeaORM's
/// own when the primary does not let us in.
pub async fn connect_primary(router: &Router<SeaOrm>, wait: Duration) -> Result<DatabaseConnection, DbErr> {
    router.cluster().settled(wait).await;
    let topology = router.cluster().topology();
    let Some(primary) = topology.primary() else {
        return Err(Error::from(RouteError::NoPrimary(router.cluster().write_refusals())).into());
    };
    let target = Target::new(&primary.node.config().url, router.options())
        .map_err(|error| wrap(sqlx::Error::Configuration(Box::new(error))))?;
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(router.cluster().config().connect_timeout)
        .connect_with(target.options().await.map_err(wrap)?)
        .await
        .map_err(|error| wrap(target.explain(error)))?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}
