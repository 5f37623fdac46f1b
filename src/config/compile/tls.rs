//! TLS of listeners and of pools: reads certificates and keys, and holds them against each other.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Compiler;
use super::bytes_of;
use crate::certificate::{self, Unfit};
use crate::config::findings::Finding;
use crate::config::place::Place;
use crate::config::schema::{BackendTls, CertificateFiles, Tls};
use crate::config::watch::ReadFile;
use crate::plan::{BackendTlsPlan, CertificatePlan, ClientAuth, ClientsPlan, Facts, TlsPlan};

/// No file of certificates is longer; one that is was named by mistake.
const MAX_PEM: usize = 1024 * 1024;

/// Days left from which a certificate is worth a warning: whoever renews by itself has done so.
const RENEW_WITHIN: i64 = 14;

const DAY: i64 = 24 * 60 * 60;

impl Compiler<'_, '_> {
    pub(crate) fn tls(&mut self, tls: &Tls, place: &Place) -> Option<TlsPlan> {
        let list = place.at("certificates");
        if tls.certificates.is_empty() && self.findings.sound(&list) && self.findings.clear(place) {
            let finding = Finding::error("missing", place, "TLS needs a certificate");
            let help = "add `certificates = [{ cert = \"tls/site.crt\", key = \"tls/site.key\" }]`";
            self.findings.add(finding.label("needs `certificates`").say(help));
        }
        let pairs = tls.certificates.iter().enumerate();
        let certificates = pairs
            .filter_map(|(n, files)| {
                let at = self.findings.element(&list, n);
                self.pair(files, &at)
            })
            .collect();
        Some(TlsPlan { certificates, min_version: tls.min_version.0, clients: self.clients(tls, place) })
    }

    fn clients(&mut self, tls: &Tls, place: &Place) -> Option<ClientsPlan> {
        let (at, auth) = (place.at("client_ca"), tls.client_auth.0);
        let Some(file) = &tls.client_ca else {
            if auth != ClientAuth::Off && self.findings.sound(&at) {
                let message = "client certificates need an authority that signs them";
                let finding = Finding::error("missing", &place.at("client_auth"), message);
                self.findings
                    .add(finding.label("needs `client_ca`").say("add `client_ca = \"tls/clients.pem\"`"));
            }
            return None;
        };
        let file = self.path(&file.value.0);
        let authorities = self.authorities(&file, &at)?;
        let subject_header = tls.client_subject_header.value.clone();
        Some(ClientsPlan { authorities, auth, subject_header })
    }

    /// How a pool's backends are reached.
    pub(crate) fn backend_tls(&mut self, tls: &BackendTls, place: &Place) -> Option<BackendTlsPlan> {
        let ca = tls.ca.as_ref().map(|file| self.path(&file.value.0));
        let authorities = match &ca {
            _ if !tls.verify => {
                self.looks_at_nothing(ca.is_some(), place);
                Some(Vec::new())
            }
            Some(file) => self.authorities(file, &place.at("ca")),
            None if self.findings.sound(&place.at("ca")) => self.authorities_of_the_system(place),
            None => None,
        };
        let certificate = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let files = CertificateFiles { cert: cert.clone(), key: key.clone() };
                Some(self.pair(&files, place)?)
            }
            (None, None) => None,
            (cert, _) => {
                let (has, lacks) = if cert.is_some() { ("cert", "key") } else { ("key", "cert") };
                if self.findings.sound(&place.at(lacks)) {
                    let finding =
                        Finding::error("missing", &place.at(has), "a certificate comes with its key");
                    self.findings.add(finding.label(format!("needs `{lacks}`")));
                }
                return None;
            }
        };
        let sni = tls.sni.as_ref().map(|name| name.value.0.clone());
        let authorities = authorities?.into();
        Some(BackendTlsPlan { sni, verify: tls.verify, ca, authorities, certificate })
    }

    fn looks_at_nothing(&mut self, has_ca: bool, place: &Place) {
        let message = "whoever stands in between can read and change what goes to these backends";
        let finding = Finding::warning("unverified", &place.at("verify"), message);
        self.findings.add(finding.label("no certificate is looked at"));
        if has_ca {
            let finding = Finding::warning("unused", &place.at("ca"), "`ca` changes nothing here");
            self.findings.add(finding.label("`verify = false` looks at no certificate"));
        }
    }

    fn authorities(&mut self, file: &Path, at: &Place) -> Option<Vec<Vec<u8>>> {
        self.pem(at, file, "authority", |pem| {
            let authorities = certificate::chain(pem)?;
            certificate::authorities(&authorities).map(|_| authorities)
        })
    }

    fn authorities_of_the_system(&mut self, place: &Place) -> Option<Vec<Vec<u8>>> {
        let failed = |why: String| {
            let message = "this system has no authorities to hold certificates against";
            let finding = Finding::error("certificate", place, message).label(why);
            self.findings.add(finding.say("add `ca = \"tls/internal-ca.pem\"`, or install ca-certificates"));
        };
        certificate::of_the_system().map_err(failed).ok()
    }

    /// A certificate and its key; everything that is wrong with them is said.
    fn pair(&mut self, files: &CertificateFiles, place: &Place) -> Option<CertificatePlan> {
        let (cert_at, key_at) = (place.at("cert"), place.at("key"));
        let (cert, key) = (self.path(&files.cert.value.0), self.path(&files.key.value.0));
        let chain = self.pem(&cert_at, &cert, "certificate", certificate::chain);
        let private = self.pem(&key_at, &key, "key", certificate::private_key);
        let (chain, private) = (chain?, private?);
        if let Err(unfit) = certificate::belongs(&chain, &private) {
            let at = if matches!(unfit, Unfit::BadCertificate(..)) { &cert_at } else { &key_at };
            let finding = match unfit {
                Unfit::OtherKey | Unfit::Misplaced(_) => {
                    let message = format!("`{}` is not the key of `{}`", key.display(), cert.display());
                    Finding::error("certificate", at, message).with(&cert_at, "the certificate")
                }
                _ => Finding::error("certificate", at, "this pair cannot be used"),
            };
            let finding = finding.label(unfit.to_string());
            self.findings.add(match unfit {
                Unfit::Misplaced(_) => finding.say("the server's own certificate comes first in its file"),
                Unfit::OtherKey => finding.say("files of a pair are renewed together"),
                _ => finding,
            });
            return None;
        }
        let facts = certificate::facts(&chain[0])?;
        self.outlook(&facts, &cert, &cert_at);
        Some(CertificatePlan { file: cert, chain, key: private, facts })
    }

    fn pem<T>(
        &mut self,
        at: &Place,
        path: &Path,
        what: &str,
        read: impl FnOnce(&[u8]) -> Result<T, Unfit>,
    ) -> Option<T> {
        let failed = |why: String| (format!("cannot read the {what} in `{}`", path.display()), why);
        let unfit = |unfit: Unfit| {
            (format!("`{}` holds no {what} that can be used", path.display()), unfit.to_string())
        };
        let bytes = bytes_of(path, MAX_PEM).map_err(failed);
        if let Ok(bytes) = &bytes {
            self.files.push(ReadFile::new(path, bytes));
        }
        let result = bytes.and_then(|bytes| read(&bytes).map_err(unfit));
        result
            .map_err(|(message, label)| {
                self.findings.add(Finding::error("certificate", at, message).label(label));
            })
            .ok()
    }

    fn outlook(&mut self, facts: &Facts, cert: &Path, at: &Place) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if let Some(label) = outlook(facts.not_after, now.try_into().unwrap_or(i64::MAX)) {
            let message = format!("the certificate in `{}` wants to be renewed", cert.display());
            let finding = Finding::warning("expiry", at, message).label(label);
            self.findings.add(finding.say("replace the files; they are read again as soon as they change"));
        }
    }
}

/// What is to be said of a certificate that ends then; nothing while there is time.
fn outlook(not_after: i64, now: i64) -> Option<String> {
    match (not_after - now).div_euclid(DAY) {
        ..0 if now - not_after < DAY => Some("expired within the last day".to_owned()),
        ..0 => Some(format!("expired {} days ago", (now - not_after) / DAY)),
        0 => Some("expires within a day".to_owned()),
        1 => Some("expires in 1 day".to_owned()),
        left if left < RENEW_WITHIN => Some(format!("expires in {left} days")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_mentioned_two_weeks_before_it_ends() {
        let at = |days: i64, seconds: i64| outlook(1_000 * DAY, (1_000 - days) * DAY - seconds);
        assert_eq!(at(14, 0), None);
        assert_eq!(at(14, -1).as_deref(), Some("expires in 13 days"));
        assert_eq!(at(1, 0).as_deref(), Some("expires in 1 day"));
        assert_eq!(at(0, 5).as_deref(), Some("expires within a day"));
        assert_eq!(at(0, -5).as_deref(), Some("expired within the last day"));
        assert_eq!(at(-30, 0).as_deref(), Some("expired 30 days ago"));
        assert_eq!(outlook(i64::MAX, 0), None);
    }
}
