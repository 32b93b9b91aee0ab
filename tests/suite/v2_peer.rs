//! Version 2 spoken by hand: servers that answer frame by frame, and clients that send what they like.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use oneport::codec::v2::{ClientFrame, File, Get, Hello, RequestId, ServerFrame, Stat, Token, Welcome};
use oneport::exchange::{Ask, Opened, Output, Responder};
use oneport::tree::{BlockHash, Root, Tree, block_count, block_span};

use crate::raw;
use crate::scripted::Scripted;
use crate::serving::Server;

/// Bytes of a block.
pub(crate) const MIB: usize = 1 << 20;
/// A window that is never used up.
const WIDE: u64 = 1 << 62;
const CHUNK: usize = 64 << 10;
/// Bytes of DATA in a frame of a scripted server: a server may send less at a time than it could, and a
/// block of several frames has places between them.
const DATA_MAX: u64 = 256 << 10;

/// How a hello begins.
pub(crate) const HELLO: &str = "?oneport/2?";

/// The root of some bytes.
pub(crate) fn root_of(data: &[u8]) -> Root {
    tree_of(data).root()
}

fn tree_of(data: &[u8]) -> Arc<Tree> {
    let size = data.len() as u64;
    let mut values = Vec::new();
    for index in 0..block_count(size) {
        let span = block_span(size, index);
        match BlockHash::of(size, index, &data[span.start as usize..span.end as usize]) {
            BlockHash::Sole(root) => return Arc::new(Tree::sole(root)),
            BlockHash::Among(value) => values.push(value),
        }
    }
    Arc::new(Tree::over(values).unwrap())
}

/// The identity that these servers give to the bytes with this root.
fn identity_of(root: Root) -> Token {
    root.as_bytes()[..16].try_into().unwrap()
}

/// What an honest server answers to one request for these bytes, frame by frame; with `root_known` the
/// root is in FILE.
pub(crate) fn answer(frame: &ClientFrame, data: &[u8], root_known: bool) -> Vec<Vec<u8>> {
    let (tree, now) = (tree_of(data), Instant::now());
    let mut responder = Responder::new(WIDE);
    responder.limit_data(DATA_MAX);
    let _welcome = responder.next(now);
    if responder.handle(frame.clone(), now).is_err() {
        return Vec::new();
    }
    let (mut bytes, mut is_over) = (Vec::new(), false);
    loop {
        while let Some(ask) = responder.ask() {
            is_over = false;
            match ask {
                Ask::Open { request, .. } => {
                    let file = File {
                        size: data.len() as u64,
                        modified: (1_700_000_000, 0),
                        mode: 0o644,
                        token: identity_of(tree.root()),
                        root: None,
                    };
                    let is_sole = block_count(file.size) == 1;
                    let tree = (root_known || is_sole).then(|| Arc::clone(&tree));
                    responder.opened(request, Opened { file, tree }, now);
                }
                Ask::Root(request) => responder.rooted(request, Arc::clone(&tree), now),
                Ask::Value(request, block) => responder.valued(request, block, tree.values()[block as usize]),
                _ => {}
            }
        }
        match responder.next(now) {
            // What it asks for last, it asks for when it has nothing more to send.
            None if is_over => break,
            None => is_over = true,
            Some(Output::Frames(frames)) => bytes.extend_from_slice(&frames),
            Some(Output::Data { head, offset, len, .. }) => {
                bytes.extend_from_slice(&head);
                bytes.extend_from_slice(&data[offset as usize..(offset + len) as usize]);
            }
        }
    }
    split(&bytes)
}

/// Frames, one by one.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((length, _)) = bytes.split_first_chunk::<4>() {
        let (frame, rest) = bytes.split_at(4 + u32::from_be_bytes(*length) as usize);
        frames.push(frame.to_vec());
        bytes = rest;
    }
    frames
}

/// A frame with any kind and body.
pub(crate) fn frame(kind: u8, request: RequestId, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(5 + body.len()).unwrap();
    [&len.to_be_bytes()[..], &[kind], &request.to_be_bytes(), body].concat()
}

pub(crate) fn encoded(frame: &ServerFrame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes.to_vec()
}

pub(crate) fn welcome() -> Vec<u8> {
    encoded(&ServerFrame::Welcome(Welcome::default()))
}

/// A scripted server's end of a connection whose hello has come.
pub(crate) struct Speaker {
    pub(crate) stream: TcpStream,
    first: Option<ClientFrame>,
    input: BytesMut,
}

impl Speaker {
    /// `None` if the client did not say hello.
    pub(crate) fn new(stream: TcpStream, name: &str) -> Option<Self> {
        let hello = Hello::parse(name.as_bytes()).ok()?;
        stream.set_nodelay(true).unwrap();
        Some(Self { stream, first: hello.first, input: BytesMut::new() })
    }

    /// `false` if the client is gone.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame of the client; `None` at its end.
    pub(crate) fn hear(&mut self) -> Option<ClientFrame> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            if let Some(frame) = ClientFrame::decode(&mut self.input).unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(count @ 1..) => self.input.extend_from_slice(&chunk[..count]),
                _ => return None,
            }
        }
    }

    /// Answers each request with what `make` says.
    pub(crate) fn answer_all(&mut self, mut make: impl FnMut(&ClientFrame) -> Vec<Vec<u8>>) {
        while let Some(asked) = self.hear() {
            for frame in make(&asked) {
                if !self.say(&frame) {
                    return;
                }
            }
        }
    }
}

/// A server of version 2: `make` gets each request and how many connections came before.
pub(crate) fn server(make: impl Fn(&ClientFrame, usize) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Scripted {
    Scripted::start(move |stream, name, before| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        if speaker.say(&welcome()) {
            speaker.answer_all(|asked| make(asked, before));
        }
    })
}

/// A server that answers the first request of each connection honestly as far as its first `frames`
/// frames, and closes.
pub(crate) fn server_that_stops(data: &[u8], root_known: bool, frames: usize) -> Scripted {
    let data = data.to_vec();
    Scripted::start(move |stream, name, _| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        let Some(asked) = speaker.hear() else { return };
        let answer = answer(&asked, &data, root_known);
        speaker.say(&[welcome(), answer[..frames.min(answer.len())].concat()].concat());
    })
}

/// A client that sends what it likes.
pub(crate) struct Asker<S = TcpStream> {
    pub(crate) stream: S,
    input: BytesMut,
}

/// A frame as it came, DATA with its bytes.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) frame: ServerFrame,
    pub(crate) data: Vec<u8>,
}

impl Asker {
    /// Says a hello with these fields.
    pub(crate) fn new(server: &Server, fields: &str) -> Self {
        Self::on(server.connect(), fields)
    }
}

impl<S: Read + Write> Asker<S> {
    pub(crate) fn on(mut stream: S, fields: &str) -> Self {
        stream.write_all(&raw::request(format!("{HELLO}{fields}").as_bytes())).unwrap();
        Self { stream, input: BytesMut::new() }
    }

    /// Sends frames; whether the server was still there.
    pub(crate) fn send(&mut self, frames: &[ClientFrame]) -> bool {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes).unwrap());
        self.stream.write_all(&bytes).is_ok()
    }

    /// The next frame; `None` at the end of the connection. That it does not come is a failure.
    pub(crate) fn hear(&mut self) -> Option<Told> {
        loop {
            if let Some(frame) = ServerFrame::decode(&mut self.input).unwrap() {
                let mut data = Vec::new();
                if let ServerFrame::Data { len, .. } = frame {
                    while self.input.len() < len as usize {
                        self.read()?;
                    }
                    data = self.input.split_to(len as usize).to_vec();
                }
                return Some(Told { frame, data });
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Option<()> {
        let mut chunk = vec![0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(count @ 1..) => self.input.extend_from_slice(&chunk[..count]),
            Ok(0) => return None,
            Err(error) => {
                assert!(!raw::is_timeout(&error), "the connection did not end");
                return None;
            }
        }
        Some(())
    }

    /// The error that ends the connection, or a request: its number, code and text.
    pub(crate) fn hear_error(&mut self) -> Option<(RequestId, u16, String)> {
        loop {
            if let ServerFrame::Error(request, code, text) = self.hear()?.frame {
                return Some((request, code.0, String::from_utf8(text.to_vec()).unwrap()));
            }
        }
    }

    /// All data of a request until it ends; its code if it fails.
    pub(crate) fn hear_all(&mut self, request: RequestId) -> Result<Vec<u8>, u16> {
        let mut bytes = Vec::new();
        loop {
            let told = self.hear().expect("the connection ended");
            match told.frame {
                ServerFrame::Data { request: number, .. } if number == request => bytes.extend(told.data),
                ServerFrame::End(number, _) if number == request => return Ok(bytes),
                ServerFrame::Error(number, code, _) if number == request => return Err(code.0),
                _ => {}
            }
        }
    }

    /// Whether the server still answers a ping.
    pub(crate) fn is_answered(&mut self) -> bool {
        const BYTES: [u8; 8] = *b"are you?";
        self.send(&[ClientFrame::Ping(0, BYTES)])
            && std::iter::from_fn(|| self.hear()).any(|told| told.frame == ServerFrame::Pong(0, BYTES))
    }
}

/// GET of a whole file.
pub(crate) fn get(request: RequestId, name: &str) -> ClientFrame {
    let name = Bytes::copy_from_slice(name.as_bytes());
    ClientFrame::Get(request, Get { name, ..Get::default() })
}

pub(crate) fn stat(request: RequestId, name: &[u8]) -> ClientFrame {
    ClientFrame::Stat(request, Stat { root: true, name: Bytes::copy_from_slice(name) })
}
