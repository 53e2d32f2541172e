//! The cluster's certificate authority, and the certificates that its servers show.

use std::{collections::BTreeSet, fs, io, net::IpAddr, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use time::{Duration, OffsetDateTime};

use crate::{
    access::Access, account::Account, credentials::write_secret, layout::Layout, node::NodeRecord,
    provision::Provision,
};

/// How long the authority is trusted: as long as a cluster may live.
const AUTHORITY: Duration = Duration::days(3650);
/// How long a server's certificate holds: the most that clients of the web accept, and it is renewed at each start.
const SERVER: Duration = Duration::days(397);
/// Certificates hold from a little earlier than now: the clocks of other machines differ.
const SKEW: Duration = Duration::days(1);

/// Makes the authority of a new cluster, unless it is there. Its key stays with whoever runs the cluster: servers
/// do not need it.
pub(crate) fn authority(layout: &Layout) -> io::Result<()> {
    let (key_file, certificate_file) = (layout.authority_key(), layout.root_certificate());
    if certificate_file.exists() {
        return Ok(());
    }
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = authority_params().self_signed(&key).map_err(io::Error::other)?;
    write_secret(&key_file, &key.serialize_pem())?;
    publish(&certificate_file, &certificate.pem())
}

fn authority_params() -> CertificateParams {
    let mut params = params("routing-cluster authority", AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    params.not_before = now.saturating_sub(SKEW);
    params.not_after = now.saturating_add(lifetime);
    params
}

/// Writes a file that everyone may read, so that no reader sees half of it.
fn publish(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, path)
}

impl Provision<'_> {
    /// Gives the server a new certificate, if the cluster's servers show any. It reads it when it starts.
    pub(crate) fn certify(&self, node: &NodeRecord) -> io::Result<()> {
        if !self.access.tls {
            return Ok(());
        }
        let key_file = self.layout.authority_key();
        let missing = |error: io::Error| {
            let file = key_file.display();
            io::Error::new(error.kind(), format!("the authority's key {file} cannot be read: {error}"))
        };
        let authority = fs::read_to_string(&key_file).map_err(missing)?;
        let authority = KeyPair::from_pem(&authority).map_err(|_| invalid_key(&key_file))?;
        let issuer = Issuer::new(authority_params(), authority);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = params(&node.name, SERVER);
        params.subject_alt_names = names(self.access)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).map_err(io::Error::other)?;
        let dir = self.layout.node_dir(&node.name);
        replace(self.tools.account(), &dir.join("server.key"), &key.serialize_pem())?;
        replace(self.tools.account(), &dir.join("server.crt"), &certificate.pem())
    }
}

fn invalid_key(file: &Path) -> io::Error {
    let problem = format!("{} is not a private key", file.display());
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Replaces a file of the account; a running server that is told to reload sees the old or the new one.
fn replace(account: &Account, path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    // What an interrupted run has left there may be anything.
    let _ = fs::remove_file(&unfinished);
    account.write(&unfinished, text)?;
    fs::rename(&unfinished, path)
}

/// The names and addresses that clients may know the server by: this machine's loopback, and where other machines may
/// connect, its host name and all its addresses.
fn names(access: &Access) -> io::Result<Vec<SanType>> {
    let mut hosts = BTreeSet::from(["localhost".to_owned()]);
    let mut addresses = BTreeSet::from([IpAddr::from([127, 0, 0, 1])]);
    if access.outside().next().is_some() {
        hosts.extend(nix::unistd::gethostname()?.into_string());
        for interface in nix::ifaddrs::getifaddrs()? {
            let address = interface.address;
            let v4 = address.as_ref().and_then(|it| it.as_sockaddr_in()).map(|it| IpAddr::from(it.ip()));
            let v6 = address.as_ref().and_then(|it| it.as_sockaddr_in6()).map(|it| IpAddr::from(it.ip()));
            addresses.extend(v4.or(v6));
        }
    }
    let hosts = hosts.into_iter().filter_map(|host| Ia5String::try_from(host).ok()).map(SanType::DnsName);
    Ok(hosts.chain(addresses.into_iter().map(SanType::IpAddress)).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_authority_is_made_once_and_its_key_is_secret() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        authority(&layout).unwrap();
        let first = fs::read_to_string(layout.root_certificate()).unwrap();
        authority(&layout).unwrap();
        assert_eq!(fs::read_to_string(layout.root_certificate()).unwrap(), first);
        let mode = fs::metadata(layout.authority_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_names_other_addresses_only_for_other_machines() {
        let local = names(&Access { tls: true, networks: Vec::new() }).unwrap();
        assert_eq!(local.len(), 2, "{local:?}");
        let networks = vec!["10.0.0.0/8".parse().unwrap()];
        let reachable = names(&Access { tls: true, networks }).unwrap();
        assert!(reachable.len() > 2, "{reachable:?}");
    }
}
