//! The commands for a real host: `join`, and `promote --data-dir`.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::{ArgGroup, Args};
use routing_cluster::{
    Progress,
    host::{self, JoinOptions, PrimaryUrl},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

/// The variable that may hold the primary's URL with its password.
const PRIMARY_URL: &str = "PRIMARY_URL";

#[derive(Debug, Args)]
pub(crate) struct JoinFlags {
    /// The primary, and the role that replicates: postgres://USER@HOST:PORT/?sslmode=… It holds no password: that comes from
    /// PGPASSFILE, ~/.pgpass or PGPASSWORD, or with the URL from the variable PRIMARY_URL.
    #[arg(long, value_name = "URL")]
    primary: Option<String>,
    /// The standby's data directory: absent, empty, or a standby of the same system.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The standby's slot on the primary, made if it is missing; the primary also knows the standby by this name.
    #[arg(long, value_name = "NAME")]
    slot: String,
    /// The standby's port, where it differs from what is copied.
    #[arg(long)]
    port: Option<u16>,
    /// The most that the copy takes of the network: kB/s, or MB/s with the suffix M.
    #[arg(long, value_name = "RATE")]
    max_rate: Option<String>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["node", "data_dir"])))]
pub(crate) struct PromoteFlags {
    /// The node's name, such as pg2.
    #[arg(value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Promote the standby in this data directory instead of a node of the cluster.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Promote although the old primary may be alive, or another replica has more: LOSES WRITES.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Joins; an interrupt takes back what is not complete.
pub(crate) async fn join(flags: JoinFlags, progress: &dyn Progress) -> Result<(), Failure> {
    let primary = match (flags.primary, env::var(PRIMARY_URL)) {
        (Some(argument), _) => PrimaryUrl::from_argument(&argument)?,
        (None, Ok(secret)) => PrimaryUrl::from_secret(&secret)?,
        (None, Err(_)) => {
            return Err(format!("no primary: give --primary URL, or set the variable {PRIMARY_URL}").into());
        }
    };
    let JoinFlags { data_dir, slot, port, max_rate, .. } = flags;
    let options = JoinOptions { primary, data_dir, slot, port, max_rate };
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
        joined = host::join(&options, progress) => return Ok(joined.map(drop)?),
    }
    progress.step("interrupted: taking back what is not complete");
    match host::abandon(&options).await {
        Ok(true) => Err("interrupted: nothing is left of the copy".into()),
        Ok(false) => Err("interrupted: repeat the command, which goes on from here".into()),
        Err(error) => Err(format!(
            "interrupted, and not all of it could be taken back: repeat the command, which goes on from here ({})",
            crate::chain(&error)
        )
        .into()),
    }
}

/// Promotes the standby of this host.
pub(crate) async fn promote(data_dir: &Path, force: bool, progress: &dyn Progress) -> Result<(), Failure> {
    Ok(host::promote(data_dir, force, progress).await.map(drop)?)
}
