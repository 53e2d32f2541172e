//! Text from outside on its way into the database.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};

/// The longest text that a query parameter may hold, in characters.
const LONGEST: usize = 200;

/// Text that PostgreSQL can store: without NUL and other control characters, and not too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

/// Why text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidText;

impl fmt::Display for InvalidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text must have at most {LONGEST} characters and no control characters")
    }
}

impl FromStr for Text {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        if text.chars().any(char::is_control) || text.chars().count() > LONGEST {
            return Err(InvalidText);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Reads an optional query parameter. `name=` is the same as no parameter: forms send their empty fields like that.
pub(crate) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(D::Error::custom)
}

/// A pattern for LIKE that finds `text` anywhere, with its wildcards taken literally.
pub(crate) fn anywhere(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_taken_literally() {
        assert_eq!(anywhere(r"50%_\"), r"%50\%\_\\%");
    }

    #[test]
    fn what_postgresql_cannot_store_is_refused() {
        assert_eq!("a\0b".parse::<Text>(), Err(InvalidText));
        assert_eq!("x".repeat(201).parse::<Text>(), Err(InvalidText));
        assert_eq!("'; DROP TABLE stocks --".parse::<Text>().unwrap().0, "'; DROP TABLE stocks --");
    }
}
