//! Rewinding: a node gives up what only it has written, and copies what it lacks from another.

use std::{fs, time::Duration};

use crate::{
    command::{CommandError, run},
    credentials::{LOOPBACK, Login, write_secret},
    node::NodeRecord,
    operation::{Operation, OperationError, asked, files},
    process,
    provision::ProvisionError,
    server,
};

/// A rewind reads the node's WAL back to the divergence and copies what has changed since.
const REWIND: Duration = Duration::from_secs(600);

impl Operation<'_> {
    /// Runs `pg_rewind` on a node that does not run.
    pub(crate) async fn rewind(
        &self,
        node: &NodeRecord,
        upstream: &NodeRecord,
    ) -> Result<(), OperationError> {
        // Just after a promotion the source's control file still names the old timeline, and nothing would be rewound.
        if !self.is_standby(upstream).await? {
            let session = self.session_within(upstream, REWIND).await?;
            session.run("write a checkpoint", "CHECKPOINT").await.map_err(asked(upstream))?;
        }
        // The rewind first lets a crashed server recover, which a stale lock would prevent.
        process::end_family(&node.data_dir).map_err(files("stop", node))?;
        server::remove_stale_locks(node);
        let superuser = self.passwords.credentials(Login::Superuser);
        let passfile = self.layout.rewind_passfile();
        let line = format!("{LOOPBACK}:{}:*:{}:{}\n", upstream.port, superuser.user, superuser.password);
        write_secret(&passfile, &line)
            .and_then(|()| self.tools.account().own_path(&passfile))
            .map_err(files("hand the superuser's password to the rewind of", node))?;
        let mut command = self.tools.command("pg_rewind");
        command.arg("--target-pgdata").arg(&node.data_dir);
        let conninfo = self.provision().conninfo_as(&superuser.user, &passfile, upstream, &node.name);
        let conninfo = conninfo.map_err(files("find the upstream of", node))?;
        command.arg("--source-server").arg(format!("{conninfo} dbname=postgres"));
        if !self.state.durable {
            command.arg("--no-sync");
        }
        if self.state.archive.is_some() {
            // What the node has removed of its own WAL since the divergence.
            command.arg("--restore-target-wal");
        }
        let rewound = run(command, REWIND).await;
        // It goes in any case.
        let removed = fs::remove_file(&passfile);
        rewound.map_err(|source| program("rewind", node, source))?;
        removed.map_err(files("remove the password file of", node))
    }
}

fn program(doing: &'static str, node: &NodeRecord, source: CommandError) -> OperationError {
    ProvisionError::Program { doing, node: node.name.clone(), source }.into()
}
