//! The status as a table for a person.

use routing_cluster::{ArchiverStatus, Backup, ClusterStatus, NodeStatus};

/// One line per node; what a node does not say is a dash.
pub(crate) fn table(status: &ClusterStatus) -> String {
    let head = ["NODE", "PORT", "PID", "STATE", "ROLE", "TIMELINE", "LSN", "LAG", "RECEIVER", "STANDBYS"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(status.nodes.iter().map(row));
    let mut text = aligned(&rows);
    for node in status.nodes.iter() {
        if let Some(problem) = &node.problem {
            text.push_str(&format!("{}: {problem}\n", node.name));
        }
        for slot in &node.slots {
            let used = if slot.active { "in use" } else { "not in use" };
            let wal = slot.wal_status.as_deref().unwrap_or("unknown");
            let kept = slot.retained_bytes.map_or_else(|| "nothing".to_owned(), |bytes| format!("{bytes} B"));
            text.push_str(&format!(
                "{}: slot {} is {used} and keeps {kept} of WAL ({wal})\n",
                node.name, slot.name
            ));
        }
        if let Some(archiver) = &node.archiver {
            text.push_str(&format!("{}: {}\n", node.name, archiving(archiver)));
        }
    }
    if let Some(dir) = &status.archive {
        text.push_str(&format!("archive: {}\n", dir.display()));
    }
    for remedy in &status.remedies {
        text.push_str(&format!("! {remedy}\n"));
    }
    text
}

/// Rows of cells in columns as wide as their widest cell.
fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn archiving(archiver: &ArchiverStatus) -> String {
    let file = |name: &Option<String>, seconds: Option<f64>| match name {
        Some(name) => format!("{name} {:.0} s ago", seconds.unwrap_or(0.0)),
        None => "nothing yet".to_owned(),
    };
    let archived = file(&archiver.last_archived, archiver.last_archived_seconds);
    let failed = match archiver.failures {
        0 => "no failures".to_owned(),
        failures => {
            let last = file(&archiver.last_failed, archiver.last_failed_seconds);
            format!("{failures} failures, the last with {last}")
        }
    };
    format!("archived {archived}, {failed}, {} files wait", archiver.waiting)
}

/// One line per backup, the oldest first.
pub(crate) fn backups(backups: &[Backup]) -> String {
    let head = ["BACKUP", "UP TO", "LSN", "TIMELINE", "SIZE", "POSTGRESQL", "SYSTEM", "DIRECTORY"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(backups.iter().map(|backup| {
        [
            backup.label.clone(),
            backup.stopped.to_string(),
            backup.stop_lsn.to_string(),
            backup.timeline.to_string(),
            format!("{} MB", backup.bytes.div_ceil(1 << 20)),
            backup.postgres.clone(),
            backup.system_identifier.clone(),
            backup.dir.display().to_string(),
        ]
    }));
    aligned(&rows)
}

fn row(node: &NodeStatus) -> [String; 10] {
    let dash = || "-".to_owned();
    // The names in JSON are the names here.
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => dash(),
    };
    let standbys: Vec<String> = node.standbys.iter().map(|it| format!("{} {}", it.name, it.state)).collect();
    [
        node.name.clone(),
        node.port.to_string(),
        node.pid.map_or_else(dash, |pid| pid.to_string()),
        word(serde_json::to_value(node.state)),
        word(serde_json::to_value(node.role)),
        node.timeline.map_or_else(dash, |timeline| timeline.to_string()),
        node.lsn.clone().unwrap_or_else(dash),
        node.lag_bytes.map_or_else(dash, |bytes| format!("{bytes} B")),
        node.receiver.clone().unwrap_or_else(dash),
        if standbys.is_empty() { dash() } else { standbys.join(", ") },
    ]
}
