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
    certificate,
    cluster::LocalCluster,
    command::Tools,
    condition::Condition,
    credentials::{Passwords, write_secret},
    error::UpError,
    layout::Layout,
    node::NodeRecord,
    operation::{Operation, OperationError},
    options::ClusterOptions,
    plan,
    process::{self, KillGuard},
    progress::Progress,
    provision::Provision,
    server,
    state::State,
    template::Template,
};

/// The most replicas that `max_wal_senders` feeds while one of them is made.
pub(crate) const MOST_REPLICAS: u32 = 8;

/// See [`LocalCluster::up`].
pub(crate) async fn up(options: &ClusterOptions, progress: &dyn Progress) -> Result<LocalCluster, UpError> {
    if options.replicas > MOST_REPLICAS {
        return Err(UpError::TooManyReplicas { replicas: options.replicas, most: MOST_REPLICAS });
    }
    if options.durable && options.template.is_some() {
        return Err(UpError::DurableTemplate);
    }
    if let Some(network) = options.allow.iter().find(|network| !network.is_loopback() && !options.tls) {
        return Err(UpError::Unencrypted { network: *network });
    }
    // Before the directory is touched: a machine without PostgreSQL should not be left with an empty one.
    let binaries = find_binaries().await?;
    let new_account = Account::for_new();
    if let (Ok(account), Some(parent)) = (&new_account, existing_parent(&options.dir)) {
        account.check_reach(&parent)?;
    }
    let layout = Layout::prepare(&options.dir)?;
    let lock = layout.lock().await?;
    if layout.is_cluster() {
        // An interrupted operation's stops and starts go on without it.
        for node in State::read(&layout)?.records(&layout) {
            server::settled(&node).await;
        }
    }
    let (state, ports) = plan::plan(options, &layout)?;
    let account = match state.nodes.iter().find(|node| node.complete) {
        Some(node) => Account::owning(&layout.node_dir(&node.name))?,
        None => new_account?,
    };
    account.check_reach(layout.dir())?;
    account.check_reach(binaries.dir())?;
    let template = match &options.template {
        Some(folder) if !state.has_data() => Some(Template::find(folder, binaries.release(), options).await?),
        _ => None,
    };
    let passwords = passwords(&layout, &account, &state, template.as_ref())?;
    let tools = Tools::new(binaries, account, layout.dir().to_owned());
    let operation = Operation { layout: &layout, passwords: &passwords, tools, state, ports, _lock: lock };
    let mut up = Up { operation, template, progress };
    let mut guard = KillGuard::default();
    up.make_and_start(&mut guard).await?;
    guard.disarm();
    let state = up.operation.state.clone();
    progress.finish(&summary(&layout, &state));
    drop(up);
    Ok(LocalCluster::new(layout, &state, passwords))
}

fn summary(layout: &Layout, state: &State) -> String {
    let started = state.nodes.iter().filter(|node| node.condition.may_start());
    let nodes: Vec<String> = started.map(|node| format!("{} on port {}", node.name, node.port)).collect();
    let mut text = format!("the cluster in {} is up: {}", layout.dir().display(), nodes.join(", "));
    for remedy in state.remedies() {
        text.push_str(&format!("\n{remedy}"));
    }
    text
}

/// The nearest existing directory above one that does not exist yet.
pub(crate) fn existing_parent(dir: &Path) -> Option<PathBuf> {
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

/// The cluster's passwords; made, and the plan written down, before the first node is.
pub(crate) fn passwords(
    layout: &Layout,
    account: &Account,
    state: &State,
    template: Option<&Template>,
) -> Result<Passwords, UpError> {
    let file = layout.credentials_file();
    let failed = |path: &Path| {
        let file = path.display().to_string();
        move |source| UpError::Passwords { file, source }
    };
    let passwords = match template.map(Template::credentials_file) {
        Some(file) => Passwords::read(&file).map_err(failed(&file))?,
        None if file.exists() => Passwords::read(&file).map_err(failed(&file))?,
        None => Passwords::generate().map_err(failed(&file))?,
    };
    if template.is_some() || !file.exists() {
        passwords.write(&file).map_err(failed(&file))?;
    }
    let passfile = layout.replication_passfile();
    if !state.has_data() {
        state.write(layout)?;
    }
    let line = passwords.replication_line();
    if fs::read_to_string(&passfile).ok().as_ref() != Some(&line) {
        write_secret(&passfile, &line).map_err(failed(&passfile))?;
    }
    account.own_path(&passfile).map_err(failed(&passfile))?;
    if !state.access.tls {
        return Ok(passwords);
    }
    let root = layout.root_certificate();
    certificate::authority(layout).map_err(|source| UpError::Certificate { file: root.clone(), source })?;
    Ok(passwords.over_tls(root))
}

struct Up<'a> {
    operation: Operation<'a>,
    template: Option<Template>,
    progress: &'a dyn Progress,
}

impl Up<'_> {
    /// Every server that is started here is watched by `guard` from before its start.
    async fn make_and_start(&mut self, guard: &mut KillGuard) -> Result<(), UpError> {
        self.operation.end_change(self.progress).await?;
        let state = &self.operation.state;
        let missing: Vec<NodeRecord> = (state.nodes.iter().filter(|node| !node.complete))
            .map(|node| NodeRecord::new(self.operation.layout, node))
            .collect();
        let made = self.operation.nodes();
        let stops = |node: &&NodeRecord| {
            process::postmaster(&node.data_dir).is_none() && state.condition(&node.name).may_start()
        };
        let stopped: Vec<NodeRecord> = made.iter().filter(stops).cloned().collect();
        for node in stopped.iter().chain(&missing) {
            guard.watch(node.data_dir.clone());
        }
        if made.is_empty() {
            return self.make_all(&missing).await;
        }
        self.operation.keep_archive().await?;
        self.start_all(&stopped).await?;
        self.gather_astray().await?;
        if missing.is_empty() {
            return Ok(());
        }
        self.make_replicas(&missing).await
    }

    async fn make_all(&mut self, nodes: &[NodeRecord]) -> Result<(), UpError> {
        let Some((first, replicas)) = nodes.split_first() else { return Ok(()) };
        self.progress.step(&format!("creating {} on port {}, the primary", first.name, first.port));
        let template = self.template.as_ref();
        Provision { template, ..self.operation.provision() }.primary(first).await?;
        self.operation.state.complete(&first.name);
        self.operation.save()?;
        self.operation.keep_archive().await?;
        self.make_replicas(replicas).await
    }

    async fn make_replicas(&mut self, nodes: &[NodeRecord]) -> Result<(), UpError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let primary = self.operation.primary().await.map_err(no_primary)?;
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        self.progress.step(&format!("copying {} to {}", primary.name, names.join(", ")));
        let provision = self.operation.provision();
        let mut copies = Vec::new();
        for node in nodes {
            let upstream = self.operation.state.upstream(&node.name);
            let upstream = upstream.and_then(|name| self.operation.node(&name).ok());
            copies.push((node, upstream.unwrap_or_else(|| primary.clone())));
        }
        try_join_all(copies.iter().map(|(node, upstream)| provision.replica(node, upstream))).await?;
        for node in nodes {
            self.operation.state.complete(&node.name);
        }
        self.operation.save()?;
        Ok(())
    }

    /// Starts existing nodes as they are: primaries first, so that their standbys find them at once.
    async fn start_all(&mut self, nodes: &[NodeRecord]) -> Result<(), UpError> {
        let (standbys, primaries): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.starts_as_standby());
        for group in [primaries, standbys] {
            if group.is_empty() {
                continue;
            }
            let names: Vec<&str> = group.iter().map(|node| node.name.as_str()).collect();
            self.progress.step(&format!("starting {}", names.join(", ")));
            let operation = &self.operation;
            let sound = try_join_all(group.iter().map(|node| operation.launch(node))).await?;
            for (node, _) in group.iter().zip(sound).filter(|(_, sound)| *sound) {
                self.operation.state.set_condition(&node.name, Condition::Sound);
            }
        }
        Ok(self.operation.save()?)
    }

    /// Tells running replicas that have missed a change of the primary whom to follow.
    async fn gather_astray(&mut self) -> Result<(), UpError> {
        if self.operation.state.nodes.iter().any(|node| node.condition == Condition::Astray)
            && let Ok(primary) = self.operation.primary().await
        {
            self.operation.follow_all(&primary).await?;
            self.operation.drop_old_slots(&primary).await?;
        }
        Ok(())
    }
}

fn no_primary(error: OperationError) -> UpError {
    match error {
        OperationError::NoPrimary { unanswered } => UpError::NoPrimary { unanswered },
        other => other.into(),
    }
}
