//! One error per operation on a cluster.

use std::{io, path::PathBuf};

use crate::{
    access::Network, account::AccountError, archive::ArchiveError, archiving::ClaimError,
    binaries::BinariesError, layout::DirectoryError, operation::OperationError, ports::PortError,
    provision::ProvisionError, server::ServerError,
};

/// An error with its causes, for a sentence that goes on.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Sentences below a message, indented; nothing when there are none.
pub(crate) fn in_lines(sentences: &[String]) -> String {
    sentences.iter().map(|sentence| format!("\n  {sentence}")).collect()
}

/// Why a cluster did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpError {
    /// Every node runs already.
    #[error("the cluster in {dir} is already running: see `status`, or stop it with `down`")]
    AlreadyRunning {
        /// The cluster's directory.
        dir: String,
    },
    /// More replicas than a cluster can feed.
    #[error("{replicas} replicas are too many: a cluster has 0 to {most}")]
    TooManyReplicas {
        /// Replicas wanted.
        replicas: u32,
        /// The most that a cluster has.
        most: u32,
    },
    /// Other machines were to connect without encryption.
    #[error(
        "{network} is beyond this machine: passwords and data would cross the network in the clear; add --tls"
    )]
    Unencrypted {
        /// The network.
        network: Network,
    },
    /// A durable cluster was to begin with a template's files, which nobody has flushed.
    #[error("a template is for clusters that are not durable: leave one of both out")]
    DurableTemplate,
    /// A template could not be made.
    #[error("could not make the template {}", dir.display())]
    Template {
        /// Its directory.
        dir: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The cluster's certificate authority could not be made.
    #[error("could not make the certificate authority {}", file.display())]
    Certificate {
        /// Its certificate's file.
        file: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// PostgreSQL's programs were not found.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// There is no user to run the servers as.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A port cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The cluster's WAL archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A restore into the directory was interrupted; an empty cluster must not take its place.
    #[error(
        "the restore into {} was interrupted: repeat `restore --from {}`, or remove what is there with `down --purge`",
        dir.display(), from.display()
    )]
    Restoring {
        /// The cluster's directory.
        dir: PathBuf,
        /// The backup.
        from: PathBuf,
    },
    /// The cluster's passwords could not be made, stored or read.
    #[error("could not store or read the passwords in {file}")]
    Passwords {
        /// Their file.
        file: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// An interrupted attempt's remains could not be removed.
    #[error("could not remove the half-made node {node}")]
    Remains {
        /// The node.
        node: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A node could not be made.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// An existing node did not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Replicas are missing, but no running node is a primary to copy.
    #[error("replicas are missing, and no node is a primary to copy: start the primary, then repeat `up`{}", in_lines(.unanswered))]
    NoPrimary {
        /// Nodes that run and gave no answer, and why.
        unanswered: Vec<String>,
    },
    /// Everything that may start runs already; the rest needs the operator.
    #[error("what may start is already running: {}", remedies.join("; "))]
    Unfit {
        /// What is to be done, one sentence each.
        remedies: Vec<String>,
    },
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(Box<OperationError>),
}

impl From<ClaimError> for UpError {
    fn from(error: ClaimError) -> UpError {
        match error {
            ClaimError::Archive(error) => error.into(),
            ClaimError::Operation(error) => error.into(),
        }
    }
}

impl From<OperationError> for UpError {
    fn from(error: OperationError) -> UpError {
        match error {
            OperationError::Binaries(error) => error.into(),
            OperationError::Account(error) => error.into(),
            OperationError::Directory(error) => error.into(),
            OperationError::Port(error) => error.into(),
            OperationError::Server(error) => error.into(),
            OperationError::Provision(error) => error.into(),
            other => UpError::Operation(Box::new(other)),
        }
    }
}

/// Why a directory could not be opened as a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory or its state file cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The cluster's passwords could not be read.
    #[error("could not read the passwords in {file}: run this command as the user who made the cluster")]
    Passwords {
        /// Their file.
        file: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// The cluster has no node of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no node {name:?}: the nodes are {}", known.join(", "))]
#[non_exhaustive]
pub struct UnknownNode {
    /// The name that was asked for.
    pub name: String,
    /// The names that exist.
    pub known: Vec<String>,
}

/// Why an operation on one node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The cluster has no such node.
    #[error(transparent)]
    Unknown(#[from] UnknownNode),
    /// The node does not run.
    #[error("{node} is not running: start it first")]
    NotRunning {
        /// The node.
        node: String,
    },
    /// The node runs already.
    #[error("{node} is already running")]
    AlreadyRunning {
        /// The node.
        node: String,
    },
    /// The node was never completed.
    #[error("{node} is only half made: repeat `up`, which makes it again")]
    Incomplete {
        /// The node.
        node: String,
    },
    /// The node must not start as it is: as a deposed primary it would be a second one.
    #[error("{node} was not started: {remedy}")]
    Unfit {
        /// The node.
        node: String,
        /// What it is, and what to do.
        remedy: String,
    },
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(Box<OperationError>),
    /// PostgreSQL's programs were not found.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// There is no user to run the server as.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The cluster's directory or lock cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The node's port cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The server did not do what it was told.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Why a cluster was not stopped or not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownError {
    /// PostgreSQL's programs were not found.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// There is no user to stop the servers as.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The cluster's directory or lock cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A server did not stop, not even when killed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The servers have stopped, but the directory could not be removed.
    #[error("the servers have stopped, but {dir} could not be removed")]
    Purge {
        /// The cluster's directory.
        dir: String,
        /// The operating system's answer.
        source: io::Error,
    },
}
