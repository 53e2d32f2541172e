//! Making a replica of a primary: the base backup, what it is told to follow, and seeing it stream.

use std::{io, path::Path, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

use crate::{
    command::run,
    credentials::{LOOPBACK, Login, REPLICATOR},
    link::read_unlinked,
    node::NodeRecord,
    provision::{Provision, ProvisionError, files},
    settings::{quote, quote_conninfo},
    sql::{Session, SqlError},
};

/// A base backup copies the whole primary.
const BASE_BACKUP: Duration = Duration::from_secs(600);
/// How long a new standby may take to stream.
pub(crate) const STREAMING: Duration = Duration::from_secs(60);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Deadline of one statement.
pub(crate) const STATEMENT: Duration = Duration::from_secs(10);

impl Provision<'_> {
    /// Makes and starts a replica of `primary`, and sees it stream.
    pub(crate) async fn replica(
        &self,
        node: &NodeRecord,
        primary: &NodeRecord,
    ) -> Result<(), ProvisionError> {
        let sql = |source| ProvisionError::Sql { node: node.name.clone(), source };
        self.node_dir(node).map_err(files("create the directory of", node))?;
        self.drop_slot(node, primary).await.map_err(sql)?;
        let mut command = self.tools.command("pg_basebackup");
        let name = format!("{} base backup", node.name);
        let conninfo = self.conninfo(primary, &name).map_err(files("find the upstream of", node))?;
        command.arg("--dbname").arg(conninfo);
        command.args([
            "--write-recovery-conf",
            "--wal-method",
            "stream",
            "--checkpoint",
            "fast",
            "--no-password",
        ]);
        command.args(["--create-slot", "--slot", &node.name]).arg("--pgdata").arg(&node.data_dir);
        if !self.durable {
            command.args(["--no-sync", "--no-manifest"]);
        }
        run(command, BASE_BACKUP).await.map_err(|source| ProvisionError::Program {
            doing: "take the base backup of",
            node: node.name.clone(),
            source,
        })?;
        self.configure(node, false)
            .and_then(|()| self.follow(node, primary))
            .map_err(files("write the configuration of", node))?;
        self.start(node).await?;
        self.streaming(node, primary).await
    }

    /// Rewrites what the base backup wrote about its primary: it knows no application name, and it repeats
    /// where its own password came from.
    pub(crate) fn follow(&self, node: &NodeRecord, primary: &NodeRecord) -> io::Result<()> {
        let path = node.data_dir.join("postgresql.auto.conf");
        let text = read_unlinked(&path)?;
        let kept = text.lines().filter(|line| !line.trim_start().starts_with("primary_"));
        let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
        let conninfo = self.conninfo(primary, &node.name)?;
        let slot = &node.name;
        self.tools.account().write(
            &path,
            &format!("{kept}primary_conninfo = {}\nprimary_slot_name = '{slot}'\n", quote(&conninfo)),
        )
    }

    /// How the replication role connects to a node; `name` is what that node will know the connection by.
    pub(crate) fn conninfo(&self, upstream: &NodeRecord, name: &str) -> io::Result<String> {
        self.conninfo_as(REPLICATOR, &self.layout.replication_passfile(), upstream, name)
    }

    /// How one of PostgreSQL's programs connects to a node with a password out of `passfile`.
    pub(crate) fn conninfo_as(
        &self,
        user: &str,
        passfile: &Path,
        upstream: &NodeRecord,
        name: &str,
    ) -> io::Result<String> {
        let quoted = |path: &Path| match path.to_str() {
            Some(path) => Ok(quote_conninfo(path)),
            None => Err(io::Error::other("the cluster's path is not UTF-8")),
        };
        let encryption = match self.access.tls {
            true => format!("verify-full sslrootcert={}", quoted(&self.layout.root_certificate())?),
            false => "disable".to_owned(),
        };
        Ok(format!(
            "host={LOOPBACK} hostaddr=127.0.0.1 port={} user={user} passfile={} application_name={} \
             sslmode={encryption}",
            upstream.port,
            quoted(passfile)?,
            quote_conninfo(name),
        ))
    }

    /// Drops the slot that an interrupted attempt has left behind.
    pub(crate) async fn drop_slot(&self, node: &NodeRecord, primary: &NodeRecord) -> Result<(), SqlError> {
        let superuser = self.passwords.credentials(Login::Superuser);
        let session = Session::connect(primary.port, &superuser, STATEMENT).await?;
        let begun = Instant::now();
        loop {
            let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                       WHERE slot_name = $1 AND active";
            let active = session.rows("free the old slot", end, &[&node.name]).await?;
            if active.is_empty() || begun.elapsed() > STATEMENT {
                break;
            }
            sleep(LOOK_AGAIN).await;
        }
        let drop =
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
        session.rows("drop the old slot", drop, &[&node.name]).await?;
        Ok(())
    }

    /// Waits until both sides say that the replica streams.
    pub(crate) async fn streaming(
        &self,
        node: &NodeRecord,
        primary: &NodeRecord,
    ) -> Result<(), ProvisionError> {
        let sql = |source| ProvisionError::Sql { node: node.name.clone(), source };
        let login = self.passwords.credentials(Login::Superuser);
        let upstream = Session::connect(primary.port, &login, STATEMENT).await.map_err(sql)?;
        let standby = Session::connect(node.port, &login, STATEMENT).await.map_err(sql)?;
        let begun = Instant::now();
        loop {
            let sender = "SELECT state FROM pg_stat_replication WHERE application_name = $1";
            let sender = upstream.rows("ask the primary", sender, &[&node.name]).await.map_err(sql)?;
            let receiver = "SELECT status FROM pg_stat_wal_receiver";
            let receiver = standby.rows("ask the replica", receiver, &[]).await.map_err(sql)?;
            let (sender, receiver) = (first_word(&sender), first_word(&receiver));
            if sender == "streaming" && receiver == "streaming" {
                return Ok(());
            }
            if begun.elapsed() > STREAMING {
                let log = node.log_file.display().to_string();
                return Err(ProvisionError::NotStreaming { node: node.name.clone(), sender, receiver, log });
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn first_word(rows: &[Row]) -> String {
    let word = rows.first().and_then(|row| row.try_get::<_, Option<String>>(0).ok().flatten());
    word.unwrap_or_else(|| "nothing".to_owned())
}
