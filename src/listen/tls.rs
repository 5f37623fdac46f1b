//! TLS on a connection that has just been accepted.
//!
//! Start at [`shake`]. What a listener needs for it is built by [`Acceptor::build`] in the
//! prepare step of a reload: all that can fail fails there. Beside `certificate` and `tickets`, the
//! only place that knows rustls.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor as Hello, ClientHello, NoServerSessionStorage};
use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;

use super::stream::Stream;
use super::tickets::Tickets;
use crate::certificate;
use crate::plan::{ClientAuth, ClientsPlan, Protocols, TlsPlan, TlsVersion};

/// Handshakes that one thread has under way, each from a whole ClientHello to its end. Who comes
/// later waits in line, within the same deadline.
pub const MAX_HANDSHAKES: usize = 1024;

/// What rustls may hold of an answer that the socket has no room for: no more than two records.
const SEND_BUFFER: usize = 32 * 1024;

/// HTTP/2 in ALPN (RFC 9113 section 3.1).
const H2: &[u8] = b"h2";

/// How the first record of a ClientHello begins.
const HANDSHAKE: u8 = 0x16;

static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// How a listener shakes hands. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// For a client certificate.
    asks: bool,
}

impl Acceptor {
    /// Early data stays off (it can be replayed), and there is no cache of sessions: tickets do,
    /// on every thread. A ticket resumes under the name it was given for and no other: rustls
    /// compares the SNI in it with that of the ClientHello (`can_resume` in its `server/hs.rs`),
    /// so a session of one virtual host is none of another's. Where client certificates are asked
    /// for there are no tickets: a resumed session takes the old chain on trust, although it may
    /// have ended, or its authority gone from the file, since.
    pub fn build(plan: &TlsPlan, protocols: Protocols, tickets: &Tickets) -> Result<Self, String> {
        let versions = match plan.min_version {
            TlsVersion::V12 => &BOTH[..],
            TlsVersion::V13 => &BOTH[..1],
        };
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let asked = plan.clients.as_ref().filter(|clients| clients.auth != ClientAuth::Off);
        let builder = match asked {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Certificates::build(plan)?));
        let offered = [(protocols.http2, H2), (protocols.http1, b"http/1.1")];
        config.alpn_protocols = offered.iter().filter(|(on, _)| *on).map(|(_, name)| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if asked.is_none() {
            config.ticketer = tickets.producer();
        }
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), asks: asked.is_some() })
    }

    /// What is known of a client that has shaken hands; `None` in the clear.
    pub fn told(&self, stream: &Stream) -> Option<Secured> {
        let Stream::Tls(stream) = stream else { return None };
        let (_, connection) = stream.get_ref();
        let old = connection.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        let shown = connection.peer_certificates().and_then(|chain| chain.first());
        Some(Secured {
            version: if old { "1.2" } else { "1.3" },
            http2: connection.alpn_protocol() == Some(H2),
            bound_to: connection.server_name().filter(|_| self.asks).map(Into::into),
            subject: shown.and_then(|der| certificate::facts(der)).map(|facts| facts.subject.into()),
        })
    }
}

fn verifier(
    plan: &ClientsPlan,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let authorities = certificate::authorities(&plan.authorities).map_err(|unfit| unfit.to_string())?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    let builder = if plan.auth == ClientAuth::Optional { builder.allow_unauthenticated() } else { builder };
    let verifier = builder.build().map_err(|error| error.to_string())?;
    Ok(verifier)
}

/// Finds the certificate for a name. For one name there may be several, of different kinds.
struct Certificates {
    /// In lower case; a wildcard without its `*.`.
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    fn build(plan: &TlsPlan) -> Result<Self, String> {
        let (mut exact, mut wildcard) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut default = None;
        for plan in &plan.certificates {
            let key = certificate::certified(&plan.chain, &plan.key)
                .map_err(|unfit| format!("{}: {unfit}", plan.file.display()))?;
            let key = Arc::new(key);
            for name in &plan.facts.names {
                match name.strip_prefix("*.") {
                    Some(rest) => wildcard.entry(rest.to_owned()).or_default().push(key.clone()),
                    None => exact.entry(name.clone()).or_default().push(key.clone()),
                }
            }
            default.get_or_insert(key);
        }
        let default = default.ok_or("no certificate")?;
        Ok(Self { exact, wildcard, default })
    }

    /// Those for a name: its own, else a wildcard's, which stands for one label.
    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let wild = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wild).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    /// The first that the client can verify; one that it cannot is still better than none.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(name));
        let keys = named.unwrap_or(std::slice::from_ref(&self.default));
        let fit = keys.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        fit.or(keys.first()).cloned()
    }
}

/// What a client's first byte says.
pub enum Greeting {
    Tls,
    /// A letter: most likely HTTP in the clear.
    Text,
    Junk,
    /// It left without a word.
    Gone,
}

/// Waits for the first byte and leaves it where it is.
pub async fn greeting(socket: &TcpStream) -> Greeting {
    let mut first = [0];
    match (socket.peek(&mut first).await, first[0]) {
        (Ok(0) | Err(_), _) => Greeting::Gone,
        (Ok(_), HANDSHAKE) => Greeting::Tls,
        (Ok(_), byte) if byte.is_ascii_alphabetic() => Greeting::Text,
        (Ok(_), _) => Greeting::Junk,
    }
}

/// From a bare connection to one that is encrypted. Whoever calls this limits it in time. Only a
/// whole ClientHello takes a permit: who dawdles before that keeps nobody else out.
pub async fn shake(stream: Stream, acceptor: &Acceptor, permits: &Semaphore) -> io::Result<Stream> {
    let Stream::Plain(socket) = stream else { return Ok(stream) };
    let start = LazyConfigAcceptor::new(Hello::default(), socket).await?;
    let _permit = permits.acquire().await.map_err(io::Error::other)?;
    let limit = |connection: &mut rustls::ServerConnection| connection.set_buffer_limit(Some(SEND_BUFFER));
    let stream = start.into_stream_with(acceptor.config.clone(), limit).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// What is known of a client from its handshake.
pub struct Secured {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// It chose HTTP/2.
    pub http2: bool,
    /// Where client certificates are asked for: the name that the client asked for, and the only
    /// one that it may speak to here.
    pub bound_to: Option<Box<str>>,
    /// Of its certificate, if it showed one.
    pub subject: Option<Box<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::CertificatePlan;
    use rcgen::{CertificateParams, KeyPair};
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    const BOTH_VERSIONS: Protocols = Protocols { http1: true, http2: true };

    fn plan() -> TlsPlan {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().to_vec()];
        let facts = certificate::facts(&chain[0]).unwrap();
        let key = crate::plan::Secret(key.serialize_der());
        let certificates = vec![CertificatePlan { file: "a.crt".into(), chain, key, facts }];
        TlsPlan { certificates, min_version: TlsVersion::V12, clients: None }
    }

    fn client_hello() -> Vec<u8> {
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "a.example".try_into().unwrap();
        let mut hello = Vec::new();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    #[tokio::test]
    async fn half_a_client_hello_takes_no_permit_and_a_whole_one_does() {
        let acceptor = Acceptor::build(&plan(), BOTH_VERSIONS, &Tickets::generate().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (permits, hello) = (Semaphore::new(1), client_hello());
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut shaking = Box::pin(shake(Stream::Plain(server), &acceptor, &permits));
        let (first, last) = hello.split_at(hello.len() - 1);
        for (part, left) in [(first, 1), (last, 0)] {
            client.write_all(part).await.unwrap();
            let waits = tokio::time::timeout(Duration::from_millis(200), shaking.as_mut()).await;
            assert!(waits.is_err(), "the client has said nothing more");
            assert_eq!(permits.available_permits(), left);
        }
        drop(shaking);
        assert_eq!(permits.available_permits(), 1);
    }

    #[test]
    fn a_pair_that_does_not_belong_together_builds_nothing() {
        let mut plan = plan();
        plan.certificates[0].key = self::plan().certificates[0].key.clone();
        let failed = Acceptor::build(&plan, BOTH_VERSIONS, &Tickets::generate().unwrap()).err();
        assert_eq!(failed.as_deref(), Some("a.crt: belongs to another certificate"));
    }
}
