//! TLS in front of a backend that knows nothing of it; it notes how clients shook hands.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::tls::Keys;
use super::within;

/// A server on a port of its own, which passes on what it decrypts. It dies with this value.
pub struct TlsFront {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What a client showed of itself in a handshake that came to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Handshake {
    pub sni: Option<String>,
    pub protocol: Option<String>,
    pub has_certificate: bool,
    pub resumed: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    config: Arc<ServerConfig>,
    /// By the protocol that is chosen; the name is empty where none is.
    to: Vec<(String, SocketAddr)>,
    handshakes: Vec<Handshake>,
    accepted: usize,
    connections: JoinSet<()>,
}

impl TlsFront {
    /// Shows the pair called `pair`; `to`: protocols in the order of preference, and who speaks each.
    pub async fn start(keys: &Keys, pair: &str, to: &[(&str, SocketAddr)]) -> Self {
        Self::asking(keys, pair, to, None).await
    }

    /// One that demands a certificate that the authority in this file has signed.
    pub async fn asking(keys: &Keys, pair: &str, to: &[(&str, SocketAddr)], ca: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            config: config(keys, pair, to, ca),
            to: owned(to),
            handshakes: Vec::new(),
            accepted: 0,
            connections: JoinSet::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(()) });
        let accepts = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut state = accepts.state.lock().unwrap();
                state.accepted += 1;
                let (config, to) = (state.config.clone(), state.to.clone());
                state.connections.spawn(serve(accepts.clone(), socket, config, to));
            }
        });
        Self { address, shared, accepting }
    }

    /// As an element of `backends`.
    pub fn toml(&self, name: &str) -> String {
        format!("{{ name = {name:?}, address = \"{}\" }}", self.address)
    }

    /// From now on: another pair, other protocols. Connections that are open go on.
    pub fn turn(&self, keys: &Keys, pair: &str, to: &[(&str, SocketAddr)]) {
        let mut state = self.shared.state.lock().unwrap();
        (state.config, state.to) = (config(keys, pair, to, None), owned(to));
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.state.lock().unwrap().connections.abort_all();
    }

    pub fn handshakes(&self) -> Vec<Handshake> {
        self.shared.state.lock().unwrap().handshakes.clone()
    }

    pub fn accepted(&self) -> usize {
        self.shared.state.lock().unwrap().accepted
    }

    /// The `count`th handshake, as soon as it is there.
    pub async fn shaken(&self, count: usize) -> Handshake {
        let mut changed = self.shared.changed.subscribe();
        within("handshakes", async {
            while self.handshakes().len() < count {
                changed.changed().await.expect("the sender is shared");
            }
        })
        .await;
        self.handshakes()[count - 1].clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

fn owned(to: &[(&str, SocketAddr)]) -> Vec<(String, SocketAddr)> {
    to.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect()
}

fn config(keys: &Keys, pair: &str, to: &[(&str, SocketAddr)], ca: Option<&str>) -> Arc<ServerConfig> {
    let certificates = |file: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(keys.path(file)).unwrap().map(Result::unwrap).collect()
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut store = RootCertStore::empty();
            certificates(file).into_iter().for_each(|der| store.add(der).unwrap());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_file(keys.path(&format!("{pair}.key"))).unwrap();
    let mut config = builder.with_single_cert(certificates(&format!("{pair}.crt")), key).unwrap();
    config.alpn_protocols =
        to.iter().filter(|(name, _)| !name.is_empty()).map(|(name, _)| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

async fn serve(
    shared: Arc<Shared>,
    socket: TcpStream,
    config: Arc<ServerConfig>,
    to: Vec<(String, SocketAddr)>,
) {
    socket.set_nodelay(true).unwrap();
    let mut stream = match TlsAcceptor::from(config).accept(socket).into_fallible().await {
        Ok(stream) => stream,
        Err((_, mut socket)) => {
            // What it said of its reasons must not be lost in a reset.
            while socket.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
            return;
        }
    };
    let (_, connection) = stream.get_ref();
    let protocol = connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    let handshake = Handshake {
        sni: connection.server_name().map(str::to_owned),
        protocol: protocol.clone(),
        has_certificate: connection.peer_certificates().is_some(),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    };
    shared.state.lock().unwrap().handshakes.push(handshake);
    shared.changed.send_replace(());
    let spoken = protocol.unwrap_or_default();
    let place = to.iter().find(|(name, _)| *name == spoken).or(to.first());
    let Ok(mut inner) = TcpStream::connect(place.unwrap().1).await else { return };
    inner.set_nodelay(true).unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
}
