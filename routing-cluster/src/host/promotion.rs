//! A promotion: this host's standby takes over, after the old primary was looked at.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    configuration::{DEBIAN, Place},
    control_data::ControlData,
    data_directory::{Contents, DataDirectory, Role},
    old_primary::{Finding, OldPrimary},
    programs::Programs,
    promote_error::PromoteError,
    server::HostServer,
};
use crate::{command::CommandError, error::with_causes, process, progress::Progress};

/// How long a promotion may take: it replays what was received, and flushes.
const PROMOTION_SECONDS: u64 = 60;
/// How long the control file may take to tell what `pg_ctl` has seen already.
const TOLD: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A server that is the primary now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Promoted {
    /// Whether it was the primary before already.
    pub already: bool,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// The timeline that it writes.
    pub timeline: u32,
    /// Where its old primary is, or was; `None` when it names none.
    pub old_primary: Option<String>,
    /// What was risked, or lost, one sentence each.
    pub warnings: Vec<String>,
}

impl fmt::Display for Promoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Promoted { data_dir, timeline, .. } = self;
        if self.already {
            return write!(
                f,
                "the server on {} is a primary already, on timeline {timeline}",
                data_dir.display()
            );
        }
        write!(
            f,
            "the server on {} is the primary now, on timeline {timeline}\n\
             next: on each other standby, `routing-cluster join --primary URL-OF-THIS-SERVER --data-dir … --slot …` makes its \
             slot here and lets it follow\n",
            data_dir.display()
        )?;
        let old = self.old_primary.as_deref().unwrap_or("the old primary");
        write!(
            f,
            "next: {old} must not start as it is: it would be a second primary; rewind it (pg_rewind) or empty its data \
             directory, then `join` it\n\
             the router finds the new primary by itself, if this server is in its configuration"
        )
    }
}

/// Makes the standby in `data_dir` the primary, after its old primary was looked at; a repeated call changes nothing.
///
/// A server on another host cannot be stopped from here. The old primary counts as stopped when its host says that nothing
/// listens on its port. When it answers as a primary, nothing is promoted. When that cannot be known (no answer, no route, no
/// name, no encryption, no login), or when it is a standby itself, `force` promotes all the same, and
/// [`Promoted::warnings`] and the progress say what is risked.
///
/// # Errors
///
/// See [`PromoteError`]. Only [`PromoteError::NotPromoted`] comes after the server was told to promote.
///
/// # Cancel safety
///
/// A server that was told to promote does so. A repeated call looks again.
pub async fn promote(
    data_dir: &Path,
    force: bool,
    progress: &dyn Progress,
) -> Result<Promoted, PromoteError> {
    let directory = DataDirectory::locate(data_dir)?;
    let path = directory.path();
    let not_a_server = || PromoteError::NotADataDirectory { path: path.to_owned() };
    if !path.exists() {
        return Err(not_a_server());
    }
    let account = directory.account()?;
    let _lock = directory.lock()?;
    let Contents::Server(found) = directory.contents()? else { return Err(not_a_server()) };
    let programs = Programs::find(Some(found.release), &account, directory.parent()).await?;
    if !found.running {
        let standby = found.role == Role::Standby;
        return Err(PromoteError::NotRunning { path: path.to_owned(), standby });
    }
    let place = Place::find(path, programs.release(), DEBIAN.as_ref());
    let promotion = Promotion { server: HostServer { programs: &programs, data_dir: path, place }, progress };
    let data = promotion.control_data().await?;
    let setting = promotion.server.setting("primary_conninfo").await;
    let setting = setting.map_err(|source| promotion.program("read the settings of", source))?;
    let old = OldPrimary::read(&programs, &setting).map_err(PromoteError::Conninfo)?;
    let old_primary = (!setting.is_empty()).then(|| old.place());
    if found.role != Role::Standby && data.in_production() {
        let timeline = promotion.timeline(&data);
        let promoted = Promoted {
            already: true,
            data_dir: path.to_owned(),
            timeline,
            old_primary,
            warnings: Vec::new(),
        };
        progress.finish(&promoted.to_string());
        return Ok(promoted);
    }
    progress.step(&format!("looking at the old primary at {}", old.place()));
    let mut warnings = judge(old.look(&data.system_identifier).await, &old.place(), force)?;
    for warning in &warnings {
        progress.step(&format!("DANGER: {warning}"));
    }
    let behind = promotion.behind().await;
    for warning in &behind {
        progress.step(&format!("WARNING: {warning}"));
    }
    warnings.extend(behind);
    let timeline = promotion.promote(&data).await?;
    let promoted = Promoted { already: false, data_dir: path.to_owned(), timeline, old_primary, warnings };
    progress.finish(&promoted.to_string());
    Ok(promoted)
}

/// Whether what was found allows a promotion; returns what it risks.
fn judge(finding: Finding, at: &str, force: bool) -> Result<Vec<String>, PromoteError> {
    let at = at.to_owned();
    let (refusal, risk) = match finding {
        Finding::Stopped => return Ok(Vec::new()),
        Finding::Primary => return Err(PromoteError::OldPrimaryRuns { at }),
        Finding::Standby => {
            let risk = format!(
                "{at} is a standby itself: its primary may go on, and then there are two primaries with the same beginning"
            );
            (PromoteError::Cascade { at }, risk)
        }
        Finding::Stranger { identifier } => {
            let risk = format!(
                "the server at {at} is another system's ({identifier}), and the old primary may run elsewhere: then both take \
                 writes, and one side's will be lost"
            );
            (PromoteError::Stranger { at, identifier }, risk)
        }
        Finding::Unknown(source) => {
            let risk = format!(
                "it is not certain that the old primary at {at} has stopped ({}): if it runs, both take writes, and one \
                 side's will be lost",
                with_causes(&source).lines().next().unwrap_or_default()
            );
            (PromoteError::Unknown { at, source }, risk)
        }
        Finding::Nowhere => {
            let risk = "the standby names no primary: if there is one and it runs, both take writes, and one side's will \
                        be lost";
            (PromoteError::NoPrimary, risk.to_owned())
        }
    };
    if force { Ok(vec![risk]) } else { Err(refusal) }
}

/// One promotion, on the way.
struct Promotion<'a> {
    server: HostServer<'a>,
    progress: &'a dyn Progress,
}

impl Promotion<'_> {
    async fn control_data(&self) -> Result<ControlData, PromoteError> {
        let read = ControlData::read(self.server.programs, self.server.data_dir).await;
        read.map_err(|source| self.program("read the control file in", source))
    }

    fn program(&self, doing: &'static str, source: CommandError) -> PromoteError {
        PromoteError::Program { doing, path: self.server.data_dir.to_owned(), source }
    }

    /// What the standby has received and not replayed, as far as it says.
    async fn behind(&self) -> Vec<String> {
        let ask = "SELECT pg_get_wal_replay_pause_state(),
                   coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)";
        let Some(answer) = self.server.ask_locally(ask).await else {
            return vec![
                "whether everything that was received has been replayed is not known, since the server lets its user in by no \
                 local socket; what was received is replayed before the promotion ends"
                    .to_owned(),
            ];
        };
        let mut warnings = Vec::new();
        let bytes: i64 = answer.get(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        if answer.first().is_some_and(|state| state != "not paused") {
            warnings.push("replay is paused: the promotion ends the pause and replays the rest".to_owned());
        }
        if bytes > 0 {
            warnings.push(format!(
                "{bytes} bytes are received and not replayed: the promotion replays them first"
            ));
        }
        warnings
    }

    /// Promotes, and sees the server in production on a new timeline; returns that.
    async fn promote(&self, data: &ControlData) -> Result<u32, PromoteError> {
        let (path, before) = (self.server.data_dir, self.timeline(data));
        self.progress.step("promoting");
        let log = self.server.log_start();
        let done = self.server.promote(PROMOTION_SECONDS).await;
        let begun = Instant::now();
        let mut said = done.err().map(|error| with_causes(&error)).unwrap_or_default();
        while said.is_empty() {
            let data = self.control_data().await?;
            let timeline = self.timeline(&data);
            if data.in_production() && timeline > before && !path.join("standby.signal").exists() {
                return Ok(timeline);
            }
            if begun.elapsed() > TOLD || process::postmaster(path).is_none() {
                said = "it is not in production on a new timeline".to_owned();
            }
            sleep(LOOK_AGAIN).await;
        }
        let log = self.server.log_since(&log).await;
        Err(PromoteError::NotPromoted { path: path.to_owned(), said, log })
    }

    /// The newest timeline that the server knows of: a promotion writes its history before it ends, and the next checkpoint
    /// tells the control file.
    fn timeline(&self, data: &ControlData) -> u32 {
        let files = fs::read_dir(self.server.data_dir.join("pg_wal")).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let known = names.filter_map(|name| u32::from_str_radix(name.strip_suffix(".history")?, 16).ok());
        known.chain([data.timeline]).max().unwrap_or(data.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::refusal::UpstreamError;

    #[test]
    fn only_a_primary_that_has_stopped_is_succeeded_without_force() {
        let unknown = || Finding::Unknown(UpstreamError::Silent { at: "h".to_owned(), said: String::new() });
        let stranger = || Finding::Stranger { identifier: "7".to_owned() };
        assert!(judge(Finding::Stopped, "h", false).unwrap().is_empty());
        for finding in [unknown, stranger, || Finding::Standby, || Finding::Nowhere] {
            assert!(judge(finding(), "h", false).is_err(), "{:?}", finding());
            assert_eq!(judge(finding(), "h", true).unwrap().len(), 1, "{:?}", finding());
        }
        for force in [false, true] {
            let refused = judge(Finding::Primary, "h", force).unwrap_err();
            assert!(matches!(refused, PromoteError::OldPrimaryRuns { .. }), "{refused}");
        }
    }
}
