//! Measures what the router costs and what replicas bring: `cargo run --release -p routing-tests --bin load -- overhead`.
//!
//! Each command prints one table of `docs/performance.md`; progress goes to standard error.
#![allow(clippy::print_stdout, reason = "the tables are the program's output")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use routing_tests::load::{overhead, session, slow};
use routing_tests::{Diesel, SeaOrm};

#[derive(Debug, Parser)]
#[command(about = "Measures what the router costs and what replicas bring, on real servers of its own")]
struct Arguments {
    /// How often the contenders take turns.
    #[arg(long, global = true, default_value_t = 20)]
    rounds: usize,
    /// How long each of them goes on in a turn, in milliseconds.
    #[arg(long, global = true, default_value_t = 300)]
    slice: u64,
    /// Where plots are written to; none without it.
    #[arg(long, global = true)]
    plots: Option<PathBuf>,
    #[command(subcommand)]
    table: Table,
}

#[derive(Debug, Subcommand)]
enum Table {
    /// A routed read beside the same read on the same pool, and on the ORM's own.
    Overhead,
    /// So many reads by one contender and nothing else, for a tool that counts instructions.
    Reads {
        /// Whether Diesel reads; else SeaORM.
        #[arg(long)]
        diesel: bool,
        /// One of "bare", "routed", "own pool", "own pool with ping".
        contender: String,
        /// How many.
        times: u64,
    },
    /// Round trips of reads and writes with sessions.
    Session,
    /// One replica of three becomes 20 times slower, by balancer.
    Slow,
}

fn said(progress: &str) {
    eprintln!("{progress}");
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let options =
        overhead::Options { rounds: arguments.rounds, slice: Duration::from_millis(arguments.slice) };
    match arguments.table {
        Table::Overhead => {
            let cluster = overhead::cluster().await;
            let mut lines = overhead::measure::<SeaOrm>(&cluster, options, said).await;
            lines.extend(overhead::measure::<Diesel>(&cluster, options, said).await);
            print_table(overhead::HEAD, &lines);
            if let Some(dir) = arguments.plots {
                let path = dir.join("overhead.svg");
                std::fs::write(&path, overhead::plot(&lines).to_string()).expect("the plot can be written");
            }
        }
        Table::Reads { diesel, contender, times } => {
            let cluster = overhead::cluster().await;
            if diesel {
                overhead::reads::<Diesel>(&cluster, &contender, times).await;
            } else {
                overhead::reads::<SeaOrm>(&cluster, &contender, times).await;
            }
        }
        Table::Session => {
            let cluster = overhead::cluster().await;
            let mut lines = session::measure::<SeaOrm>(&cluster).await;
            lines.extend(session::measure::<Diesel>(&cluster).await);
            print_table(session::HEAD, &lines);
        }
        Table::Slow => {
            let mut cluster = overhead::cluster().await;
            print_table(slow::HEAD, &slow::measure::<SeaOrm>(&mut cluster, options, said).await);
        }
    }
}

fn print_table<T: std::fmt::Display>(head: &str, lines: &[T]) {
    println!("{head}");
    for line in lines {
        println!("{line}");
    }
}
