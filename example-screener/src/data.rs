//! The market data that comes with the screener.
//!
//! `data/README.md` says where it is from.

use std::io;

use chrono::NaiveDate;
use flate2::read::GzDecoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// How many companies there are.
pub const COMPANIES: usize = 1_827;
/// How many closes there are.
pub const CLOSES: usize = 62_130;

const STOCKS_CSV: &[u8] = include_bytes!("../data/stocks.csv");
const CLOSES_CSV_GZ: &[u8] = include_bytes!("../data/daily_closes.csv.gz");

/// One company as the file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Company {
    /// Its ticker symbol; unique.
    pub symbol: String,
    /// Its name.
    pub name: String,
    /// Where it is at home, if known.
    pub country: Option<String>,
    /// The currency of its prices, if known.
    pub currency: Option<String>,
    /// What it does.
    #[serde(deserialize_with = "list")]
    pub industries: Vec<String>,
    /// The indices that it is a member of.
    #[serde(deserialize_with = "list")]
    pub indices: Vec<String>,
    /// The year of its foundation, if known.
    pub founded: Option<i32>,
    /// How many people it employs, if known.
    pub employees: Option<i32>,
}

/// One closing price as the file has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DailyClose {
    /// The day.
    pub date: NaiveDate,
    /// The company's symbol.
    pub symbol: String,
    /// The price in US dollars, adjusted for splits and dividends.
    pub close: f64,
}

/// All companies.
///
/// # Errors
/// When the built-in file is damaged.
pub fn companies() -> Result<Vec<Company>, csv::Error> {
    records(STOCKS_CSV)
}

/// All closes.
///
/// # Errors
/// When the built-in file is damaged.
pub fn closes() -> Result<Vec<DailyClose>, csv::Error> {
    records(GzDecoder::new(CLOSES_CSV_GZ))
}

fn records<T: DeserializeOwned>(file: impl io::Read) -> Result<Vec<T>, csv::Error> {
    csv::Reader::from_reader(file).into_deserialize().collect()
}

fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.split("; ").filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_of_the_companies_is_read() {
        let companies = companies().unwrap();
        assert_eq!(companies.len(), COMPANIES);
        let symbols: HashSet<_> = companies.iter().map(|company| &company.symbol).collect();
        assert_eq!(symbols.len(), COMPANIES, "symbols are unique");
        let indices: HashSet<_> = companies.iter().flat_map(|company| &company.indices).collect();
        assert_eq!(indices.len(), 20);
        assert!(companies.iter().all(|company| company.country.as_deref() != Some("")));
        assert!(companies.iter().any(|company| company.industries.len() > 1));
    }

    #[test]
    fn every_row_of_the_closes_is_read_and_has_its_company() {
        let closes = closes().unwrap();
        assert_eq!(closes.len(), CLOSES);
        let keys: HashSet<_> = closes.iter().map(|close| (close.date, &close.symbol)).collect();
        assert_eq!(keys.len(), CLOSES, "one close for each stock and day");
        let symbols: HashSet<_> = companies().unwrap().into_iter().map(|company| company.symbol).collect();
        assert!(closes.iter().all(|close| symbols.contains(&close.symbol) && close.close > 0.0));
        assert_eq!(closes[0].date.to_string(), "2010-01-04");
    }
}
