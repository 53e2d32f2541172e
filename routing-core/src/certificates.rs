//! From the files that a URL names to a configuration of TLS.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::kx_group::{SECP256R1, SECP384R1, X25519};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::invalid_tls::{FileProblem, InvalidTls};
use crate::tls::{Roots, Tls, Verification};

impl Tls {
    /// What these parameters say as a configuration of TLS 1.2 and 1.3. It reads the files that they name, and does not
    /// ask for a cryptography provider of the process: the application may have installed another.
    ///
    /// # Errors
    /// [`InvalidTls::File`] names the parameter and the file that cannot be used.
    pub fn client_config(&self) -> Result<ClientConfig, InvalidTls> {
        let mut provider = ring::default_provider();
        // The first is offered at once. PostgreSQL before 18 knows P-256 alone (`ssl_ecdh_curve`): offered another first,
        // it would ask again, which costs each connection a round trip.
        provider.kx_groups = vec![SECP256R1, X25519, SECP384R1];
        let provider = Arc::new(provider);
        let roots = self.roots.as_ref().map(Roots::load).transpose()?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|_| unreachable!("the provider knows the default versions of TLS"));
        let builder = match (self.verification, roots) {
            (Verification::Host, Some(roots)) => builder.with_root_certificates(roots),
            (_, roots) => {
                let verifier = Arc::new(AnyHost { roots, provider });
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let Some(files) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates("sslcert", &files.certificate)?;
        let key = file("sslkey", &files.key, |pem| match PrivateKeyDer::from_pem_slice(pem) {
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) => Err(FileProblem::Empty("private key")),
            Err(_) => Err(FileProblem::Unusable("its private key cannot be read".to_owned())),
        })?;
        builder.with_client_auth_cert(chain, key).map_err(|error| InvalidTls::File {
            parameter: "sslkey",
            file: files.key.clone(),
            problem: FileProblem::Unusable(error.to_string()),
        })
    }
}

impl Roots {
    fn load(&self) -> Result<RootCertStore, InvalidTls> {
        let mut store = RootCertStore::empty();
        match self {
            Self::File(path) => {
                for certificate in certificates("sslrootcert", path)? {
                    store.add(certificate).map_err(|error| InvalidTls::File {
                        parameter: "sslrootcert",
                        file: path.clone(),
                        problem: FileProblem::Unusable(error.to_string()),
                    })?;
                }
            }
            // Lists of systems have held certificates that nobody can use any more.
            Self::System => drop(store.add_parsable_certificates(system()?.iter().cloned())),
        }
        Ok(store)
    }
}

/// The certificates of the authorities that the operating system trusts, as PEM.
///
/// # Errors
/// [`InvalidTls::NoSystemRoots`] when it has no list of them.
pub fn system_roots() -> Result<Vec<u8>, InvalidTls> {
    let mut text = Vec::new();
    for certificate in system()? {
        text.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        text.extend_from_slice(b"-----END CERTIFICATE-----\n");
    }
    Ok(text)
}

/// Read once in a process: the list is long, and changes with updates of the system.
fn system() -> Result<&'static [CertificateDer<'static>], InvalidTls> {
    static ROOTS: OnceLock<Result<Vec<CertificateDer<'static>>, String>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let problems: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            return Err(if problems.is_empty() { "none was found".to_owned() } else { problems.join("; ") });
        }
        Ok(found.certs)
    });
    roots.as_deref().map_err(|problem| InvalidTls::NoSystemRoots(problem.clone()))
}

fn certificates(parameter: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    file(parameter, path, |pem| {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match found {
            Ok(found) if found.is_empty() => Err(FileProblem::Empty("certificate")),
            Ok(found) => Ok(found),
            Err(error) => Err(FileProblem::Unusable(error.to_string())),
        }
    })
}

fn file<T>(
    parameter: &'static str,
    path: &Path,
    read: impl FnOnce(&[u8]) -> Result<T, FileProblem>,
) -> Result<T, InvalidTls> {
    let content = fs::read(path).map_err(|error: io::Error| FileProblem::Unreadable(error));
    let read = content.and_then(|content| read(&content));
    read.map_err(|problem| InvalidTls::File { parameter, file: path.to_owned(), problem })
}

/// Believes a server of any name: that has a certificate of one of these authorities, or without any, everyone. In
/// either case it must have the key of the certificate that it shows, else a password exchange that is bound to that
/// certificate (`channel_binding`) would prove nothing.
#[derive(Debug)]
struct AnyHost {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let server = ParsedCertificate::try_from(server)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&server, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, server, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, server, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
    use tempfile::TempDir;

    use super::*;
    use crate::handshake::TlsProblem;

    /// An authority, and a directory with its certificate.
    struct Authority {
        dir: TempDir,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.self_signed(&key).unwrap();
            fs::write(dir.path().join("ca.crt"), certificate.pem()).unwrap();
            Self { dir, issuer: Issuer::new(params, key) }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// A certificate for this host until this year, and its key.
        fn sign(&self, host: &str, until: i32) -> (rcgen::Certificate, KeyPair) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            (params.signed_by(&key, &self.issuer).unwrap(), key)
        }
    }

    fn tls(parameters: &str) -> Tls {
        let url = format!("postgres://app@db1.internal/shop?{parameters}").parse().unwrap();
        Tls::from_variables(&url, |_| None).unwrap()
    }

    /// What a client finds that connects to `db1.internal`; `None`: all is well.
    fn shake_hands(client: ClientConfig, server: &(rcgen::Certificate, KeyPair)) -> Option<TlsProblem> {
        let host = ServerName::try_from("db1.internal").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), host).unwrap();
        let key = PrivateKeyDer::try_from(server.1.serialize_der()).unwrap();
        // As PostgreSQL before 18.
        let provider = CryptoProvider { kx_groups: vec![SECP256R1], ..ring::default_provider() };
        let config = ServerConfig::builder_with_provider(Arc::new(provider));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        // Unlike `with_single_cert` this takes a key that does not fit.
        let key =
            CertifiedKey::new(vec![server.0.der().clone()], ring::sign::any_supported_type(&key).unwrap());
        let config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            if let Err(error) = client.process_new_packets() {
                return TlsProblem::find(&error);
            }
        }
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "nothing is asked twice");
        None
    }

    #[test]
    fn each_mode_believes_whom_it_should() {
        let (ours, others) = (Authority::new("ours"), Authority::new("others"));
        let namesake = Authority::new("ours");
        let root = format!("sslrootcert={}", ours.file("ca.crt").display());
        let servers = [
            ("right", ours.sign("db1.internal", 2099)),
            ("another host's", ours.sign("db2.internal", 2099)),
            ("of an unknown authority", others.sign("db1.internal", 2099)),
            ("of a namesake", namesake.sign("db1.internal", 2099)),
            ("expired", ours.sign("db1.internal", 2000)),
        ];
        let (unknown, host, past) = (Some("no authority"), Some("db2.internal"), Some("expired"));
        let namesake = Some("another authority");
        for (parameters, found) in [
            ("sslmode=prefer".to_owned(), [None; 5]),
            ("sslmode=require".to_owned(), [None; 5]),
            (format!("sslmode=require&{root}"), [None, None, unknown, namesake, past]),
            (format!("sslmode=verify-ca&{root}"), [None, None, unknown, namesake, past]),
            (format!("sslmode=verify-full&{root}"), [None, host, unknown, namesake, past]),
        ] {
            for ((name, server), expected) in servers.iter().zip(found) {
                let problem = shake_hands(tls(&parameters).client_config().unwrap(), server);
                let shown = problem.as_ref().map(ToString::to_string).unwrap_or_default();
                assert_eq!(problem.is_some(), expected.is_some(), "{parameters}, {name}: {shown}");
                assert!(shown.contains(expected.unwrap_or_default()), "{parameters}, {name}: {shown}");
            }
        }
    }

    #[test]
    fn a_server_without_the_key_of_its_certificate_is_never_believed() {
        let authority = Authority::new("ours");
        let (certificate, _) = authority.sign("db1.internal", 2099);
        let stolen = (certificate, KeyPair::generate().unwrap());
        let problem = shake_hands(tls("sslmode=require").client_config().unwrap(), &stolen);
        assert!(
            problem.is_some_and(|problem| problem.to_string().contains("not the key of its certificate"))
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_parameter() {
        let authority = Authority::new("ours");
        let path = |name: &str| authority.file(name).display().to_string();
        fs::write(authority.file("empty"), "").unwrap();
        fs::write(authority.file("cut"), "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
        fs::write(authority.file("noise"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let (certificate, key) = authority.sign("app", 2099);
        fs::write(authority.file("app.crt"), certificate.pem()).unwrap();
        fs::write(authority.file("app.key"), key.serialize_pem()).unwrap();
        fs::write(authority.file("other.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();

        let root = |name: &str| format!("sslmode=verify-full&sslrootcert={}", path(name));
        let shown =
            |certificate: &str, key: &str| format!("sslcert={}&sslkey={}", path(certificate), path(key));
        tls(&root("ca.crt")).client_config().unwrap();
        tls(&shown("app.crt", "app.key")).client_config().unwrap();
        for (parameters, named, problem) in [
            (root("missing"), "sslrootcert=", "No such file"),
            (root("empty"), "sslrootcert=", "no certificate in PEM form"),
            (root("app.key"), "sslrootcert=", "no certificate in PEM form"),
            (root("cut"), "sslrootcert=", ""),
            (root("noise"), "sslrootcert=", ""),
            (shown("missing", "app.key"), "sslcert=", "No such file"),
            (shown("app.crt", "missing"), "sslkey=", "No such file"),
            (shown("app.crt", "app.crt"), "sslkey=", "no private key in PEM form"),
            (shown("app.crt", "other.key"), "sslkey=", ""),
        ] {
            let error = tls(&parameters).client_config().expect_err(&parameters).to_string();
            assert!(error.contains(named) && error.contains(problem), "{parameters}: {error}");
            assert!(error.contains(&authority.dir.path().display().to_string()), "{parameters}: {error}");
            assert!(!error.contains("PRIVATE KEY"), "{error}");
        }
    }

    #[test]
    fn the_systems_authorities_go_through_pem_unchanged() {
        let text = system_roots().unwrap();
        let read: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, system().unwrap());
        tls("sslrootcert=system").client_config().unwrap();
    }
}
