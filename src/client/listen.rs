//! The listening side: stays connected, and receives what others send to it.
//!
//! 1. A connection listens ([`Ear`]). One that breaks is replaced after a growing wait, for ever; only what will not
//!    pass by itself ends it.
//! 2. The server tells of a file. Whether it is wanted, and where it lands, is decided here ([`landing`]), before a byte
//!    of it is asked for: a name is one component, rejected and never repaired.
//! 3. The file is fetched like any other one, in a thread of its own, into a part beside its target: proven, resumed.
//! 4. The server hears what came of it, and tells the sender. When the connection breaks before that, all fetches end,
//!    and the server tells of them again on the next one: they go on where they were.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::v2::in_runtime;
use super::v2::listening::Ear;
use super::{Backoff, FetchError, Observer, Protocol, Server, Settings};
use crate::codec::WireError;
use crate::codec::v2::Pushed;
use crate::error::Code;
use crate::limits::{LISTEN_FETCHES_MAX, LISTEN_WAITING_MAX};
use crate::names::{FileName, NameError, PushId, ReceiverName};
use crate::text;
use crate::tree::Root;

mod landing;

/// What happens when a file of this name is there already. One with the very same bytes is always left as it is, and
/// counts as received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The new one gets a free name beside it: `name (1).ext`.
    #[default]
    Rename,
    /// It stays, and the sender is told so.
    Never,
    /// It is replaced.
    Always,
}

/// Who listens, and where files land.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The name under which others send.
    pub name: ReceiverName,
    /// The folder that files go to; made if it is missing.
    pub directory: PathBuf,
    /// What happens when a file is there already.
    pub existing: Existing,
    /// Size of the largest file that is taken, in bytes.
    pub max_size: Option<u64>,
    /// Whether to end after the first file that was received.
    pub once: bool,
}

/// A file that somebody sends to this client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Offered {
    /// What the sender calls it.
    pub name: FileName,
    /// What the sender's key is called on the server, made safe to show.
    pub from: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its BLAKE3 digest.
    pub root: Root,
}

/// A file that was received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// Where it is.
    pub path: PathBuf,
    /// The very same was there already.
    pub unchanged: bool,
    /// Bytes that were there already from an earlier attempt.
    pub resumed: u64,
    /// From the moment it was told of.
    pub elapsed: Duration,
}

/// Something that happens while a client listens.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Listened<'a> {
    /// The server knows that this client listens.
    Listening {
        /// The server.
        peer: SocketAddr,
    },
    /// A file is here.
    Received(&'a Offered, &'a Received),
    /// A file is not here. The sender is told why.
    Refused {
        /// What the sender calls it, made safe to show.
        name: &'a str,
        /// What the sender's key is called on the server, made safe to show.
        from: &'a str,
        /// Why.
        error: &'a FetchError,
    },
    /// There is no connection; the next one is tried after a wait.
    Waiting {
        /// How long the wait is.
        wait: Duration,
        /// What went wrong.
        error: &'a FetchError,
    },
}

/// Hears what happens while a client listens. Called on several threads: it must not take long.
pub trait ReceivingObserver: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: &Listened<'_>);

    /// A file begins to be fetched: who hears how far it is.
    fn begins(&self, offered: &Offered) -> Box<dyn Observer>;
}

/// Listens on `server` and receives files until `stopping` is cancelled. Connections are told to `observer`, all else to
/// `receiving`.
///
/// # Errors
/// What does not pass by itself: the key does not allow it, another listener has the name, the server does not know of
/// listeners or is not trusted; [`FetchError::Interrupted`] when `stopping` is cancelled.
pub async fn listen(
    server: &Server,
    listen: &Listen,
    settings: &Settings,
    observer: &dyn Observer,
    receiving: &Arc<dyn ReceivingObserver>,
    stopping: &CancellationToken,
) -> Result<(), FetchError> {
    if settings.protocol == Protocol::V1 {
        return Err(FetchError::NoPushes { server: server.to_string() });
    }
    let endless = Backoff { retries: u32::MAX, ..settings.backoff };
    let mut waits = endless.waits();
    loop {
        let mut session = Session::new(server, listen, settings, receiving, stopping);
        let ended = stopping.run_until_cancelled(session.run(observer)).await;
        session.stop().await;
        let error = match ended {
            None => return Err(FetchError::Interrupted),
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) if !error.may_pass() => return Err(error),
            Some(Err(error)) => error,
        };
        if session.has_listened {
            waits = endless.waits();
        }
        let wait = waits.next().unwrap_or(settings.backoff.longest);
        receiving.observe(&Listened::Waiting { wait, error: &error });
        if stopping.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return Err(FetchError::Interrupted);
        }
    }
}

/// What one connection is told of.
struct Session<'a> {
    server: &'a Server,
    listen: &'a Listen,
    settings: &'a Settings,
    receiving: &'a Arc<dyn ReceivingObserver>,
    /// Ends all fetches.
    stop: CancellationToken,
    fetches: JoinSet<(PushId, Result<Root, FetchError>)>,
    waiting: VecDeque<(PushId, Offered, Instant)>,
    /// Where files are landing at this moment.
    taken: Arc<Mutex<HashSet<PathBuf>>>,
    has_listened: bool,
    /// A file was received, and the server has been told.
    has_received: bool,
}

impl<'a> Session<'a> {
    fn new(
        server: &'a Server,
        listen: &'a Listen,
        settings: &'a Settings,
        receiving: &'a Arc<dyn ReceivingObserver>,
        stopping: &CancellationToken,
    ) -> Self {
        Self {
            server,
            listen,
            settings,
            receiving,
            stop: stopping.child_token(),
            fetches: JoinSet::new(),
            waiting: VecDeque::new(),
            taken: Arc::default(),
            has_listened: false,
            has_received: false,
        }
    }

    /// Listens until the connection ends, or the one file that was wanted is here.
    async fn run(&mut self, observer: &dyn Observer) -> Result<(), FetchError> {
        let mut ear = Ear::open(self.server, &self.listen.name, self.settings, observer).await?;
        loop {
            if self.has_received && self.listen.once && ear.is_answered() {
                return Ok(());
            }
            tokio::select! {
                heard = ear.hear() => match heard? {
                    Some(pushed) => self.offered(&mut ear, pushed).await?,
                    None if !self.has_listened => {
                        self.has_listened = true;
                        self.receiving.observe(&Listened::Listening { peer: ear.peer() });
                    }
                    None => {}
                },
                Some(fetched) = self.fetches.join_next() => {
                    if let Ok((id, outcome)) = fetched {
                        match &outcome {
                            // That is nothing to refuse a file for: it is told of again.
                            Err(error) if is_of_the_line(error) => return outcome.map(drop),
                            Err(_) => {}
                            Ok(_) => self.has_received = true,
                        }
                        ear.tell(id, &outcome).await?;
                    }
                }
            }
            self.begin_more();
        }
    }

    /// The server tells of a file.
    async fn offered(&mut self, ear: &mut Ear, pushed: Pushed) -> Result<(), FetchError> {
        let from = text::shown(&pushed.from).to_string();
        match wanted(&pushed, from.clone(), self.listen.max_size) {
            Ok(_) if self.waiting.len() >= LISTEN_WAITING_MAX => Err(FetchError::Violated {
                peer: ear.peer(),
                source: WireError::Order("too many files are told of"),
            }),
            Ok(offered) => {
                self.waiting.push_back((pushed.id, offered, Instant::now()));
                Ok(())
            }
            Err(error) => {
                let name = text::shown(&pushed.name).to_string();
                self.receiving.observe(&Listened::Refused { name: &name, from: &from, error: &error });
                ear.tell(pushed.id, &Err(error)).await
            }
        }
    }

    /// Fetches what waits, as far as there is room for it.
    fn begin_more(&mut self) {
        while self.fetches.len() < LISTEN_FETCHES_MAX
            && let Some((id, offered, began)) = self.waiting.pop_front()
        {
            let fetch = landing::Fetch {
                server: self.server.clone(),
                listen: self.listen.clone(),
                settings: self.settings.clone(),
                id,
                offered,
                stop: self.stop.clone(),
                taken: Arc::clone(&self.taken),
            };
            let receiving = Arc::clone(self.receiving);
            self.fetches.spawn_blocking(move || {
                let watch = receiving.begins(&fetch.offered);
                let landed = in_runtime(fetch.land(&*watch, began));
                // It is told when it is shown no more.
                drop(watch);
                let offered = &fetch.offered;
                let outcome = match landed {
                    Ok(received) => {
                        receiving.observe(&Listened::Received(offered, &received));
                        Ok(offered.root)
                    }
                    Err(error) => {
                        if !fetch.stop.is_cancelled() && !is_of_the_line(&error) {
                            let name = offered.name.to_string();
                            let from = &offered.from;
                            receiving.observe(&Listened::Refused { name: &name, from, error: &error });
                        }
                        Err(error)
                    }
                };
                (id, outcome)
            });
        }
    }

    /// Ends all fetches; what has come of them stays.
    async fn stop(&mut self) {
        self.stop.cancel();
        while self.fetches.join_next().await.is_some() {}
    }
}

/// Whether it is the connection that failed, and not the file.
fn is_of_the_line(error: &FetchError) -> bool {
    matches!(error.code(), Code::Connect | Code::Lost | Code::Timeout)
}

/// Whether a file is one that is taken at all.
fn wanted(pushed: &Pushed, from: String, max_size: Option<u64>) -> Result<Offered, FetchError> {
    let refused = |source: NameError| FetchError::Refused {
        name: text::shown(&pushed.name).to_string(),
        text: source.to_string(),
    };
    let name = FileName::parse(&pushed.name).map_err(refused)?;
    if !name.folder().is_empty() {
        return Err(refused(NameError::Component));
    }
    let size = pushed.file.size;
    if let Some(max) = max_size.filter(|&max| size > max) {
        return Err(FetchError::Unwanted { size, max });
    }
    // A decoder lets no other through.
    let root = pushed.file.root.ok_or_else(|| refused(NameError::Empty))?;
    Ok(Offered { name, from, size, root })
}
