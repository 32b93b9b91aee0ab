//! A client that puts files by hand, for tests: it answers what the server asks for from memory, as far as a
//! test likes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use oneport::codec::v2::{ClientFrame, File, Form, Frame, Get, Put, RequestId, ServerFrame};
use oneport::exchange::{Ask, Opened, Output, Responder};
use oneport::priority::Priority;
use oneport::tree::{BlockHash, Root, Tree, block_count, block_span};

use crate::holders::auth;
use crate::raw;
use crate::serving::Server;
use crate::v2_peer::HELLO;

const CHUNK: usize = 64 << 10;

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// END, with the root if there was one.
    Ended(RequestId, Option<Root>),
    /// ERROR.
    Failed(RequestId, u16, String),
    /// The connection ended without either.
    Closed,
    /// So many bytes were sent as a test wanted.
    Enough,
}

/// A client with one file.
pub(crate) struct Putter {
    pub(crate) stream: TcpStream,
    input: BytesMut,
    responder: Responder,
    data: Vec<u8>,
    tree: Arc<Tree>,
    pub(crate) file: File,
    /// Whether FILE says the root.
    pub(crate) tells_root: bool,
    /// Bytes of the file that were sent.
    pub(crate) sent: usize,
    /// Bytes after which nothing more is sent.
    pub(crate) most: usize,
    /// Frames that the server has sent, other than WAIT.
    pub(crate) asked: Vec<ClientFrame>,
}

pub(crate) fn tree_of(data: &[u8]) -> Arc<Tree> {
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

impl Putter {
    /// Connects and shows a key.
    pub(crate) fn new(server: &Server, key: &str, data: &[u8]) -> Self {
        let mut stream = server.connect();
        stream.write_all(&raw::request(HELLO.as_bytes())).unwrap();
        stream.write_all(&auth(key)).unwrap();
        let tree = tree_of(data);
        let token = tree.root().as_bytes()[..16].try_into().unwrap();
        let size = data.len() as u64;
        let file = File { size, modified: (1_700_000_000, 5), mode: 0o640, token, root: None };
        Self {
            stream,
            input: BytesMut::new(),
            responder: Responder::of_offers(),
            data: data.to_vec(),
            tree,
            file,
            tells_root: true,
            sent: 0,
            most: usize::MAX,
            asked: Vec::new(),
        }
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn root(&self) -> Root {
        self.tree.root()
    }

    /// PUT of the file, in the form in which the server asks.
    pub(crate) fn put(&self, name: &str, attempt: u32) -> Put {
        Put {
            replace: false,
            unless_same: false,
            form: Form::Asked,
            name: Bytes::copy_from_slice(name.as_bytes()),
            transfer: [7; 16],
            attempt,
            file: self.file.clone(),
            priority: Priority::default(),
        }
    }

    pub(crate) fn send(&mut self, frame: &ClientFrame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes).unwrap();
        self.write(&bytes);
    }

    pub(crate) fn tell(&mut self, frame: &ServerFrame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.write(&bytes);
    }

    /// The server may have closed already, which is noticed when reading.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Offers a file and answers until something comes of it.
    pub(crate) fn offer(&mut self, request: RequestId, put: Put) -> Came {
        self.send(&ClientFrame::Put(request, put));
        self.answer()
    }

    /// Answers what the server asks for until something comes of what was put.
    pub(crate) fn answer(&mut self) -> Came {
        loop {
            if !self.give() {
                return Came::Enough;
            }
            match self.hear() {
                None => return Came::Closed,
                Some(Frame::Asks(frame)) => {
                    self.asked.push(frame.clone());
                    self.responder.handle(frame, Instant::now()).unwrap();
                }
                Some(Frame::Tells(ServerFrame::End(request, root))) => return Came::Ended(request, root),
                Some(Frame::Tells(ServerFrame::Error(request, code, text))) => {
                    return Came::Failed(request, code.0, String::from_utf8(text.to_vec()).unwrap());
                }
                Some(_) => {}
            }
        }
    }

    /// Ends the connection so that all that was sent arrives.
    pub(crate) fn close(mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
        while self.hear().is_some() {}
    }

    /// The next GET that the server sends, which is not answered.
    pub(crate) fn hear_get(&mut self) -> (RequestId, Get) {
        loop {
            match self.hear().expect("the connection ended") {
                Frame::Asks(ClientFrame::Get(request, get)) => return (request, get),
                Frame::Tells(ServerFrame::Error(.., text)) => panic!("{text:?}"),
                _ => {}
            }
        }
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn hear(&mut self) -> Option<Frame> {
        loop {
            match Frame::decode(&mut self.input).unwrap() {
                Some(Frame::Tells(ServerFrame::Welcome(_))) => continue,
                Some(frame) => return Some(frame),
                None => {}
            }
            let mut chunk = vec![0; CHUNK];
            match self.stream.read(&mut chunk) {
                Ok(count @ 1..) => self.input.extend_from_slice(&chunk[..count]),
                Ok(0) => return None,
                Err(error) => {
                    assert!(!raw::is_timeout(&error), "the server says nothing");
                    return None;
                }
            }
        }
    }

    /// Sends what is due; `false` if as much was sent as a test wanted.
    fn give(&mut self) -> bool {
        let now = Instant::now();
        loop {
            while let Some(ask) = self.responder.ask() {
                match ask {
                    Ask::Open { request, .. } => {
                        let is_sole = self.tree.values().is_empty();
                        let tree = (is_sole || self.tells_root).then(|| Arc::clone(&self.tree));
                        self.responder.opened(request, Opened { file: self.file.clone(), tree }, now);
                    }
                    Ask::Root(request) => self.responder.rooted(request, Arc::clone(&self.tree), now),
                    Ask::Value(request, block) => {
                        let value = self.tree.values()[block as usize];
                        self.responder.valued(request, block, value);
                    }
                    _ => {}
                }
            }
            match self.responder.next(now) {
                None => {
                    if self.responder.ask().is_none() {
                        return true;
                    }
                }
                Some(Output::Frames(frames)) => self.write(&frames),
                Some(Output::Data { head, offset, len, .. }) => {
                    self.write(&head);
                    let (offset, len) = (offset as usize, len as usize);
                    let now = len.min(self.most - self.sent);
                    let bytes = self.data[offset..offset + now].to_vec();
                    self.write(&bytes);
                    self.sent += now;
                    if now < len {
                        return false;
                    }
                }
            }
        }
    }
}
