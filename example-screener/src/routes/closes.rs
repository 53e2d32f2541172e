//! `/stocks/{id}/closes`.

use axum::Json;

use routing_axum::ReadDb;
use routing_seaorm::SeaOrm;
use sea_orm::prelude::Date;
use sea_orm::sea_query::prelude::chrono::Datelike as _;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QueryTrait};
use serde::Deserialize;

use crate::entity::{close, stock};
use crate::error::AppError;
use crate::extract::{Path, Query};
use crate::routes::Items;
use crate::text::optional;

/// `from` and `to` are days, both included, as `2022-12-28`; each may be left out.
#[derive(Deserialize)]
#[serde(try_from = "Asked")]
pub(crate) struct Days {
    from: Option<Date>,
    to: Option<Date>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default, deserialize_with = "optional")]
    from: Option<Date>,
    #[serde(default, deserialize_with = "optional")]
    to: Option<Date>,
}

impl TryFrom<Asked> for Days {
    type Error = &'static str;

    fn try_from(Asked { from, to }: Asked) -> Result<Self, &'static str> {
        // Beyond these years PostgreSQL knows no days.
        if [from, to].into_iter().flatten().any(|day| !(1..=9999).contains(&day.year())) {
            return Err("from and to must lie in the years 1 to 9999");
        }
        match (from, to) {
            (Some(from), Some(to)) if from > to => Err("from must not be after to"),
            _ => Ok(Self { from, to }),
        }
    }
}

/// The prices of one stock, oldest first.
pub(crate) async fn list(
    ReadDb(db): ReadDb<SeaOrm>,
    Path(id): Path<i32>,
    Query(days): Query<Days>,
) -> Result<Json<Items<close::Model>>, AppError> {
    stock::Entity::find_by_id(id).one(&db).await?.ok_or(AppError::NotFound("there is no such stock"))?;
    let items = close::Entity::find()
        .filter(close::Column::StockId.eq(id))
        .apply_if(days.from, |query, from| query.filter(close::Column::Date.gte(from)))
        .apply_if(days.to, |query, to| query.filter(close::Column::Date.lte(to)))
        .order_by_asc(close::Column::Date)
        .all(&db)
        .await?;
    Ok(Json(Items { items }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Days, String> {
        let uri = format!("http://h/?{query}").parse().unwrap();
        let read = axum::extract::Query::try_from_uri(&uri);
        read.map(|axum::extract::Query(days)| days).map_err(|error| error.body_text())
    }

    #[test]
    fn days_are_dates_in_order_that_postgresql_knows() {
        for good in ["", "from=&to=", "from=2022-01-01", "to=2022-01-01", "from=2022-01-01&to=2022-01-01"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "from=2022-13-01",
            "from=yesterday",
            "from=-262143-01-01",
            "to=%2B262142-12-31",
            "from=2022-01-02&to=2022-01-01",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
