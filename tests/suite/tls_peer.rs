//! A server's TLS end that is not ours: a relay that shakes hands with clients and passes what they say on, in
//! clear, to any server that a test likes. It remembers all that it has received and all that it has opened.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use oneport::pin::Pin;
use oneport::tls::Identity;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection};

use crate::harness::CLIENT_PATIENCE;

const CHUNK: usize = 64 << 10;

/// Who a relay is, and how it answers.
#[derive(Clone)]
pub(crate) enum Face {
    /// It shakes hands.
    Tls(Arc<ServerConfig>),
    /// It shakes hands, and ends as if the line had been cut.
    Unended(Arc<ServerConfig>),
    /// It passes everything on as it comes.
    Plain,
    /// It says this to whatever comes first, and closes.
    Saying(Vec<u8>),
    /// It closes when something has come.
    Closing,
    /// It never says anything.
    Silent,
}

/// A key and its certificates, in PEM.
pub(crate) struct Person {
    pub(crate) certificates: String,
    pub(crate) key: String,
}

impl Person {
    /// Somebody with a key and a certificate of its own.
    pub(crate) fn new() -> Self {
        let (_, certificates, key) = Identity::make().unwrap();
        Self { certificates, key }
    }

    pub(crate) fn pin(&self) -> Pin {
        Identity::from_pem(self.certificates.as_bytes(), self.key.as_bytes()).unwrap().pin()
    }

    /// A relay's face with this person's certificate, and the private key that is given.
    pub(crate) fn with_key_of(&self, other: &Self) -> Face {
        let provider = Arc::new(default_provider());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.certificates.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(other.key.as_bytes()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let certified = SingleCertAndKey::from(CertifiedKey::new(chain.unwrap(), key));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certified));
        Face::Tls(Arc::new(config))
    }

    pub(crate) fn face(&self) -> Face {
        self.with_key_of(self)
    }
}

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Somebody with a certificate for this name, until the end of this year.
    pub(crate) fn vouch_for(&self, name: &str, year: i32) -> Person {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Person { certificates: certificate.pem(), key: key.serialize_pem() }
    }
}

/// What came over one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// As it came.
    pub(crate) raw: Vec<u8>,
    /// What was in it, record by record.
    pub(crate) opened: Vec<Vec<u8>>,
}

struct State {
    face: Mutex<Face>,
    heard: Mutex<Vec<Heard>>,
    stopping: AtomicBool,
    target: SocketAddr,
}

/// A running relay.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    pub(crate) fn new(face: Face, target: SocketAddr) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), face, target)
    }

    pub(crate) fn on(listener: TcpListener, face: Face, target: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let (heard, stopping) = (Mutex::default(), AtomicBool::new(false));
        let state = Arc::new(State { face: Mutex::new(face), heard, stopping, target });
        let own = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if own.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(client), own) = (client, Arc::clone(&own)) else { continue };
                let number = {
                    let mut heard = own.heard.lock().unwrap();
                    heard.push(Heard::default());
                    heard.len() - 1
                };
                std::thread::spawn(move || own.meet(&client, number));
            }
        });
        Self { address, state }
    }

    /// Is somebody else from the next connection on.
    pub(crate) fn become_other(&self, face: Face) {
        *self.state.face.lock().unwrap() = face;
    }

    /// What came over each connection so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.state.heard.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub(crate) fn count(&self) -> usize {
        self.state.heard.lock().unwrap().len()
    }

    /// Whether these bytes came over any connection, as they are or in a record.
    pub(crate) fn has_heard(&self, bytes: &[u8]) -> bool {
        let has = |all: &[u8]| all.windows(bytes.len()).any(|window| window == bytes);
        self.heard().iter().any(|heard| has(&heard.raw) || has(&heard.opened.concat()))
    }

    /// Checks that every connection on which something came began with a TLS handshake.
    #[track_caller]
    pub(crate) fn expect_only_tls(&self) {
        for (number, heard) in self.heard().iter().enumerate() {
            assert!(heard.raw.is_empty() || heard.raw[0] == 0x16, "connection {number}: {:?}", heard.raw);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn meet(&self, client: &TcpStream, number: usize) {
        client.set_read_timeout(Some(CLIENT_PATIENCE)).unwrap();
        client.set_write_timeout(Some(CLIENT_PATIENCE)).unwrap();
        let _ = client.set_nodelay(true);
        let face = self.face.lock().unwrap().clone();
        let says_end = !matches!(face, Face::Unended(_));
        match face {
            Face::Tls(config) | Face::Unended(config) => {
                let session = Mutex::new(ServerConnection::new(config).unwrap());
                self.relay(client, Some(&session), says_end, number);
            }
            Face::Plain => self.relay(client, None, false, number),
            Face::Saying(bytes) => {
                if self.hear(client, &mut [0; CHUNK], number).is_some() {
                    let _ = (&*client).write_all(&bytes);
                }
            }
            Face::Closing => drop(self.hear(client, &mut [0; CHUNK], number)),
            Face::Silent => while self.hear(client, &mut [0; CHUNK], number).is_some() {},
        }
    }

    fn hear(&self, mut client: &TcpStream, chunk: &mut [u8], number: usize) -> Option<usize> {
        let count = client.read(chunk).ok().filter(|&count| count > 0)?;
        self.heard.lock().unwrap()[number].raw.extend_from_slice(&chunk[..count]);
        Some(count)
    }

    fn relay(
        &self,
        client: &TcpStream,
        tls: Option<&Mutex<ServerConnection>>,
        says_end: bool,
        number: usize,
    ) {
        let Ok(server) = TcpStream::connect(self.target) else { return };
        let _ = server.set_nodelay(true);
        if let Some(tls) = tls {
            tls.lock().unwrap().set_buffer_limit(None);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                down(&server, client, tls, says_end);
                let _ = client.shutdown(Shutdown::Write);
            });
            let mut chunk = vec![0; CHUNK];
            while let Some(count) = self.hear(client, &mut chunk, number) {
                let opened = match tls {
                    None => Some(chunk[..count].to_vec()),
                    Some(tls) => self.open(&mut tls.lock().unwrap(), client, &chunk[..count], number),
                };
                if opened.is_none_or(|opened| (&server).write_all(&opened).is_err()) {
                    break;
                }
            }
            let _ = server.shutdown(Shutdown::Both);
        });
    }

    /// Opens what has come; `None` if nothing more is to be said to this client.
    fn open(
        &self,
        tls: &mut ServerConnection,
        client: &TcpStream,
        mut came: &[u8],
        number: usize,
    ) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        while !came.is_empty() {
            tls.read_tls(&mut came).unwrap();
            let Ok(state) = tls.process_new_packets() else {
                flush(tls, client);
                return None;
            };
            let mut opened = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut opened).unwrap();
            all.extend_from_slice(&opened);
        }
        flush(tls, client);
        if !all.is_empty() {
            self.heard.lock().unwrap()[number].opened.push(all.clone());
        }
        Some(all)
    }
}

/// Passes on what the server says until it has said all.
fn down(
    mut server: &TcpStream,
    mut client: &TcpStream,
    tls: Option<&Mutex<ServerConnection>>,
    says_end: bool,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = server.read(&mut chunk).unwrap_or(0);
        let Some(tls) = tls else {
            if count == 0 || client.write_all(&chunk[..count]).is_err() {
                return;
            }
            continue;
        };
        let mut tls = tls.lock().unwrap();
        if count == 0 {
            if says_end {
                tls.send_close_notify();
            }
            flush(&mut tls, client);
            return;
        }
        tls.writer().write_all(&chunk[..count]).unwrap();
        if !flush(&mut tls, client) {
            return;
        }
    }
}

/// Whether the client took it.
fn flush(tls: &mut ServerConnection, mut client: &TcpStream) -> bool {
    let mut records = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut records).unwrap();
    }
    client.write_all(&records).is_ok()
}
