//! The notes that tests write and read.

pub mod entity;
pub mod schema;

/// The table's definition.
pub const CREATE: &str =
    "CREATE TABLE note (id serial PRIMARY KEY, author text NOT NULL, text text NOT NULL)";
