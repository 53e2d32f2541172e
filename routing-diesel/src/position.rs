//! Asking the primary where it is.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as DieselError, QueryResult};
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use routing_core::Position;

use crate::error::made_here;

/// One of the core's fixed texts. Unlike a literal it is prepared once for each connection.
#[derive(Debug, Clone, Copy)]
struct PositionQuery(&'static str);

impl Query for PositionQuery {
    type SqlType = (Text, Text);
}

impl QueryId for PositionQuery {
    type QueryId = ();
    // The type does not tell the text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Connection> diesel::RunQueryDsl<Connection> for PositionQuery {}

impl QueryFragment<Pg> for PositionQuery {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.0);
        Ok(())
    }
}

/// The position that one of the core's texts asks for.
pub(crate) async fn position(
    connection: &mut AsyncPgConnection,
    sql: &'static str,
) -> Result<Position, DieselError> {
    let (lsn, timeline): (String, String) = PositionQuery(sql).get_result(connection).await?;
    routing_core::position::position(&lsn, &timeline)
        .ok_or_else(|| made_here(DatabaseErrorKind::Unknown, "the server's position cannot be read"))
}
