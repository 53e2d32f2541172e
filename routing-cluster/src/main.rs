//! The command `routing-cluster`: the library's operations, for a person at a terminal.

mod arguments;
mod host_command;
mod table;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser as _;
use routing_cluster::{
    BackupOptions, ClusterOptions, Condition, Fragment, LocalCluster, Login, NodeRecord, Progress,
    RestoreOptions, SyncMode, UpError, progress_on_stderr,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    arguments::{Action, BackupFlags, Cli, RestoreFlags, UpFlags},
    host_command::PromoteFlags,
};

type Failure = Box<dyn Error>;

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
    let progress = progress_on_stderr();
    let progress = progress.as_ref();
    match cli.action {
        Action::Up(flags) => {
            let UpFlags { replicas, port, no_fsync, tls, allow, archive, sync } = flags;
            let (durable, template) = (!no_fsync, None);
            let options = ClusterOptions { dir, replicas, port, durable, tls, allow, archive, template };
            interruptible(up(options, sync.map(SyncMode::from), progress)).await
        }
        Action::Status { json } => {
            let status = LocalCluster::open(&dir).await?.status().await;
            if json {
                print(&serde_json::to_string_pretty(&status)?)
            } else {
                print(&table::table(&status))
            }
            Ok(())
        }
        Action::Env => {
            print(&env(&LocalCluster::open(&dir).await?).await?);
            Ok(())
        }
        Action::Config { file } => {
            print(&Fragment::from(file).render());
            Ok(())
        }
        Action::Kill(name) => Ok(LocalCluster::open(&dir).await?.kill(&name.node).await?),
        Action::Pause(name) => Ok(LocalCluster::open(&dir).await?.pause(&name.node).await?),
        Action::Resume(name) => Ok(LocalCluster::open(&dir).await?.resume(&name.node).await?),
        Action::Stop(name) => Ok(LocalCluster::open(&dir).await?.stop(&name.node).await?),
        Action::Start(name) => Ok(LocalCluster::open(&dir).await?.start(&name.node).await?),
        Action::Down { purge } => Ok(LocalCluster::open(&dir).await?.down(purge).await?),
        Action::Backup(flags) if flags.list => {
            print(&table::backups(&LocalCluster::open(&dir).await?.backups()?));
            Ok(())
        }
        Action::Backup(flags) => interruptible(backup(flags, &dir, progress)).await,
        Action::Restore(flags) => interruptible(restore(flags, dir, progress)).await,
        Action::Join(flags) => host_command::join(flags, progress).await,
        Action::Promote(PromoteFlags { data_dir: Some(data_dir), force, .. }) => {
            interruptible(host_command::promote(&data_dir, force, progress)).await
        }
        change => interruptible(operate(change, &dir, progress)).await,
    }
}

async fn backup(flags: BackupFlags, dir: &Path, progress: &dyn Progress) -> Result<(), Failure> {
    let options = BackupOptions { to: flags.to, keep: flags.keep };
    let backup = LocalCluster::open(dir).await?.backup(&options, progress).await?;
    print(&backup.dir.display().to_string());
    Ok(())
}

async fn restore(flags: RestoreFlags, dir: PathBuf, progress: &dyn Progress) -> Result<(), Failure> {
    let target = flags.target();
    let RestoreFlags { from, port, archive, .. } = flags;
    let options = RestoreOptions { from, dir, target, port, archive };
    LocalCluster::restore(&options, progress).await?;
    Ok(())
}

/// The operations that change who replicates from whom, and their proof.
async fn operate(action: Action, dir: &Path, progress: &dyn Progress) -> Result<(), Failure> {
    let mut cluster = LocalCluster::open(dir).await?;
    match action {
        Action::AddReplica { node, from } => {
            cluster.add_replica(node.as_deref(), from.as_deref(), progress).await.map(drop)?
        }
        Action::RemoveReplica { name, purge } => cluster.remove_replica(&name.node, purge, progress).await?,
        Action::Promote(PromoteFlags { node: Some(node), force, .. }) => {
            cluster.promote(&node, force, progress).await.map(drop)?
        }
        Action::Switchover(name) => cluster.switchover(&name.node, progress).await.map(drop)?,
        Action::Rejoin { name, base_backup } => {
            cluster.rejoin(&name.node, base_backup, progress).await.map(drop)?
        }
        Action::Verify => verify(&cluster, progress).await?,
        _ => {}
    }
    Ok(())
}

/// An interrupt drops the work half-way, which ends what it has started; the state file knows how far it got.
async fn interruptible(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err("interrupted: repeat the command, which goes on from here".into()),
        _ = terminated.recv() => Err("terminated: repeat the command, which goes on from here".into()),
        done = work => done,
    }
}

async fn up(options: ClusterOptions, sync: Option<SyncMode>, progress: &dyn Progress) -> Result<(), Failure> {
    let dir = options.dir.clone();
    let cluster = match LocalCluster::up(options, progress).await {
        // Nothing had to be started, but there is something left to do.
        Err(UpError::AlreadyRunning { .. } | UpError::Unfit { .. }) if sync.is_some() => {
            LocalCluster::open(&dir).await?
        }
        done => done?,
    };
    match sync {
        Some(mode) => Ok(cluster.set_sync(mode, progress).await?),
        None => Ok(()),
    }
}

/// Tables that differ are the answer, and a failure.
async fn verify(cluster: &LocalCluster, progress: &dyn Progress) -> Result<(), Failure> {
    let found = cluster.verify(progress).await?;
    for difference in &found.differences {
        let held = difference.nodes.iter().map(|(node, sum)| match sum {
            Some(sum) => format!("{node} has {} rows (checksum {})", sum.rows, sum.checksum),
            None => format!("{node} has no such table"),
        });
        let held: Vec<String> = held.collect();
        print(&format!("{}: {}: {}", difference.database, difference.table, held.join(", ")));
    }
    match found.differences.len() {
        0 => Ok(()),
        count => Err(format!("{count} tables differ: `rejoin --base-backup` the node that is wrong").into()),
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
        None => {
            let status = cluster.status().await;
            // A deposed primary starts as nothing.
            let sound = |node: &&NodeRecord| {
                status.nodes.iter().any(|it| it.name == node.name && it.condition == Condition::Sound)
            };
            nodes.iter().filter(sound).find(|node| !node.starts_as_standby())
        }
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
    if let Some(root_certificate) = cluster.root_certificate() {
        // libpq's own programs read it.
        export("PGSSLROOTCERT", &root_certificate.display().to_string());
    }
    export("DATABASE_PROBE_USER", &monitor.user);
    export("DATABASE_PROBE_PASSWORD", &monitor.password);
    Ok(lines)
}
