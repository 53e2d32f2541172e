//! The steps of a restore: an empty directory becomes a cluster with one node.

use std::{
    fs::{self, File},
    io,
};

use crate::{
    account::Account,
    archive::Archive,
    base_backup::COPY,
    binaries::Binaries,
    cluster::LocalCluster,
    command::{Tools, run},
    credentials::Passwords,
    layout::Layout,
    node::NodeRecord,
    operation::{Operation, OperationError, files},
    ports::Reservation,
    process::{self, KillGuard},
    progress::Progress,
    recovery::{self, Recovery},
    restore::{RestoreError, RestoreOptions, Restored},
    state::State,
    up,
};

/// The node that a restored cluster begins with.
const FIRST: &str = "pg1";

/// Makes the cluster in its empty, locked directory.
pub(crate) async fn make(
    options: &RestoreOptions,
    layout: &Layout,
    lock: File,
    (binaries, account): (Binaries, Account),
    recovery: &Recovery,
    progress: &dyn Progress,
) -> Result<(LocalCluster, Restored), RestoreError> {
    let (ports, numbers) = Reservation::neighbours(options.port, 1)?;
    let archive = options.archive.then(|| Archive::fresh(layout.dir())).transpose()?;
    let access = recovery.backup.access.clone();
    let mut state = State::planned(&numbers, recovery.backup.durable, access).with_archive(archive);
    state.restoring = Some(recovery.backup.dir.clone());
    let file = recovery.backup.credentials_file();
    let copied = Passwords::read(&file).and_then(|passwords| passwords.write(&layout.credentials_file()));
    copied.map_err(|source| RestoreError::Passwords { file, source })?;
    let passwords = up::passwords(layout, &account, &state, None)?;
    let tools = Tools::new(binaries, account, layout.dir().to_owned());
    let mut operation = Operation { layout, passwords: &passwords, tools, state, ports, _lock: lock };
    let plans = operation.state.nodes.iter().filter(|plan| plan.name == FIRST);
    let plan = plans.map(|plan| NodeRecord::new(layout, plan)).next();
    let node = plan.ok_or_else(|| OperationError::NotRunning { node: FIRST.to_owned() })?;
    let mut guard = KillGuard::default();
    guard.watch(node.data_dir.clone());
    let restored = operation.restore(&node, recovery, progress).await?;
    operation.state.complete(&node.name);
    operation.state.restoring = None;
    operation.save()?;
    operation.keep_archive().await?;
    guard.disarm();
    let state = operation.state.clone();
    drop(operation);
    progress.finish(&summary(&node, &restored, &state));
    Ok((LocalCluster::new(layout.clone(), &state, passwords), restored))
}

fn summary(node: &NodeRecord, restored: &Restored, state: &State) -> String {
    let time = restored.time.map_or_else(String::new, |time| format!(", the last commit of {time}"));
    let (name, port, lsn) = (&node.name, node.port, restored.lsn);
    let mut text =
        format!("{name} on port {port} is restored up to {lsn}{time}, on timeline {}", restored.timeline);
    if let Some(archive) = &state.archive {
        let dir = archive.dir.display();
        text.push_str(&format!("\nits own archive is {dir}; it leads nowhere before a first `backup`"));
    }
    text
}

/// Ends and removes everything in a half-made cluster's directory, but the lock that is held.
pub(crate) fn clear(layout: &Layout) -> io::Result<()> {
    process::end_family(&layout.data_dir(FIRST))?;
    for entry in fs::read_dir(layout.dir())? {
        let entry = entry?;
        if entry.file_name() == "lock" || entry.path() == layout.state_file() {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    // Last: it says what the rest is.
    match fs::remove_file(layout.state_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Operation<'_> {
    /// Copies the data, replays the WAL, and starts the node as an ordinary primary.
    async fn restore(
        &self,
        node: &NodeRecord,
        recovery: &Recovery,
        progress: &dyn Progress,
    ) -> Result<Restored, RestoreError> {
        progress.step(&format!("copying the backup {} to {}", recovery.backup.label, node.name));
        let provision = self.provision();
        provision.node_dir(node).map_err(files("create the directory of", node))?;
        let mut command = self.tools.leashed_system("cp");
        command.args(["-R", "-p"]).arg(recovery.backup.data_dir()).arg(&node.data_dir);
        let not_copied = |source| RestoreError::NotCopied { dir: self.layout.dir().to_owned(), source };
        run(command, COPY).await.map_err(not_copied)?;
        if self.state.durable {
            progress.step("flushing it to disk");
            let mut command = self.tools.leashed("initdb");
            command.arg("--sync-only").arg("--pgdata").arg(&node.data_dir);
            run(command, COPY).await.map_err(not_copied)?;
        }
        let prepared = recovery::prepare(&provision, node, recovery);
        prepared.map_err(files("write the configuration of", node))?;
        provision.certify(node).map_err(files("write the certificate of", node))?;
        self.ports.release(node.port);
        let restored = self.recover(node, recovery, progress).await?;
        // The settings of the recovery would otherwise be there until the next start.
        progress.step(&format!("starting {} as the primary", node.name));
        provision.configure(node, false).map_err(files("write the configuration of", node))?;
        provision.start(node).await.map_err(OperationError::from)?;
        Ok(restored)
    }
}
