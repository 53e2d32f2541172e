//! What the tests need of an ORM, whichever it is.

use std::error::Error;
use std::time::Duration;

use futures_util::stream::BoxStream;
use routing_core::{Backend, Failure, Lease, Passwords, RouteError, Router};

use crate::handle::Handle;

/// Rows of a number and a text, as they come.
pub type Rows<O> = BoxStream<'static, Result<(i32, String), <O as Orm>::Failure>>;

/// One ORM's backend, and how its users' code does what the tests do.
pub trait Orm: Backend<Connection: Sync, Read: Handle<Self>, Write: Handle<Self>> {
    /// Its name in figures.
    const NAME: &str;

    /// The error of the ORM that users' code sees.
    type Failure: Failure<Self> + Error + Send + Sync + 'static;

    /// The options of an application whose passwords come from a source.
    fn with_passwords(passwords: Passwords) -> Self::Options;

    /// The rows of a query on a read handle; each is a number and a text.
    fn rows(db: &Self::Read, sql: &str) -> impl Future<Output = Result<Rows<Self>, Self::Failure>> + Send;

    /// The first column of the only row, on a lease. It must be a text.
    fn text_on(
        lease: &mut Lease<Self>,
        sql: &str,
    ) -> impl Future<Output = Result<String, Self::Failure>> + Send;

    /// Runs statements that return nothing, on a lease.
    fn execute_on(
        lease: &mut Lease<Self>,
        sql: &str,
    ) -> impl Future<Output = Result<(), Self::Failure>> + Send;

    /// Stores a note, on a lease.
    fn insert_note_on(
        lease: &mut Lease<Self>,
        author: &str,
        text: &str,
    ) -> impl Future<Output = Result<(), Self::Failure>> + Send;

    /// Stores two notes in one transaction: the second within a transaction of its own, in which one more is undone.
    fn nested(db: &Self::Write, author: &str) -> impl Future<Output = Result<(), Self::Failure>> + Send;

    /// Runs statements on a plain connection to the primary; returns the name of its server.
    fn on_plain_connection(
        router: &Router<Self>,
        wait: Duration,
        statements: &[&str],
    ) -> impl Future<Output = Result<String, Self::Failure>> + Send;

    /// The server's code of an error, as far as the ORM shows it: Diesel knows some by name and hides the others.
    fn sqlstate(error: &Self::Failure) -> Option<String>;

    /// The router's own error, if it is one.
    fn route_error(error: &Self::Failure) -> Option<&RouteError>;

    /// Whether a write was sent and its answer lost.
    fn is_commit_unknown(error: &Self::Failure) -> bool;
}

/// Has generic test functions run for both ORMs: `name` becomes `seaorm::name` and `diesel::name`.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod seaorm {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name::<$crate::SeaOrm>().await;
                }
            )+
        }
        mod diesel {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name::<$crate::Diesel>().await;
                }
            )+
        }
    };
}
