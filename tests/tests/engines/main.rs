//! The router behind the engines that decide who leads, as they are: with both ORMs, under traffic. `./test --ha` runs it.
//!
//! Each test prints what it measured: see `routing_tests::figures`.

// `./test` leaves the tests of this module out by its name where it has to.
mod behind;
