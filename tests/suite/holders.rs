//! Keys and their holders, for tests: keys are made by the real program, and shown by hand.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};

use oneport::codec::v2::{ClientFrame, Get, List, RequestId, ServerFrame};

use crate::raw;
use crate::serving::{Ended, Server, Site};
use crate::v2_peer::{Asker, frame, get, stat};

/// Kind of the frame that shows a key.
const AUTH: u8 = 0x07;
/// What a server says of whatever is not allowed.
pub(crate) const NOT_ALLOWED: u16 = 4;

/// `server key …` with the site's state folder.
pub(crate) fn key(site: &Site, arguments: &[&str]) -> Ended {
    site.launch_bare(&[&["key"], arguments, &["--state", "state"]].concat()).run()
}

/// Makes a key; its token.
pub(crate) fn add(site: &Site, name: &str, options: &[&str]) -> String {
    let ended = key(site, &[&["add", name], options].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let token = ended.stdout.strip_suffix('\n').expect("a line").to_owned();
    assert!(!token.contains('\n'), "one line, which is the token: {token}");
    token
}

/// Takes a key away.
pub(crate) fn revoke(site: &Site, name: &str) {
    let ended = key(site, &["revoke", name]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Another token, as good as this one in form: one letter of the secret is another, and the checksum fits.
pub(crate) fn near_miss(token: &str, seed: u64) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    use oneport::token::{TOKEN_RANDOM, Token};
    let body = Base64UrlUnpadded::decode_vec(&token[Token::PREFIX.len()..]).unwrap();
    let mut random: [u8; TOKEN_RANDOM] = body[..TOKEN_RANDOM].try_into().unwrap();
    random[TOKEN_RANDOM - 8..].copy_from_slice(&seed.to_be_bytes());
    Token::new(&random).expose().to_owned()
}

/// The part of a token that nobody else may ever see.
pub(crate) fn secret(token: &str) -> &str {
    &token["oneport_".len() + 12..]
}

/// The frame that shows a word as a key.
pub(crate) fn auth(word: &str) -> Vec<u8> {
    frame(AUTH, 0, word.as_bytes())
}

/// A connection of version 2 whose client has shown a key.
pub(crate) fn holder(server: &Server, word: &str) -> Asker {
    show(Asker::new(server, ""), word)
}

/// As [`holder`], from another address of this machine.
pub(crate) fn holder_from(server: &Server, address: IpAddr, word: &str) -> Asker {
    show(Asker::on(connect_from(server, address), ""), word)
}

fn show(mut asker: Asker, word: &str) -> Asker {
    asker.stream.write_all(&auth(word)).unwrap();
    asker
}

/// A connection from another address of this machine.
pub(crate) fn connect_from(server: &Server, address: IpAddr) -> TcpStream {
    let from = SocketAddr::new(address, 0);
    raw::connect_with(server.address, |socket| socket.bind(&from.into()).unwrap())
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer.
    Answered,
    /// An error of this request, or of the connection (0).
    Refused(RequestId, u16, String),
    /// The connection ended without a word.
    Closed,
}

/// Asks and says what came of it.
pub(crate) fn ask(asker: &mut Asker, request: &ClientFrame) -> Outcome {
    // A server that has refused the key may have closed already.
    let _ = asker.send(std::slice::from_ref(request));
    while let Some(told) = asker.hear() {
        match told.frame {
            ServerFrame::Error(number, code, text) => {
                return Outcome::Refused(number, code.0, String::from_utf8(text.to_vec()).unwrap());
            }
            ServerFrame::Pong(..) | ServerFrame::End(..) => return Outcome::Answered,
            ServerFrame::File(..) if matches!(request, ClientFrame::Stat(..)) => return Outcome::Answered,
            _ => {}
        }
    }
    Outcome::Closed
}

/// STAT of a file; what came of it.
pub(crate) fn ask_stat(asker: &mut Asker, request: RequestId, name: &str) -> Outcome {
    ask(asker, &stat(request, name.as_bytes()))
}

/// GET of a file; what came of it.
pub(crate) fn ask_get(asker: &mut Asker, request: RequestId, name: &str) -> Outcome {
    ask(asker, &get(request, name))
}

/// GET of a file of which the client lets little be under way.
pub(crate) fn get_all(request: RequestId, name: &str) -> ClientFrame {
    ClientFrame::Get(request, Get { name: name.to_owned().into(), transfer: [9; 16], ..Get::default() })
}

/// LIST of a folder.
pub(crate) fn list(request: RequestId, name: &str) -> ClientFrame {
    ClientFrame::List(request, List { name: name.to_owned().into(), ..List::default() })
}
