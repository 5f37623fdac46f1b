//! TLS to backends.
//!
//! Start at [`Connector::build`], which the prepare step of a reload calls: all that can fail before
//! a handshake fails there. Beside `certificate` and `listen::tls`, the only place that knows rustls.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls::{ClientConfig, ClientConnection};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate;
use crate::plan::{BackendAddress, BackendTlsPlan};

/// What rustls may hold of a request that the socket has no room for: no more than two records.
const SEND_BUFFER: usize = 32 * 1024;

/// Sessions that one pool may resume, over all threads.
const SESSIONS: usize = 256;

const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// The versions of HTTP that a backend may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Http1,
    Http2,
    Both,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// How a pool shakes hands with its backends. Cheap to clone; equal while it is the same one.
/// Sessions are resumed on every thread, until the settings or their files change.
#[derive(Clone)]
pub struct Connector {
    inner: TlsConnector,
    sni: Option<ServerName<'static>>,
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.inner.config(), other.inner.config())
    }
}

impl Connector {
    pub fn build(plan: &BackendTlsPlan) -> Result<Self, String> {
        let provider = Arc::new(default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if plan.verify {
            let authorities =
                certificate::authorities(&plan.authorities).map_err(|unfit| unfit.to_string())?;
            builder.with_root_certificates(authorities)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(algorithms)))
        };
        let mut config = match &plan.certificate {
            None => builder.with_no_client_auth(),
            Some(shown) => {
                let chain = shown.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
                let key = PrivateKeyDer::try_from(shown.key.0.clone()).map_err(str::to_owned)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let sni =
            plan.sni.clone().map(ServerName::try_from).transpose().map_err(|error| error.to_string())?;
        Ok(Self { inner: Arc::new(config).into(), sni })
    }

    /// The same, for one backend.
    pub fn to(&self, address: &BackendAddress) -> Tls {
        let own = || match address {
            BackendAddress::Ip(address) => ServerName::IpAddress(address.ip().into()),
            BackendAddress::Name { host, .. } => ServerName::try_from(host.clone())
                .expect("without `sni`, only hosts that can be asked for pass the compiler"),
        };
        Tls { name: self.sni.clone().unwrap_or_else(own), connector: self.clone() }
    }
}

/// How one backend is shaken hands with.
#[derive(Clone, PartialEq)]
pub struct Tls {
    pub connector: Connector,
    name: ServerName<'static>,
}

impl Tls {
    /// From a bare connection to one that is encrypted, and what is spoken on it. Whoever calls this
    /// limits it in time.
    pub async fn shake(
        &self,
        socket: TcpStream,
        offer: Offer,
    ) -> Result<(TlsStream<TcpStream>, Version), TlsFault> {
        let names: &[&[u8]] = match offer {
            Offer::Http1 => &[HTTP_1],
            Offer::Http2 => &[HTTP_2],
            Offer::Both => &[HTTP_2, HTTP_1],
        };
        let names = names.iter().map(|name| name.to_vec()).collect();
        let limit = |connection: &mut ClientConnection| connection.set_buffer_limit(Some(SEND_BUFFER));
        let connector = self.connector.inner.with_alpn(names);
        let stream = connector.connect_with(self.name.clone(), socket, limit).await;
        let stream = stream.map_err(|error| TlsFault::of(&error))?;
        let chosen = match stream.get_ref().1.alpn_protocol() {
            Some(HTTP_2) => Version::Http2,
            _ if offer == Offer::Http2 => return Err(TlsFault::NoProtocol),
            _ => Version::Http1,
        };
        Ok((stream, chosen))
    }
}

/// Why there was no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// No authority that is believed here has signed the certificate.
    Untrusted,
    WrongName,
    Expired,
    NotYetValid,
    /// The certificate is unfit for another reason.
    BadCertificate,
    /// The other side said no: to our certificate, or to our having none, for example.
    Refused,
    /// It speaks nothing that we offer.
    NoProtocol,
    /// What came is no TLS.
    NotTls,
    /// It closed.
    Ended,
    Broken,
}

impl TlsFault {
    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::named(error),
            None => Self::Ended,
        }
    }

    fn named(error: &rustls::Error) -> Self {
        use CertificateError as Certificate;
        match error {
            rustls::Error::InvalidCertificate(why) => match why {
                Certificate::UnknownIssuer | Certificate::BadSignature => Self::Untrusted,
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => Self::WrongName,
                Certificate::Expired | Certificate::ExpiredContext { .. } => Self::Expired,
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => Self::NotYetValid,
                _ => Self::BadCertificate,
            },
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | rustls::Error::NoApplicationProtocol => Self::NoProtocol,
            rustls::Error::AlertReceived(_) => Self::Refused,
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            _ => Self::Broken,
        }
    }

    /// A backend that looks at our certificate only after its own handshake, as in TLS 1.3, refuses
    /// it when the first request is already under way.
    pub fn late(error: &hyper::Error) -> Option<Self> {
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = cause {
            let io = match error.downcast_ref::<h2::Error>() {
                Some(error) => error.get_io(),
                None => error.downcast_ref::<io::Error>(),
            };
            if let Some(io) = io {
                let alert = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                // HTTP/2's codec keeps no more of it than its kind, which only TLS reports.
                let lost = io.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>());
                return match alert {
                    Some(rustls::Error::AlertReceived(_)) => Some(Self::Refused),
                    _ => (lost && io.kind() == io::ErrorKind::InvalidData).then_some(Self::Refused),
                };
            }
            cause = error.source();
        }
        None
    }

    /// What a backend does, for whoever asked.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Untrusted => "shows a certificate that no known authority has signed",
            Self::WrongName => "shows a certificate for another name",
            Self::Expired => "shows a certificate that has expired",
            Self::NotYetValid => "shows a certificate that is not valid yet",
            Self::BadCertificate => "shows a certificate that cannot be used",
            Self::Refused => "refused the TLS handshake",
            Self::NoProtocol => "speaks no version of HTTP that it is offered over TLS",
            Self::NotTls => "does not speak TLS",
            Self::Ended => "closed in the middle of the TLS handshake",
            Self::Broken => "did not complete the TLS handshake",
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl Error for TlsFault {}

/// `verify = false`: every certificate will do. That its owner is there is still checked.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
