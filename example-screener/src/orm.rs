//! What the handlers run on.

use clap::ValueEnum;

/// What the handlers run on. The API is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Orm {
    /// SeaORM.
    #[default]
    #[value(name = "seaorm")]
    SeaOrm,
    /// diesel-async.
    Diesel,
}
