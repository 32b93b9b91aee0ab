//! A server that says whatever a test wants, on a port of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use oneport::digest::Md5;
use oneport::names::HELLO_PREFIX;

use crate::harness::CLIENT_PATIENCE;

/// Accepts connections, reads the request of each and hands it to the script.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    stopping: Arc<AtomicBool>,
}

impl Scripted {
    /// `script` gets the connection, the name that was asked for (which may be a greeting), and how
    /// many came before.
    pub(crate) fn start(script: impl Fn(TcpStream, &str, usize) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), |_, _| false, script)
    }

    /// A server of version 1: to the greeting of another version it says what it says to a name that
    /// it does not hold, and the script does not hear of it.
    pub(crate) fn version_1(script: impl Fn(TcpStream, &str, usize) + Send + Sync + 'static) -> Self {
        Self::version_1_on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub(crate) fn version_1_on(
        listener: TcpListener,
        script: impl Fn(TcpStream, &str, usize) + Send + Sync + 'static,
    ) -> Self {
        let refuse = |mut stream: &TcpStream, name: &str| {
            let is_hello = name.as_bytes().starts_with(HELLO_PREFIX);
            if is_hello {
                let _ = stream.write_all(b"ERRORno such file");
            }
            is_hello
        };
        Self::on(listener, refuse, script)
    }

    fn on(
        listener: TcpListener,
        is_done: impl Fn(&TcpStream, &str) -> bool + Send + Sync + 'static,
        script: impl Fn(TcpStream, &str, usize) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (Arc::clone(&requests), Arc::clone(&stopping));
        let script = Arc::new((is_done, script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(mut stream), seen, script) = (stream, Arc::clone(&seen), Arc::clone(&script)) else {
                    continue;
                };
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(CLIENT_PATIENCE)).unwrap();
                    stream.set_write_timeout(Some(CLIENT_PATIENCE)).unwrap();
                    let Some(name) = read_request(&mut stream) else { return };
                    if script.0(&stream, &name) {
                        return;
                    }
                    let before = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(name.clone());
                        seen.len() - 1
                    };
                    script.1(stream, &name, before);
                });
            }
        });
        Self { address, requests, stopping }
    }

    /// Always gives the same bytes and closes.
    pub(crate) fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |mut stream, _, _| drop(stream.write_all(&bytes)))
    }

    /// Serves these bytes under every name, over version 1.
    pub(crate) fn serving(data: &[u8]) -> Self {
        let data = data.to_vec();
        Self::version_1(move |mut stream, name, _| drop(stream.write_all(&answer(name, &data))))
    }

    /// The names that were asked for, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut name = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut name).ok()?;
    String::from_utf8(name).ok()
}

/// `OK` and a header with whatever is in it.
pub(crate) fn header(name: &[u8], size: u64, md5: &str) -> Vec<u8> {
    let len = u32::try_from(name.len()).unwrap().to_be_bytes();
    [b"OK", &len[..], name, &size.to_be_bytes(), md5.as_bytes()].concat()
}

/// A right answer, as one piece.
pub(crate) fn answer(name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(name.as_bytes(), data.len() as u64, &Md5::of(data).to_string());
    bytes.extend_from_slice(data);
    bytes
}

/// Waits until the client is gone.
pub(crate) fn until_gone(mut stream: &TcpStream) {
    let _ = stream.read(&mut [0]);
}
