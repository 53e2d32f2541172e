//! The closing price of one stock on one day.

use sea_orm::entity::prelude::*;

/// The closing price of one stock on one day.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "closes")]
pub struct Model {
    /// The stock.
    #[sea_orm(primary_key, auto_increment = false)]
    pub stock_id: i32,
    /// The day.
    #[sea_orm(primary_key, auto_increment = false)]
    pub date: Date,
    /// The price, adjusted for splits and dividends.
    #[sea_orm(column_type = "Double")]
    pub close: f64,
}

/// What a price belongs to.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// Its stock.
    #[sea_orm(belongs_to = "super::stock::Entity", from = "Column::StockId", to = "super::stock::Column::Id")]
    Stock,
}

impl ActiveModelBehavior for ActiveModel {}
