//! Notes, as SeaORM sees them.

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

/// A note that is not stored yet.
#[must_use]
pub fn new(author: &str, text: &str) -> ActiveModel {
    ActiveModel { id: NotSet, author: Set(author.to_owned()), text: Set(text.to_owned()) }
}
