//! What a database URL says about encryption: libpq's parameters with libpq's meaning (PostgreSQL manual, "SSL
//! Support").
//!
//! | parameter | variable | meaning |
//! |---|---|---|
//! | `sslmode` | `PGSSLMODE` | `disable`, `allow`, `prefer` (the default), `require`, `verify-ca`, `verify-full` |
//! | `sslrootcert` | `PGSSLROOTCERT` | the certificates of the authorities that the server's is verified by: a PEM file, or `system` |
//! | `sslcert`, `sslkey` | `PGSSLCERT`, `PGSSLKEY` | the certificate that we show, and its key: PEM files, both or none |
//! | `channel_binding` | `PGCHANNELBINDING` | `disable`, `prefer` (the default), `require` |
//!
//! A variable counts where the URL does not say. Where this differs from libpq it is stricter: `allow` is taken as
//! `prefer`; after the server has offered encryption nothing goes on without it; files are used only where they are
//! named, never for lying in `~/.postgresql`; a parameter that would have no effect is refused.

use std::fmt;
use std::path::PathBuf;

use crate::url::DatabaseUrl;

pub use crate::certificates::system_roots;
pub use crate::handshake::{TlsError, TlsProblem};
pub use crate::invalid_tls::{FileProblem, InvalidTls, UnusableUrl};

/// libpq's `sslmode`: whether a connection is encrypted, and what is verified before anything is said on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// As [`Prefer`](Self::Prefer), which is stricter than libpq's.
    Allow,
    /// Encrypted if the server offers it; whoever answers is believed to be the server.
    #[default]
    Prefer,
    /// Encrypted; whoever answers is believed to be the server, unless `sslrootcert` is given: then as
    /// [`VerifyCa`](Self::VerifyCa).
    Require,
    /// Encrypted, to a server whose certificate was signed by a trusted authority, for whatever name.
    VerifyCa,
    /// Encrypted, to the server whose certificate was signed by a trusted authority for the host of the URL.
    VerifyFull,
}

/// What the server's certificate must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Nothing.
    Nothing,
    /// That a trusted authority signed it.
    Authority,
    /// That a trusted authority signed it for the host that was connected to.
    Host,
}

/// Which authorities are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Those in a PEM file, and no other.
    File(PathBuf),
    /// Those that the operating system trusts.
    System,
}

/// Whether the password exchange must be bound to the certificate that the server showed (SCRAM-SHA-256-PLUS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// It is not.
    Disable,
    /// Where the server and the driver can.
    #[default]
    Prefer,
    /// Else no connection.
    Require,
}

/// The files of the certificate that we show to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate, followed by those between it and its authority: PEM.
    pub certificate: PathBuf,
    /// Its private key: PEM, not encrypted.
    pub key: PathBuf,
}

/// How connections by one URL are encrypted. The files that it names are read for each new connection, so that a
/// certificate that was renewed counts without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// As it was written; what follows from it is said by the other fields.
    pub mode: SslMode,
    /// Whether someone chose it.
    pub chosen: bool,
    /// What the server's certificate must prove.
    pub verification: Verification,
    /// By whom; `Some` where it must prove anything.
    pub roots: Option<Roots>,
    /// What we show.
    pub client: Option<ClientFiles>,
    /// Whether the password exchange is bound to the connection.
    pub channel_binding: ChannelBinding,
}

const MODES: &str = "disable, allow, prefer, require, verify-ca, verify-full";
const BINDINGS: &str = "disable, prefer, require";

/// libpq's parameters that have to do with encryption and are not supported, with the values that change nothing:
/// ours is at least as strict.
const IDLE_VALUES: [(&str, &[&str]); 5] = [
    ("gssencmode", &["disable", "prefer"]),
    ("sslcertmode", &["allow"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
];

const READ: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding"];

/// Whether a parameter has to do with encryption, so that no driver need see it.
pub(crate) fn is_about_encryption(parameter: &str) -> bool {
    parameter.starts_with("ssl") || ["channel_binding", "gssencmode", "requiressl"].contains(&parameter)
}

impl Tls {
    /// What `url` says, and where it says nothing, the process's environment.
    ///
    /// # Errors
    /// [`InvalidTls`] names the parameter, and what it may be. No file is looked at: see
    /// [`client_config`](Self::client_config).
    pub fn of(url: &DatabaseUrl) -> Result<Self, InvalidTls> {
        Self::from_variables(url, |name| std::env::var(name).ok())
    }

    /// [`of`](Self::of) over any source of variables. An empty value counts as unset.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn from_variables(
        url: &DatabaseUrl,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidTls> {
        refuse_unsupported(url)?;
        let in_url =
            |name: &str| url.parameters().filter(|(key, _)| key == name).last().map(|(_, value)| value);
        let in_url = |name: &str| in_url(name).filter(|value| !value.is_empty());
        let variable = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let either = |name: &'static str, other: &'static str| match in_url(name) {
            Some(value) => Some((name, value)),
            None => variable(other).map(|value| (other, value)),
        };

        let root_in_url = in_url("sslrootcert");
        let said =
            either("sslmode", "PGSSLMODE").map(|(name, value)| SslMode::parse(name, value)).transpose()?;
        let mode = match said {
            Some(mode) => mode,
            // As in libpq: nothing weaker makes sense with it.
            None if root_in_url.as_deref() == Some("system") => SslMode::VerifyFull,
            None => SslMode::default(),
        };
        let roots = match mode {
            SslMode::Disable => None,
            SslMode::Allow | SslMode::Prefer if root_in_url.is_some() => {
                return Err(InvalidTls::UnusedRoots(mode));
            }
            // A variable is set for whatever the process connects to.
            SslMode::Allow | SslMode::Prefer => None,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                root_in_url.or_else(|| variable("PGSSLROOTCERT")).map(|value| match value.as_str() {
                    "system" => Roots::System,
                    _ => Roots::File(value.into()),
                })
            }
        };
        let verification = match (mode, &roots) {
            (SslMode::VerifyCa | SslMode::VerifyFull, None) => return Err(InvalidTls::NoRoots(mode)),
            (SslMode::Require | SslMode::VerifyCa, Some(Roots::System)) => {
                return Err(InvalidTls::WeakMode(mode));
            }
            (SslMode::VerifyFull, Some(_)) => Verification::Host,
            (_, Some(_)) => Verification::Authority,
            (_, None) => Verification::Nothing,
        };
        let client = match (either("sslcert", "PGSSLCERT"), either("sslkey", "PGSSLKEY")) {
            (Some((_, certificate)), Some((_, key))) => {
                Some(ClientFiles { certificate: certificate.into(), key: key.into() })
            }
            (Some((given, _)), None) => return Err(InvalidTls::Half { given, missing: "sslkey" }),
            (None, Some((given, _))) => return Err(InvalidTls::Half { given, missing: "sslcert" }),
            (None, None) => None,
        };
        let binding = either("channel_binding", "PGCHANNELBINDING");
        let channel_binding =
            binding.map(|(name, value)| ChannelBinding::parse(name, value)).transpose()?.unwrap_or_default();
        if mode == SslMode::Disable && channel_binding == ChannelBinding::Require {
            return Err(InvalidTls::Unbound);
        }
        let client = client.filter(|_| mode != SslMode::Disable);
        Ok(Self { mode, chosen: said.is_some(), verification, roots, client, channel_binding })
    }

    /// Whether a connection is never encrypted.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.mode == SslMode::Disable
    }

    /// Whether there is no connection without encryption.
    #[must_use]
    pub fn is_required(&self) -> bool {
        match self.mode {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => false,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => true,
        }
    }

    /// Warns when nobody has chosen how connections to another machine are encrypted: then whoever is on the way can
    /// read and change what passes.
    pub fn warn_if_unchosen(&self, node: &str, url: &DatabaseUrl) {
        if !self.chosen && self.verification == Verification::Nothing && !url.is_local() {
            tracing::warn!(
                node,
                "the URL of {node} has no sslmode: connections are encrypted if the server offers it, and nobody is \
                 verified; sslmode=verify-full with sslrootcert protects them, sslmode=prefer says that this is meant"
            );
        }
    }

    /// What to try when the server refused a login with this SQLSTATE; empty when there is nothing to say.
    #[must_use]
    pub fn advice(&self, sqlstate: &str) -> &'static str {
        // invalid_authorization_specification: among others, no rule of pg_hba.conf fits.
        if sqlstate == "28000" && self.is_off() {
            "; the connection was not encrypted (sslmode=disable): if the server demands it, use sslmode=verify-full"
        } else {
            ""
        }
    }
}

fn refuse_unsupported(url: &DatabaseUrl) -> Result<(), InvalidTls> {
    for (name, value) in url.parameters().filter(|(name, _)| is_about_encryption(name)) {
        let idle = IDLE_VALUES.iter().any(|(idle, values)| *idle == name && values.contains(&value.as_str()));
        if !READ.contains(&name.as_str()) && !idle {
            return Err(InvalidTls::Parameter(name));
        }
    }
    Ok(())
}

impl SslMode {
    fn parse(parameter: &'static str, value: String) -> Result<Self, InvalidTls> {
        Ok(match value.as_str() {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return Err(InvalidTls::Value { parameter, value, allowed: MODES }),
        })
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ChannelBinding {
    fn parse(parameter: &'static str, value: String) -> Result<Self, InvalidTls> {
        Ok(match value.as_str() {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            _ => return Err(InvalidTls::Value { parameter, value, allowed: BINDINGS }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::Logged;

    fn read(parameters: &str, variables: &[(&str, &str)]) -> Result<Tls, InvalidTls> {
        let url = format!("postgres://app:hunter2@db1.internal/shop?{parameters}").parse().unwrap();
        Tls::from_variables(&url, |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn file(path: &str) -> Option<Roots> {
        Some(Roots::File(path.into()))
    }

    #[test]
    fn each_mode_means_what_it_means_to_libpq() {
        use Verification::{Authority, Host, Nothing};
        // parameters, mode, chosen, off, required, what is verified, by whom
        let table = [
            ("", SslMode::Prefer, false, false, false, Nothing, None),
            ("sslmode=", SslMode::Prefer, false, false, false, Nothing, None),
            ("sslmode=disable", SslMode::Disable, true, true, false, Nothing, None),
            ("sslmode=disable&sslrootcert=/no", SslMode::Disable, true, true, false, Nothing, None),
            ("sslmode=allow", SslMode::Allow, true, false, false, Nothing, None),
            ("sslmode=prefer", SslMode::Prefer, true, false, false, Nothing, None),
            ("sslmode=require", SslMode::Require, true, false, true, Nothing, None),
            ("sslmode=require&sslrootcert=/ca", SslMode::Require, true, false, true, Authority, file("/ca")),
            (
                "sslmode=verify-ca&sslrootcert=/ca",
                SslMode::VerifyCa,
                true,
                false,
                true,
                Authority,
                file("/ca"),
            ),
            (
                "sslrootcert=/ca&sslmode=verify-full",
                SslMode::VerifyFull,
                true,
                false,
                true,
                Host,
                file("/ca"),
            ),
            (
                "sslmode=verify-full&sslrootcert=system",
                SslMode::VerifyFull,
                true,
                false,
                true,
                Host,
                Some(Roots::System),
            ),
            ("sslrootcert=system", SslMode::VerifyFull, false, false, true, Host, Some(Roots::System)),
            // Decoded as libpq decodes it; of two, the last.
            (
                "sslmode=disable&sslmode=verify%2Dfull&sslrootcert=%2Fa+b%20c",
                SslMode::VerifyFull,
                true,
                false,
                true,
                Host,
                file("/a+b c"),
            ),
        ];
        for (parameters, mode, chosen, off, required, verification, roots) in table {
            let tls = read(parameters, &[]).unwrap_or_else(|error| panic!("{parameters}: {error}"));
            let seen = (tls.mode, tls.chosen, tls.is_off(), tls.is_required(), tls.verification, tls.roots);
            assert_eq!(seen, (mode, chosen, off, required, verification, roots), "{parameters}");
        }
    }

    #[test]
    fn variables_count_where_the_url_is_silent() {
        let variables =
            [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/env"), ("PGCHANNELBINDING", "require")];
        let tls = read("", &variables).unwrap();
        assert_eq!((tls.mode, tls.chosen, tls.roots), (SslMode::VerifyFull, true, file("/env")));
        assert_eq!(tls.channel_binding, ChannelBinding::Require);
        let tls = read("sslrootcert=/url&channel_binding=disable", &variables).unwrap();
        assert_eq!((tls.roots, tls.channel_binding), (file("/url"), ChannelBinding::Disable));
        // What is set for all that a process connects to does not hinder a URL that wants none of it.
        let tls = read("sslmode=prefer&channel_binding=prefer", &variables).unwrap();
        assert_eq!((tls.verification, tls.roots), (Verification::Nothing, None));
        let shown = read("", &[("PGSSLMODE", "on")]).unwrap_err().to_string();
        assert!(shown.contains("PGSSLMODE=\"on\""), "{shown}");
        let tls = read("", &[("PGSSLCERT", "/c"), ("PGSSLKEY", "/k")]).unwrap();
        assert_eq!(tls.client, Some(ClientFiles { certificate: "/c".into(), key: "/k".into() }));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let table = [
            (
                "sslmode=on",
                "sslmode=\"on\" does not exist; it is one of disable, allow, prefer, require, verify-ca",
            ),
            ("sslmode=Require", "sslmode=\"Require\" does not exist"),
            (
                "channel_binding=on",
                "channel_binding=\"on\" does not exist; it is one of disable, prefer, require",
            ),
            ("sslmode=verify-full", "sslmode=verify-full verifies the server's certificate"),
            ("sslmode=verify-ca", "sslrootcert=system"),
            ("sslrootcert=/ca", "sslrootcert is set, and sslmode=prefer verifies nothing"),
            ("sslmode=allow&sslrootcert=/ca", "sslmode=allow verifies nothing"),
            (
                "sslmode=verify-ca&sslrootcert=system",
                "sslrootcert=system needs sslmode=verify-full, not verify-ca",
            ),
            (
                "sslmode=require&sslrootcert=system",
                "sslrootcert=system needs sslmode=verify-full, not require",
            ),
            ("sslcert=/c", "sslcert is set without sslkey"),
            ("sslkey=/k", "sslkey is set without sslcert"),
            ("sslmode=disable&channel_binding=require", "channel_binding=require needs encryption"),
            ("sslcrl=/crl", "the parameter sslcrl "),
            ("ssl-mode=require", "the parameter ssl-mode "),
            ("requiressl=1", "the parameter requiressl "),
            ("sslnegotiation=direct", "the parameter sslnegotiation "),
            ("ssl_min_protocol_version=TLSv1.3", "the parameter ssl_min_protocol_version "),
            ("gssencmode=require", "the parameter gssencmode "),
        ];
        for (parameters, words) in table {
            let shown = read(parameters, &[]).expect_err(parameters).to_string();
            assert!(shown.contains(words) && !shown.contains("hunter2"), "{parameters}: {shown}");
        }
        for harmless in ["sslnegotiation=postgres", "gssencmode=disable", "ssl_min_protocol_version=TLSv1.2"]
        {
            assert_eq!(read(harmless, &[]).unwrap(), read("", &[]).unwrap(), "{harmless}");
        }
    }

    #[test]
    fn only_a_login_without_encryption_is_told_to_encrypt() {
        let advice = |parameters, sqlstate| read(parameters, &[]).unwrap().advice(sqlstate);
        assert!(advice("sslmode=disable", "28000").contains("sslmode=disable"));
        assert_eq!(advice("sslmode=disable", "28P01"), "");
        assert_eq!(advice("sslmode=require", "28000"), "");
    }

    #[test]
    fn a_connection_to_another_machine_that_nobody_thought_of_is_warned_of() {
        let table = [
            ("db1.internal", "", true),
            ("10.0.0.11", "", true),
            ("db1.internal", "sslmode=prefer", false),
            ("db1.internal", "sslmode=disable", false),
            ("db1.internal", "sslrootcert=system", false),
            ("localhost", "", false),
            ("[::1]", "", false),
            ("%2Frun%2Fpostgresql", "", false),
        ];
        for (host, parameters, warned) in table {
            let url = format!("postgres://app:hunter2@{host}/shop?{parameters}").parse().unwrap();
            let (log, _guard) = Logged::begin();
            Tls::from_variables(&url, |_| None).unwrap().warn_if_unchosen("pg1", &url);
            let log = log.text();
            assert_eq!(log.contains("the URL of pg1 has no sslmode"), warned, "{host} {parameters}: {log}");
            assert!(!log.contains("hunter2"), "{log}");
        }
    }
}
