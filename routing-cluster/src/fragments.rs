//! The same settings for servers that have a machine each: configuration fragments for production.

use crate::{
    credentials::{DATABASE, Login, REPLICATOR},
    settings::{Setting, override_with, quote, setting, shared_settings},
};

/// The role that `pg_rewind` connects as; a local cluster rewinds as its superuser.
const REWINDER: &str = "rewinder";
/// Placeholders: the network of the database servers, and that of their clients.
const SERVERS: &str = "10.0.0.0/24";
const CLIENTS: &str = "10.0.1.0/24";
/// Where a server's certificate and key lie: outside the data directory, which is copied to other machines.
const TLS: &str = "/etc/postgresql/tls";

/// A file of a server's configuration, for production.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fragment {
    /// `postgresql.conf` of the primary.
    Primary,
    /// `postgresql.conf` of a replica: the same, and whom to follow.
    Replica,
    /// `pg_hba.conf` of every server.
    AccessRules,
}

impl Fragment {
    /// The file's text, each line below its reason.
    #[must_use]
    pub fn render(self) -> String {
        let (name, head) = match self {
            Fragment::Primary => ("primary", SETTINGS_HEAD),
            Fragment::Replica => ("replica", SETTINGS_HEAD),
            Fragment::AccessRules => ("pg_hba", RULES_HEAD),
        };
        let body = match self {
            Fragment::Primary => render(&production_settings()),
            Fragment::Replica => {
                let mut settings = production_settings();
                settings.extend(follow_settings());
                render(&settings)
            }
            Fragment::AccessRules => access_rules(),
        };
        format!(
            "# Written by `routing-cluster config {name}`; do not edit this copy, edit yours.\n{head}\n{body}"
        )
    }
}

const SETTINGS_HEAD: &str = "\
# Put it beside postgresql.conf and name it there in an include line, the last one; ALTER SYSTEM comes after it.
# The values are a start for a server with 16 GB of memory: see SIZING.md for shared_buffers, max_connections and the
# WAL's sizes. Archiving is not here: an archive_mode without a working archive_command fills the disk.
";

const RULES_HEAD: &str = "\
# The first line that fits a connection decides; nothing after it is tried. Replace 10.0.0.0/24 by the network of the
# database servers, and 10.0.1.0/24 by that of the applications and the monitoring. Nobody connects unencrypted, and
# the superuser only from the server itself.
";

/// The settings of [`shared_settings`] for servers that have a machine each and clients elsewhere.
///
/// It is the durable list with some values replaced, one left out and some added; the roles of a server do not matter,
/// because any of them may become the primary.
#[must_use]
pub fn production_settings() -> Vec<Setting> {
    let mut settings = shared_settings(true);
    // The default is faster; a killed server's remains are the machine's own.
    settings.retain(|setting| setting.name != "dynamic_shared_memory_type");
    override_with(&mut settings, replaced());
    settings.extend(added());
    settings
}

/// What differs from a cluster on one machine.
fn replaced() -> Vec<Setting> {
    vec![
        setting(
            "listen_addresses",
            "*",
            "clients are elsewhere; name the private address if there is a public one",
        ),
        setting(
            "max_connections",
            "200",
            "equal on all nodes; processes x (read pool + write pool) + probes + reserve must fit",
        ),
        setting(
            "shared_buffers",
            "4GB",
            "a quarter of the memory; equal on all nodes: any may become the primary",
        ),
        setting(
            "wal_sender_timeout",
            "30s",
            "longer than a stalled disk or a moved virtual machine; the router notices lag by itself",
        ),
        setting("wal_receiver_timeout", "30s", "as wal_sender_timeout; both sides give up together"),
        setting(
            "wal_retrieve_retry_interval",
            "1s",
            "a standby that lost its primary is back soon, not after 5 s",
        ),
        setting(
            "wal_keep_size",
            "1GB",
            "a standby that changes its primary finds WAL for which no slot was kept",
        ),
        setting(
            "max_slot_wal_keep_size",
            "32GB",
            "a replica that never returns must not fill the disk: below half of what is free for WAL",
        ),
    ]
}

/// What a cluster on one machine leaves at PostgreSQL's default.
fn added() -> Vec<Setting> {
    vec![
        setting(
            "max_standby_streaming_delay",
            "5s",
            "a read holds replay no longer than the router's max_staleness; the router repeats it on the primary",
        ),
        setting(
            "max_wal_size",
            "8GB",
            "checkpoints come by time, not by volume: fewer full-page writes to send",
        ),
        setting(
            "checkpoint_timeout",
            "15min",
            "each page is written whole once after a checkpoint, not every 5 min",
        ),
        setting("wal_compression", "on", "full-page writes shrink: processor time for bandwidth and archive"),
        setting("ssl", "on", "passwords and data cross no network in the clear"),
        setting("ssl_cert_file", format!("{TLS}/server.crt"), "not inside the data, which is copied"),
        setting(
            "ssl_key_file",
            format!("{TLS}/server.key"),
            "0600 and of the server's user, or 0640 and root's",
        ),
        setting("ssl_min_protocol_version", "TLSv1.2", "older versions are broken"),
        setting(
            "tcp_keepalives_idle",
            "30",
            "a client that vanished gives its connection back in minutes, not hours",
        ),
        setting("tcp_keepalives_interval", "10", "as tcp_keepalives_idle"),
        setting("tcp_keepalives_count", "3", "as tcp_keepalives_idle"),
        setting(
            "idle_in_transaction_session_timeout",
            "1min",
            "a forgotten transaction holds vacuum back on all nodes",
        ),
        setting(
            "log_recovery_conflict_waits",
            "on",
            "a read that holds replay is named in the replica's log",
        ),
        setting("log_lock_waits", "on", "who waits for whom is named in the log"),
        setting("log_autovacuum_min_duration", "10s", "vacuum held back by a replica's feedback shows here"),
        setting("track_io_timing", "on", "whether a slow server waits for its disk"),
    ]
}

/// Whom a replica follows. `pg_basebackup --write-recovery-conf` writes the same into `postgresql.auto.conf`, which
/// comes after this.
fn follow_settings() -> Vec<Setting> {
    let conninfo = format!(
        "host=db1.internal port=5432 user={REPLICATOR} passfile=/var/lib/postgresql/replication.pass \
         application_name=db2 sslmode=verify-full sslrootcert={TLS}/root.crt"
    );
    vec![
        setting(
            "primary_conninfo",
            conninfo,
            "the primary, its certificate checked; the password stands in a file of 0600",
        ),
        setting(
            "primary_slot_name",
            "db2",
            "a slot of its own: the primary keeps what this replica has not received",
        ),
    ]
}

/// Settings as a configuration file, each below its reason and the value that a local cluster has instead.
fn render(settings: &[Setting]) -> String {
    let local = shared_settings(true);
    let lines = settings.iter().map(|it| {
        let elsewhere = local.iter().find(|local| local.name == it.name && local.value != it.value);
        let elsewhere =
            elsewhere.map_or_else(String::new, |local| format!(" (a local cluster: {})", local.value));
        format!("# {}{elsewhere}\n{} = {}\n", it.why, it.name, quote(&it.value))
    });
    lines.collect()
}

fn access_rules() -> String {
    let (superuser, application, monitor) =
        (Login::Superuser.user(), Login::Application.user(), Login::Monitor.user());
    let scram = "scram-sha-256";
    let rules: [(&str, [&str; 5]); 7] = [
        (
            "administration, from the server itself and by its operating-system user",
            ["local", "all", superuser, "", "peer"],
        ),
        ("whoever else is on the server", ["local", "all", "all", "", scram]),
        ("the exporter on the server itself", ["hostssl", DATABASE, monitor, "127.0.0.1/32", scram]),
        (
            "servers replicate, and do nothing else with this role",
            ["hostssl", "replication", REPLICATOR, SERVERS, scram],
        ),
        (
            "a deposed primary rewinds itself from its successor",
            ["hostssl", "postgres", REWINDER, SERVERS, scram],
        ),
        (
            "applications (app and its members: a password changes without a gap) and the router's probes",
            ["hostssl", DATABASE, &format!("+{application},{monitor}"), CLIENTS, scram],
        ),
        ("everybody else, said aloud", ["host", "all", "all", "all", "reject"]),
    ];
    let lines = rules.iter().map(|(why, [kind, database, user, address, method])| {
        format!("# {why}\n{kind:<8}{database:<13}{user:<13}{address:<15}{method}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_production_setting_is_set_once_and_has_a_reason() {
        let mut settings = production_settings();
        settings.extend(follow_settings());
        let names: HashSet<_> = settings.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), settings.len());
        assert!(
            settings.iter().all(|it| !it.why.is_empty() && !it.why.contains('\n') && it.why.len() <= 110)
        );
    }

    #[test]
    fn what_is_replaced_differs_from_a_local_cluster_and_says_so() {
        let local = shared_settings(true);
        let text = Fragment::Primary.render();
        for setting in replaced() {
            let other = local.iter().find(|local| local.name == setting.name).unwrap();
            assert_ne!(other.value, setting.value, "{}", setting.name);
            assert!(
                text.contains(&format!("(a local cluster: {})\n{} = ", other.value, setting.name)),
                "{text}"
            );
        }
    }

    #[test]
    fn no_rule_lets_a_plain_or_an_unproven_connection_in() {
        let text = Fragment::AccessRules.render();
        let rules: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rules.last().unwrap(), &["host", "all", "all", "all", "reject"]);
        for rule in &rules[..rules.len() - 1] {
            let proof = *rule.last().unwrap();
            assert!(matches!(
                (rule[0], proof),
                ("hostssl", "scram-sha-256") | ("local", "scram-sha-256" | "peer")
            ));
        }
    }
}
