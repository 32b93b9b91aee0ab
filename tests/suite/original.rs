//! A server that behaves as seed 1's original does: a thread a connection, a buffer of 4 KiB, `OK`
//! and each field of the header sent by themselves, names looked up unchecked.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oneport::digest::Md5;

use crate::harness::CLIENT_PATIENCE;

/// The original's `BUFFER_SIZE`.
const BUFFER: usize = 4096;

/// The files that it has, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// An original-style server on a port of its own.
pub(crate) struct Original {
    pub(crate) address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl Original {
    pub(crate) fn serving(files: Files) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), files)
    }

    pub(crate) fn on(listener: TcpListener, files: Files) -> Self {
        let address = listener.local_addr().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, files) = (Arc::clone(&stopping), Arc::new(files));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(stream), files) = (stream, Arc::clone(&files)) else { continue };
                std::thread::spawn(move || serve(stream, &files));
            }
        });
        Self { address, stopping }
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, files: &Files) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    stream.set_write_timeout(Some(CLIENT_PATIENCE))?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut name = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut name)?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let Some(data) = files.get(&name) else {
        stream.write_all(b"ERROR")?;
        return stream.write_all(format!("File '{name}' not found on server").as_bytes());
    };
    let base = name.rsplit('/').next().unwrap_or(&name);
    stream.write_all(b"OK")?;
    stream.write_all(&u32::try_from(base.len()).unwrap().to_be_bytes())?;
    stream.write_all(base.as_bytes())?;
    stream.write_all(&(data.len() as u64).to_be_bytes())?;
    stream.write_all(Md5::of(data).to_string().as_bytes())?;
    for chunk in data.chunks(BUFFER) {
        stream.write_all(chunk)?;
    }
    Ok(())
}
