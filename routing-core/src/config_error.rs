//! Why a configuration cannot be used.

use std::path::PathBuf;

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A rule between the fields is broken.
    #[error("the configuration breaks a rule: {0}")]
    Rule(&'static str),
    /// An environment variable is missing.
    #[error("the environment variable {0} is not set; it holds the URL of a PostgreSQL server")]
    Missing(String),
    /// An environment variable does not hold what it should.
    #[error("the environment variable {variable} is wrong")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong with it.
        #[source]
        source: crate::url::InvalidUrl,
    },
    /// The keys that tokens are signed with are wrong, or could not be made.
    #[error("the keys for session tokens are wrong: {message}")]
    Keys {
        /// What is wrong, without the keys.
        message: String,
    },
    /// A configuration file cannot be read.
    #[error("the configuration file {path} cannot be read ({kind})", path = path.display())]
    File {
        /// Where it should be.
        path: PathBuf,
        /// The operating system's answer.
        kind: std::io::ErrorKind,
    },
    /// A configuration file does not parse.
    #[error(
        "line {line} of the configuration file is wrong: no TOML, an unknown field, or a value of the wrong form"
    )]
    Toml {
        /// Where.
        line: usize,
    },
    /// A backend could not use what it was given.
    #[error("the pools of {node} cannot be set up: {message}")]
    Backend {
        /// The node's name.
        node: String,
        /// What the backend said, without credentials.
        message: String,
    },
}
