//! A replication connection, made by `psql`: the drivers of this workspace open none.

use std::time::Duration;

use tokio::process::Command;

use super::{conninfo::Conninfo, password::Password, programs::Programs, refusal::UpstreamError};

/// How long libpq may take to connect to one address, in seconds, unless the URL says otherwise.
const CONNECT_SECONDS: &str = "5";
/// How long one run may take: several addresses, and the answers.
const ANSWER: Duration = Duration::from_secs(30);

/// How a server is reached and who asks.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) programs: &'a Programs,
    /// Without secrets: other users can read it in the list of processes.
    pub(super) conninfo: Conninfo,
    pub(super) password: &'a Password,
}

impl Client<'_> {
    /// Host and port, for messages.
    pub(super) fn at(&self) -> String {
        self.conninfo.place()
    }

    /// Asks over one replication connection; returns the fields of each answer. A name that begins with a backslash is a
    /// command of `psql` itself.
    pub(super) async fn ask(&self, commands: &[&str]) -> Result<Vec<Vec<String>>, UpstreamError> {
        let mut conninfo = self.conninfo.clone();
        conninfo.set("replication", "true");
        // What password files know replication by; the server ignores it.
        conninfo.set("dbname", "replication");
        conninfo.set_default("connect_timeout", CONNECT_SECONDS);
        conninfo.set_default("application_name", "routing-cluster");
        let conninfo = conninfo.render();
        let prepare = |psql: &mut Command| {
            match self.password {
                Password::None => {}
                // For a moment, and readable by root and the servers' user alone; the standby gets a file.
                Password::Known(secret) => {
                    psql.env("PGPASSWORD", secret.reveal());
                }
                Password::File(file) => {
                    psql.env("PGPASSFILE", file);
                }
            }
            psql.args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]);
            // With codes, because words come in the server's language.
            psql.args(["--set", "ON_ERROR_STOP=1", "--set", "VERBOSITY=verbose", "--dbname", &conninfo]);
            psql.args(commands.iter().flat_map(|text| ["--command", text]));
        };
        let output = self
            .programs
            .run("psql", prepare, ANSWER)
            .await
            .map_err(|error| UpstreamError::of_program(&self.at(), error))?;
        Ok(output.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
    }
}
