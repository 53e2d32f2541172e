//! Measures what the router costs and what replicas bring: `cargo run --release -p routing-tests --bin load -- overhead`.
//!
//! Each command prints one table of `docs/performance.md`; progress goes to standard error.
#![allow(clippy::print_stdout, reason = "the tables are the program's output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use routing_tests::load::{
    Bars, CappedCluster, NoQuota, Query, control, cost, load_average, overhead, scale, session, slow, targets,
};
use routing_tests::{Diesel, SeaOrm};

#[derive(Debug, Parser)]
#[command(about = "Measures what the router costs and what replicas bring, on real servers of its own")]
struct Arguments {
    /// How often the contenders take turns. Default: 20; `scale` 10.
    #[arg(long, global = true)]
    rounds: Option<usize>,
    /// How long each of them goes on in a turn, in milliseconds. Default: 300; `scale` 1,000.
    #[arg(long, global = true)]
    slice: Option<u64>,
    /// Where plots are written to; none without it.
    #[arg(long, global = true)]
    plots: Option<PathBuf>,
    #[command(subcommand)]
    table: Table,
}

#[derive(Debug, Subcommand)]
enum Table {
    /// A routed read beside the same read on the same pool, and on the ORM's own.
    Overhead {
        /// Reads a page of a list instead of a note by its key.
        #[arg(long)]
        page: bool,
    },
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
    /// Reads on one, two and three replicas, and the targets before and after; each server on a fixed share of a core.
    Scale {
        /// Instead: why one replica serves as many reads as it does of those of the primary.
        #[arg(long)]
        control: bool,
    },
    /// What one more node, connection and process cost, and by calculation many.
    Cost,
    /// One replica of three becomes 20 times slower, by balancer.
    Slow {
        /// As many clients at once.
        #[arg(long, default_value_t = 16)]
        clients: usize,
    },
}

fn said(progress: &str) {
    eprintln!("{progress}");
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let before = load_average();
    if let Err(why) = measure(&arguments).await {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    println!("\nLoad average of the machine before: {before}; after: {}", load_average());
    ExitCode::SUCCESS
}

async fn measure(arguments: &Arguments) -> Result<(), NoQuota> {
    let (rounds, slice) = match arguments.table {
        Table::Scale { .. } => (10, 1_000),
        _ => (20, 300),
    };
    let options = overhead::Options {
        rounds: arguments.rounds.unwrap_or(rounds),
        slice: Duration::from_millis(arguments.slice.unwrap_or(slice)),
        query: if matches!(arguments.table, Table::Overhead { page: true }) {
            Query::Page
        } else {
            Query::Key
        },
        clients: if let Table::Slow { clients } = arguments.table { clients } else { 1 },
    };
    match &arguments.table {
        Table::Overhead { page } => {
            let cluster = overhead::cluster().await;
            let mut lines = overhead::measure::<SeaOrm>(&cluster, options, said).await;
            lines.extend(overhead::measure::<Diesel>(&cluster, options, said).await);
            print_table(overhead::HEAD, &lines);
            save(arguments, if *page { "pages.svg" } else { "overhead.svg" }, &overhead::plot(&lines));
        }
        Table::Reads { diesel, contender, times } => {
            let cluster = overhead::cluster().await;
            if *diesel {
                overhead::reads::<Diesel>(&cluster, contender, *times).await;
            } else {
                overhead::reads::<SeaOrm>(&cluster, contender, *times).await;
            }
        }
        Table::Session => {
            let cluster = overhead::cluster().await;
            let mut lines = session::measure::<SeaOrm>(&cluster).await;
            lines.extend(session::measure::<Diesel>(&cluster).await);
            print_table(session::HEAD, &lines);
            save(arguments, "session.svg", &session::plot(&lines));
        }
        Table::Scale { control: true } => {
            let cluster = CappedCluster::start().await?;
            let mut lines = control::standbys::<SeaOrm>(&cluster, options, said).await;
            lines.extend(control::standbys::<Diesel>(&cluster, options, said).await);
            print_table(control::HEAD, &lines);
            control::promote(&cluster).await;
            let mut lines = control::promoted::<SeaOrm>(&cluster, options, said).await;
            lines.extend(control::promoted::<Diesel>(&cluster, options, said).await);
            println!();
            print_table(control::HEAD, &lines);
        }
        Table::Scale { control: false } => {
            let cluster = CappedCluster::start().await?;
            let mut lines = scale::measure::<SeaOrm>(&cluster, options, said).await;
            lines.extend(scale::measure::<Diesel>(&cluster, options, said).await);
            print_table(scale::HEAD, &lines);
            save(arguments, "scale.svg", &scale::plot(&lines));
            println!();
            let seaorm = targets::measure::<SeaOrm>(&cluster, options, said).await?;
            let diesel = targets::measure::<Diesel>(&cluster, options, said).await?;
            print_table(targets::HEAD, &[seaorm, diesel]);
        }
        Table::Cost => {
            let cluster = overhead::cluster().await;
            let units = cost::measure(&cluster).await;
            print_table(cost::HEAD, &units);
            println!();
            print_table(cost::MANY_HEAD, &cost::many(&units));
        }
        Table::Slow { .. } => {
            let mut cluster = overhead::cluster().await;
            print_table(slow::HEAD, &slow::measure::<SeaOrm>(&mut cluster, options, said).await);
        }
    }
    Ok(())
}

/// Writes a plot where plots are wanted.
fn save(arguments: &Arguments, name: &str, plot: &Bars) {
    if let Some(dir) = &arguments.plots {
        std::fs::write(dir.join(name), plot.to_string()).expect("the plot can be written");
    }
}

fn print_table<T: std::fmt::Display>(head: &str, lines: &[T]) {
    println!("{head}");
    for line in lines {
        println!("{line}");
    }
}
