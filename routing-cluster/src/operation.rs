//! What every operation on an existing cluster holds: the lock, the state as it is on disk, and the tools.

use std::{
    fs::{self, File},
    io,
};

use crate::{
    account::{Account, AccountError},
    binaries::BinariesError,
    command::Tools,
    condition::Condition,
    credentials::{Login, Passwords},
    error::{DownError, NodeError, UnknownNode, in_lines, with_causes},
    layout::{DirectoryError, Layout},
    node::NodeRecord,
    ports::{PortError, Reservation},
    process::{self, KillGuard},
    promote::PROMOTION_SECONDS,
    provision::{Provision, ProvisionError},
    server::{self, ServerError},
    sql::{Session, SqlError},
    standby::STATEMENT,
    state::State,
    sync, up,
};

/// What can go wrong in every operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// The cluster has no such node.
    #[error(transparent)]
    Unknown(#[from] UnknownNode),
    /// PostgreSQL's programs were not found.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// There is no user to run servers as.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The cluster's directory, lock or state file cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A port cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The operation needs a node that runs and answers.
    #[error("{node} is not running: start it first")]
    NotRunning {
        /// The node.
        node: String,
    },
    /// No running node is a primary.
    #[error("no running node is a primary: start it, or promote a replica{}", in_lines(.unanswered))]
    NoPrimary {
        /// Nodes that run and gave no answer, and why.
        unanswered: Vec<String>,
    },
    /// More than one running node is a primary.
    #[error("{} are primaries at the same time: keep the right one with `promote NAME`, which stops the others", nodes.join(" and "))]
    SeveralPrimaries {
        /// The nodes.
        nodes: Vec<String>,
    },
    /// A statement failed.
    #[error("{node} did not do what it was asked")]
    Sql {
        /// The node.
        node: String,
        /// The server's answer.
        source: SqlError,
    },
    /// A file of a node could not be written or removed.
    #[error("could not {doing} {node}")]
    Files {
        /// What was tried.
        doing: &'static str,
        /// The node.
        node: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A server did not start or stop.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server did not leave recovery.
    #[error("{node} did not become the primary within {PROMOTION_SECONDS} s: see {log}, then repeat")]
    NotPromoted {
        /// The node.
        node: String,
        /// Its log file.
        log: String,
    },
    /// A node could not be made, or does not follow.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
}

impl From<OperationError> for NodeError {
    fn from(error: OperationError) -> NodeError {
        match error {
            OperationError::Unknown(error) => error.into(),
            OperationError::Binaries(error) => error.into(),
            OperationError::Account(error) => error.into(),
            OperationError::Directory(error) => error.into(),
            OperationError::Port(error) => error.into(),
            OperationError::Server(error) => error.into(),
            other => NodeError::Operation(Box::new(other)),
        }
    }
}

/// Why the tools of an existing cluster are not to be had.
pub(crate) enum ToolsError {
    Binaries(BinariesError),
    Account(AccountError),
}

macro_rules! from_tools_error {
    ($($error:ty),*) => {$(
        impl From<ToolsError> for $error {
            fn from(error: ToolsError) -> $error {
                match error {
                    ToolsError::Binaries(error) => error.into(),
                    ToolsError::Account(error) => error.into(),
                }
            }
        }
    )*};
}
from_tools_error!(OperationError, DownError);

/// PostgreSQL's programs, run as the user who owns the cluster's nodes.
pub(crate) async fn tools(layout: &Layout, nodes: &[NodeRecord]) -> Result<Tools, ToolsError> {
    let binaries = up::find_binaries().await.map_err(ToolsError::Binaries)?;
    // A node that is being removed or made may have no directory.
    let dirs = nodes.iter().map(|node| layout.node_dir(&node.name));
    let dir = dirs.clone().find(|dir| dir.exists()).or_else(|| dirs.clone().next());
    let account =
        Account::owning(&dir.unwrap_or_else(|| layout.dir().to_owned())).map_err(ToolsError::Account)?;
    Ok(Tools::new(binaries, account, layout.dir().to_owned()))
}

/// Adapts a statement's error: which node it was for.
pub(crate) fn asked(node: &NodeRecord) -> impl Fn(SqlError) -> OperationError + use<> {
    let node = node.name.clone();
    move |source| OperationError::Sql { node: node.clone(), source }
}

/// Adapts a file's error: what was tried, for which node.
pub(crate) fn files(doing: &'static str, node: &NodeRecord) -> impl Fn(io::Error) -> OperationError + use<> {
    let node = node.name.clone();
    move |source| OperationError::Files { doing, node: node.clone(), source }
}

/// One running operation; the lock ends with it.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) passwords: &'a Passwords,
    pub(crate) tools: Tools,
    pub(crate) state: State,
    pub(crate) ports: Reservation,
    /// Held until the operation ends.
    pub(crate) _lock: File,
}

impl<'a> Operation<'a> {
    pub(crate) async fn begin(
        layout: &'a Layout,
        passwords: &'a Passwords,
    ) -> Result<Operation<'a>, OperationError> {
        let lock = layout.lock().await?;
        let state = State::read(layout)?;
        let records = state.records(layout);
        let tools = tools(layout, &records).await?;
        // An interrupted rewind may have left its password file; missing is the usual case.
        let _ = fs::remove_file(layout.rewind_passfile());
        // An interrupted operation's stops and starts go on without it.
        for node in &records {
            server::settled(node).await;
        }
        Ok(Operation { layout, passwords, tools, state, ports: Reservation::default(), _lock: lock })
    }

    pub(crate) fn save(&self) -> Result<(), DirectoryError> {
        self.state.write(self.layout)
    }

    /// All nodes that are complete.
    pub(crate) fn nodes(&self) -> Vec<NodeRecord> {
        let complete = self.state.nodes.iter().filter(|node| node.complete);
        complete.map(|node| NodeRecord::new(self.layout, node)).collect()
    }

    pub(crate) fn node(&self, name: &str) -> Result<NodeRecord, UnknownNode> {
        let nodes = self.nodes();
        let known = nodes.iter().map(|node| node.name.clone()).collect();
        let found = nodes.into_iter().find(|node| node.name == name);
        found.ok_or_else(|| UnknownNode { name: name.to_owned(), known })
    }

    pub(crate) async fn session(&self, node: &NodeRecord) -> Result<Session, OperationError> {
        self.session_within(node, STATEMENT).await
    }

    /// A session whose statements may each take `deadline`.
    pub(crate) async fn session_within(
        &self,
        node: &NodeRecord,
        deadline: std::time::Duration,
    ) -> Result<Session, OperationError> {
        if process::postmaster(&node.data_dir).is_none_or(|process| process.is_paused()) {
            return Err(OperationError::NotRunning { node: node.name.clone() });
        }
        let superuser = self.passwords.credentials(Login::Superuser);
        Session::connect(node.port, &superuser, deadline).await.map_err(asked(node))
    }

    pub(crate) fn provision(&self) -> Provision<'_> {
        Provision {
            layout: self.layout,
            tools: &self.tools,
            passwords: self.passwords,
            ports: &self.ports,
            access: &self.state.access,
            archive: self.state.archive.as_ref(),
            durable: self.state.durable,
            template: None,
        }
    }

    /// Whether the running node is in recovery.
    pub(crate) async fn is_standby(&self, node: &NodeRecord) -> Result<bool, OperationError> {
        let session = self.session(node).await?;
        session.value("ask for the role", "SELECT pg_is_in_recovery()", &[]).await.map_err(asked(node))
    }

    /// The one node that runs as the primary.
    pub(crate) async fn primary(&self) -> Result<NodeRecord, OperationError> {
        let (mut primaries, mut unanswered) = (Vec::new(), Vec::new());
        for node in self.nodes() {
            match self.is_standby(&node).await {
                Ok(true) | Err(OperationError::NotRunning { .. }) => {}
                Ok(false) => primaries.push(node),
                Err(error) => unanswered.push(with_causes(&error)),
            }
        }
        if primaries.len() > 1 {
            let nodes = primaries.into_iter().map(|node| node.name).collect();
            return Err(OperationError::SeveralPrimaries { nodes });
        }
        primaries.pop().ok_or(OperationError::NoPrimary { unanswered })
    }

    /// Whom a standby is to follow: the node that it was made from, else the primary.
    pub(crate) async fn upstream(&self, node: &NodeRecord) -> Result<NodeRecord, OperationError> {
        match self.state.upstream(&node.name) {
            Some(upstream) => Ok(self.node(&upstream)?),
            None => self.primary().await,
        }
    }

    /// Starts a node; one that is astray is told whom to follow now, if that node runs. Returns whether the node
    /// is sound.
    pub(crate) async fn launch(&self, node: &NodeRecord) -> Result<bool, OperationError> {
        let astray = self.state.condition(&node.name) == Condition::Astray;
        let upstream = if astray { self.upstream(node).await.ok() } else { None };
        if let Some(upstream) = &upstream {
            self.keep_slot(node, upstream).await?;
            self.provision().follow(node, upstream).map_err(files("write the configuration of", node))?;
        }
        self.provision().certify(node).map_err(files("write the certificate of", node))?;
        self.ports.release(node.port);
        server::start(&self.tools, node, &self.passwords.credentials(Login::Superuser)).await?;
        sync::apply(&self.session(node).await?, self.state.sync).await.map_err(asked(node))?;
        Ok(!astray || upstream.is_some())
    }

    /// Starts one node, which ends again if that does not succeed.
    pub(crate) async fn start(&mut self, node: &NodeRecord) -> Result<(), OperationError> {
        let mut guard = KillGuard::default();
        guard.watch(node.data_dir.clone());
        if self.launch(node).await? && self.state.condition(&node.name) == Condition::Astray {
            self.state.set_condition(&node.name, Condition::Sound);
            self.save()?;
        }
        guard.disarm();
        Ok(())
    }
}
