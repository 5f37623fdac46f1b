//! `--tls-self-signed`: a certificate for a try-out, made at start, in a folder that goes when
//! Pintle goes.
//!
//! Start at [`SelfSigned::make`]. Files, because the configuration that the flags stand for knows
//! nothing else; what runs and what `--print-config` shows are then the same text.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};

use super::outcome::Failure;

/// As the file names them.
pub const CERT: &str = "self-signed.crt";
pub const KEY: &str = "self-signed.key";

/// Makes a pair that stays, with the names above.
pub const BY_HAND: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 \
-keyout self-signed.key -out self-signed.crt";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A try-out that lasts longer is none; browsers want no more than 398 days.
const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A certificate, its key and their folder. It exists as long as this does, for this user alone.
pub struct SelfSigned(PathBuf);

impl SelfSigned {
    /// For this machine by its usual names and its own, and for the addresses that are listened on.
    pub fn make(within: &Path, addresses: &[IpAddr]) -> Result<Self, Failure> {
        let failed = |error: String| Failure::failed(format!("cannot make a certificate: {error}"));
        let (certificate, key) = pair(names(addresses)).map_err(|error| failed(error.to_string()))?;
        let mut random = [0; 8];
        rand::fill(&mut random).map_err(|error| failed(error.to_string()))?;
        let folder = within.join(format!("pintle-tls-{:016x}", u64::from_ne_bytes(random)));
        let failed = |error: io::Error| failed(format!("{}: {error}", folder.display()));
        DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        // From here on it is removed, whatever happens.
        let made = Self(folder.clone());
        write(&made.0.join(CERT), &certificate).map_err(failed)?;
        write(&made.0.join(KEY), &key).map_err(failed)?;
        Ok(made)
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(addresses: &[IpAddr]) -> Vec<String> {
    let host = rustix::system::uname();
    let host = host.nodename().to_str().unwrap_or_default().to_ascii_lowercase();
    let is_name = |name: &String| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        !name.is_empty() && name.bytes().all(letter)
    };
    let usual = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let addresses = usual.iter().chain(addresses).filter(|address| !address.is_unspecified());
    let mut names = vec!["localhost".to_owned()];
    for name in addresses.map(IpAddr::to_string).chain(Some(host).filter(is_name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A certificate and its key, as PEM.
fn pair(names: Vec<String>) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Pintle, self-signed");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    // A client's clock may be behind.
    params.not_before = (now - DAY).into();
    params.not_after = (now + VALID_FOR).into();
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, pem: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(pem.as_bytes())
}

/// A fingerprint as browsers and `openssl x509 -fingerprint` show it.
pub fn spaced(fingerprint: &str) -> String {
    let pairs = fingerprint.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase());
    pairs.collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_pair_is_for_this_machine_and_nobody_else_can_read_it() {
        let lan = "192.0.2.8".parse().unwrap();
        let any = "0.0.0.0".parse().unwrap();
        let made = SelfSigned::make(&std::env::temp_dir(), &[lan, any, Ipv4Addr::LOCALHOST.into()]).unwrap();
        let folder = made.folder().to_owned();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(KEY))), (0o700, 0o600));

        let chain = certificate::chain(&fs::read(folder.join(CERT)).unwrap()).unwrap();
        let key = certificate::private_key(&fs::read(folder.join(KEY)).unwrap()).unwrap();
        assert_eq!(certificate::belongs(&chain, &key), Ok(()));
        let facts = certificate::facts(&chain[0]).unwrap();
        assert_eq!(facts.names[..4], ["localhost", "127.0.0.1", "::1", "192.0.2.8"]);
        assert!(!facts.names.contains(&"0.0.0.0".to_owned()));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let left = facts.not_after - i64::try_from(now.as_secs()).unwrap();
        assert!((360..=365).contains(&(left / 86_400)), "{left}");

        drop(made);
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let failure = SelfSigned::make(Path::new("/nowhere"), &[]).err().unwrap();
        assert!(
            failure.message.starts_with("cannot make a certificate: /nowhere/pintle-tls-"),
            "{failure:?}"
        );
    }

    #[test]
    fn a_fingerprint_is_written_in_pairs() {
        assert_eq!(spaced("00ff1a"), "00:FF:1A");
    }
}
