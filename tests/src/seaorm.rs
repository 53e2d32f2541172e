//! How SeaORM code does what the tests do.

use std::time::Duration;

use futures_util::StreamExt as _;
use routing_core::{Decision, Lease, Passwords, RouteError, Router};
use routing_seaorm::{ReadHandle, SeaOrm, SeaOrmOptions, WriteHandle, connect_primary};
use sea_orm::{
    ActiveModelTrait as _, ConnectionTrait, DbBackend, DbErr, RuntimeErr, Statement, StreamTrait as _,
    TransactionSession as _, TransactionTrait,
};

use crate::handle::Handle;
use crate::note::entity;
use crate::orm::{Orm, Rows};
use crate::seen::NAME;

impl Orm for SeaOrm {
    const NAME: &str = "SeaORM";

    type Failure = DbErr;

    fn with_passwords(passwords: Passwords) -> SeaOrmOptions {
        SeaOrmOptions { passwords: Some(passwords), ..SeaOrmOptions::default() }
    }

    async fn rows(db: &ReadHandle, sql: &str) -> Result<Rows<Self>, DbErr> {
        let rows = db.stream_raw(statement(sql)).await?;
        Ok(rows
            .map(|row| {
                let row = row?;
                Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
            })
            .boxed())
    }

    async fn text_on(lease: &mut Lease<Self>, sql: &str) -> Result<String, DbErr> {
        text(&**lease, sql).await
    }

    async fn execute_on(lease: &mut Lease<Self>, sql: &str) -> Result<(), DbErr> {
        lease.execute_unprepared(sql).await.map(drop)
    }

    async fn insert_note_on(lease: &mut Lease<Self>, author: &str, text: &str) -> Result<(), DbErr> {
        entity::new(author, text).insert(&**lease).await.map(drop)
    }

    async fn nested(db: &WriteHandle, author: &str) -> Result<(), DbErr> {
        let outer = db.begin().await?;
        entity::new(author, "outer").insert(&outer).await?;
        let inner = outer.begin().await?;
        entity::new(author, "inner").insert(&inner).await?;
        let innermost = inner.begin().await?;
        entity::new(author, "undone").insert(&innermost).await?;
        innermost.rollback().await?;
        inner.commit().await?;
        outer.commit().await
    }

    async fn on_plain_connection(
        router: &Router<Self>,
        wait: Duration,
        statements: &[&str],
    ) -> Result<String, DbErr> {
        let plain = connect_primary(router, wait).await?;
        for statement in statements {
            plain.execute_unprepared(statement).await?;
        }
        let name = text(&plain, NAME).await?;
        plain.close().await?;
        Ok(name)
    }

    fn sqlstate(error: &DbErr) -> Option<String> {
        match error {
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => {
                Some(error.as_database_error()?.code()?.into_owned())
            }
            _ => None,
        }
    }

    fn route_error(error: &DbErr) -> Option<&RouteError> {
        routing_seaorm::route_error(error)
    }

    fn is_commit_unknown(error: &DbErr) -> bool {
        routing_seaorm::is_commit_unknown(error)
    }
}

macro_rules! handle {
    ($handle:ty) => {
        impl Handle<SeaOrm> for $handle {
            async fn text(&self, sql: &str) -> Result<String, DbErr> {
                text(self, sql).await
            }

            async fn execute(&self, sql: &str) -> Result<(), DbErr> {
                self.execute_unprepared(sql).await.map(drop)
            }

            async fn execute_with(&self, sql: &str, parameter: &str) -> Result<(), DbErr> {
                let values = [parameter.into()];
                let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
                self.execute_raw(statement).await.map(drop)
            }

            async fn insert_note(&self, author: &str, text: &str) -> Result<(), DbErr> {
                entity::new(author, text).insert(self).await.map(drop)
            }

            async fn transaction(&self, statements: &[&str]) -> Result<Vec<String>, DbErr> {
                let transaction = self.begin().await?;
                let mut texts = Vec::new();
                for statement in statements {
                    texts.push(text(&transaction, statement).await?);
                }
                transaction.commit().await?;
                Ok(texts)
            }

            async fn undone(&self, statements: &[&str]) -> Result<(), DbErr> {
                let transaction = self.begin().await?;
                for statement in statements {
                    text(&transaction, statement).await?;
                }
                transaction.rollback().await
            }

            fn last_decision(&self) -> Option<Decision> {
                self.routed().session().last_decision()
            }
        }
    };
}

handle!(ReadHandle);
handle!(WriteHandle);

fn statement(sql: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, sql)
}

async fn text(db: &impl ConnectionTrait, sql: &str) -> Result<String, DbErr> {
    let row = db.query_one_raw(statement(sql)).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("the statement has no row".to_owned()))?.try_get_by_index(0)
}
