//! A load test of the screener: the same users on the primary alone and on three replicas, in turns within one run.
//!
//! `cargo build --release -p example-screener && (cd tests/goose && cargo run --release)`, as root: every server has a fixed
//! share of a core, so that the servers are what is short. Prints tables; Goose writes a report for each phase.
mod phase;
mod table;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use goose::GooseError;
use goose::metrics::GooseMetrics;
use routing_tests::load::{CAPPED_REPLICAS, CappedCluster, Lag, LagSampler, load_average};
use routing_tests::{Orm, Screener, SeaOrm};

use crate::phase::{PHASES, Phase, STEADY};

#[derive(Debug, Parser)]
#[command(about = "Has many users ask the screener, on the primary alone and on three replicas")]
struct Arguments {
    /// Users of the steady phase; the spike has three times as many.
    #[arg(long, default_value_t = 40)]
    users: usize,
    /// How many seconds the steady phase takes; the others half of it.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Where the reports are written to.
    #[arg(long, default_value = "target/goose")]
    reports: PathBuf,
}

/// The screener of one side: how many replicas it reads from.
struct Side {
    name: &'static str,
    replicas: usize,
    screener: Screener,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run::<SeaOrm>(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run<O: Orm>(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let before = load_average();
    std::fs::create_dir_all(&arguments.reports)?;
    let cluster = CappedCluster::start_with(async |servers| {
        // The data is loaded without a limit.
        drop(Screener::start::<O>(&servers.config(), "", &[]).await);
    })
    .await?;
    let mut sides = Vec::new();
    for (name, replicas) in [("the primary alone", 0), ("3 replicas", CAPPED_REPLICAS.len())] {
        let screener = Screener::start::<O>(&cluster.config(replicas), "", &[]).await;
        sides.push(Side { name, replicas, screener });
    }
    let (mut lags, mut lines) = (Vec::new(), Vec::new());
    for phase in PHASES {
        let mut rows = Vec::new();
        for side in &sides {
            eprintln!(
                "{}, {}: {} users for {} s",
                phase.name,
                side.name,
                phase.users(arguments.users),
                phase.seconds(arguments.seconds)
            );
            let sampler = match side.replicas > 0 && phase.name == STEADY {
                true => Some(LagSampler::start(cluster.servers(), &CAPPED_REPLICAS).await),
                false => None,
            };
            rows.push((side, attack(phase, side, arguments).await?));
            lags.extend(sampler.map(LagSampler::stop).unwrap_or_default());
        }
        for kind in users::KINDS {
            let seconds = phase.seconds(arguments.seconds);
            lines.extend(
                rows.iter().map(|(side, metrics)| table::row(phase.name, kind, side.name, seconds, metrics)),
            );
        }
    }
    // At the end: Goose writes to the same place as it goes.
    println!("{}\n{}", table::HEAD, lines.join("\n"));
    print_lags(&lags);
    println!("\nLoad average of the machine before: {before}; after: {}", load_average());
    Ok(())
}

/// One phase on one side, with what it prints about its progress.
async fn attack(phase: Phase, side: &Side, arguments: &Arguments) -> Result<GooseMetrics, GooseError> {
    let file = format!("{}-{}-replicas.html", phase.name, side.replicas);
    let report = arguments.reports.join(file).display().to_string();
    let progress = phase.progress(arguments.seconds, side.name);
    let metrics = phase.run(side.screener.address(), arguments.users, arguments.seconds, report).await;
    progress.abort();
    metrics
}

fn print_lags(lags: &[(String, Lag)]) {
    println!(
        "\n| replication lag in the steady phase | average / maximum | goal: average below 2 s, maximum below 5 s |\n|---|---|---|"
    );
    for (who, lag) in lags {
        let met = lag.average() < 2.0 && lag.maximum() < 5.0;
        println!("| {who} | {lag} | {} |", if met { "met" } else { "**not met**" });
    }
}
