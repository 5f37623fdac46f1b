//! TLS as meant: which certificates a listener shows and to whom, and which ones a pool believes.

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderName;

use super::Secret;

/// A listener with one of these speaks TLS and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsPlan {
    /// At least one. The first is shown to clients that name nobody, or nobody known.
    pub certificates: Vec<CertificatePlan>,
    pub min_version: TlsVersion,
    /// Present where the file names authorities for client certificates.
    pub clients: Option<ClientsPlan>,
}

/// Which certificates clients may show, and who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientsPlan {
    /// DER; at least one.
    pub authorities: Vec<Vec<u8>>,
    pub auth: ClientAuth,
    /// What backends read the subject in. Nobody but us can set it, on any listener.
    pub subject_header: HeaderName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked.
    Off,
    /// They may show none.
    Optional,
    Required,
}

/// How the backends of a pool are reached by TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendTlsPlan {
    /// The name that is asked for and held against the certificate; `None`: the host of each
    /// backend's address.
    pub sni: Option<String>,
    /// Whether a certificate is looked at.
    pub verify: bool,
    /// The file of the authorities; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// DER. Shared, as the system has a hundred and more; none where nothing is looked at.
    pub authorities: Arc<[Vec<u8>]>,
    /// For backends that ask for one.
    pub certificate: Option<CertificatePlan>,
}

impl BackendTlsPlan {
    /// Whether both are written alike. What stands in the files they name may differ all the same:
    /// it has been renewed.
    pub fn is_written_like(&self, other: &Self) -> bool {
        let files = |plan: &Self| {
            let shown = plan.certificate.as_ref().map(|certificate| certificate.file.clone());
            (plan.ca.clone(), shown)
        };
        self.sni == other.sni && self.verify == other.verify && files(self) == files(other)
    }
}

/// A certificate and its private key, which belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificatePlan {
    /// The file it was read from.
    pub file: PathBuf,
    /// DER, the server's own first.
    pub chain: Vec<Vec<u8>>,
    /// DER.
    pub key: Secret,
    pub facts: Facts,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Host names, in lower case, and addresses.
    pub names: Vec<String>,
    pub subject: String,
    pub issuer: String,
    /// Seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
}
