//! How Diesel code does what the tests do.

use std::time::Duration;

use diesel::deserialize::{self, FromSql, QueryableByName};
use diesel::pg::Pg;
use diesel::result::{DatabaseErrorKind as Kind, Error as DieselError};
use diesel::row::{Field as _, NamedRow};
use diesel::sql_query;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use futures_util::StreamExt as _;
use routing_core::{Decision, Lease, Passwords, RouteError, Router};
use routing_diesel::{Diesel, DieselOptions, ReadHandle, WriteHandle, connect_primary};

use crate::handle::Handle;
use crate::note::schema;
use crate::orm::{Orm, Rows};
use crate::seen::NAME;

impl Orm for Diesel {
    const NAME: &str = "Diesel";

    type Failure = DieselError;

    fn with_passwords(passwords: Passwords) -> DieselOptions {
        DieselOptions { passwords: Some(passwords), ..DieselOptions::default() }
    }

    async fn rows(db: &ReadHandle, sql: &str) -> Result<Rows<Self>, DieselError> {
        let rows = db.stream::<Numbered, _>(sql_query(sql)).await?;
        Ok(rows.map(|row| row.map(|Numbered(number, text)| (number, text))).boxed())
    }

    async fn text_on(lease: &mut Lease<Self>, sql: &str) -> Result<String, DieselError> {
        text(lease, sql).await
    }

    async fn execute_on(lease: &mut Lease<Self>, sql: &str) -> Result<(), DieselError> {
        lease.batch_execute(sql).await
    }

    async fn insert_note_on(lease: &mut Lease<Self>, author: &str, text: &str) -> Result<(), DieselError> {
        schema::insert(author, text).execute(lease).await.map(drop)
    }

    async fn nested(db: &WriteHandle, author: &str) -> Result<(), DieselError> {
        db.transaction(async |outer| {
            schema::insert(author, "outer").execute(outer).await?;
            outer
                .transaction(async |inner| {
                    schema::insert(author, "inner").execute(inner).await?;
                    let undone = inner.transaction(async |innermost| {
                        schema::insert(author, "undone").execute(innermost).await?;
                        Err::<(), _>(DieselError::RollbackTransaction)
                    });
                    match undone.await {
                        Err(DieselError::RollbackTransaction) => Ok(()),
                        other => other,
                    }
                })
                .await
        })
        .await
    }

    async fn on_plain_connection(
        router: &Router<Self>,
        wait: Duration,
        statements: &[&str],
    ) -> Result<String, DieselError> {
        let mut plain = connect_primary(router, wait).await?;
        for statement in statements {
            plain.batch_execute(statement).await?;
        }
        text(&mut plain, NAME).await
    }

    fn sqlstate(error: &DieselError) -> Option<String> {
        let DieselError::DatabaseError(kind, _) = error else { return None };
        let code = match kind {
            Kind::UniqueViolation => "23505",
            Kind::ForeignKeyViolation => "23503",
            Kind::NotNullViolation => "23502",
            Kind::CheckViolation => "23514",
            Kind::SerializationFailure => "40001",
            Kind::ReadOnlyTransaction => "25006",
            _ => return None,
        };
        Some(code.to_owned())
    }

    fn route_error(error: &DieselError) -> Option<&RouteError> {
        routing_diesel::route_error(error)
    }

    fn is_commit_unknown(error: &DieselError) -> bool {
        routing_diesel::is_commit_unknown(error)
    }
}

macro_rules! handle {
    ($handle:ty) => {
        impl Handle<Diesel> for $handle {
            async fn text(&self, sql: &str) -> Result<String, DieselError> {
                self.run(async |conn| text(conn, sql).await).await
            }

            async fn execute(&self, sql: &str) -> Result<(), DieselError> {
                self.run(async |conn| conn.batch_execute(sql).await).await
            }

            async fn execute_with(&self, sql: &str, parameter: &str) -> Result<(), DieselError> {
                let query = sql_query(sql).bind::<Text, _>(parameter);
                self.run(async |conn| query.execute(conn).await).await.map(drop)
            }

            async fn insert_note(&self, author: &str, text: &str) -> Result<(), DieselError> {
                let insert = schema::insert(author, text);
                self.run(async |conn| insert.execute(conn).await).await.map(drop)
            }

            async fn transaction(&self, statements: &[&str]) -> Result<Vec<String>, DieselError> {
                self.transaction(async |conn| texts(conn, statements).await).await
            }

            async fn undone(&self, statements: &[&str]) -> Result<(), DieselError> {
                let outcome = self.transaction(async |conn| {
                    texts(conn, statements).await?;
                    Err::<(), _>(DieselError::RollbackTransaction)
                });
                match outcome.await {
                    Err(DieselError::RollbackTransaction) => Ok(()),
                    other => other,
                }
            }

            fn last_decision(&self) -> Option<Decision> {
                self.routed().session().last_decision()
            }
        }
    };
}

handle!(ReadHandle);
handle!(WriteHandle);

async fn text(conn: &mut AsyncPgConnection, sql: &str) -> Result<String, DieselError> {
    let Cell(text) = sql_query(sql).get_result(conn).await?;
    Ok(text)
}

async fn texts(conn: &mut AsyncPgConnection, statements: &[&str]) -> Result<Vec<String>, DieselError> {
    let mut texts = Vec::new();
    for statement in statements {
        texts.push(text(conn, statement).await?);
    }
    Ok(texts)
}

/// The first column of a row, whatever its name.
struct Cell(String);

impl QueryableByName<Pg> for Cell {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        column::<Text, _>(row, 0).map(Self)
    }
}

/// A number and a text, whatever their names.
struct Numbered(i32, String);

impl QueryableByName<Pg> for Numbered {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        Ok(Self(column::<Integer, _>(row, 0)?, column::<Text, _>(row, 1)?))
    }
}

fn column<'a, ST, T: FromSql<ST, Pg>>(row: &impl NamedRow<'a, Pg>, index: usize) -> deserialize::Result<T> {
    let field = diesel::row::Row::get(row, index).ok_or("the row has too few columns")?;
    T::from_nullable_sql(field.value())
}
