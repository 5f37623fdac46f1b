//! Certificates and keys as they come from files: what is in them, and whether they belong
//! together.
//!
//! Start at [`chain`] and [`private_key`]. Beside `listen::tls` and `upstream::tls`, the only place
//! that knows rustls.

use std::fmt;

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

use crate::plan::{Facts, Secret};

/// Why a file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    NoCertificate,
    /// The nth in the file, from 1, and why.
    BadCertificate(usize, String),
    NoKey,
    /// It would take a passphrase.
    EncryptedKey,
    BadKey(String),
    /// The key belongs to another certificate.
    OtherKey,
    /// The key belongs to the nth certificate of the file, and not to the first.
    Misplaced(usize),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no `-----BEGIN CERTIFICATE-----` in it"),
            Self::BadCertificate(n, why) => write!(f, "certificate {n} in it is none: {why}"),
            Self::NoKey => f.write_str("no `-----BEGIN PRIVATE KEY-----` in it"),
            Self::EncryptedKey => f.write_str("the key is encrypted, and nobody is there to ask"),
            Self::BadKey(why) => write!(f, "not a key that can be used: {why}"),
            Self::OtherKey => f.write_str("belongs to another certificate"),
            Self::Misplaced(n) => write!(f, "belongs to certificate {n} of the file, and not to the first"),
        }
    }
}

/// The certificates of a PEM file as DER, in its order; there is at least one.
pub fn chain(pem: &[u8]) -> Result<Vec<Vec<u8>>, Unfit> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let bad = |why: String| Unfit::BadCertificate(chain.len() + 1, why);
        let der = certificate.map_err(|error| bad(error.to_string()))?;
        parse(&der).map_err(bad)?;
        chain.push(der.to_vec());
    }
    if chain.is_empty() { Err(Unfit::NoCertificate) } else { Ok(chain) }
}

/// The first private key of a PEM file as DER: PKCS #8, PKCS #1 or SEC 1.
pub fn private_key(pem: &[u8]) -> Result<Secret, Unfit> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(Secret(key.secret_der().to_vec())),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            let encrypted = pem.windows(9).any(|word| word == b"ENCRYPTED");
            Err(if encrypted { Unfit::EncryptedKey } else { Unfit::NoKey })
        }
        Err(error) => Err(Unfit::BadKey(error.to_string())),
    }
}

/// Whether the key is the first certificate's.
pub fn belongs(chain: &[Vec<u8>], key: &Secret) -> Result<(), Unfit> {
    let fits = |at: usize| certified(&chain[at..], key).map(drop);
    match fits(0) {
        Err(Unfit::OtherKey) => {
            let place = (1..chain.len()).find(|at| fits(*at).is_ok());
            Err(place.map_or(Unfit::OtherKey, |at| Unfit::Misplaced(at + 1)))
        }
        other => other,
    }
}

/// Both as rustls uses them.
pub fn certified(chain: &[Vec<u8>], key: &Secret) -> Result<CertifiedKey, Unfit> {
    let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::try_from(key.0.clone()).map_err(|why| Unfit::BadKey(why.to_owned()))?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Unfit::OtherKey,
        rustls::Error::InvalidCertificate(why) => Unfit::BadCertificate(1, why.to_string()),
        other => Unfit::BadKey(other.to_string()),
    })
}

/// The authorities that the system trusts, as DER; or why there are none.
pub fn of_the_system() -> Result<Vec<Vec<u8>>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Old ones that nobody can read any more are no reason to do without the others.
    let usable = |der: &CertificateDer<'static>| store.add(der.clone()).is_ok();
    let usable: Vec<_> = found.certs.into_iter().filter(usable).map(|der| der.to_vec()).collect();
    match found.errors.first() {
        _ if !usable.is_empty() => Ok(usable),
        Some(error) => Err(error.to_string()),
        None => Err("none are installed".to_owned()),
    }
}

/// Whether a text is a name that can be asked for in a handshake.
pub fn names_a_server(text: &str) -> bool {
    DnsName::try_from(text).is_ok()
}

/// What the certificates of the other side are held against.
pub fn authorities(authorities: &[Vec<u8>]) -> Result<RootCertStore, Unfit> {
    let mut store = RootCertStore::empty();
    for (at, der) in authorities.iter().enumerate() {
        let added = store.add(CertificateDer::from(der.clone()));
        added.map_err(|error| Unfit::BadCertificate(at + 1, error.to_string()))?;
    }
    Ok(store)
}

/// What a certificate that [`chain`] let through says of itself.
pub fn facts(der: &[u8]) -> Option<Facts> {
    let certificate = parse(der).ok()?;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = alternatives
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    let digest = digest::digest(&digest::SHA256, der);
    Some(Facts {
        names,
        subject: written(certificate.subject()),
        issuer: written(certificate.issuer()),
        not_after: certificate.validity().not_after.timestamp(),
        fingerprint: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// A distinguished name as RFC 4514 writes it, so that no part can pass for several: the most
/// specific first, and what separates parts escaped.
fn written(name: &X509Name<'_>) -> String {
    let part = |attribute: &AttributeTypeAndValue<'_>| {
        let kind = oid2abbrev(attribute.attr_type(), oid_registry())
            .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
        let value = match attribute.as_str() {
            Ok(text) => escaped(text),
            Err(_) => {
                attribute.as_slice().iter().fold("#".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
            }
        };
        format!("{kind}={value}")
    };
    let level = |rdn: &RelativeDistinguishedName<'_>| rdn.iter().map(part).collect::<Vec<_>>().join("+");
    let mut levels: Vec<String> = name.iter_rdn().map(level).collect();
    levels.reverse();
    levels.join(",")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let at_the_edge = c == ' ' && (at == 0 || at == last) || c == '#' && at == 0;
        if at_the_edge || ",+\"\\<>;=".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("something follows it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| std::net::Ipv4Addr::from(octets).to_string());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|octets| std::net::Ipv6Addr::from(octets).to_string());
    v4.or_else(|_| v6()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_says_whom_it_is_for() {
        let (certificate, _) = made(&["Shop.example", "*.shop.example", "127.0.0.1", "::1"]);
        let chain = chain(certificate.as_bytes()).unwrap();
        let facts = facts(&chain[0]).unwrap();
        assert_eq!(facts.names, ["shop.example", "*.shop.example", "127.0.0.1", "::1"]);
        assert_eq!(facts.not_after, 67090118400);
        assert_eq!(facts.fingerprint.len(), 64);
        assert_eq!(facts.subject, "CN=rcgen self signed cert");
        assert_eq!(facts.issuer, facts.subject);
    }

    #[test]
    fn no_part_of_a_name_passes_for_several() {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop, Inc.");
        params.distinguished_name.push(rcgen::DnType::CommonName, "eve,CN=admin");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let subject = facts(certificate.der()).unwrap().subject;
        assert_eq!(subject, "O=Shop\\, Inc.,CN=eve\\,CN\\=admin");
        assert_eq!(escaped(" #a "), "\\ #a\\ ");
        assert_eq!(escaped("#a"), "\\#a");
    }

    #[test]
    fn a_certificate_without_names_is_for_its_subject() {
        let (certificate, _) = made(&[]);
        let chain = chain(certificate.as_bytes()).unwrap();
        assert_eq!(facts(&chain[0]).unwrap().names, ["rcgen self signed cert"]);
    }

    #[test]
    fn a_key_belongs_to_the_first_certificate_of_the_file() {
        let ((ours, our_key), (other, _)) = (made(&["a.example"]), made(&["b.example"]));
        let key = private_key(our_key.as_bytes()).unwrap();
        let of = |pem: String| chain(pem.as_bytes()).unwrap();
        assert_eq!(belongs(&of(ours.clone()), &key), Ok(()));
        assert_eq!(belongs(&of(format!("{ours}{other}")), &key), Ok(()));
        assert_eq!(belongs(&of(other.clone()), &key), Err(Unfit::OtherKey));
        assert_eq!(belongs(&of(format!("{other}{ours}")), &key), Err(Unfit::Misplaced(2)));
        // One file may hold both.
        let both = format!("{our_key}{ours}");
        assert_eq!(belongs(&of(both.clone()), &private_key(both.as_bytes()).unwrap()), Ok(()));
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_told_apart() {
        let (certificate, key) = made(&["a.example"]);
        assert_eq!(chain(b""), Err(Unfit::NoCertificate));
        assert_eq!(chain(key.as_bytes()), Err(Unfit::NoCertificate));
        let section =
            |kind: &str, inner: &str| format!("-----BEGIN {kind}-----\n{inner}\n-----END {kind}-----\n");
        let bad = format!("{certificate}{}", section("CERTIFICATE", "AAAA"));
        assert!(matches!(chain(bad.as_bytes()), Err(Unfit::BadCertificate(2, _))));
        assert_eq!(private_key(certificate.as_bytes()), Err(Unfit::NoKey));
        let encrypted = section("ENCRYPTED PRIVATE KEY", "AAAA");
        assert_eq!(private_key(encrypted.as_bytes()), Err(Unfit::EncryptedKey));
        let junk = private_key(section("PRIVATE KEY", "AAAA").as_bytes()).unwrap();
        assert!(matches!(belongs(&chain(certificate.as_bytes()).unwrap(), &junk), Err(Unfit::BadKey(_))));
    }
}
