//! A server that takes files: it asks for what it has not, and keeps it in memory. What it does wrong, a script says.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::codec::Decoder;

use super::{Get, get_of};
use crate::client::Server;
use crate::codec::v1::RequestCodec;
use crate::codec::v2::{
    ByteRange, ClientFrame, Form, Frame, Hello, Put, RequestId, ServerFrame, Stat, Token,
};
use crate::error::Code;
use crate::exchange::{Heard, Requester, Responder};
use crate::tree::{BlockHash, Root, block_count, block_span};

/// What a server does.
#[derive(Clone, Default)]
pub(super) struct Script {
    /// Connections are cut after so many blocks, one after the other.
    pub(super) cut_after: Vec<usize>,
    /// Only one block is asked for before so many connections have offered the file.
    pub(super) waits_for_links: usize,
    /// The values of all blocks are asked for first.
    pub(super) asks_values: bool,
    /// After so many blocks the local file becomes another one.
    pub(super) changes: Option<(usize, PathBuf)>,
    /// The file is there already.
    pub(super) is_same: bool,
    /// Nothing is said about offers.
    pub(super) is_silent: bool,
    /// These names are refused.
    pub(super) refuses: Vec<(Bytes, Code, &'static str)>,
    /// What is said in the place of anything else, whenever there is something to say.
    pub(super) says: Option<Say>,
}

pub(super) type Say = fn(&Put, RequestId, &mut Requester) -> Option<Bytes>;

#[derive(Default)]
struct Store {
    script: Script,
    puts: Vec<Put>,
    /// By name and version: the blocks that are here.
    parts: HashMap<(Bytes, Token), BTreeMap<u64, Vec<u8>>>,
    /// By name and version: the blocks that nobody asks for yet.
    queues: HashMap<(Bytes, Token), VecDeque<u64>>,
    arrived: Vec<(usize, u64)>,
    stored: HashMap<Bytes, Vec<u8>>,
    folders: Vec<(Bytes, u32)>,
    failures: Vec<Code>,
    values: usize,
}

struct State {
    store: Mutex<Store>,
    offered: Notify,
    changed: Notify,
}

/// A server at work.
pub(super) struct Puller {
    port: u16,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Puller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Puller {
    pub(super) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Mutex::new(Store { script, ..Store::default() });
        let state = Arc::new(State { store, offered: Notify::new(), changed: Notify::new() });
        let own = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&own);
                connections.spawn(async move {
                    // However it ends: the client notices, or has ended it itself.
                    let _ = Connection::new(stream, connection, state).serve().await;
                });
            }
        });
        Self { port, state, task }
    }

    pub(super) fn server(&self) -> Server {
        Server::new("127.0.0.1", self.port).unwrap()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.state.store.lock().unwrap()
    }

    pub(super) fn puts(&self) -> Vec<Put> {
        self.store().puts.clone()
    }

    /// The connection and number of each block, in the order in which they came.
    pub(super) fn arrived(&self) -> Vec<(usize, u64)> {
        self.store().arrived.clone()
    }

    pub(super) fn stored(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.store().stored.get(name).cloned()
    }

    pub(super) fn names(&self) -> Vec<Bytes> {
        let mut names: Vec<_> = self.store().stored.keys().cloned().collect();
        names.sort();
        names
    }

    pub(super) fn folders(&self) -> Vec<(Bytes, u32)> {
        let mut folders = self.store().folders.clone();
        folders.sort();
        folders
    }

    pub(super) fn failures(&self) -> Vec<Code> {
        self.store().failures.clone()
    }

    pub(super) fn values(&self) -> usize {
        self.store().values
    }

    /// Waits until something was offered.
    pub(super) async fn offered(&self) {
        self.state.offered.notified().await;
    }
}

/// It has ended.
struct Ended;

impl From<std::io::Error> for Ended {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

struct Connection {
    stream: TcpStream,
    number: usize,
    state: Arc<State>,
    input: BytesMut,
    requester: Requester,
    /// Offers that are not answered.
    offers: BTreeMap<RequestId, (Put, Vec<u8>)>,
    /// Blocks that were asked for here.
    asked: HashMap<RequestId, u64>,
    block: Vec<u8>,
    got: usize,
    root: Option<Root>,
    is_root_asked: bool,
    cut: Option<usize>,
}

impl Connection {
    fn new(stream: TcpStream, number: usize, state: Arc<State>) -> Self {
        let cut = state.store.lock().unwrap().script.cut_after.get(number).copied();
        Self {
            stream,
            number,
            state,
            input: BytesMut::new(),
            requester: Requester::of_offers(),
            offers: BTreeMap::new(),
            asked: HashMap::new(),
            block: Vec::new(),
            got: 0,
            root: None,
            is_root_asked: false,
            cut,
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.state.store.lock().unwrap()
    }

    async fn read(&mut self) -> Result<(), Ended> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(Ended),
            _ => Ok(()),
        }
    }

    async fn send(&mut self, frame: &ServerFrame) -> Result<(), Ended> {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn ask(&mut self, frame: &ClientFrame) -> Result<(), Ended> {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes).unwrap();
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn serve(mut self) -> Result<(), Ended> {
        let mut codec = RequestCodec::default();
        let hello = loop {
            if let Some(request) = codec.decode(&mut self.input).map_err(|_| Ended)? {
                let crate::codec::v1::Request::Name(name) = request else { return Err(Ended) };
                break Hello::parse(&name).map_err(|_| Ended)?;
            }
            self.read().await?;
        };
        let Some(crate::exchange::Output::Frames(welcome)) = Responder::new(1).next(Instant::now()) else {
            return Err(Ended);
        };
        self.stream.write_all(&welcome).await?;
        if let Some(first) = hello.first {
            self.hear(Frame::Asks(first)).await?;
        }
        loop {
            while let Some(frame) = Frame::decode(&mut self.input).map_err(|_| Ended)? {
                self.hear(frame).await?;
            }
            self.pull().await?;
            let state = Arc::clone(&self.state);
            // What another connection has brought may be all that was missing.
            let changed = tokio::time::timeout(Duration::from_millis(20), state.changed.notified());
            tokio::select! {
                read = self.stream.read_buf(&mut self.input) => if read? == 0 { return Err(Ended) },
                _ = changed => {}
            }
        }
    }

    async fn hear(&mut self, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::Asks(ClientFrame::Put(request, put)) => self.offered(request, put).await,
            Frame::Asks(ClientFrame::Bytes { request, len, .. }) => {
                let bytes = self.take(len).await?;
                let Some((put, whole)) = self.offers.get_mut(&request) else { return Ok(()) };
                whole.extend_from_slice(&bytes);
                if whole.len() as u64 == put.file.size {
                    self.store_whole(request).await?;
                }
                Ok(())
            }
            Frame::Tells(frame) => match self.requester.handle(frame).map_err(|_| Ended)? {
                Heard::File(_, file) => {
                    self.root = self.root.or(file.root);
                    Ok(())
                }
                Heard::Data(data) => {
                    let bytes = self.take(data.len).await?;
                    self.block.extend_from_slice(&bytes);
                    if data.ends_block { self.take_block(data.request, data.block).await } else { Ok(()) }
                }
                Heard::End { root, values, .. } => {
                    self.root = self.root.or(root);
                    self.store().values += values.len();
                    Ok(())
                }
                Heard::Failed(_, code, _) => {
                    self.store().failures.push(code.kind());
                    if code.kind() != Code::SourceChanged {
                        return Ok(());
                    }
                    let Some((request, _)) = self.offers.pop_first() else { return Ok(()) };
                    self.send(&ServerFrame::Error(request, code, Bytes::new())).await
                }
                _ => Ok(()),
            },
            Frame::Asks(_) => Ok(()),
        }
    }

    async fn take(&mut self, len: u64) -> Result<Bytes, Ended> {
        let len = usize::try_from(len).unwrap();
        while self.input.len() < len {
            self.read().await?;
        }
        Ok(self.input.split_to(len).freeze())
    }

    async fn offered(&mut self, request: RequestId, put: Put) -> Result<(), Ended> {
        let script = {
            let mut store = self.store();
            store.puts.push(put.clone());
            store.script.clone()
        };
        self.state.offered.notify_one();
        if let Some((_, code, text)) = script.refuses.iter().find(|(name, ..)| *name == put.name) {
            let text = Bytes::from_static(text.as_bytes());
            return self.send(&ServerFrame::Error(request, (*code).into(), text)).await;
        }
        if script.is_same {
            return self.send(&ServerFrame::End(request, None)).await;
        }
        if put.form == Form::Folder {
            self.store().folders.push((put.name.clone(), put.file.mode));
            return self.send(&ServerFrame::End(request, None)).await;
        }
        let (is_empty, form) = (put.file.size == 0, put.form);
        if form == Form::Asked {
            let key = (put.name.clone(), put.file.token);
            let mut store = self.store();
            let have: Vec<u64> = store.parts.entry(key.clone()).or_default().keys().copied().collect();
            let missing = (0..block_count(put.file.size)).filter(|block| !have.contains(block)).collect();
            if put.attempt > 1 || !store.queues.contains_key(&key) || !self_is_further(&store, &put) {
                store.queues.insert(key, missing);
            }
        }
        self.offers.insert(request, (put, Vec::new()));
        if is_empty && form == Form::Whole {
            self.store_whole(request).await?;
        }
        Ok(())
    }

    async fn store_whole(&mut self, request: RequestId) -> Result<(), Ended> {
        if self.store().script.is_silent {
            return Ok(());
        }
        let Some((put, bytes)) = self.offers.remove(&request) else { return Ok(()) };
        self.got += 1;
        if self.cut.is_some_and(|cut| self.got > cut) {
            return Err(Ended);
        }
        let root = Root::of(&bytes);
        assert_eq!(put.file.root, Some(root));
        self.store().stored.insert(put.name, bytes);
        self.send(&ServerFrame::End(request, Some(root))).await
    }

    async fn take_block(&mut self, request: RequestId, block: Option<u64>) -> Result<(), Ended> {
        let bytes = std::mem::take(&mut self.block);
        let (Some(block), Some((put, _))) = (block, self.offers.values().next().cloned()) else {
            return Ok(());
        };
        let hash = BlockHash::of(put.file.size, block, &bytes);
        self.requester.check(request, hash).map_err(|_| Ended)?;
        let changes = {
            let (number, mut store) = (self.number, self.store());
            store.arrived.push((number, block));
            store.parts.entry((put.name, put.file.token)).or_default().insert(block, bytes);
            store.script.changes.clone()
        };
        self.asked.remove(&request);
        self.got += 1;
        if let Some((_, path)) = changes.filter(|(after, _)| *after == self.got) {
            // As long as before: only its time tells.
            let len = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
            std::fs::write(path, vec![1; len]).unwrap();
            self.store().script.changes = None;
        }
        self.state.changed.notify_waiters();
        if self.cut == Some(self.got) { Err(Ended) } else { Ok(()) }
    }

    /// Asks for what is missing, one block at a time, and answers when nothing is.
    async fn pull(&mut self) -> Result<(), Ended> {
        let Some((&request, (put, _))) = self.offers.iter().next() else { return Ok(()) };
        let put = put.clone();
        let script = self.store().script.clone();
        if let Some(say) = script.says {
            if let Some(bytes) = say(&put, request, &mut self.requester) {
                self.stream.write_all(&bytes).await?;
            }
            return Ok(());
        }
        let key = (put.name.clone(), put.file.token);
        if put.form != Form::Asked || script.is_silent {
            return Ok(());
        }
        let is_early = self.store().puts.len() < script.waits_for_links;
        if is_early && self.requester.last() > 0 {
            return Ok(());
        }
        if script.asks_values && self.store().values == 0 && self.requester.last() == 0 {
            let get = self.requester.get(Get { values_only: true, ..get_of(&put) });
            return self.ask(&get).await;
        }
        // With nothing under way, so that no block is lost that another connection might have had.
        if self.asked.is_empty() {
            let (next, have) = {
                let mut store = self.store();
                let have: u64 = store.parts[&key].values().map(|block| block.len() as u64).sum();
                (store.queues.get_mut(&key).and_then(VecDeque::pop_front), have)
            };
            if let Some(block) = next {
                let ranges = vec![ByteRange::of_blocks(&(block..block + 1), put.file.size)];
                let get = self.requester.get(Get { ranges, have, ..get_of(&put) });
                self.asked.insert(self.requester.last(), block);
                return self.ask(&get).await;
            }
        }
        self.finish(request, &put, &key).await
    }

    async fn finish(&mut self, request: RequestId, put: &Put, key: &(Bytes, Token)) -> Result<(), Ended> {
        let whole: Vec<u8> = {
            let store = self.store();
            let part = &store.parts[key];
            if part.len() as u64 != block_count(put.file.size) {
                return Ok(());
            }
            part.values().flatten().copied().collect()
        };
        assert_eq!(block_span(put.file.size, block_count(put.file.size) - 1).end, whole.len() as u64);
        match self.root {
            None if self.is_root_asked => Ok(()),
            None => {
                self.is_root_asked = true;
                let stat = self.requester.stat(Stat { root: true, name: put.name.clone() });
                self.ask(&stat).await
            }
            Some(root) => {
                assert_eq!(root, Root::of(&whole));
                self.store().stored.insert(put.name.clone(), whole);
                self.offers.remove(&request);
                self.send(&ServerFrame::End(request, Some(root))).await
            }
        }
    }
}

/// Whether this offer was made on another connection already.
fn self_is_further(store: &Store, put: &Put) -> bool {
    store.puts.iter().filter(|other| (other.transfer, other.attempt) == (put.transfer, put.attempt)).count()
        > 1
}
