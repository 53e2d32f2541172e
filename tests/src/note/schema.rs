//! Notes, as Diesel sees them.

use diesel::dsl::{Eq, insert_into};
use diesel::prelude::*;
use diesel::query_builder::InsertStatement;

diesel::table! {
    /// The notes.
    note (id) {
        /// Given by the database.
        id -> Integer,
        /// Who wrote it.
        author -> Text,
        /// What it says.
        text -> Text,
    }
}

/// A note that is to be inserted.
pub type New<'a> = <(Eq<note::author, &'a str>, Eq<note::text, &'a str>) as Insertable<note::table>>::Values;

/// The statement that stores a note.
pub fn insert<'a>(author: &'a str, text: &'a str) -> InsertStatement<note::table, New<'a>> {
    insert_into(note::table).values((note::author.eq(author), note::text.eq(text)))
}
