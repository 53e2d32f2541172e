//! Every setting that the cluster changes in PostgreSQL, with the reason as data.

use std::path::Path;

/// One line of a server's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The parameter's name in PostgreSQL.
    pub name: &'static str,
    /// The value, unquoted.
    pub value: String,
    /// Why it is not left at PostgreSQL's default.
    pub why: &'static str,
}

pub(crate) fn setting(name: &'static str, value: impl Into<String>, why: &'static str) -> Setting {
    Setting { name, value: value.into(), why }
}

/// The settings that all nodes of a cluster share, because any of them may become the primary.
///
/// `durable` is whether the servers flush to disk; without it a crash of the machine loses the cluster.
#[must_use]
pub fn shared_settings(durable: bool) -> Vec<Setting> {
    let mut settings = vec![
        setting("listen_addresses", "127.0.0.1", "a local cluster is nobody else's business"),
        setting("wal_level", "replica", "standbys need it; it is the default, and here it is a condition"),
        setting("max_wal_senders", "10", "two per base backup in progress, one per standby, and room"),
        setting("max_replication_slots", "10", "one per standby, and room for nodes that join later"),
        setting("max_connections", "100", "equal on all nodes: a standby below its primary refuses to start"),
        setting("hot_standby", "on", "replicas exist here to be read"),
        setting(
            "hot_standby_feedback",
            "on",
            "long reads on a replica are not cancelled by the primary's vacuum",
        ),
        setting(
            "wal_receiver_status_interval",
            "1s",
            "the primary's view of a replica is at most a second old",
        ),
        setting(
            "wal_receiver_timeout",
            "5s",
            "a standby notices a silent primary in seconds, not in a minute",
        ),
        setting(
            "wal_sender_timeout",
            "5s",
            "a primary notices a silent standby and frees its slot in seconds",
        ),
        setting(
            "wal_retrieve_retry_interval",
            "200ms",
            "a standby that lost its primary is back at once, not after 5 s",
        ),
        setting("wal_log_hints", "on", "pg_rewind needs it to take a deposed primary back"),
        setting("password_encryption", "scram-sha-256", "passwords are stored and sent in no weaker form"),
        setting("shared_buffers", "32MB", "several servers share one machine with everything else on it"),
        setting(
            "dynamic_shared_memory_type",
            "mmap",
            "a killed server leaves nothing behind outside its data directory",
        ),
        setting("timezone", "UTC", "every node shows the same time, wherever it runs"),
        setting("log_timezone", "UTC", "logs of several nodes are read side by side"),
        setting("log_line_prefix", "%m [%p] %q%u@%d %a ", "a line says when, which process, and who"),
        setting(
            "log_replication_commands",
            "on",
            "who streamed from where, and since when, is the first question",
        ),
    ];
    settings.extend(if durable { durable_settings() } else { fast_settings() });
    settings
}

fn durable_settings() -> Vec<Setting> {
    vec![
        setting(
            "wal_keep_size",
            "256MB",
            "a standby that changes its primary finds WAL for which no slot was kept",
        ),
        setting(
            "max_slot_wal_keep_size",
            "2GB",
            "a replica that never returns must not fill the primary's disk",
        ),
    ]
}

fn fast_settings() -> Vec<Setting> {
    vec![
        setting("fsync", "off", "a throw-away cluster need not survive a crash of the machine"),
        setting(
            "wal_keep_size",
            "32MB",
            "enough WAL for a standby that changes its primary, in small segments",
        ),
        setting("max_slot_wal_keep_size", "512MB", "a replica that never returns must not fill the disk"),
        setting(
            "min_wal_size",
            "32MB",
            "recycled segments stay few: files are what a test's set-up pays for",
        ),
        setting("max_wal_size", "256MB", "a checkpoint comes before a test's WAL fills the disk"),
    ]
}

/// The settings of one node alone.
pub(crate) fn node_settings(name: &str, port: u16, socket_dir: Option<&Path>) -> Vec<Setting> {
    let sockets = socket_dir.map_or_else(String::new, |dir| dir.display().to_string());
    vec![
        setting("port", port.to_string(), "this node's own; a base backup brings another node's"),
        setting("cluster_name", name, "shown in the process list and to whoever asks which node answered"),
        setting(
            "unix_socket_directories",
            sockets,
            "in the cluster directory, or none where the path is too long",
        ),
        setting("unix_socket_permissions", "0700", "sockets are for the servers' own user"),
    ]
}

/// Settings as a configuration file, each below its reason.
pub(crate) fn render(settings: &[Setting]) -> String {
    let lines = settings.iter().map(|s| format!("# {}\n{} = {}\n", s.why, s.name, quote(&s.value)));
    lines.collect()
}

/// A value as configuration files and SQL take it.
pub(crate) fn quote(value: &str) -> String {
    // A backslash begins an escape in a configuration file.
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// A value inside a connection string, whose quoting differs from that of the file around it.
pub(crate) fn quote_conninfo(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Settings with others in their place, where both have one of the same name.
pub(crate) fn override_with(settings: &mut Vec<Setting>, others: Vec<Setting>) {
    settings.retain(|setting| others.iter().all(|other| other.name != setting.name));
    settings.extend(others);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_setting_is_set_once_and_has_a_reason() {
        for durable in [true, false] {
            let mut settings = shared_settings(durable);
            settings.extend(node_settings("pg1", 5500, None));
            let names: HashSet<_> = settings.iter().map(|setting| setting.name).collect();
            assert_eq!(names.len(), settings.len());
            assert!(settings.iter().all(|setting| !setting.why.is_empty() && !setting.why.contains('\n')));
        }
    }

    #[test]
    fn values_are_quoted_for_where_they_stand() {
        assert_eq!(quote(r"it's C:\x"), r"'it''s C:\\x'");
        assert_eq!(quote_conninfo(r"/it's/a\b"), r"'/it\'s/a\\b'");
        assert_eq!(render(&[setting("a", "b", "because")]), "# because\na = 'b'\n");
    }
}
