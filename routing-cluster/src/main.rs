//! The command `routing-cluster`: the library's operations, for a person at a terminal.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use routing_cluster::{
    ClusterOptions, ClusterStatus, LocalCluster, Login, NodeRecord, NodeStatus, progress_on_stderr,
};
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn Error>;

/// A real replicated PostgreSQL on this machine: one primary and its streaming replicas in one directory.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// The cluster's directory.
    #[arg(long, global = true, default_value = ".cluster", value_name = "DIR")]
    dir: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the cluster, or start an existing one again with its data.
    Up(UpFlags),
    /// Show what every node reports of itself.
    Status {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Print the addresses as shell `export` lines, passwords included.
    Env,
    /// Kill a node at once, as a crash would.
    Kill(Name),
    /// Silence a node: its connections stay open and nothing is answered.
    Pause(Name),
    /// Let a paused node go on.
    Resume(Name),
    /// Stop a node cleanly.
    Stop(Name),
    /// Start a node that has stopped or crashed.
    Start(Name),
    /// Stop all nodes.
    Down {
        /// Remove the directory with all data.
        #[arg(long)]
        purge: bool,
    },
}

#[derive(Debug, Args)]
struct UpFlags {
    /// Replicas beside the primary, for a new cluster.
    #[arg(long, default_value_t = 2)]
    replicas: u32,
    /// The first port, for a new cluster; 0 takes free ones.
    #[arg(long, default_value_t = 5500)]
    port: u16,
    /// Never flush to disk: faster, for throw-away clusters only.
    #[arg(long)]
    no_fsync: bool,
}

#[derive(Debug, Args)]
struct Name {
    /// The node's name, such as pg2.
    #[arg(value_name = "NAME")]
    node: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, on one line unless a server's own lines follow.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Lines that are quoted already stand below; what follows them must not look like one of them.
        let joint = if text.contains('\n') { "\nbecause " } else { ": " };
        text = format!("{text}{joint}{error}");
        cause = error.source();
    }
    text
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let dir = cli.dir;
    match cli.action {
        Action::Up(flags) => {
            let durable = !flags.no_fsync;
            up(ClusterOptions { dir, replicas: flags.replicas, port: flags.port, durable }).await
        }
        Action::Status { json } => {
            let status = LocalCluster::open(&dir).await?.status().await;
            if json {
                print(&serde_json::to_string_pretty(&status)?)
            } else {
                print(&table(&status))
            }
            Ok(())
        }
        Action::Env => {
            print(&env(&LocalCluster::open(&dir).await?).await?);
            Ok(())
        }
        Action::Kill(name) => Ok(LocalCluster::open(&dir).await?.kill(&name.node).await?),
        Action::Pause(name) => Ok(LocalCluster::open(&dir).await?.pause(&name.node).await?),
        Action::Resume(name) => Ok(LocalCluster::open(&dir).await?.resume(&name.node).await?),
        Action::Stop(name) => Ok(LocalCluster::open(&dir).await?.stop(&name.node).await?),
        Action::Start(name) => Ok(LocalCluster::open(&dir).await?.start(&name.node).await?),
        Action::Down { purge } => Ok(LocalCluster::open(&dir).await?.down(purge).await?),
    }
}

/// Brings the cluster up; an interrupt drops the work half-way, which ends what it has started.
async fn up(options: ClusterOptions) -> Result<(), Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    let progress = progress_on_stderr();
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err("interrupted: no server is left running, and `up` goes on from here".into()),
        _ = terminated.recv() => Err("terminated: no server is left running, and `up` goes on from here".into()),
        done = LocalCluster::up(options, progress.as_ref()) => Ok(done.map(drop)?),
    }
}

#[expect(clippy::print_stdout, reason = "standard output is this command's answer")]
fn print(text: &str) {
    println!("{}", text.trim_end());
}

/// Shell lines that hand the cluster to an application.
async fn env(cluster: &LocalCluster) -> Result<String, Failure> {
    let nodes = cluster.nodes();
    // A stopped cluster has an answer too: what each node would start as.
    let primary = match cluster.primary().await {
        Some(primary) => Some(primary),
        None => nodes.iter().find(|node| !node.starts_as_standby()),
    };
    let mut lines = String::new();
    let mut export = |variable: &str, value: &str| lines.push_str(&format!("export {variable}='{value}'\n"));
    let named = |node: &NodeRecord| -> Result<String, Failure> {
        Ok(format!("{}={}", node.name, cluster.url(&node.name, Login::Application)?))
    };
    if let Some(primary) = primary {
        export("DATABASE_PRIMARY_URL", &named(primary)?);
    }
    for (index, node) in nodes.iter().filter(|node| Some(*node) != primary).enumerate() {
        export(&format!("DATABASE_REPLICA_{}_URL", index + 1), &named(node)?);
    }
    let monitor = cluster.credentials(Login::Monitor);
    export("DATABASE_PROBE_USER", &monitor.user);
    export("DATABASE_PROBE_PASSWORD", &monitor.password);
    Ok(lines)
}

/// One line per node; what a node does not say is a dash.
fn table(status: &ClusterStatus) -> String {
    let head = ["NODE", "PORT", "PID", "STATE", "ROLE", "TIMELINE", "LSN", "LAG", "RECEIVER", "STANDBYS"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(status.nodes.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    for node in status.nodes.iter() {
        if let Some(problem) = &node.problem {
            text.push_str(&format!("{}: {problem}\n", node.name));
        }
        for slot in node.slots.iter().filter(|slot| !slot.active) {
            let wal = slot.wal_status.as_deref().unwrap_or("unknown");
            text.push_str(&format!("{}: slot {} is not in use (its WAL: {wal})\n", node.name, slot.name));
        }
    }
    text
}

fn row(node: &NodeStatus) -> [String; 10] {
    let dash = || "-".to_owned();
    // The names in JSON are the names here.
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => dash(),
    };
    let standbys: Vec<String> = node.standbys.iter().map(|it| format!("{} {}", it.name, it.state)).collect();
    [
        node.name.clone(),
        node.port.to_string(),
        node.pid.map_or_else(dash, |pid| pid.to_string()),
        word(serde_json::to_value(node.state)),
        word(serde_json::to_value(node.role)),
        node.timeline.map_or_else(dash, |timeline| timeline.to_string()),
        node.lsn.clone().unwrap_or_else(dash),
        node.lag_bytes.map_or_else(dash, |bytes| format!("{bytes} B")),
        node.receiver.clone().unwrap_or_else(dash),
        if standbys.is_empty() { dash() } else { standbys.join(", ") },
    ]
}
