//! Joining: this host gets a standby of a primary elsewhere, or its standby follows that primary again.

use std::{fmt, path::PathBuf};

use super::{
    client::Client,
    conninfo::Conninfo,
    control_data::ControlData,
    data_directory::{Contents, DataDirectory, Role, Server},
    encryption,
    join_error::JoinError,
    password::{self, Password, Sources},
    primary_url::PrimaryUrl,
    programs::Programs,
    remains::Remains,
    upstream::Identity,
};
use crate::{progress::Progress, replica::LONGEST_NAME, state::is_name};

/// What is to join, and whom.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The primary, and the role that replicates from it.
    pub primary: PrimaryUrl,
    /// The standby's data directory: absent, empty, or a standby of the same system. The directory above it exists.
    pub data_dir: PathBuf,
    /// The standby's slot on the primary, and the name that the primary knows the standby by.
    pub slot: String,
    /// The standby's port, where it differs from what is copied. Default: none.
    pub port: Option<u16>,
    /// The most that the copy takes of the network, as `pg_basebackup` says it: kB/s, or with the suffix `M` MB/s;
    /// 32 to 1048576 kB/s. Default: none.
    pub max_rate: Option<String>,
}

/// What had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinedBy {
    /// Nothing: the standby streamed already.
    Nothing,
    /// The running standby was told whom to follow.
    Repointing,
    /// The stopped standby was told whom to follow, and started.
    Starting,
    /// The primary was copied, and the copy started.
    Copying,
}

/// A standby that streams.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Joined {
    /// What had to be done.
    pub by: JoinedBy,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// The primary's host and port.
    pub primary: String,
    /// The system that both belong to.
    pub system_identifier: String,
    /// The timeline that the primary writes.
    pub timeline: u32,
    /// The position that the primary had written when it was asked, and the standby has received.
    pub position: String,
    /// The slot that the standby streams through.
    pub slot: String,
    /// The standby's port.
    pub port: Option<u16>,
    /// What an operator should know besides, one sentence each.
    pub notes: Vec<String>,
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            JoinedBy::Nothing => "streams already from",
            JoinedBy::Repointing => "now streams from",
            JoinedBy::Starting => "was started and streams from",
            JoinedBy::Copying => "is a copy of, and streams from,",
        };
        let Joined { primary, slot, system_identifier, timeline, position, .. } = self;
        write!(
            f,
            "{} {by} {primary} through the slot {slot}\n\
             system {system_identifier}, timeline {timeline}, received up to {position} at least",
            self.data_dir.display()
        )?;
        for note in &self.notes {
            write!(f, "\n{note}")?;
        }
        if self.by == JoinedBy::Nothing {
            return Ok(());
        }
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let port = self.port.map_or_else(|| "PORT".to_owned(), |port| port.to_string());
        write!(
            f,
            "\nnext: let the host's service manager own the server, and add it to the router's configuration, \
             DATABASE_REPLICA_1_URL=postgres://USER@{}:{port}/DATABASE (or the next free number)",
            host.unwrap_or_else(|| "HOST".to_owned())
        )
    }
}

/// Everything that the steps of one join share.
pub(super) struct Join<'a> {
    pub(super) options: &'a JoinOptions,
    pub(super) directory: &'a DataDirectory,
    pub(super) programs: &'a Programs,
    pub(super) client: &'a Client<'a>,
    pub(super) identity: &'a Identity,
    pub(super) progress: &'a dyn Progress,
}

/// Makes the data directory a standby that streams from the primary, whatever is missing of that; a repeated call
/// changes nothing.
///
/// An absent or empty directory gets a base backup; a standby of the same system is configured for this primary and this
/// slot, and started if it does not run. Everything that can be is checked before anything is touched. The server
/// runs on when this returns; the host's service manager should own it from then on.
///
/// The password comes from the URL, `PGPASSWORD`, the password file of the URL or `PGPASSFILE`, or `~/.pgpass` (the caller's,
/// then the servers' user's). The standby reads it from the file that was given, if the servers' user can, else from
/// `<data directory>.pgpass` beside the directory, which this call writes with mode 0600.
///
/// # Errors
///
/// See [`JoinError`]. What this call has made is taken back, and no process of it is left; only a copy that is complete
/// stays ([`JoinError::Unfinished`]), and a repeated call goes on with it.
///
/// # Cancel safety
///
/// Dropping the future ends what it has started. A marker in the data directory tells the next call, or [`abandon`], of an
/// unfinished copy and its slot, also after this process was killed.
pub async fn join(options: &JoinOptions, progress: &dyn Progress) -> Result<Joined, JoinError> {
    let slot = &options.slot;
    if !is_name(slot) || slot.len() > LONGEST_NAME {
        return Err(JoinError::SlotName { slot: slot.clone() });
    }
    let directory = DataDirectory::locate(&options.data_dir)?;
    let account = directory.account()?;
    let lock = if directory.path().exists() { Some(directory.lock()?) } else { None };
    let asking = Programs::find(None, &account, directory.parent()).await?;
    let mut contents = directory.contents()?;
    let mut fresh = false;
    if let Contents::Remains(remains) = &contents
        && remains.complete()
    {
        progress.step("putting the complete copy of an interrupted call in place");
        remains.put_in_place(directory.path())?;
        contents = directory.contents()?;
        fresh = true;
    }
    refuse_at_once(&directory, &contents)?;

    let (conninfo, password) = access(options, &asking)?;
    if let Password::Known(_) = password {
        let parent = directory.parent().to_owned();
        directory.check_writable_parent().map_err(|_| JoinError::NoPlaceForPassword { parent })?;
    }
    let client = Client { programs: &asking, conninfo, password: &password };
    progress.step(&format!("asking the primary at {}", client.at()));
    let identity = client.identify().await?;
    let primary = identity.release;
    let programs = Programs::find(Some(primary), &account, directory.parent()).await;
    let programs = programs.map_err(|source| JoinError::Release { primary, source })?;
    if let Contents::Server(server) = &contents {
        check_same_system(&directory, *server, &programs, &client, &identity).await?;
    }
    let join = Join {
        options,
        directory: &directory,
        programs: &programs,
        client: &client,
        identity: &identity,
        progress,
    };
    let joined = match contents {
        Contents::Server(_) => join.follow(fresh).await?,
        Contents::Remains(remains) => join.copy(lock, Some(remains)).await?,
        Contents::Absent | Contents::Empty | Contents::Foreign(_) => join.copy(lock, None).await?,
    };
    progress.finish(&joined.to_string());
    Ok(joined)
}

/// Takes back what a [`join()`] that was dropped or killed has left of an unfinished copy: its processes, its files, and the
/// slot that it made. Returns whether there was anything. A complete copy stays.
///
/// # Errors
///
/// When the primary cannot be asked to drop the slot, or the files cannot be removed; a repeated call goes on.
///
/// # Cancel safety
///
/// A repeated call goes on.
pub async fn abandon(options: &JoinOptions) -> Result<bool, JoinError> {
    let directory = DataDirectory::locate(&options.data_dir)?;
    if !directory.path().exists() {
        return Ok(false);
    }
    let account = directory.account()?;
    let _lock = directory.lock()?;
    let Contents::Remains(remains) = directory.contents()? else { return Ok(false) };
    if remains.complete() {
        return Ok(false);
    }
    let programs = Programs::find(None, &account, directory.parent()).await?;
    let (conninfo, password) = access(options, &programs)?;
    let client = Client { programs: &programs, conninfo, password: &password };
    Remains::clear_copy(directory.path())?;
    remains.restore_slot(&client).await?;
    remains.clear(directory.path())?;
    Ok(true)
}

/// How the primary is reached, as the standby will have to do it as well.
fn access(options: &JoinOptions, programs: &Programs) -> Result<(Conninfo, Password), JoinError> {
    let mut conninfo = options.primary.conninfo.clone();
    encryption::complete(&mut conninfo);
    let of_url = options.primary.password.as_ref();
    let password = password::find(&mut conninfo, of_url, &Sources::of_process(), programs.account())?;
    Ok((conninfo, password))
}

/// What needs no question to the primary.
fn refuse_at_once(directory: &DataDirectory, contents: &Contents) -> Result<(), JoinError> {
    let path = directory.path().to_owned();
    match contents {
        Contents::Foreign(found) => Err(JoinError::Foreign { path, found: found.clone() }),
        Contents::Server(Server { role: Role::Restoring, .. }) => Err(JoinError::Restoring { path }),
        Contents::Server(Server { role: Role::Primary, running: true, .. }) => {
            Err(JoinError::RunningPrimary { path })
        }
        Contents::Absent => Ok(directory.check_writable_parent()?),
        Contents::Empty | Contents::Remains(_) | Contents::Server(_) => Ok(()),
    }
}

async fn check_same_system(
    directory: &DataDirectory,
    server: Server,
    programs: &Programs,
    client: &Client<'_>,
    identity: &Identity,
) -> Result<(), JoinError> {
    let path = directory.path().to_owned();
    if server.release != identity.release {
        return Err(JoinError::OtherRelease { path, own: server.release, primary: identity.release });
    }
    let data = ControlData::read(programs, directory.path()).await.map_err(|source| JoinError::Program {
        doing: "read the control file in",
        path: path.clone(),
        source,
    })?;
    if data.system_identifier != identity.system_identifier {
        return Err(JoinError::OtherSystem {
            path,
            own: data.system_identifier,
            primary: identity.system_identifier.clone(),
            at: client.at(),
        });
    }
    if server.role == Role::Primary {
        return Err(JoinError::FormerPrimary { path, identifier: data.system_identifier });
    }
    Ok(())
}
