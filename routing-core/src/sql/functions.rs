//! Functions whose call is more than a read, of PostgreSQL 12 to 18 and of the extensions that come with it.
//!
//! Every volatile function of the system catalogue was looked at; `tests/sql/reviewed.txt` has the verdicts, and
//! `scripts/catalog-functions` finds what a newer release adds. A view, an operator, a cast or a function of the
//! user's own may call any of these unseen.

use Effect::*;

use super::classification::StatementKind;

/// What a call does beyond reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Takes, renews or gives back a lock that outlives the statement. A standby grants it and it protects nothing.
    SessionLock,
    /// Takes a lock until the transaction ends. A standby grants it and it protects nothing.
    TransactionLock,
    /// Advances or sets a sequence.
    Sequence,
    /// Changes a setting of the session.
    Setting,
    /// Asks for what the same session did or holds.
    SessionValue,
    /// Reads a cursor of the session.
    Cursor,
    /// Sends a notification.
    Notification,
    /// Writes or reads large objects, or files of the server through them.
    LargeObject,
    /// Works on a large object that the session has opened, or opens one.
    LargeObjectDescriptor,
    /// Assigns a transaction identifier, which a standby cannot.
    TransactionId,
    /// Asks how a transaction ended: a standby may not know yet.
    TransactionStatus,
    /// Hands the transaction's snapshot to other sessions of the same server.
    Snapshot,
    /// Writes to the write-ahead log, or asks where the primary is in it: a standby refuses.
    WriteAheadLog,
    /// Makes, moves, reads on or drops a replication slot.
    Slot,
    /// Changes what is known of a replication origin.
    Origin,
    /// Ties the session, or its transaction, to a replication origin.
    SessionOrigin,
    /// Begins or ends a base backup, which its session holds.
    Backup,
    /// Promotes a standby, or stops or resumes its replay.
    Recovery,
    /// Signals processes of the server, or has it write or rotate its log.
    Process,
    /// Resets or replaces statistics.
    Statistics,
    /// Maintains an index.
    Index,
    /// Changes system catalogues or counters behind them.
    Catalog,
    /// Runs SQL that it gets as text.
    RunsText,
    /// Runs SQL on another server.
    Remote,
    /// Keeps a connection to another server in the session, or uses one.
    RemoteConnection,
    /// Writes, moves or removes files of the server.
    File,
    /// Changes pages or buffers below the tables.
    Storage,
}

impl Effect {
    const fn kind(self) -> StatementKind {
        match self {
            SessionLock
            | Setting
            | SessionValue
            | Cursor
            | LargeObjectDescriptor
            | SessionOrigin
            | Backup
            | RemoteConnection => StatementKind::Session,
            TransactionLock | Sequence | Notification | LargeObject | TransactionId | TransactionStatus
            | Snapshot | WriteAheadLog | Slot | Origin | Recovery | Process | Statistics | Index
            | Catalog | RunsText | Remote | File | Storage => StatementKind::Write,
        }
    }
}

/// Sorted by name.
const EFFECTS: &[(&str, Effect)] = &[
    ("autoprewarm_dump_now", File),
    ("autoprewarm_start_worker", Process),
    ("brin_desummarize_range", Index),
    ("brin_summarize_new_values", Index),
    ("brin_summarize_range", Index),
    ("connectby", RunsText),
    ("crosstab", RunsText),
    ("crosstab2", RunsText),
    ("crosstab3", RunsText),
    ("crosstab4", RunsText),
    ("currval", SessionValue),
    ("cursor_to_xml", Cursor),
    ("cursor_to_xmlschema", Cursor),
    ("dblink", Remote),
    ("dblink_cancel_query", RemoteConnection),
    ("dblink_close", RemoteConnection),
    ("dblink_connect", RemoteConnection),
    ("dblink_connect_u", RemoteConnection),
    ("dblink_disconnect", RemoteConnection),
    ("dblink_error_message", RemoteConnection),
    ("dblink_exec", Remote),
    ("dblink_fetch", RemoteConnection),
    ("dblink_get_connections", RemoteConnection),
    ("dblink_get_notify", RemoteConnection),
    ("dblink_get_result", RemoteConnection),
    ("dblink_is_busy", RemoteConnection),
    ("dblink_open", RemoteConnection),
    ("dblink_send_query", RemoteConnection),
    ("gin_clean_pending_list", Index),
    ("heap_force_freeze", Storage),
    ("heap_force_kill", Storage),
    ("lastval", SessionValue),
    ("lo_close", LargeObjectDescriptor),
    ("lo_creat", LargeObject),
    ("lo_create", LargeObject),
    ("lo_export", LargeObject),
    ("lo_from_bytea", LargeObject),
    ("lo_get", LargeObject),
    ("lo_import", LargeObject),
    ("lo_lseek", LargeObjectDescriptor),
    ("lo_lseek64", LargeObjectDescriptor),
    ("lo_open", LargeObjectDescriptor),
    ("lo_put", LargeObject),
    ("lo_tell", LargeObjectDescriptor),
    ("lo_tell64", LargeObjectDescriptor),
    ("lo_truncate", LargeObjectDescriptor),
    ("lo_truncate64", LargeObjectDescriptor),
    ("lo_unlink", LargeObject),
    ("loread", LargeObjectDescriptor),
    ("lowrite", LargeObjectDescriptor),
    ("nextval", Sequence),
    ("pg_advisory_lock", SessionLock),
    ("pg_advisory_lock_shared", SessionLock),
    ("pg_advisory_unlock", SessionLock),
    ("pg_advisory_unlock_all", SessionLock),
    ("pg_advisory_unlock_shared", SessionLock),
    ("pg_advisory_xact_lock", TransactionLock),
    ("pg_advisory_xact_lock_shared", TransactionLock),
    ("pg_backup_start", Backup),
    ("pg_backup_stop", Backup),
    ("pg_buffercache_evict", Storage),
    ("pg_buffercache_evict_all", Storage),
    ("pg_buffercache_evict_relation", Storage),
    ("pg_cancel_backend", Process),
    ("pg_clear_attribute_stats", Statistics),
    ("pg_clear_relation_stats", Statistics),
    ("pg_copy_logical_replication_slot", Slot),
    ("pg_copy_physical_replication_slot", Slot),
    ("pg_create_logical_replication_slot", Slot),
    ("pg_create_physical_replication_slot", Slot),
    ("pg_create_restore_point", WriteAheadLog),
    ("pg_current_wal_flush_lsn", WriteAheadLog),
    ("pg_current_wal_insert_lsn", WriteAheadLog),
    ("pg_current_wal_lsn", WriteAheadLog),
    ("pg_current_xact_id", TransactionId),
    ("pg_cursor", SessionValue),
    ("pg_drop_replication_slot", Slot),
    ("pg_export_snapshot", Snapshot),
    ("pg_extension_config_dump", Catalog),
    ("pg_file_rename", File),
    ("pg_file_sync", File),
    ("pg_file_unlink", File),
    ("pg_file_write", File),
    ("pg_import_system_collations", Catalog),
    ("pg_listening_channels", SessionValue),
    ("pg_log_backend_memory_contexts", Process),
    ("pg_log_standby_snapshot", WriteAheadLog),
    ("pg_logical_emit_message", WriteAheadLog),
    ("pg_logical_slot_get_binary_changes", Slot),
    ("pg_logical_slot_get_changes", Slot),
    ("pg_logical_slot_peek_binary_changes", Slot),
    ("pg_logical_slot_peek_changes", Slot),
    ("pg_nextoid", Catalog),
    ("pg_notify", Notification),
    ("pg_prepared_statement", SessionValue),
    ("pg_promote", Recovery),
    ("pg_reload_conf", Process),
    ("pg_replication_origin_advance", Origin),
    ("pg_replication_origin_create", Origin),
    ("pg_replication_origin_drop", Origin),
    ("pg_replication_origin_session_is_setup", SessionOrigin),
    ("pg_replication_origin_session_progress", SessionOrigin),
    ("pg_replication_origin_session_reset", SessionOrigin),
    ("pg_replication_origin_session_setup", SessionOrigin),
    ("pg_replication_origin_xact_reset", SessionOrigin),
    ("pg_replication_origin_xact_setup", SessionOrigin),
    ("pg_replication_slot_advance", Slot),
    ("pg_restore_attribute_stats", Statistics),
    ("pg_restore_relation_stats", Statistics),
    ("pg_rotate_logfile", Process),
    ("pg_rotate_logfile_old", Process),
    ("pg_start_backup", Backup),
    ("pg_stat_reset", Statistics),
    ("pg_stat_reset_backend_stats", Statistics),
    ("pg_stat_reset_replication_slot", Statistics),
    ("pg_stat_reset_shared", Statistics),
    ("pg_stat_reset_single_function_counters", Statistics),
    ("pg_stat_reset_single_table_counters", Statistics),
    ("pg_stat_reset_slru", Statistics),
    ("pg_stat_reset_subscription_stats", Statistics),
    ("pg_stat_statements_reset", Statistics),
    ("pg_stop_backup", Backup),
    ("pg_stop_making_pinned_objects", Catalog),
    ("pg_switch_wal", WriteAheadLog),
    ("pg_sync_replication_slots", Slot),
    ("pg_terminate_backend", Process),
    ("pg_truncate_visibility_map", Storage),
    ("pg_try_advisory_lock", SessionLock),
    ("pg_try_advisory_lock_shared", SessionLock),
    ("pg_try_advisory_xact_lock", TransactionLock),
    ("pg_try_advisory_xact_lock_shared", TransactionLock),
    ("pg_wal_replay_pause", Recovery),
    ("pg_wal_replay_resume", Recovery),
    ("pg_walfile_name", WriteAheadLog),
    ("pg_walfile_name_offset", WriteAheadLog),
    ("pg_xact_status", TransactionStatus),
    ("postgres_fdw_disconnect", RemoteConnection),
    ("postgres_fdw_disconnect_all", RemoteConnection),
    ("postgres_fdw_get_connections", RemoteConnection),
    ("query_to_xml", RunsText),
    ("query_to_xml_and_xmlschema", RunsText),
    ("query_to_xmlschema", RunsText),
    ("set_config", Setting),
    ("set_limit", Setting),
    ("setseed", Setting),
    ("setval", Sequence),
    ("ts_rewrite", RunsText),
    ("ts_stat", RunsText),
    ("txid_current", TransactionId),
    ("txid_status", TransactionStatus),
    ("xpath_table", RunsText),
];

/// An identifier as the server has it: letters folded to lower case, cut to 63 bytes (`NAMEDATALEN` - 1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    bytes: [u8; 63],
    length: usize,
}

impl Folded {
    pub(super) fn new(name: &[u8]) -> Self {
        let mut length = name.len().min(63);
        // No character is cut in two.
        while length > 0 && name.get(length).is_some_and(|byte| byte & 0xc0 == 0x80) {
            length -= 1;
        }
        let mut bytes = [0; 63];
        for (to, from) in bytes.iter_mut().zip(&name[..length]) {
            *to = from.to_ascii_lowercase();
        }
        Self { bytes, length }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// By first letter: the lengths of the names in the table, as bits.
const LENGTHS: [u64; 32] = {
    let mut lengths = [0; 32];
    let mut at = 0;
    while at < EFFECTS.len() {
        let name = EFFECTS[at].0.as_bytes();
        lengths[(name[0] & 0x1f) as usize] |= 1 << name.len();
        at += 1;
    }
    // Whatever `binary_upgrade_` begins.
    lengths[(b'b' & 0x1f) as usize] |= u64::MAX << 15;
    lengths
};

/// Whether a name can be in the table at all, from its first letter and its length.
pub(super) fn may_have_effect(name: &[u8]) -> bool {
    match name {
        [first, ..] if name.len() < 64 => LENGTHS[usize::from(first & 0x1f)] >> name.len() & 1 == 1,
        _ => false,
    }
}

/// What calling a function of this name makes of a statement, whatever its schema and letter case. `None` for one that
/// is not known to do more than read.
pub(super) fn effect(name: &Folded) -> Option<StatementKind> {
    let name = name.as_bytes();
    if let Ok(found) = EFFECTS.binary_search_by(|(known, _)| known.as_bytes().cmp(name)) {
        return Some(EFFECTS[found].1.kind());
    }
    name.starts_with(b"binary_upgrade_").then_some(StatementKind::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_each_function_once() {
        for pair in EFFECTS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} stands before {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn every_entry_is_found() {
        for (name, known) in EFFECTS {
            let name = name.to_ascii_uppercase();
            assert!(may_have_effect(name.as_bytes()), "{name}");
            assert_eq!(effect(&Folded::new(name.as_bytes())), Some(known.kind()), "{name}");
        }
        for name in ["", "nextva", "nextvalu", "count", "zzz", "0"] {
            assert_eq!(effect(&Folded::new(name.as_bytes())), None, "{name}");
        }
    }

    #[test]
    fn a_long_name_is_cut_where_the_server_cuts_it() {
        let name = "é".repeat(32);
        assert_eq!(Folded::new(name.as_bytes()).as_bytes(), "é".repeat(31).as_bytes());
        let name = "A".repeat(70);
        assert_eq!(Folded::new(name.as_bytes()).as_bytes(), "a".repeat(63).as_bytes());
    }
}
