//! Keeping a cluster's archive: making it the cluster's own, and seeing that a new primary goes on where the old one ended.

use std::{fs, io, time::Duration};

use crate::{
    account::Account,
    archive::{Archive, ArchiveError},
    command::run,
    handover::control_value,
    node::NodeRecord,
    operation::{Operation, OperationError, asked, files},
    process,
    provision::ProvisionError,
};

/// `pg_controldata` reads one small file.
const CONTROL_DATA: Duration = Duration::from_secs(10);
/// The endings of the files by which a server remembers what it has archived, and what it has yet to archive.
const DONE: &str = ".done";
const READY: &str = ".ready";

/// Why the archive is not the cluster's yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl Operation<'_> {
    /// Makes the archive this cluster's, if it is to have one, and lets the servers write to it from now on.
    pub(crate) async fn keep_archive(&mut self) -> Result<(), ClaimError> {
        let Some(archive) = self.state.archive.clone() else { return Ok(()) };
        // One that is being copied anew has none, and is configured then.
        let nodes: Vec<_> = self.nodes().into_iter().filter(|node| node.data_dir.exists()).collect();
        let Some(first) = nodes.first() else { return Ok(()) };
        archive.write_script(self.layout.dir())?;
        // Where a disk is not mounted, its directory is there all the same: what is gone altogether was taken away.
        if archive.claimed && archive.dir.symlink_metadata().is_ok() {
            return Ok(());
        }
        let system = self.system_identifier(first).await?;
        archive.claim(&system, self.tools.account())?;
        if let Some(archive) = &mut self.state.archive {
            archive.claimed = true;
        }
        for node in &nodes {
            let configured = self.provision().configure(node, false);
            configured.map_err(files("write the configuration of", node))?;
            if process::postmaster(&node.data_dir).is_some_and(|process| !process.is_paused()) {
                let session = self.session(node).await?;
                let reload = "SELECT pg_reload_conf()";
                session.run("reload the settings", reload).await.map_err(asked(node))?;
            }
        }
        // Last: until then, the next `up` does it all again.
        Ok(self.save().map_err(OperationError::from)?)
    }

    /// What tells the node's data from that of every other cluster.
    pub(crate) async fn system_identifier(&self, node: &NodeRecord) -> Result<String, OperationError> {
        let mut command = self.tools.command("pg_controldata");
        command.arg("--pgdata").arg(&node.data_dir);
        let text = run(command, CONTROL_DATA).await.map_err(|source| {
            let doing = "read the control file of";
            ProvisionError::Program { doing, node: node.name.clone(), source }
        })?;
        Ok(control_value(&text, "Database system identifier"))
    }

    /// Before a promotion: lets the node archive what its old primary has not. A standby takes for granted that its primary
    /// has archived every file that it has sent whole.
    pub(crate) fn requeue(&self, node: &NodeRecord) -> Result<(), OperationError> {
        let Some(archive) = self.state.archive.as_ref().filter(|archive| archive.claimed) else {
            return Ok(());
        };
        requeue(node, archive, self.tools.account()).map_err(files("let the archiver go on, on", node))
    }
}

fn requeue(node: &NodeRecord, archive: &Archive, account: &Account) -> io::Result<()> {
    let (wal, held) = (node.data_dir.join("pg_wal"), archive.wal());
    let notes = wal.join("archive_status");
    for entry in fs::read_dir(&notes)? {
        let entry = entry?.file_name();
        let Some(name) = entry.to_str().and_then(|name| name.strip_suffix(DONE)) else { continue };
        if wal.join(name).exists() && !held.join(name).exists() {
            account.write(&notes.join(format!("{name}{READY}")), "")?;
            fs::remove_file(notes.join(&entry))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{layout::Layout, state::NodePlan};

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn what_the_archive_lacks_is_archived_by_the_next_primary() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(&dir.path().join("cluster")).unwrap();
        let node = NodeRecord::new(&layout, &NodePlan::new("pg1".to_owned(), 1, None));
        let archive = Archive::planned(dir.path().join("archive")).unwrap();
        let wal = node.data_dir.join("pg_wal");
        for name in ["held", "lacking", "removed"] {
            touch(&wal.join("archive_status").join(format!("{name}.done")));
        }
        touch(&wal.join("held"));
        touch(&wal.join("lacking"));
        touch(&archive.wal().join("held"));
        requeue(&node, &archive, &Account::owning(dir.path()).unwrap()).unwrap();
        let mut notes: Vec<_> = fs::read_dir(wal.join("archive_status")).unwrap().flatten().collect();
        notes.sort_by_key(fs::DirEntry::file_name);
        let notes: Vec<_> = notes.iter().map(|it| it.file_name().into_string().unwrap()).collect();
        assert_eq!(notes, ["held.done", "lacking.ready", "removed.done"]);
    }
}
