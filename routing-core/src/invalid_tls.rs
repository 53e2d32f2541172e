//! Why what a URL says about encryption cannot be used.

use std::io;
use std::path::PathBuf;

use crate::tls::SslMode;

/// Why a URL says nothing usable about encryption. It repeats no value but those of these parameters, none of which is
/// secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTls {
    /// A value that does not exist.
    #[error("{parameter}={value:?} does not exist; it is one of {allowed}")]
    Value {
        /// The parameter, or the variable.
        parameter: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A parameter of libpq's that is not supported, or not with this value.
    #[error("the parameter {0} of a database URL is not supported with this value; leave it out")]
    Parameter(String),
    /// Something that the driver under an ORM cannot do.
    #[error("{parameter} cannot be had with {driver}: {remedy}")]
    Driver {
        /// The parameter and its value.
        parameter: &'static str,
        /// Who cannot.
        driver: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// There is nothing to verify by.
    #[error(
        "sslmode={0} verifies the server's certificate by that of an authority: name its file by sslrootcert, or \
         sslrootcert=system for the authorities that the operating system trusts"
    )]
    NoRoots(SslMode),
    /// The authorities would be of no use.
    #[error("sslrootcert is set, and sslmode={0} verifies nothing: use sslmode=verify-full")]
    UnusedRoots(SslMode),
    /// Anyone can get a certificate from an authority that everyone trusts: only the name tells whose it is.
    #[error(
        "sslrootcert=system needs sslmode=verify-full, not {0}: anyone can have a certificate of those authorities"
    )]
    WeakMode(SslMode),
    /// One of two that go together.
    #[error("{given} is set without {missing}: a certificate is shown with its key")]
    Half {
        /// The one that is there.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// Binding to a connection that is not encrypted.
    #[error("channel_binding=require needs encryption, and sslmode=disable has none")]
    Unbound,
    /// A file that cannot be used.
    #[error("{parameter}={}: {problem}", file.display())]
    File {
        /// The parameter that names it.
        parameter: &'static str,
        /// Its path.
        file: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The operating system trusts nobody.
    #[error(
        "sslrootcert=system: this system has no list of trusted authorities ({0}); install ca-certificates"
    )]
    NoSystemRoots(String),
}

/// What is wrong with a file of certificates or keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It has no certificate, or no key.
    #[error("it holds no {0} in PEM form")]
    Empty(&'static str),
    /// What it has cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// Why the URL of a node cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableUrl {
    /// For what it says about encryption.
    #[error(transparent)]
    Tls(#[from] InvalidTls),
    /// For something else. The driver's words may repeat a part of the URL, so they are not passed on.
    #[error("the driver cannot read the parameters of its URL")]
    Driver,
}
