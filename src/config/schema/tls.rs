//! `[listener.NAME.tls]` and `[pool.NAME.tls]` as written.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::spelling::{FilePath, OneOf, ServerName, Spelled, spelled};
use crate::plan::{ClientAuth, TlsVersion};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-hint" = "TLS has a table of its own: [listener.NAME.tls]"))]
pub(crate) struct Tls {
    /// What clients are shown, chosen by the name they ask for; the first where none fits.
    #[schemars(extend("x-hint" = "a certificate comes with its key"), length(max = 1000))]
    pub(crate) certificates: Vec<CertificateFiles>,
    /// The oldest version spoken.
    pub(crate) min_version: OneOf<TlsVersion>,
    /// Who signs the certificates that clients show, as PEM.
    pub(crate) client_ca: Option<Spelled<FilePath>>,
    /// Whether clients are asked for one.
    pub(crate) client_auth: OneOf<ClientAuth>,
    /// The request header that tells backends its subject; what clients send under that name goes.
    pub(crate) client_subject_header: Spelled<HeaderName>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            min_version: OneOf(TlsVersion::V12),
            client_ca: None,
            client_auth: OneOf(ClientAuth::Off),
            client_subject_header: spelled("x-client-subject"),
        }
    }
}

/// A certificate and its key, as PEM files. A changed file is read again, without a restart.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-hint" = "a certificate comes with its key"))]
#[schemars(extend("x-write" = "{ cert = \"tls/site.crt\", key = \"tls/site.key\" }"))]
pub(crate) struct CertificateFiles {
    /// The certificate, and behind it those that it was signed with.
    pub(crate) cert: Spelled<FilePath>,
    /// Its private key, without a passphrase.
    pub(crate) key: Spelled<FilePath>,
}

/// TLS to backends. Changed files are read again, without a restart.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-hint" = "TLS has a table of its own: [pool.NAME.tls]"))]
pub(crate) struct BackendTls {
    /// The name to ask for and to find in the certificate; unset, the host of each backend's address.
    pub(crate) sni: Option<Spelled<ServerName>>,
    /// Who signs the backends' certificates, as PEM; unset, whom the system trusts.
    pub(crate) ca: Option<Spelled<FilePath>>,
    /// Whether their certificates are looked at.
    pub(crate) verify: bool,
    /// What backends are shown that ask for a certificate, as PEM.
    pub(crate) cert: Option<Spelled<FilePath>>,
    /// Its private key, without a passphrase.
    pub(crate) key: Option<Spelled<FilePath>>,
}

impl Default for BackendTls {
    fn default() -> Self {
        Self { sni: None, ca: None, verify: true, cert: None, key: None }
    }
}
