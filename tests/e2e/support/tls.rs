//! Certificates made for one test, and clients that speak TLS with them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wire::Wire;
use super::within;

/// A folder of certificates and keys; it goes with this value.
pub struct Keys(PathBuf);

impl Keys {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pintle-keys-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// With one pair, called `site`.
    pub fn for_names(names: &[&str]) -> Self {
        let keys = Self::new();
        keys.make("site", names);
        keys
    }

    /// Writes a certificate for `names` and its key, and returns the certificate.
    pub fn make(&self, file: &str, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.crt")), certificate.pem()).unwrap();
        certificate.der().clone()
    }

    /// Writes an authority called `file`, and returns what signs with it.
    pub fn authority(&self, file: &str) -> Issuer<'static, KeyPair> {
        let (mut params, key) = (CertificateParams::new([]).unwrap(), KeyPair::generate().unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(self.path(file), params.self_signed(&key).unwrap().pem()).unwrap();
        Issuer::new(params, key)
    }

    /// Writes a certificate for `names` that `authority` has signed, good from one year to another.
    pub fn signed(&self, file: &str, names: &[&str], authority: &Issuer<'_, KeyPair>, years: (i32, i32)) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (mut params, key) = (CertificateParams::new(names).unwrap(), KeyPair::generate().unwrap());
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, authority).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.crt")), certificate.pem()).unwrap();
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// The table of a listener that shows these pairs.
    pub fn tls(&self, files: &[&str]) -> String {
        let pair = |file: &&str| {
            let (cert, key) = (self.path(&format!("{file}.crt")), self.path(&format!("{file}.key")));
            format!("{{ cert = {cert:?}, key = {key:?} }}")
        };
        format!("tls.certificates = [{}]\n", files.iter().map(pair).collect::<Vec<_>>().join(", "))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A connection in TLS.
pub type TlsWire = Wire<TlsStream<TcpStream>>;

/// A client that takes every certificate and says which one it was shown. It keeps tickets.
#[derive(Clone)]
pub struct TlsClient {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl TlsClient {
    pub fn new(address: SocketAddr) -> Self {
        Self::with_versions(address, rustls::ALL_VERSIONS)
    }

    pub fn with_versions(address: SocketAddr, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { address, config: Arc::new(config) }
    }

    /// What it offers to speak.
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// One that shows a certificate of this subject.
    pub fn called(address: SocketAddr, name: &str, authority: &Issuer<'_, KeyPair>) -> Self {
        let (mut params, key) = (CertificateParams::new([]).unwrap(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, authority).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Self { address, config: Arc::new(config) }
    }

    /// Connects and asks for `name`; an address asks for nobody.
    pub async fn try_open(&self, name: &str) -> io::Result<TlsWire> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        self.shake(socket, name).await
    }

    /// With something before the handshake, in one segment with the ClientHello.
    pub async fn open_after(&self, bytes: &[u8], name: &str) -> TlsWire {
        let socket = TcpStream::connect(self.address).await.unwrap();
        socket.writable().await.unwrap();
        let sent = rustix::net::send(&socket, bytes, rustix::net::SendFlags::MORE).unwrap();
        assert_eq!(sent, bytes.len());
        self.shake(socket, name).await.unwrap()
    }

    async fn shake(&self, socket: TcpStream, name: &str) -> io::Result<TlsWire> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connect = TlsConnector::from(self.config.clone()).connect(name, socket);
        let stream = within("a handshake", connect).await?;
        Ok(Wire { stream, buffer: Vec::new() })
    }

    pub async fn open(&self, name: &str) -> TlsWire {
        self.try_open(name).await.unwrap()
    }
}

impl TlsWire {
    /// The certificate that was shown.
    pub fn shown(&self) -> CertificateDer<'static> {
        self.stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    }

    /// What was chosen of what was offered.
    pub fn spoken(&self) -> Option<String> {
        let chosen = self.stream.get_ref().1.alpn_protocol()?;
        Some(String::from_utf8_lossy(chosen).into_owned())
    }

    pub fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

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
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
