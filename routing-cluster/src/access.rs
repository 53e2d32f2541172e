//! Who may connect to a cluster's servers: from where, with what proof, and whether encrypted.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    credentials::{DATABASE, Login, REPLICATOR},
    settings::{Setting, setting},
};

/// The server's own certificate and key, beside its data directory: settings take paths from there.
const CERTIFICATE: &str = "../server.crt";
const KEY: &str = "../server.key";

/// A range of addresses that may connect, such as `10.1.0.0/16` or `fd00::/8`.
///
/// ```
/// use routing_cluster::Network;
///
/// let network: Network = "10.1.0.0/16".parse().unwrap();
/// assert_eq!(network.to_string(), "10.1.0.0/16");
/// assert_eq!("10.1.2.3".parse::<Network>().unwrap().to_string(), "10.1.2.3/32");
/// assert!("10.1.2.3/16".parse::<Network>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNetwork {
    /// It does not read as an address and a prefix length.
    #[error("{0:?} is not a network: give an address and a prefix length, such as 10.1.0.0/16")]
    Syntax(String),
    /// It has bits outside its prefix, so that it means less or more than was written.
    #[error("{text} has bits beyond its prefix: the network is {meant}, one host is {host}")]
    HostBits {
        /// What was given.
        text: String,
        /// The network that it lies in.
        meant: Network,
        /// The address alone.
        host: Network,
    },
}

impl Network {
    fn whole(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    /// The network of `prefix` bits that the address lies in.
    fn around(address: IpAddr, prefix: u8) -> Network {
        let address = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
                IpAddr::from((u32::from(address) & mask).to_be_bytes())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
                IpAddr::from((u128::from(address) & mask).to_be_bytes())
            }
        };
        Network { address, prefix }
    }

    /// Whether only this machine has addresses of the network.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address.is_loopback() && (self.address.is_ipv6() || self.prefix >= 8)
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Network, InvalidNetwork> {
        let invalid = || InvalidNetwork::Syntax(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(it, prefix)| (it, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let whole = Network::whole(address);
        let prefix = prefix.map_or(Ok(whole), |prefix| prefix.parse().map_err(|_| invalid()))?;
        if prefix > whole {
            return Err(invalid());
        }
        let meant = Network::around(address, prefix);
        if meant.address != address {
            let host = Network { address, prefix: whole };
            return Err(InvalidNetwork::HostBits { text: text.to_owned(), meant, host });
        }
        Ok(meant)
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Network, InvalidNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Who may connect, as the state file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Access {
    /// Only encrypted connections are let in, and every server shows a certificate of the cluster's authority.
    #[serde(default)]
    pub(crate) tls: bool,
    /// The networks that may connect beside this machine.
    #[serde(default)]
    pub(crate) networks: Vec<Network>,
}

impl Access {
    /// The networks beyond this machine.
    pub(crate) fn outside(&self) -> impl Iterator<Item = &Network> {
        self.networks.iter().filter(|network| !network.is_loopback())
    }

    /// The content of `pg_hba.conf`; the first line that fits a connection decides, and none fits a stranger
    /// (PostgreSQL manual, "The pg_hba.conf File").
    pub(crate) fn rules(&self) -> String {
        let host = if self.tls { "hostssl" } else { "host" };
        let mut rules = format!(
            "# type database user address method\n\
             local all all scram-sha-256\n\
             {host} replication {REPLICATOR} 127.0.0.1/32 scram-sha-256\n\
             {host} all all 127.0.0.1/32 scram-sha-256\n"
        );
        let logins = [Login::Application, Login::Monitor].map(Login::user).join(",");
        for network in &self.networks {
            rules.push_str(&format!(
                "{host} replication {REPLICATOR} {network} scram-sha-256\n\
                 {host} {DATABASE} {logins} {network} scram-sha-256\n"
            ));
        }
        rules
    }

    /// The settings that differ from a cluster that keeps to itself.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        if self.outside().next().is_some() {
            let why = "other machines connect; pg_hba.conf says which";
            settings.push(setting("listen_addresses", "*", why));
        }
        if self.tls {
            settings.extend([
                setting("ssl", "on", "passwords and data cross no network in the clear"),
                setting(
                    "ssl_cert_file",
                    CERTIFICATE,
                    "renewed at each start; not inside the data, which is copied",
                ),
                setting("ssl_key_file", KEY, "readable by the server's user alone"),
                setting("ssl_min_protocol_version", "TLSv1.2", "older versions are broken"),
            ]);
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_what_was_written_or_nothing() {
        for (text, expected) in [
            ("10.1.0.0/16", Some("10.1.0.0/16")),
            ("127.0.0.2", Some("127.0.0.2/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("fd00::/8", Some("fd00::/8")),
            ("10.1.2.0/16", None),
            ("10.1.0.0/33", None),
            ("10.1.0.0/", None),
            ("10.1.0/16", None),
            ("host", None),
            ("", None),
            ("10.0.0.0/8 trust\nhost all all all", None),
        ] {
            let network = text.parse::<Network>().ok().map(|network| network.to_string());
            assert_eq!(network.as_deref(), expected, "{text}");
        }
        let error = "10.1.2.3/16".parse::<Network>().unwrap_err().to_string();
        assert!(error.contains("10.1.0.0/16") && error.contains("10.1.2.3/32"), "{error}");
    }

    #[test]
    fn only_this_machine_has_loopback_addresses() {
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.0/8", true),
            ("126.0.0.0/7", false),
            ("::1", true),
            ("0.0.0.0/0", false),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn with_tls_no_rule_lets_a_plain_connection_in() {
        let networks = vec!["10.1.0.0/16".parse().unwrap()];
        let rules = Access { tls: true, networks }.rules();
        let plain = |line: &&str| line.starts_with("host ");
        assert_eq!(rules.lines().find(plain), None, "{rules}");
        assert_eq!(rules.lines().filter(|line| line.contains("10.1.0.0/16")).count(), 2, "{rules}");
        assert!(!rules.contains("trust") && !rules.contains("hostnossl"), "{rules}");
    }

    #[test]
    fn a_stranger_never_reaches_the_superuser() {
        let networks = vec!["0.0.0.0/0".parse().unwrap()];
        let rules = Access { tls: true, networks }.rules();
        for line in rules.lines().filter(|line| line.contains("0.0.0.0/0")) {
            assert!(line.contains("replicator") || line.contains(" app app,monitor "), "{line}");
        }
    }
}
