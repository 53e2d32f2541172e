//! Settings of encryption that the caller's environment gives to libpq: the standby must have them as well.

use std::{env, path::Path};

use super::conninfo::Conninfo;

/// Variables of libpq, and their keywords (PostgreSQL manual, "Environment Variables"). Without them a caller who always
/// verifies certificates would join without.
const VARIABLES: [(&str, &str); 9] = [
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGGSSENCMODE", "gssencmode"),
];
/// Keywords whose values are files.
const FILES: [&str; 5] = ["sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir"];
/// Instead of a file: the system's own certificates (release 16 and newer).
const OF_SYSTEM: &str = "system";

/// Adds what the URL does not say, and makes files' names absolute: the server runs in another directory.
pub(super) fn complete(conninfo: &mut Conninfo) {
    complete_from(conninfo, |variable| env::var(variable).ok());
}

fn complete_from(conninfo: &mut Conninfo, variable: impl Fn(&str) -> Option<String>) {
    for (name, keyword) in VARIABLES {
        if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
            conninfo.set_default(keyword, &value);
        }
    }
    for keyword in FILES {
        let Some(file) = conninfo.get(keyword).filter(|file| *file != OF_SYSTEM) else { continue };
        if let Ok(absolute) = std::path::absolute(Path::new(file))
            && let Some(absolute) = absolute.to_str()
        {
            conninfo.set(keyword, absolute);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_wins_and_files_become_absolute() {
        let variable = |name: &str| match name {
            "PGSSLMODE" => Some("verify-full".to_owned()),
            "PGSSLROOTCERT" => Some("ca.crt".to_owned()),
            _ => None,
        };
        let mut conninfo = Conninfo::parse("host=h sslmode=require").unwrap();
        complete_from(&mut conninfo, variable);
        let expected = env::current_dir().unwrap().join("ca.crt");
        assert_eq!(conninfo.get("sslmode"), Some("require"));
        assert_eq!(conninfo.get("sslrootcert"), expected.to_str());
        let mut conninfo = Conninfo::parse("host=h sslrootcert=system").unwrap();
        complete_from(&mut conninfo, variable);
        assert_eq!(
            (conninfo.get("sslmode"), conninfo.get("sslrootcert")),
            (Some("verify-full"), Some("system"))
        );
    }
}
