//! `routing_core::sql` from outside: the table of cases, its laws, other opinions on the same texts.

mod cases;
mod fuzz;
mod oracle;
mod properties;
mod reviewed;
mod rules;
mod shapes;
mod table;
