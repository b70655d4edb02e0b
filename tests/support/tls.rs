//! Certificates, and callers that speak TLS.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code; every test file uses its own part of it"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::support::{PATIENCE, Upstream};

/// An authority with its certificate in a folder.
pub struct Authority {
    pub dir: tempfile::TempDir,
    params: CertificateParams,
    key: KeyPair,
    pub pem: String,
}

/// A certificate with its key, in files.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), &pem).unwrap();
        Self { dir, params, key, pem }
    }

    /// The file with its certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    pub fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// The texts of a certificate for these names (`spiffe://…`, DNS names, addresses) and of its key.
    pub fn texts(
        &self,
        names: &[&str],
        with: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::default();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        with(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer()).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// The same in the files `<file>.crt` and `<file>.key` beside the authority's.
    pub fn issue(&self, file: &str, names: &[&str]) -> Issued {
        self.issue_with(file, names, |_| {})
    }

    pub fn issue_with(
        &self,
        file: &str,
        names: &[&str],
        with: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let (cert, key) = self.texts(names, with);
        self.write(file, &cert, &key)
    }

    pub fn write(&self, file: &str, cert: &str, key: &str) -> Issued {
        let at = |end: &str| self.dir.path().join(format!("{file}.{end}"));
        let issued = Issued { cert: at("crt"), key: at("key") };
        std::fs::write(&issued.cert, cert).unwrap();
        std::fs::write(&issued.key, key).unwrap();
        issued
    }

    /// What a caller trusts.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// A caller that trusts this authority, and shows `own`.
    pub fn client(&self, own: Option<&Issued>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_file_iter(&own.cert).unwrap();
                let chain = chain.map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}

impl Issued {
    /// A server that answers each connection with these bytes under TLS, and then says that this is the end, or not.
    pub fn serve(&self, answer: Vec<u8>, notify: bool) -> Upstream {
        let chain =
            CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        Upstream::serve(move |_, stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(session, stream);
            let mut request = [0; 4096];
            if stream.read(&mut request).is_err() || stream.write_all(&answer).is_err() {
                return;
            }
            if notify {
                stream.conn.send_close_notify();
            }
            let _gone = stream.flush();
            let _gone = stream.sock.shutdown(Shutdown::Write);
            let _gone = stream.sock.read(&mut request);
        })
    }

    /// As keys of the file.
    pub fn yaml(&self) -> String {
        format!("cert: {}, key: {}", self.cert.display(), self.key.display())
    }
}

fn san(name: &str) -> SanType {
    if name.contains("://") {
        SanType::URI(name.try_into().unwrap())
    } else if let Ok(address) = name.parse() {
        SanType::IpAddress(address)
    } else {
        SanType::DnsName(name.try_into().unwrap())
    }
}

/// A caller's connection under TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Connects; the handshake is done with the first read or write.
pub fn open(to: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> TlsStream {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// One GET, and everything until the connection ends. An error is told as text.
pub fn get(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
    path: &str,
) -> Result<String, String> {
    let mut stream = open(to, config, name);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// Runs a program without a terminal; `None` where the machine has none of that name.
pub fn program(name: &str, args: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new(name);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: there is no {name}");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let _closed = stdin.write_all(input.as_bytes());
    drop(stdin);
    Some(child.wait_with_output().unwrap())
}

/// curl against `https://localhost:<port><path>`, which trusts `ca`: `status version` and the body.
pub fn curl(to: SocketAddr, ca: &Path, path: &str, more: &[&str]) -> Option<String> {
    let (url, ca) = (format!("https://localhost:{}{path}", to.port()), ca.to_str().unwrap());
    let mut args = vec!["-sS", "--cacert", ca, "-w", "%{http_code} %{http_version} "];
    args.extend(more);
    args.push(&url);
    let output = program("curl", &args, "")?;
    let said = String::from_utf8_lossy(&output.stderr);
    Some(format!("{}{said}", String::from_utf8_lossy(&output.stdout)))
}
