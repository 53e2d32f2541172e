//! The entity that tests write and read.

use sea_orm::entity::prelude::*;
use sea_orm::{NotSet, Set};

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "note")]
pub struct Model {
    /// Given by the database.
    #[sea_orm(primary_key)]
    pub id: i32,
    /// Who wrote it.
    pub author: String,
    /// What it says.
    pub text: String,
}

/// A note stands alone.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The table's definition.
pub const CREATE: &str =
    "CREATE TABLE note (id serial PRIMARY KEY, author text NOT NULL, text text NOT NULL)";

/// A note that is not stored yet.
#[must_use]
pub fn new(author: &str, text: &str) -> ActiveModel {
    ActiveModel { id: NotSet, author: Set(author.to_owned()), text: Set(text.to_owned()) }
}
