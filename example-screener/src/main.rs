//! The command `example-screener`.

use std::error::Error;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use example_screener::{Orm, ServeOptions, load, serve};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Serves a stock screener whose reads go to PostgreSQL replicas.
///
/// Without DATABASE_PRIMARY_URL it starts a cluster of its own, one primary and two replicas, and stops it at the end.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The ORM that the handlers use.
    #[arg(long, value_enum, default_value = "seaorm")]
    orm: Orm,
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// A TOML file that names the servers, instead of the environment. SIGHUP has it read again.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Mount the routes that drain a node, have the primary serve every read, and freeze the discovery. They ask nobody who
    /// they are.
    #[arg(long)]
    control: bool,
    /// How many seconds to go on taking connections after SIGTERM or Ctrl-C, while /health/ready says 503: as long as a load
    /// balancer takes to look elsewhere.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    drain_delay: u32,
    /// The directory of the screener's own cluster.
    #[arg(long, default_value = ".cluster")]
    dir: PathBuf,
    /// Give the database that DATABASE_PRIMARY_URL names its tables and data, and exit.
    #[arg(long)]
    load: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,example_screener=info"));
    let colours = std::io::stderr().is_terminal();
    // RUST_LOG=routing_core=debug has one line for each query: which node, why, and how long.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
    let options = ServeOptions {
        orm: arguments.orm,
        port: arguments.port,
        config: arguments.config,
        drain_delay: Duration::from_secs(arguments.drain_delay.into()),
        control: arguments.control,
        dir: arguments.dir,
    };
    let progress = routing_cluster::progress_on_stderr();
    let done = match arguments.load {
        true => load(&*progress).await.map(drop),
        false => serve(options, &*progress).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// One line with all causes.
fn report(error: &dyn Error) {
    let mut line = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("{line}");
}
