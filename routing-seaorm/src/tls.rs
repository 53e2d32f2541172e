//! What a URL says about encryption, as sqlx takes it.

use routing_core::tls::{
    ChannelBinding, InvalidTls, Roots, SslMode, Tls, TlsError, TlsProblem, Verification, system_roots,
};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Sets how connections are encrypted, or says what sqlx cannot do. All is set, since sqlx would ask the environment for
/// what is not.
pub(crate) fn apply(options: PgConnectOptions, tls: &Tls) -> Result<PgConnectOptions, InvalidTls> {
    // Beside the authorities that it is given, sqlx always trusts the public ones. A name that they may sign for someone
    // else then has to be looked at.
    if tls.verification == Verification::Authority {
        return Err(InvalidTls::Driver {
            parameter: "sslmode=verify-ca, or sslmode=require with sslrootcert,",
            driver: "SeaORM",
            remedy: "sqlx would believe whoever has a certificate of any public authority; use sslmode=verify-full",
        });
    }
    if tls.channel_binding == ChannelBinding::Require {
        return Err(InvalidTls::Driver {
            parameter: "channel_binding=require",
            driver: "SeaORM",
            remedy: "sqlx does not bind passwords to connections; leave it out, and use sslmode=verify-full",
        });
    }
    let mode = match tls.mode {
        // As in libpq, none of it counts where nothing leaves the machine.
        _ if options.get_socket().is_some() || options.get_host().starts_with('/') => PgSslMode::Disable,
        SslMode::Disable => PgSslMode::Disable,
        SslMode::Allow | SslMode::Prefer => PgSslMode::Prefer,
        _ if tls.verification == Verification::Host => PgSslMode::VerifyFull,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => PgSslMode::Require,
    };
    let options = options.ssl_mode(mode);
    let options = match &tls.roots {
        Some(Roots::File(file)) => options.ssl_root_cert(file),
        Some(Roots::System) => options.ssl_root_cert_from_pem(system_roots()?),
        None => options,
    };
    Ok(match &tls.client {
        Some(files) => options.ssl_client_cert(&files.certificate).ssl_client_key(&files.key),
        None => options,
    })
}

/// An error of a connection that did not come about, in our words where encryption is to blame.
pub(crate) fn explain(error: sqlx::Error, tls: &Tls, server: impl FnOnce() -> String) -> sqlx::Error {
    if !matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_)) || tls.is_off() {
        return error;
    }
    // sqlx reads the files for each connection, and does not name them.
    if (tls.roots.is_some() || tls.client.is_some())
        && let Err(invalid) = tls.client_config()
    {
        return sqlx::Error::Configuration(Box::new(invalid));
    }
    let problem = match (TlsProblem::find(&error), &error) {
        (Some(problem), _) => problem,
        (None, sqlx::Error::Tls(found)) => match found.to_string() {
            found if found == NOT_OFFERED => TlsProblem::NotOffered,
            found => TlsProblem::Other(found),
        },
        (None, _) => return error,
    };
    sqlx::Error::Tls(Box::new(TlsError { server: server(), mode: tls.mode, problem }))
}

/// sqlx's words when a server answers that it does not encrypt. It has no type for that.
const NOT_OFFERED: &str = "server does not support TLS";
