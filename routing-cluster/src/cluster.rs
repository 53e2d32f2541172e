//! The handle to a cluster directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;

use crate::{
    command::Tools,
    credentials::{Credentials, Login, Passwords},
    error::{DownError, NodeError, OpenError, UnknownNode, UpError},
    layout::Layout,
    node::NodeRecord,
    operation::{self, Operation, OperationError},
    options::ClusterOptions,
    ports::Reservation,
    process,
    progress::Progress,
    server::{self, ServerError},
    state::State,
    status::{self, ClusterStatus, NodeRole},
    up,
};

/// A handle to one cluster directory. Dropping it stops nothing: the servers run on by themselves.
///
/// Methods that start or stop servers take the cluster's lock, so two of them, in whatever processes, run one
/// after the other. `kill`, `pause` and `resume` are faults, which come at any time, and take no lock.
#[derive(Debug)]
pub struct LocalCluster {
    pub(crate) layout: Layout,
    nodes: Vec<NodeRecord>,
    passwords: Passwords,
}

impl LocalCluster {
    pub(crate) fn new(layout: Layout, state: &State, passwords: Passwords) -> LocalCluster {
        let nodes = state.nodes.iter().map(|node| NodeRecord::new(&layout, node)).collect();
        LocalCluster { layout, nodes, passwords }
    }

    /// Brings a cluster up and returns when every node accepts connections.
    ///
    /// From nothing it makes a primary and its replicas and sees every replica stream. An existing cluster,
    /// also a crashed one, starts again with its data; roles stay as they are. Nodes that an interrupted run has left half
    /// made are made again. Nodes that run, also paused ones, are left alone.
    ///
    /// # Errors
    ///
    /// [`UpError::AlreadyRunning`] when nothing is left to do; otherwise what could not be done, with the last
    /// lines of the server's log. No server that this call has started is left running.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what it has started (blocking for some milliseconds). The next call repairs
    /// the rest.
    pub async fn up(options: ClusterOptions, progress: &dyn Progress) -> Result<LocalCluster, UpError> {
        up::up(&options, progress).await
    }

    /// Opens an existing cluster, whether it runs or not.
    ///
    /// # Errors
    ///
    /// When `dir` is not a cluster directory, or its passwords may not be read.
    pub async fn open(dir: &Path) -> Result<LocalCluster, OpenError> {
        let layout = Layout::open(dir)?;
        let state = State::read(&layout)?;
        let file = layout.credentials_file();
        let passwords = Passwords::read(&file)
            .map_err(|source| OpenError::Passwords { file: file.display().to_string(), source })?;
        let passwords = match state.access.tls {
            true => passwords.over_tls(layout.root_certificate()),
            false => passwords,
        };
        Ok(LocalCluster::new(layout, &state, passwords))
    }

    /// The cluster's directory, absolute.
    pub fn dir(&self) -> &Path {
        self.layout.dir()
    }

    /// All nodes, `pg1` first.
    pub fn nodes(&self) -> &[NodeRecord] {
        &self.nodes
    }

    /// One node by its name.
    ///
    /// # Errors
    ///
    /// When there is no such node; the error lists those that exist.
    pub fn node(&self, name: &str) -> Result<&NodeRecord, UnknownNode> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| UnknownNode {
            name: name.to_owned(),
            known: self.nodes.iter().map(|node| node.name.clone()).collect(),
        })
    }

    /// The one node that reports itself as the primary; `None` when none or several do.
    pub async fn primary(&self) -> Option<&NodeRecord> {
        let status = self.status().await;
        let mut primaries = status.nodes.iter().filter(|node| node.role == Some(NodeRole::Primary));
        match (primaries.next(), primaries.next()) {
            (Some(only), None) => self.node(&only.name).ok(),
            _ => None,
        }
    }

    /// How to log in as `login`, on any node.
    pub fn credentials(&self, login: Login) -> Credentials {
        self.passwords.credentials(login)
    }

    /// The certificate that clients verify the servers by; `None` when the cluster does not encrypt.
    pub fn root_certificate(&self) -> Option<PathBuf> {
        self.credentials(Login::Application).root_certificate
    }

    /// A `postgres://` URL of one node. It contains the password: keep it out of logs.
    ///
    /// # Errors
    ///
    /// When there is no such node.
    pub fn url(&self, node: &str, login: Login) -> Result<String, UnknownNode> {
        let port = self.node(node)?.port;
        Ok(self.credentials(login).url(port))
    }

    /// Asks every node for its state; a node that does not answer within a second is reported as such.
    pub async fn status(&self) -> ClusterStatus {
        status::status(&self.layout, &self.nodes, &self.credentials(Login::Monitor)).await
    }

    /// Kills a node as a crash would: `SIGKILL` to the postmaster and all its children, also when paused.
    ///
    /// # Errors
    ///
    /// When there is no such node, it does not run, or its processes may not be signalled.
    pub async fn kill(&self, node: &str) -> Result<(), NodeError> {
        let node = self.node(node)?;
        match server::kill(node).await? {
            0 => Err(NodeError::NotRunning { node: node.name.clone() }),
            _ => Ok(()),
        }
    }

    /// Silences a node without ending it: `SIGSTOP` to the postmaster and all its children. Connections stay
    /// open, new ones are taken by the system, and nothing is answered.
    ///
    /// # Errors
    ///
    /// When there is no such node, it does not run, or its processes may not be signalled.
    pub async fn pause(&self, node: &str) -> Result<(), NodeError> {
        Ok(server::pause(self.running(node)?).await?)
    }

    /// Lets a paused node go on; does nothing to one that is not paused.
    ///
    /// # Errors
    ///
    /// When there is no such node, it does not run, or its processes may not be signalled.
    pub async fn resume(&self, node: &str) -> Result<(), NodeError> {
        Ok(server::resume(self.running(node)?).await?)
    }

    /// Stops a node cleanly: open transactions are rolled back, sessions end with `57P01`.
    ///
    /// # Errors
    ///
    /// When there is no such node, it does not run, or it does not stop within a minute.
    pub async fn stop(&self, node: &str) -> Result<(), NodeError> {
        let node = self.running(node)?;
        let operation = self.operation().await?;
        Ok(server::stop(&operation.tools, node).await?)
    }

    /// Starts a node that has stopped or crashed, and returns when it accepts connections.
    ///
    /// # Errors
    ///
    /// When there is no such node, it runs already, its port is taken, or it does not start; then the error has
    /// the last lines of the server's log, and nothing is left running. A deposed primary is refused: `rejoin` it.
    pub async fn start(&self, node: &str) -> Result<(), NodeError> {
        let node = self.node(node)?;
        let mut operation = self.operation().await?;
        if process::postmaster(&node.data_dir).is_some() {
            return Err(NodeError::AlreadyRunning { node: node.name.clone() });
        }
        let condition = operation.state.condition(&node.name);
        if operation.node(&node.name).is_err() {
            return Err(NodeError::Incomplete { node: node.name.clone() });
        }
        if let Some(remedy) = condition.remedy(&node.name).filter(|_| !condition.may_start()) {
            return Err(NodeError::Unfit { node: node.name.clone(), remedy });
        }
        // Only to find out whether it is free.
        drop(Reservation::of(&[node.port])?);
        Ok(operation.start(node).await?)
    }

    /// Stops all nodes, also paused ones; `purge` then removes the directory with all data.
    ///
    /// A node that does not stop cleanly is killed: its data survives that.
    ///
    /// # Errors
    ///
    /// When a node cannot even be killed, or the directory cannot be removed.
    pub async fn down(self, purge: bool) -> Result<(), DownError> {
        let _lock = self.layout.lock().await?;
        // Someone may have removed the cluster, and somebody else's files may lie there now.
        let layout = Layout::open(self.dir())?;
        if purge {
            // Nothing that is about to be removed needs a clean end.
            for node in &self.nodes {
                server::end(node).await?;
            }
            return fs::remove_dir_all(layout.dir()).map_err(|source| purge_error(layout.dir(), source));
        }
        if self.nodes.iter().all(|node| !process::is_served(&node.data_dir)) {
            return Ok(());
        }
        let tools = operation::tools(&self.layout, &self.nodes).await?;
        for node in self.nodes.iter().filter(|node| process::postmaster(&node.data_dir).is_some()) {
            // All first: a primary waits for the standbys to take its last records.
            server::resume(node).await?;
        }
        let (standbys, primaries): (Vec<_>, Vec<_>) =
            self.nodes.iter().partition(|node| node.starts_as_standby());
        for group in [primaries, standbys] {
            for stopped in join_all(group.into_iter().map(|node| stop_or_kill(&tools, node))).await {
                stopped?;
            }
        }
        Ok(())
    }

    /// Kills every process of every node and returns how many there were: the last resort of a test's guard.
    ///
    /// Blocks the thread until they are gone, some milliseconds. Only processes that were seen to belong to this
    /// cluster's data directories are signalled. Errors are left aside: a guard could do nothing about them.
    pub fn kill_all_blocking(&self) -> usize {
        LocalCluster::kill_all_in(self.dir())
    }

    /// The same without a handle, for a guard around an `up` that may fail; 0 when `dir` is not a cluster.
    pub fn kill_all_in(dir: &Path) -> usize {
        let Ok(layout) = Layout::open(dir) else { return 0 };
        let Ok(state) = State::read(&layout) else { return 0 };
        let data_dirs = state.nodes.iter().map(|node| layout.data_dir(&node.name));
        data_dirs.map(|data_dir| process::end_family(&data_dir).unwrap_or(0)).sum()
    }

    fn running(&self, node: &str) -> Result<&NodeRecord, NodeError> {
        let node = self.node(node)?;
        match process::postmaster(&node.data_dir) {
            Some(_) => Ok(node),
            None => Err(NodeError::NotRunning { node: node.name.clone() }),
        }
    }

    /// Begins an operation that changes the cluster.
    pub(crate) async fn operation(&self) -> Result<Operation<'_>, OperationError> {
        Operation::begin(&self.layout, &self.passwords).await
    }

    /// Takes over what an operation has changed in the list of nodes.
    pub(crate) fn set_nodes(&mut self, nodes: Vec<NodeRecord>) {
        self.nodes = nodes;
    }
}

async fn stop_or_kill(tools: &Tools, node: &NodeRecord) -> Result<(), ServerError> {
    if server::stop(tools, node).await.is_err() {
        server::kill(node).await?;
    }
    Ok(())
}

fn purge_error(dir: &Path, source: io::Error) -> DownError {
    DownError::Purge { dir: dir.display().to_string(), source }
}
