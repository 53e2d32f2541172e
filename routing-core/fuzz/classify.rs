//! Any text, against the laws of classification and a second opinion. The test `fuzz::no_text_breaks_a_law` tries mutations of
//! the table of cases on the same laws.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../tests/sql/oracle.rs"]
mod oracle;

fuzz_target!(|text: &str| oracle::check(text));
