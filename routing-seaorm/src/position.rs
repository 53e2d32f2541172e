//! Asking the primary where it is.

use routing_core::Position;
use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, Statement};

use crate::connection::Connection;

/// The position that one of the core's texts asks for.
pub(crate) async fn position(connection: &Connection, sql: &'static str) -> Result<Position, DbErr> {
    let unreadable = || DbErr::Custom("the server's position cannot be read".to_owned());
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let row = row.ok_or_else(unreadable)?;
    let (lsn, timeline): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
    routing_core::position::position(&lsn, &timeline).ok_or_else(unreadable)
}
