//! Lists, in pages and whole.

use serde::{Deserialize, Serialize};

use crate::text::optional;

/// The most items that one page may have.
const LARGEST: u32 = 100;

/// Which part of a list is asked for: `page`, from 1, default 1; `page_size`, 1 to 100, default 20.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Asked")]
pub struct Page {
    /// The page's number, from 1.
    pub number: u32,
    /// How many items a page has.
    pub size: u32,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default, deserialize_with = "optional")]
    page: Option<u32>,
    #[serde(default, deserialize_with = "optional")]
    page_size: Option<u32>,
}

impl TryFrom<Asked> for Page {
    type Error = String;

    fn try_from(asked: Asked) -> Result<Self, String> {
        let page = Self { number: asked.page.unwrap_or(1), size: asked.page_size.unwrap_or(20) };
        if page.number == 0 {
            return Err("page must be at least 1".to_owned());
        }
        if !(1..=LARGEST).contains(&page.size) {
            return Err(format!("page_size must be from 1 to {LARGEST}"));
        }
        Ok(page)
    }
}

impl Page {
    /// How many pages come before it.
    #[must_use]
    pub fn before(self) -> u32 {
        self.number.saturating_sub(1)
    }
}

/// One page of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Paged<T> {
    /// What is on the page; nothing when it lies behind the last.
    pub items: Vec<T>,
    /// Its number, from 1.
    pub page: u32,
    /// How many items a page has.
    pub page_size: u32,
    /// How many items the whole list has.
    pub total: u64,
}

/// A list that comes whole.
#[derive(Serialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;

    fn read(query: &str) -> Result<Page, String> {
        let uri = format!("http://h/?{query}").parse().unwrap();
        Query::try_from_uri(&uri).map(|Query(page)| page).map_err(|error| error.body_text())
    }

    #[test]
    fn a_page_has_defaults_and_bounds() {
        assert_eq!(read(""), Ok(Page { number: 1, size: 20 }));
        assert_eq!(read("page=&page_size="), Ok(Page { number: 1, size: 20 }));
        assert_eq!(read("page=4294967295&page_size=100").map(Page::before), Ok(4_294_967_294));
        for (query, why) in [
            ("page=0", "page must be at least 1"),
            ("page_size=0", "from 1 to 100"),
            ("page_size=101", "from 1 to 100"),
            ("page=-1", "page: "),
            ("page=x", "page: "),
            ("page=4294967296", "page: "),
            ("page=1&page=2", "duplicate field"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(why), "{query}: {error}");
        }
    }
}
