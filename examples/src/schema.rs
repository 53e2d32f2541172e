//! A note, as Diesel sees it.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

diesel::table! {
    notes (id) {
        id -> Integer,
        text -> Text,
    }
}

/// A note.
#[derive(Clone, Debug, Queryable, Selectable, Serialize)]
pub(crate) struct Note {
    id: i32,
    text: String,
}

/// A note to come.
#[derive(Clone, Debug, Insertable, Deserialize)]
#[diesel(table_name = notes)]
pub(crate) struct NewNote {
    text: String,
}
