//! Configuration from the environment.
//!
//! | variable | meaning |
//! |---|---|
//! | `DATABASE_PRIMARY_URL` | the server that is the primary on the day of deployment; required |
//! | `DATABASE_REPLICA_URLS` | the others, comma-separated |
//! | `DATABASE_REPLICA_1_URL`, `DATABASE_REPLICA_2_URL`, … | the others, one each, up to the first that is unset |
//! | `DATABASE_PRIMARY_ZONE`, `DATABASE_REPLICA_ZONES`, `DATABASE_REPLICA_1_ZONE`, … | where each of them stands: the list in the order of `DATABASE_REPLICA_URLS`, an empty entry for none |
//! | `ROUTING_ZONE` | where this process runs: reads prefer replicas of the same zone |
//! | `DATABASE_PROBE_USER`, `DATABASE_PROBE_PASSWORD` | the monitor's role; else it connects as the application |
//! | `ROUTING_TOKEN_KEY` | what signs session tokens: one or more keys of at least 32 bytes, comma-separated; the first signs, all verify |
//!
//! A URL may be prefixed with a name for its node: `pg1=postgres://app:secret@db1/shop`. The names of the first two
//! variables tell people what to expect; the router finds out who the primary is by asking the servers.

use crate::config::{NodeConfig, RouterConfig};
use crate::config_error::ConfigError;

impl RouterConfig {
    /// The defaults, with the nodes that the process's environment names (see the table of this module).
    ///
    /// # Errors
    /// When `DATABASE_PRIMARY_URL` is missing, a URL does not parse, or a rule is broken.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// [`from_env`](Self::from_env) over any source of variables. An empty variable counts as unset.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variable = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let primary = "DATABASE_PRIMARY_URL";
        let url = variable(primary).ok_or_else(|| ConfigError::Missing(primary.to_owned()))?;
        let zone = |name: &str| variable(name).map(|zone| zone.trim().to_owned());
        let mut nodes = vec![NodeConfig { zone: zone("DATABASE_PRIMARY_ZONE"), ..node(primary, &url)? }];
        if let Some(list) = variable("DATABASE_REPLICA_URLS") {
            let urls: Vec<_> = list.split(',').filter(|url| !url.trim().is_empty()).collect();
            let zones = variable("DATABASE_REPLICA_ZONES").unwrap_or_default();
            let zones: Vec<_> = zones.split(',').map(str::trim).collect();
            if zones.len() != urls.len() && zones != [""] {
                let rule = "DATABASE_REPLICA_ZONES must have an entry for each of DATABASE_REPLICA_URLS";
                return Err(ConfigError::Rule(rule));
            }
            for (index, url) in urls.into_iter().enumerate() {
                let zone = zones.get(index).filter(|zone| !zone.is_empty()).map(|zone| (*zone).to_owned());
                nodes.push(NodeConfig { zone, ..node("DATABASE_REPLICA_URLS", url)? });
            }
        } else if variable("DATABASE_REPLICA_ZONES").is_some() {
            let rule = "DATABASE_REPLICA_ZONES is set and DATABASE_REPLICA_URLS is not; \
                        with DATABASE_REPLICA_1_URL the zone is DATABASE_REPLICA_1_ZONE";
            return Err(ConfigError::Rule(rule));
        }
        for number in 1.. {
            let name = format!("DATABASE_REPLICA_{number}_URL");
            let zone = zone(&format!("DATABASE_REPLICA_{number}_ZONE"));
            let Some(url) = variable(&name) else {
                if zone.is_some() {
                    let rule = "a DATABASE_REPLICA_…_ZONE is set whose DATABASE_REPLICA_…_URL is not";
                    return Err(ConfigError::Rule(rule));
                }
                break;
            };
            nodes.push(NodeConfig { zone, ..node(&name, &url)? });
        }
        if let Some(user) = variable("DATABASE_PROBE_USER") {
            let password = variable("DATABASE_PROBE_PASSWORD").unwrap_or_default();
            for node in &mut nodes {
                node.probe_url = Some(node.url.with_credentials(&user, &password));
            }
        }
        let config = Self { nodes, zone: zone("ROUTING_ZONE"), ..Self::default() }.with_keys(lookup)?;
        config.validate()?;
        Ok(config)
    }

    /// The same with the token keys of `ROUTING_TOKEN_KEY`, if it has none of its own: for a configuration whose nodes come
    /// from a file, which need not hold every secret.
    ///
    /// # Errors
    /// [`ConfigError::Keys`] when the variable holds no keys.
    pub fn with_keys_from_env(self) -> Result<Self, ConfigError> {
        self.with_keys(|name| std::env::var(name).ok())
    }

    fn with_keys(self, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let keys = lookup(TOKEN_KEY).filter(|keys| !keys.trim().is_empty());
        let keys = match (self.token_keys.is_some(), keys) {
            (true, _) | (_, None) => return Ok(self),
            (false, Some(keys)) => keys.parse().map_err(|error: crate::key::InvalidKeys| {
                ConfigError::Keys { message: format!("{TOKEN_KEY}: {error}") }
            })?,
        };
        Ok(Self { token_keys: Some(keys), ..self })
    }
}

/// What holds the keys that sign session tokens.
const TOKEN_KEY: &str = "ROUTING_TOKEN_KEY";

fn node(variable: &str, text: &str) -> Result<NodeConfig, ConfigError> {
    // A `=` after the scheme belongs to the URL's parameters.
    let (name, url) = match text.split_once('=') {
        Some((name, url)) if !name.contains(':') => (name.trim(), url),
        _ => ("", text),
    };
    let url: crate::DatabaseUrl = url
        .trim()
        .parse()
        .map_err(|source| ConfigError::Variable { variable: variable.to_owned(), source })?;
    let name = if name.is_empty() { format!("{}:{}", url.host(), url.port()) } else { name.to_owned() };
    Ok(NodeConfig::new(name, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<RouterConfig, ConfigError> {
        RouterConfig::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn both_ways_of_listing_replicas_and_both_ways_of_naming_work() {
        let config = read(&[
            ("DATABASE_PRIMARY_URL", "pg1=postgres://app:x@h1/d"),
            ("DATABASE_REPLICA_URLS", "postgres://app:x@h2:5433/d?a=b, pg3=postgres://app:x@h3/d"),
            ("DATABASE_REPLICA_1_URL", "postgres://app:x@h4/d"),
            ("DATABASE_REPLICA_3_URL", "postgres://app:x@never/d"),
            ("DATABASE_PROBE_USER", "monitor"),
            ("DATABASE_PROBE_PASSWORD", "m"),
            ("DATABASE_REPLICA_ZONES", ", north"),
            ("DATABASE_REPLICA_1_ZONE", "south"),
            ("ROUTING_ZONE", "north"),
        ])
        .unwrap();
        let zones: Vec<_> = config.nodes.iter().map(|node| node.zone.as_deref()).collect();
        assert_eq!(
            (config.zone.as_deref(), &zones[..]),
            (Some("north"), &[None, None, Some("north"), Some("south")][..])
        );
        let names: Vec<_> = config.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["pg1", "h2:5433", "pg3", "h4:5432"]);
        assert_eq!(config.nodes[0].probe_url().expose(), "postgres://monitor:m@h1/d");
        assert_eq!(config.nodes[1].url.expose(), "postgres://app:x@h2:5433/d?a=b");
    }

    #[test]
    fn a_zone_is_the_same_with_and_without_blanks_around_its_name() {
        let config = read(&[
            ("DATABASE_PRIMARY_URL", "postgres://app:x@h1/d"),
            ("DATABASE_PRIMARY_ZONE", "north "),
            ("DATABASE_REPLICA_URLS", "postgres://app:x@h2/d"),
            ("DATABASE_REPLICA_ZONES", "\tnorth"),
            ("DATABASE_REPLICA_1_URL", "postgres://app:x@h3/d"),
            ("DATABASE_REPLICA_1_ZONE", " north"),
            ("ROUTING_ZONE", "north\n"),
        ])
        .unwrap();
        let zones = config.nodes.iter().map(|node| &node.zone).chain([&config.zone]);
        assert_eq!(zones.map(|zone| zone.as_deref().unwrap()).collect::<Vec<_>>(), ["north"; 4]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_no_password_shown() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[], "DATABASE_PRIMARY_URL"),
            (
                &[("DATABASE_PRIMARY_URL", "postgres://h/d"), ("ROUTING_TOKEN_KEY", "hunter2")],
                "ROUTING_TOKEN_KEY: key 1 has 7 bytes",
            ),
            (&[("DATABASE_PRIMARY_URL", " ")], "DATABASE_PRIMARY_URL"),
            (&[("DATABASE_PRIMARY_URL", "mysql://u:hunter2@h/d")], "DATABASE_PRIMARY_URL"),
            (
                &[("DATABASE_PRIMARY_URL", "postgres://h/d"), ("DATABASE_REPLICA_1_URL", "hunter2")],
                "DATABASE_REPLICA_1_URL",
            ),
            (
                &[("DATABASE_PRIMARY_URL", "postgres://h/d"), ("DATABASE_REPLICA_URLS", "postgres://h/d")],
                "must differ",
            ),
            (
                &[
                    ("DATABASE_PRIMARY_URL", "postgres://h/d"),
                    ("DATABASE_REPLICA_URLS", "postgres://i/d"),
                    ("DATABASE_REPLICA_ZONES", "a,b"),
                ],
                "DATABASE_REPLICA_ZONES must have an entry for each",
            ),
            (
                &[
                    ("DATABASE_PRIMARY_URL", "postgres://h/d"),
                    ("DATABASE_REPLICA_1_URL", "postgres://i/d"),
                    ("DATABASE_REPLICA_ZONES", "a"),
                ],
                "DATABASE_REPLICA_ZONES is set and DATABASE_REPLICA_URLS is not",
            ),
            (
                &[("DATABASE_PRIMARY_URL", "postgres://h/d"), ("DATABASE_REPLICA_1_ZONE", "a")],
                "whose DATABASE_REPLICA_…_URL is not",
            ),
        ];
        for (variables, named) in table {
            let error = read(variables).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn keys_come_from_the_environment_only_where_there_are_none() {
        let own = "a key of the file that is quite long enough";
        let lookup = |value: &'static str| move |name: &str| (name == TOKEN_KEY).then(|| value.to_owned());
        let none = RouterConfig::default();
        let some = RouterConfig { token_keys: Some(own.parse().unwrap()), ..RouterConfig::default() };
        let keyed =
            |config: &RouterConfig, value| config.clone().with_keys(lookup(value)).unwrap().token_keys;
        assert!(keyed(&none, "a key of the environment that is long enough").is_some());
        assert!(keyed(&none, " ").is_none());
        assert!(keyed(&some, "short").is_some(), "it is not looked at");
        assert!(none.with_keys(lookup("short")).unwrap_err().to_string().contains(TOKEN_KEY));
    }
}
