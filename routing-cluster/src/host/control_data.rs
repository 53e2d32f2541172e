//! What a data directory's control file says, whether a server runs on it or not.

use std::{path::Path, time::Duration};

use tokio::process::Command;

use super::programs::Programs;
use crate::{command::CommandError, handover::control_value};

/// `pg_controldata` reads one small file.
const DEADLINE: Duration = Duration::from_secs(10);
/// How `pg_controldata` calls the state of a running primary.
const IN_PRODUCTION: &str = "in production";

/// The part of the control file that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlData {
    /// Which database system it is.
    pub(super) system_identifier: String,
    /// The server's state, in `pg_controldata`'s words.
    pub(super) state: String,
    /// The timeline of the latest checkpoint, which a promotion changes a little later.
    pub(super) timeline: u32,
}

impl ControlData {
    /// Reads it with the programs of the directory's own release.
    pub(super) async fn read(programs: &Programs, data_dir: &Path) -> Result<ControlData, CommandError> {
        let prepare = |command: &mut Command| {
            command.arg("--pgdata").arg(data_dir);
        };
        Ok(ControlData::parse(&programs.run("pg_controldata", prepare, DEADLINE).await?))
    }

    fn parse(text: &str) -> ControlData {
        let timeline = control_value(text, "Latest checkpoint's TimeLineID").parse().unwrap_or(0);
        ControlData {
            system_identifier: control_value(text, "Database system identifier"),
            state: control_value(text, "Database cluster state"),
            timeline,
        }
    }

    /// Whether a running server is a primary.
    pub(super) fn in_production(&self) -> bool {
        self.state == IN_PRODUCTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_is_read_by_name() {
        let text = "Database system identifier:           77\nDatabase cluster state:               in production\n\
                    Latest checkpoint's TimeLineID:       3\nLatest checkpoint's PrevTimeLineID:   2\n";
        let data = ControlData::parse(text);
        assert!(data.in_production());
        assert_eq!((data.system_identifier.as_str(), data.timeline), ("77", 3));
        assert!(!ControlData::parse("").in_production());
    }
}
