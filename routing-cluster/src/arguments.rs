//! What the command takes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use routing_cluster::{Fragment, Lsn, Moment, Network, RestoreTarget, SyncMode};

use crate::host_command::{JoinFlags, PromoteFlags};

/// A real replicated PostgreSQL on this machine: one primary and its streaming replicas in one directory.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The cluster's directory.
    #[arg(long, global = true, default_value = ".cluster", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
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
    /// Add a streaming replica, on the first free port after the others'.
    AddReplica {
        /// The new node's name; by default the next of pg1, pg2, and so on.
        #[arg(value_name = "NAME")]
        node: Option<String>,
        /// The node to copy and to stream from; by default the primary.
        #[arg(long, value_name = "NODE")]
        from: Option<String>,
    },
    /// Stop a replica, drop its slot, and take it out of the cluster.
    RemoveReplica {
        #[command(flatten)]
        name: Name,
        /// Remove its directory with all its data, too.
        #[arg(long)]
        purge: bool,
    },
    /// Make a replica the primary after its predecessor was stopped, or seen to be dead.
    ///
    /// The old primary is stopped, or killed when it is paused or hangs, and does not start again before `rejoin`. The
    /// other replicas follow the new primary. Writes that no replica has received are lost.
    ///
    /// With --data-dir: the standby of this host, whose old primary is elsewhere. It cannot be stopped from here, so it
    /// has to be seen to be stopped.
    Promote(PromoteFlags),
    /// Give this host a standby of a primary elsewhere, or let its standby follow that primary again; repeatable.
    Join(JoinFlags),
    /// Make a replica the primary and the primary a replica; nothing is lost.
    ///
    /// New transactions are read-only for a moment, and those that write get ten seconds to end; else it gives up and
    /// nothing has changed.
    Switchover(Name),
    /// Make a deposed primary, or a replica that has lost its connection, a streaming replica again.
    ///
    /// It is rewound, or copied anew where that does not do. Writes that only this node has are lost.
    Rejoin {
        #[command(flatten)]
        name: Name,
        /// Replace its data by a new base backup at once.
        #[arg(long)]
        base_backup: bool,
    },
    /// Copy the primary into a verified backup, from which `restore` makes a cluster again.
    Backup(BackupFlags),
    /// Make a new cluster from a backup and its archive, in the directory of --dir.
    ///
    /// By default it goes as far as the archive does. The new cluster has one node, pg1, and the old one's passwords.
    Restore(RestoreFlags),
    /// Compare every table of all running nodes: its rows and a checksum, at one position.
    Verify,
    /// Print a configuration file for servers that have a machine each; each line stands below its reason.
    Config {
        /// Which file.
        #[arg(value_enum)]
        file: ConfigFile,
    },
    /// Stop all nodes.
    Down {
        /// Remove the directory with all data.
        #[arg(long)]
        purge: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UpFlags {
    /// Replicas beside the primary, for a new cluster.
    #[arg(long, default_value_t = 2)]
    pub(crate) replicas: u32,
    /// The first port, for a new cluster; 0 takes free ones.
    #[arg(long, default_value_t = 5500)]
    pub(crate) port: u16,
    /// Never flush to disk: faster, for throw-away clusters only.
    #[arg(long)]
    pub(crate) no_fsync: bool,
    /// Encrypt: a certificate authority of the cluster's own, and no plain connection is let in. For a new cluster.
    #[arg(long)]
    pub(crate) tls: bool,
    /// Let machines of this network connect as well, such as 10.1.0.0/16; repeatable. Beyond this machine it needs --tls.
    /// For a new cluster.
    #[arg(long, value_name = "CIDR")]
    pub(crate) allow: Vec<Network>,
    /// Archive finished WAL in DIR-archive, which `down --purge` leaves; with a `backup` it leads back to any moment since.
    /// Also for an existing cluster that does not run.
    #[arg(long)]
    pub(crate) archive: bool,
    /// Whether a commit waits until a replica has it, from now on; also for a cluster that runs.
    #[arg(long, value_enum)]
    pub(crate) sync: Option<Sync>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupFlags {
    /// The folder for it; by default `backups` in DIR-archive.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: Option<PathBuf>,
    /// Remove the cluster's older backups but this many, and the WAL that only they needed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "to")]
    pub(crate) keep: Option<u32>,
    /// Show the backups that there are, and make none.
    #[arg(long, conflicts_with_all = ["to", "keep"])]
    pub(crate) list: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreFlags {
    /// A backup, a folder of backups, or an archive.
    #[arg(long, value_name = "PATH")]
    pub(crate) from: PathBuf,
    /// Up to the last commit at this time or before, such as 2026-03-01T12:00:00Z or '2026-03-01 12:00:00+00'.
    #[arg(long, value_name = "TIME", group = "target")]
    pub(crate) to_time: Option<Moment>,
    /// Up to this position, as pg_current_wal_lsn() prints it.
    #[arg(long, value_name = "LSN", group = "target")]
    pub(crate) to_lsn: Option<Lsn>,
    /// Up to the end of the backup, without the archive.
    #[arg(long, group = "target")]
    pub(crate) to_backup_end: bool,
    /// The new cluster's port; 0 takes a free one.
    #[arg(long, default_value_t = 5500)]
    pub(crate) port: u16,
    /// Archive the new cluster's WAL, in an archive of its own.
    #[arg(long)]
    pub(crate) archive: bool,
}

impl RestoreFlags {
    pub(crate) fn target(&self) -> RestoreTarget {
        match (self.to_time, self.to_lsn, self.to_backup_end) {
            (Some(moment), _, _) => RestoreTarget::Time(moment),
            (_, Some(lsn), _) => RestoreTarget::Lsn(lsn),
            (_, _, true) => RestoreTarget::BackupEnd,
            _ => RestoreTarget::End,
        }
    }
}

/// Whether a commit waits until a replica has it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Sync {
    /// For none: the fastest; the last commits are lost with the primary.
    Off,
    /// Until any one replica has it on disk; without a running replica every commit waits.
    Quorum,
    /// Until any one replica has applied it, so that a read there sees it.
    RemoteApply,
}

/// A file of a server's configuration.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ConfigFile {
    /// `postgresql.conf` of the primary.
    Primary,
    /// `postgresql.conf` of a replica.
    Replica,
    /// `pg_hba.conf` of every server.
    #[value(name = "pg_hba")]
    PgHba,
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The node's name, such as pg2.
    #[arg(value_name = "NAME")]
    pub(crate) node: String,
}

impl From<Sync> for SyncMode {
    fn from(sync: Sync) -> SyncMode {
        match sync {
            Sync::Off => SyncMode::Off,
            Sync::Quorum => SyncMode::Quorum,
            Sync::RemoteApply => SyncMode::RemoteApply,
        }
    }
}

impl From<ConfigFile> for Fragment {
    fn from(file: ConfigFile) -> Fragment {
        match file {
            ConfigFile::Primary => Fragment::Primary,
            ConfigFile::Replica => Fragment::Replica,
            ConfigFile::PgHba => Fragment::AccessRules,
        }
    }
}
