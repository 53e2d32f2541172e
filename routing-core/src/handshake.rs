//! Why an encrypted connection did not come about.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::CertificateError;

use crate::tls::SslMode;

/// No encrypted connection came about: what was tried, what was found, and what to do. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no encrypted connection to {server} (sslmode={mode}): {problem}")]
pub struct TlsError {
    /// The server's host and port.
    pub server: String,
    /// What the URL demands.
    pub mode: SslMode,
    /// What was found.
    pub problem: TlsProblem,
}

/// What was found where an encrypted connection was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The server does not encrypt.
    NotOffered,
    /// No trusted authority has signed its certificate.
    UnknownAuthority,
    /// A signature does not fit its key.
    BadSignature,
    /// Its certificate is for other names. rustls' words, which name them.
    OtherHost(String),
    /// Its certificate does not hold now. rustls' words, which say since when or until when.
    NotNow(String),
    /// Anything else, in the words of who found it.
    Other(String),
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered => f.write_str(
                "the server offers no encryption; set ssl = on there, or sslmode=disable here if the network is trusted",
            ),
            Self::UnknownAuthority => f.write_str(
                "no authority of sslrootcert has signed the server's certificate; \
                 give sslrootcert the certificate of the one that did",
            ),
            Self::BadSignature => f.write_str(
                "a signature does not fit: another authority than that of sslrootcert, with the same name, has signed \
                 the server's certificate, or the server has not the key of its certificate",
            ),
            Self::OtherHost(found) => write!(
                f,
                "{found}; connect by a name that the certificate has, or give the server one with this name"
            ),
            Self::NotNow(found) => write!(f, "{found}; renew it, or set this machine's clock right"),
            Self::Other(found) => f.write_str(found),
        }
    }
}

impl TlsProblem {
    /// The problem that an error, or what it came from, is about; `None` when it has nothing to do with TLS.
    #[must_use]
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<rustls::Error>() {
                return Some(Self::from(found));
            }
            // What an I/O error carries is not among its sources.
            let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = carried.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
        }
        None
    }
}

impl From<&rustls::Error> for TlsProblem {
    fn from(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(why) = error else { return Self::Other(error.to_string()) };
        match why {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherHost(why.to_string())
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::NotNow(why.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tls_found_is_found_however_deep_it_lies() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);

        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = Outer(io::Error::other(io::Error::new(io::ErrorKind::InvalidData, unknown())));
        assert_eq!(TlsProblem::find(&unknown()), Some(TlsProblem::UnknownAuthority));
        assert_eq!(TlsProblem::find(&wrapped), Some(TlsProblem::UnknownAuthority));
        assert_eq!(TlsProblem::find(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }

    #[test]
    fn each_problem_says_what_was_tried_found_and_can_be_done() {
        let table = [
            (TlsProblem::NotOffered, "set ssl = on"),
            (TlsProblem::UnknownAuthority, "give sslrootcert the certificate"),
            (TlsProblem::from(&invalid(CertificateError::BadSignature)), "another authority"),
            (TlsProblem::from(&invalid(CertificateError::NotValidForName)), "connect by a name"),
            (TlsProblem::from(&invalid(CertificateError::Expired)), "renew it"),
            (TlsProblem::from(&invalid(CertificateError::NotValidYet)), "clock"),
            (TlsProblem::from(&rustls::Error::HandshakeNotComplete), "handshake not complete"),
        ];
        for (problem, remedy) in table {
            let error = TlsError { server: "db1:5432".to_owned(), mode: SslMode::VerifyFull, problem };
            let shown = error.to_string();
            assert!(shown.contains("db1:5432 (sslmode=verify-full)") && shown.contains(remedy), "{shown}");
        }
    }

    fn invalid(why: CertificateError) -> rustls::Error {
        rustls::Error::InvalidCertificate(why)
    }
}
