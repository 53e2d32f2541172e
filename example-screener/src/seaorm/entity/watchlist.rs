//! One stock on one user's watchlist.

use sea_orm::entity::prelude::*;

/// One stock on one user's watchlist.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "watchlist")]
pub struct Model {
    /// The user.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub user_name: String,
    /// The stock.
    #[sea_orm(primary_key, auto_increment = false)]
    pub stock_id: i32,
    /// When it was added, by the database's clock.
    pub added_at: DateTimeWithTimeZone,
}

/// What an entry belongs to.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// Its stock.
    #[sea_orm(belongs_to = "super::stock::Entity", from = "Column::StockId", to = "super::stock::Column::Id")]
    Stock,
}

impl Related<super::stock::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Stock.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
