//! TLS clients by hand, with the library itself and none of our own code: over a whole connection, and over
//! one that is cut after so many bytes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use oneport::pin::Pin;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// A connection within TLS.
pub(crate) type Secured<S = TcpStream> = StreamOwned<ClientConnection, S>;

/// Takes any key, and still wants its signature.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 was spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that takes any key; its first message is a short one, of a few hundred bytes.
pub(crate) fn config() -> Arc<ClientConfig> {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    });
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// A session that has not said anything yet.
pub(crate) fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from("oneport").unwrap()).unwrap()
}

/// A connection within TLS over a new one; it shakes hands when it is first used.
pub(crate) fn over<S: Read + Write>(stream: S) -> Secured<S> {
    StreamOwned::new(session(&config()), stream)
}

/// As [`over`], with hands shaken.
pub(crate) fn shaken<S: Read + Write>(stream: S) -> io::Result<Secured<S>> {
    let mut secured = over(stream);
    while secured.conn.is_handshaking() {
        secured.conn.complete_io(&mut secured.sock)?;
    }
    Ok(secured)
}

/// Says that no more will come, as TLS demands it.
pub(crate) fn close<S: Read + Write>(secured: &mut Secured<S>) {
    secured.conn.send_close_notify();
    while secured.conn.wants_write() && secured.conn.write_tls(&mut secured.sock).is_ok() {}
}

/// The pin of the server's key, after the handshake.
pub(crate) fn pin<S: Read + Write>(secured: &Secured<S>) -> Pin {
    let certificate = &secured.conn.peer_certificates().unwrap()[0];
    Pin::of(&ParsedCertificate::try_from(certificate).unwrap().subject_public_key_info())
}

/// The first message of a client, in its record.
pub(crate) fn client_hello() -> Vec<u8> {
    let (mut session, mut bytes) = (session(&config()), Vec::new());
    session.write_tls(&mut bytes).unwrap();
    bytes
}

/// A connection of which only so many bytes pass, each way; it counts them, and keeps those that were sent.
pub(crate) struct Narrow {
    pub(crate) stream: TcpStream,
    pub(crate) sent: Vec<u8>,
    pub(crate) received: usize,
    up_max: usize,
    down_max: usize,
}

impl Narrow {
    pub(crate) fn new(stream: TcpStream, up_max: usize, down_max: usize) -> Self {
        Self { stream, sent: Vec::new(), received: 0, up_max, down_max }
    }
}

impl Read for Narrow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(self.down_max - self.received);
        if room == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let count = self.stream.read(&mut buffer[..room])?;
        self.received += count;
        Ok(count)
    }
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = bytes.len().min(self.up_max - self.sent.len());
        if room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let count = self.stream.write(&bytes[..room])?;
        self.sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
