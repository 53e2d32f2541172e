//! A listed company.

use sea_orm::entity::prelude::*;

/// A listed company.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "stocks")]
pub struct Model {
    /// Its number, given by the database.
    #[sea_orm(primary_key)]
    pub id: i32,
    /// Its ticker symbol, in capitals; unique.
    #[sea_orm(column_type = "Text", unique)]
    pub symbol: String,
    /// The company's name.
    #[sea_orm(column_type = "Text")]
    pub name: String,
    /// Where the company is at home, if known.
    #[sea_orm(column_type = "Text", nullable)]
    pub country: Option<String>,
    /// The currency of its prices, as three letters, if known.
    #[sea_orm(column_type = "Text", nullable)]
    pub currency: Option<String>,
    /// What it does.
    pub industries: Vec<String>,
    /// The stock indices that it is a member of.
    pub indices: Vec<String>,
    /// The year of its foundation, if known.
    pub founded: Option<i32>,
    /// How many people it employs, if known.
    pub employees: Option<i32>,
}

/// Nothing is asked for from this side.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
