//! Certificates and keys: read from PEM files, and made for a lab in one step. TLS 1.3 only.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// Files of a side: its certificate chain and the key to it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate chain, PEM, own certificate first.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl Identity {
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("{}: no private key can be read from it", self.key.display()))?;
        Ok((certificates(&self.cert)?, key))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("{}: no certificates can be read from it", path.display()))?;
    if all.is_empty() {
        bail!("{}: there is no certificate in it", path.display());
    }
    Ok(all)
}

fn roots(path: &Path) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for c in certificates(path)? {
        store.add(c).with_context(|| format!("{}: not a certificate to trust", path.display()))?;
    }
    Ok(store)
}

/// TLS of a listener. With `client_ca` only clients are let in that show a certificate signed by it.
///
/// # Errors
/// A file cannot be read or does not hold what it should.
pub fn server(identity: &Identity, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>> {
    let (chain, key) = identity.load()?;
    let builder = ServerConfig::builder();
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder(Arc::new(roots(ca)?)).build().with_context(|| ca.display().to_string())?,
        ),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("{} and {} do not go together", identity.cert.display(), identity.key.display()))?;
    // Sessions are not taken up again, and a recorder that only sends would never read a ticket.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Where distributions keep the certificates that the system trusts.
const SYSTEM_CA: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// TLS of a recorder: the listener must show a certificate signed by `ca`, or by one that the system trusts.
///
/// # Errors
/// A file cannot be read or does not hold what it should.
pub fn client(ca: Option<&Path>, identity: Option<&Identity>) -> Result<Arc<ClientConfig>> {
    let roots = match ca {
        Some(ca) => roots(ca)?,
        None => {
            let Some(path) = SYSTEM_CA.iter().map(Path::new).find(|p| p.exists()) else {
                bail!("this system has no list of trusted certificates: name the listener's by --tls-ca FILE");
            };
            let mut store = RootCertStore::empty();
            // A list of a system may hold what is out of date: what cannot be used is left out.
            store.add_parsable_certificates(certificates(path)?);
            store
        }
    };
    let builder = ClientConfig::builder().with_root_certificates(roots);
    Ok(Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(i) => {
            let (chain, key) = i.load()?;
            builder
                .with_client_auth_cert(chain, key)
                .with_context(|| format!("{} and {} do not go together", i.cert.display(), i.key.display()))?
        }
    }))
}

/// Makes what a lab needs in `dir`: an authority (`ca.pem`), and certificates with keys for the listener
/// (`server.pem`, `server-key.pem`) and for recorders (`client.pem`, `client-key.pem`).
///
/// The listener's certificate holds for this machine's name, its addresses, and `names`. The authority's key is
/// not kept: nobody can make more certificates later.
///
/// # Errors
/// A file exists already or cannot be written.
pub fn new_certificates(dir: &Path, names: &[String]) -> Result<Vec<PathBuf>> {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    };

    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let named = |name: &str, subjects: Vec<String>| -> Result<CertificateParams> {
        let mut p = CertificateParams::new(subjects)?;
        p.distinguished_name.push(DnType::CommonName, name);
        Ok(p)
    };
    let mut ca = named("tracecmd authority", vec![])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_key = KeyPair::generate()?;
    let ca_cert = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut made = Vec::new();
    let mut put = |name: &str, text: String, mode: u32| -> Result<()> {
        let path = dir.join(name);
        let mut f = fs::File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .with_context(|| format!("{}: cannot be made", path.display()))?;
        f.write_all(text.as_bytes()).with_context(|| path.display().to_string())?;
        made.push(path);
        Ok(())
    };
    put("ca.pem", ca_cert.pem(), 0o644)?;
    for (side, subjects, usage) in [
        ("server", own_names(names), ExtendedKeyUsagePurpose::ServerAuth),
        ("client", vec![], ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut p = named(&format!("tracecmd {side}"), subjects)?;
        p.extended_key_usages = vec![usage];
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let cert = p.signed_by(&key, &issuer)?;
        put(&format!("{side}.pem"), cert.pem(), 0o644)?;
        put(&format!("{side}-key.pem"), key.serialize_pem(), 0o600)?;
    }
    Ok(made)
}

/// Names and addresses under which this machine can be reached.
fn own_names(more: &[String]) -> Vec<String> {
    let mut all: Vec<String> = more.to_vec();
    all.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    if let Ok(host) = nix::unistd::gethostname() {
        all.push(host.to_string_lossy().into_owned());
    }
    for a in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(addr) = a.address else { continue };
        let v4 = addr.as_sockaddr_in().map(|a| a.ip().to_string());
        let v6 = addr.as_sockaddr_in6().map(|a| a.ip().to_string());
        all.extend(v4.or(v6));
    }
    all.retain(|n| !n.is_empty() && n.is_ascii());
    let mut seen = std::collections::HashSet::new();
    all.retain(|n| seen.insert(n.clone()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_certificates_work_together_and_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let made = new_certificates(dir.path(), &["box.lab".into()]).unwrap();
        assert_eq!(made.len(), 5);
        let id = |side: &str| Identity {
            cert: dir.path().join(format!("{side}.pem")),
            key: dir.path().join(format!("{side}-key.pem")),
        };
        let ca = dir.path().join("ca.pem");
        let s = server(&id("server"), Some(&ca)).unwrap();
        let c = client(Some(&ca), Some(&id("client"))).unwrap();
        let mut s = rustls::ServerConnection::new(s).unwrap();
        let mut c = rustls::ClientConnection::new(c, "box.lab".try_into().unwrap()).unwrap();
        while s.is_handshaking() || c.is_handshaking() {
            let mut wire = Vec::new();
            c.write_tls(&mut wire).unwrap();
            s.read_tls(&mut wire.as_slice()).unwrap();
            s.process_new_packets().unwrap();
            let mut wire = Vec::new();
            s.write_tls(&mut wire).unwrap();
            c.read_tls(&mut wire.as_slice()).unwrap();
            c.process_new_packets().unwrap();
        }
        assert_eq!(s.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert!(s.peer_certificates().is_some());
        assert!(new_certificates(dir.path(), &[]).is_err());
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(dir.path().join("server-key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
