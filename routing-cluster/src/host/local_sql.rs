//! SQL to the server on this host, over its socket, as far as its rules let the servers' user in without a password.

use std::time::Duration;

use tokio::process::Command;

use super::{conninfo::Conninfo, server::HostServer};

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(5);

impl HostServer<'_> {
    /// The fields of the only row, or `None` when the server does not let the servers' user in that way.
    pub(super) async fn ask_locally(&self, query: &str) -> Option<Vec<String>> {
        let (port, socket) = self.address()?;
        if socket.is_empty() {
            return None;
        }
        let mut conninfo = Conninfo::default();
        for (keyword, value) in [
            ("host", socket.as_str()),
            ("port", &port.to_string()),
            ("user", self.programs.account().name()),
            ("dbname", "postgres"),
            ("connect_timeout", "3"),
        ] {
            conninfo.set(keyword, value);
        }
        let conninfo = conninfo.render();
        let prepare = |psql: &mut Command| {
            psql.args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]);
            psql.args(["--dbname", &conninfo, "--command", query]);
        };
        let output = self.programs.run("psql", prepare, ANSWER).await.ok()?;
        output.lines().next().map(|line| line.split('|').map(str::to_owned).collect())
    }
}
