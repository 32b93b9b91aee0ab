//! Wire format v1 spoken by hand: a plain client, and one that behaves as seed 1's original does.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use oneport::digest::{MD5_HEX_LEN, Md5};
use socket2::{Domain, Socket, Type};

use crate::serving::PATIENCE;

/// How long the original client waits for any byte.
const ORIGINAL_TIMEOUT: Duration = Duration::from_secs(10);
/// What the original client, an interpreted program, may need from its request to its `recv`.
const ORIGINAL_SLOWNESS: Duration = Duration::from_millis(3);
/// How much the original client reads at once.
const ORIGINAL_CHUNK: usize = 4096;

/// What came over a connection until its end.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A refusal and its text.
    Refused(String),
    /// `OK`, a header, as many bytes as it announced, and its MD5 is theirs.
    Whole(File),
    /// Anything else: nothing, half a header, too few bytes, too many, another MD5.
    Broken(Vec<u8>),
}

/// A file as it arrived.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) md5: String,
    pub(crate) data: Vec<u8>,
}

/// A connection whose every wait ends.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A connection that takes no more than a few KiB before its owner reads.
pub(crate) fn connect_narrow(address: SocketAddr) -> TcpStream {
    connect_with(address, |socket| socket.set_recv_buffer_size(4096).unwrap())
}

/// A connection with options set before it is made.
pub(crate) fn connect_with(address: SocketAddr, set: impl FnOnce(&Socket)) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    set(&socket);
    socket.connect_timeout(&address.into(), PATIENCE).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Makes the coming close a reset.
pub(crate) fn reset(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// The bytes of a request.
pub(crate) fn request(name: &[u8]) -> Vec<u8> {
    [&u32::try_from(name.len()).unwrap().to_be_bytes(), name].concat()
}

/// Asks for a file and reads until the end.
pub(crate) fn fetch(address: SocketAddr, name: impl AsRef<[u8]>) -> Answer {
    let mut stream = connect(address).unwrap();
    stream.write_all(&request(name.as_ref())).unwrap();
    finish(stream)
}

/// Asks for a file that must arrive whole; its data.
pub(crate) fn fetch_whole(address: SocketAddr, name: impl AsRef<[u8]>) -> Vec<u8> {
    match fetch(address, name) {
        Answer::Whole(file) => file.data,
        other => panic!("not a whole file: {}", brief(&other)),
    }
}

/// Reads the answer until the end.
pub(crate) fn finish(stream: TcpStream) -> Answer {
    parse(read_all(stream))
}

/// Reads until the connection ends, in whatever way. An end that does not come is a failure.
pub(crate) fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert!(!is_timeout(&error), "the connection did not end; {} bytes came", bytes.len());
    }
    bytes
}

/// Whether the peer has ended the connection, without data before it.
pub(crate) fn is_ended(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => !is_timeout(&error),
    }
}

/// Whether a read ended because its time was over.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Says what a whole connection's bytes are.
pub(crate) fn parse(bytes: Vec<u8>) -> Answer {
    if let Some(text) = bytes.strip_prefix(b"ERROR") {
        return Answer::Refused(String::from_utf8(text.to_vec()).unwrap());
    }
    let Some((name, size, md5, data)) = split(&bytes) else { return Answer::Broken(bytes) };
    if data.len() as u64 != size || Md5::of(data).to_string() != md5 {
        return Answer::Broken(bytes);
    }
    Answer::Whole(File { name: name.to_vec(), size, md5, data: data.to_vec() })
}

/// The fields of a success: base name, size, MD5, and the data that came.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], u64, String, &[u8])> {
    let rest = bytes.strip_prefix(b"OK")?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (md5, data) = rest.split_at_checked(MD5_HEX_LEN)?;
    Some((name, u64::from_be_bytes(*size), String::from_utf8(md5.to_vec()).ok()?, data))
}

/// An answer without its data.
pub(crate) fn brief(answer: &Answer) -> String {
    match answer {
        Answer::Refused(text) => format!("refused: {text}"),
        Answer::Whole(file) => format!("{} bytes of {}", file.size, String::from_utf8_lossy(&file.name)),
        Answer::Broken(bytes) => {
            format!("broken after {} bytes: {}", bytes.len(), bytes[..bytes.len().min(80)].escape_ascii())
        }
    }
}

/// Downloads as seed 1's original client does: length and name in two writes, one `recv(5)` that
/// must be exactly `OK`, one `recv` for each field of the header, 10 s for each.
pub(crate) fn fetch_as_original(address: SocketAddr, name: &str) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect_timeout(&address, ORIGINAL_TIMEOUT).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(ORIGINAL_TIMEOUT)).unwrap();
    let length = u32::try_from(name.len()).unwrap().to_be_bytes();
    stream.write_all(&length).and_then(|()| stream.write_all(name.as_bytes())).map_err(|e| e.to_string())?;
    let (began, busy) = (Instant::now(), ORIGINAL_SLOWNESS.mul_f32(fastrand::f32()));
    while began.elapsed() < busy {}
    let status = recv(&mut stream, 5)?;
    if status == b"ERROR" {
        return Err(String::from_utf8_lossy(&recv(&mut stream, 1024)?).into_owned());
    }
    if status != b"OK" {
        return Err(format!("Invalid server response: {}", status.escape_ascii()));
    }
    let name_len = u32::from_be_bytes(field(&recv(&mut stream, 4)?)?);
    let base = recv(&mut stream, name_len as usize)?;
    if base.len() != name_len as usize {
        return Err("a short name".to_owned());
    }
    let size = u64::from_be_bytes(field(&recv(&mut stream, 8)?)?);
    let md5 = recv(&mut stream, MD5_HEX_LEN)?;
    let mut data = Vec::new();
    while (data.len() as u64) < size {
        let left = size as usize - data.len();
        match recv(&mut stream, left.min(ORIGINAL_CHUNK))? {
            none if none.is_empty() => return Err("the connection ended early".to_owned()),
            some => data.extend(some),
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    if Md5::of(&data).to_hex() != md5[..] {
        return Err("Checksum mismatch".to_owned());
    }
    Ok(data)
}

/// One `recv`, whatever it brings.
fn recv(stream: &mut TcpStream, max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; max];
    let count = stream.read(&mut bytes).map_err(|error| error.to_string())?;
    bytes.truncate(count);
    Ok(bytes)
}

fn field<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| format!("a field of {} bytes instead of {N}", bytes.len()))
}

/// Bytes that look like nothing, the same ones for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    chance.fill(&mut bytes);
    bytes
}
