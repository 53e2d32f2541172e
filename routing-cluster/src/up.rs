//! Bringing a cluster up: making what is missing, starting what does not run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures_util::future::try_join_all;
use tokio::task::spawn_blocking;

use crate::{
    account::Account,
    binaries::{Binaries, BinariesError},
    cluster::LocalCluster,
    command::Tools,
    credentials::{Login, Passwords, write_secret},
    error::UpError,
    layout::Layout,
    node::NodeRecord,
    options::ClusterOptions,
    ports::Reservation,
    process::{self, KillGuard},
    progress::Progress,
    provision::Provision,
    server,
    sql::Session,
    standby,
    state::State,
};

/// The most replicas that `max_wal_senders` feeds while one of them is made.
const MOST_REPLICAS: u32 = 8;

/// See [`LocalCluster::up`].
pub(crate) async fn up(options: &ClusterOptions, progress: &dyn Progress) -> Result<LocalCluster, UpError> {
    if options.replicas > MOST_REPLICAS {
        return Err(UpError::TooManyReplicas { replicas: options.replicas, most: MOST_REPLICAS });
    }
    // Before the directory is touched: a machine without PostgreSQL should not be left with an empty one.
    let binaries = find_binaries().await?;
    let new_account = Account::for_new();
    if let (Ok(account), Some(parent)) = (&new_account, existing_parent(&options.dir)) {
        account.check_reach(&parent)?;
    }
    let layout = Layout::prepare(&options.dir)?;
    let _lock = layout.lock().await?;
    let (state, ports) = plan(options, &layout)?;
    let account = match state.nodes.iter().find(|node| node.complete) {
        Some(node) => Account::owning(&layout.node_dir(&node.name))?,
        None => new_account?,
    };
    account.check_reach(layout.dir())?;
    account.check_reach(binaries.dir())?;
    let passwords = passwords(&layout, &account, &state)?;
    let tools = Tools::new(binaries, account, layout.dir().to_owned());
    let mut up = Up { layout: &layout, tools: &tools, passwords: &passwords, ports, state, progress };
    let mut guard = KillGuard::default();
    up.make_and_start(&mut guard).await?;
    guard.disarm();
    let nodes: Vec<String> =
        up.nodes().iter().map(|node| format!("{} on port {}", node.name, node.port)).collect();
    progress.finish(&format!("the cluster in {} is up: {}", layout.dir().display(), nodes.join(", ")));
    let state = up.state;
    Ok(LocalCluster::new(layout, &state, passwords))
}

/// The nearest existing directory above one that does not exist yet.
fn existing_parent(dir: &Path) -> Option<PathBuf> {
    if dir.exists() {
        return None;
    }
    let absolute = std::path::absolute(dir).ok()?;
    absolute.ancestors().find_map(|above| fs::canonicalize(above).ok())
}

/// Finds PostgreSQL without blocking the runtime.
pub(crate) async fn find_binaries() -> Result<Binaries, BinariesError> {
    match spawn_blocking(Binaries::find).await {
        Ok(found) => found,
        // Only a runtime that shuts down cancels the task, and then nobody reads this.
        Err(_) => Err(BinariesError::Missing { too_old: Vec::new() }),
    }
}

/// What the state file says, or a new plan; with the ports of all nodes that do not run reserved.
fn plan(options: &ClusterOptions, layout: &Layout) -> Result<(State, Reservation), UpError> {
    if !layout.is_cluster() {
        return new_plan(options);
    }
    let state = State::read(layout)?;
    let records: Vec<NodeRecord> = state.nodes.iter().map(|node| NodeRecord::new(layout, node)).collect();
    let runs = |node: &NodeRecord| process::postmaster(&node.data_dir).is_some();
    if state.nodes.iter().all(|node| node.complete) && records.iter().all(runs) {
        return Err(UpError::AlreadyRunning { dir: layout.dir().display().to_string() });
    }
    for (node, record) in state.nodes.iter().zip(&records).filter(|(node, _)| !node.complete) {
        remove_remains(layout, record)
            .map_err(|source| UpError::Remains { node: node.name.clone(), source })?;
    }
    if !state.has_data() {
        // Nothing is left of the attempt before, so it does not bind this one to its ports.
        return new_plan(options);
    }
    let ports: Vec<u16> = records.iter().filter(|node| !runs(node)).map(|node| node.port).collect();
    let reservation = Reservation::of(&ports)?;
    Ok((state, reservation))
}

fn new_plan(options: &ClusterOptions) -> Result<(State, Reservation), UpError> {
    let count = u16::try_from(options.replicas).unwrap_or(u16::MAX).saturating_add(1);
    let (reservation, ports) = Reservation::neighbours(options.port, count)?;
    Ok((State::planned(&ports, options.durable), reservation))
}

/// Ends what an interrupted attempt still runs, and removes what it has written.
fn remove_remains(layout: &Layout, node: &NodeRecord) -> std::io::Result<()> {
    process::end_family(&node.data_dir)?;
    match fs::remove_dir_all(layout.node_dir(&node.name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The cluster's passwords; made, and the plan written down, before the first node is.
fn passwords(layout: &Layout, account: &Account, state: &State) -> Result<Passwords, UpError> {
    let file = layout.credentials_file();
    let failed = |path: &Path| {
        let file = path.display().to_string();
        move |source| UpError::Passwords { file, source }
    };
    let passwords = if file.exists() {
        Passwords::read(&file).map_err(failed(&file))?
    } else {
        let passwords = Passwords::generate().map_err(failed(&file))?;
        passwords.write(&file).map_err(failed(&file))?;
        passwords
    };
    let passfile = layout.replication_passfile();
    if !state.has_data() {
        state.write(layout)?;
    }
    if !passfile.exists() {
        write_secret(&passfile, &passwords.replication_line()).map_err(failed(&passfile))?;
    }
    account.own_path(&passfile).map_err(failed(&passfile))?;
    Ok(passwords)
}

struct Up<'a> {
    layout: &'a Layout,
    tools: &'a Tools,
    passwords: &'a Passwords,
    ports: Reservation,
    state: State,
    progress: &'a dyn Progress,
}

impl Up<'_> {
    fn nodes(&self) -> Vec<NodeRecord> {
        self.state.nodes.iter().map(|node| NodeRecord::new(self.layout, node)).collect()
    }

    fn provision(&self) -> Provision<'_> {
        Provision {
            layout: self.layout,
            tools: self.tools,
            passwords: self.passwords,
            ports: &self.ports,
            durable: self.state.durable,
        }
    }

    /// Every server that is started here is watched by `guard` from before its start.
    async fn make_and_start(&mut self, guard: &mut KillGuard) -> Result<(), UpError> {
        let complete = self.state.nodes.iter().filter(|node| node.complete).map(|node| node.name.clone());
        let complete: Vec<String> = complete.collect();
        let (made, missing): (Vec<_>, Vec<_>) =
            self.nodes().into_iter().partition(|node| complete.contains(&node.name));
        let stopped: Vec<NodeRecord> =
            made.iter().filter(|node| process::postmaster(&node.data_dir).is_none()).cloned().collect();
        for node in stopped.iter().chain(&missing) {
            guard.watch(node.data_dir.clone());
        }
        if made.is_empty() {
            return self.make_all(&missing).await;
        }
        self.start_all(&stopped).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let primary = self.find_primary(&made).await.ok_or(UpError::NoPrimary)?;
        self.make_replicas(&missing, &primary).await
    }

    async fn make_all(&mut self, nodes: &[NodeRecord]) -> Result<(), UpError> {
        let Some((first, replicas)) = nodes.split_first() else { return Ok(()) };
        self.progress.step(&format!("creating {} on port {}, the primary", first.name, first.port));
        self.provision().primary(first).await?;
        self.state.complete(&first.name);
        self.state.write(self.layout)?;
        self.make_replicas(replicas, first).await
    }

    async fn make_replicas(&mut self, nodes: &[NodeRecord], primary: &NodeRecord) -> Result<(), UpError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        self.progress.step(&format!("copying {} to {}", primary.name, names.join(", ")));
        let provision = self.provision();
        try_join_all(nodes.iter().map(|node| provision.replica(node, primary))).await?;
        for node in nodes {
            self.state.complete(&node.name);
        }
        self.state.write(self.layout)?;
        Ok(())
    }

    /// Starts existing nodes as they are: primaries first, so that their standbys find them at once.
    async fn start_all(&self, nodes: &[NodeRecord]) -> Result<(), UpError> {
        let (standbys, primaries): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.starts_as_standby());
        let superuser = self.passwords.credentials(Login::Superuser);
        for group in [primaries, standbys] {
            if group.is_empty() {
                continue;
            }
            let names: Vec<&str> = group.iter().map(|node| node.name.as_str()).collect();
            self.progress.step(&format!("starting {}", names.join(", ")));
            try_join_all(group.iter().map(|node| {
                self.ports.release(node.port);
                server::start(self.tools, node, &superuser)
            }))
            .await?;
        }
        Ok(())
    }

    async fn find_primary(&self, nodes: &[NodeRecord]) -> Option<NodeRecord> {
        let superuser = self.passwords.credentials(Login::Superuser);
        for node in nodes {
            let Ok(session) = Session::connect(node.port, &superuser, standby::STATEMENT).await else {
                continue;
            };
            let rows = session.rows("ask for the role", "SELECT NOT pg_is_in_recovery()", &[]).await;
            if rows.is_ok_and(|rows| rows.first().is_some_and(|row| row.get(0))) {
                return Some(node.clone());
            }
        }
        None
    }
}
