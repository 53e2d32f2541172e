//! Any text, against the laws of classification and a second opinion. The same target runs on the stable toolchain, on
//! mutations of the table of cases, as the test `fuzz::no_text_breaks_a_law`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../tests/sql/oracle.rs"]
mod oracle;

fuzz_target!(|text: &str| oracle::check(text));
