//! The old primary, looked at before a standby takes over from it. It cannot be stopped from here.

use super::{
    client::Client, conninfo::Conninfo, conninfo::InvalidConninfo, password::Password, programs::Programs,
    refusal::UpstreamError, secret::Secret,
};

/// What was found where the old primary should be.
#[derive(Debug)]
pub(super) enum Finding {
    /// Nothing listens there, says its host: it has ended.
    Stopped,
    /// It runs, and is a primary of this system.
    Primary,
    /// It runs, and is itself a standby.
    Standby,
    /// A server of another system has its place.
    Stranger {
        /// Its system identifier.
        identifier: String,
    },
    /// It is not known whether it runs.
    Unknown(UpstreamError),
    /// It is not known where it is.
    Nowhere,
}

/// Whom a standby follows.
#[derive(Debug)]
pub(super) struct OldPrimary<'a> {
    programs: &'a Programs,
    conninfo: Conninfo,
    password: Password,
}

impl OldPrimary<'_> {
    /// Reads the standby's `primary_conninfo`.
    pub(super) fn read<'a>(programs: &'a Programs, setting: &str) -> Result<OldPrimary<'a>, InvalidConninfo> {
        let mut conninfo = Conninfo::parse(setting)?;
        // It must not stand in an argument list.
        let password = match (conninfo.take("password"), conninfo.get("passfile")) {
            (Some(secret), _) => Password::Known(Secret::new(secret)),
            (None, Some(file)) => Password::File(file.into()),
            (None, None) => Password::None,
        };
        // The primary would count this look as the standby's own connection.
        conninfo.take("application_name");
        Ok(OldPrimary { programs, conninfo, password })
    }

    /// Host and port, for messages.
    pub(super) fn place(&self) -> String {
        self.conninfo.place()
    }

    /// Looks whether it runs. `system_identifier` is the standby's.
    pub(super) async fn look(&self, system_identifier: &str) -> Finding {
        if self.conninfo.host().is_empty() && self.conninfo.keywords().next().is_none() {
            return Finding::Nowhere;
        }
        let client =
            Client { programs: self.programs, conninfo: self.conninfo.clone(), password: &self.password };
        match client.identify().await {
            Ok(found) if found.system_identifier != system_identifier => {
                Finding::Stranger { identifier: found.system_identifier }
            }
            Ok(found) if found.standby => Finding::Standby,
            Ok(_) => Finding::Primary,
            Err(error) if error.proves_nothing_listens() => Finding::Stopped,
            Err(error) => Finding::Unknown(error),
        }
    }
}
