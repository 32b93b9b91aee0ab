//! One attempt to fetch a file over wire format v1 (`docs/protocol.md`).

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::sync::CancellationToken;

use super::connect::connect;
use super::receive::Arrival;
use super::target::Sink;
use super::{Event, FetchError, Observer, Overwrite, Server, Settings, Target};
use crate::codec::WireError;
use crate::codec::v1::{self, Header, RequestCodec, Response, ResponseCodec};
use crate::digest::Md5;
use crate::staged::Replace;
use crate::text;

/// What every attempt at one file needs.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) server: &'a Server,
    pub(super) name: &'a str,
    pub(super) target: &'a Target,
    pub(super) settings: &'a Settings,
    pub(super) observer: &'a dyn Observer,
    pub(super) stopping: &'a CancellationToken,
}

/// A connection whose server is about to send.
struct Answered {
    stream: TcpStream,
    peer: SocketAddr,
    header: Header,
    early: BytesMut,
}

impl Attempt<'_> {
    /// Size and digest of what is now under the target's name, and whether it was there before.
    pub(super) async fn run(&self) -> Result<(u64, Md5, bool), FetchError> {
        let asking = self.stopping.run_until_cancelled(self.ask()).await;
        let Answered { stream, peer, header, early } = asking.unwrap_or(Err(FetchError::Interrupted))?;
        let Header { name, size, md5 } = header;
        self.observer.observe(&Event::Started { name: &name, size, md5 });
        if self.settings.overwrite == Overwrite::Different {
            let target = self.target.clone();
            // It may take long and changes nothing, so it can be left behind.
            let comparing = blocking(move || Ok(target.holds(size, md5)));
            let compared = self.stopping.run_until_cancelled(comparing).await;
            if compared.unwrap_or(Err(FetchError::Interrupted))? {
                return Ok((size, md5, true));
            }
        }
        let target = self.target.clone();
        let sink = blocking(move || target.stage(size)).await?;
        let (patience, stopping) = (self.settings.timeout, self.stopping);
        let arrival = Arrival { stream, peer, early, size, patience, stopping };
        let progress = |done| self.observer.observe(&Event::Progress { done, size });
        let (sink, received) = arrival.receive(sink, progress).await?;
        if received != md5 {
            return Err(FetchError::Checksum { peer, received, announced: md5 });
        }
        self.publish(sink).await?;
        Ok((size, md5, false))
    }

    async fn publish(&self, sink: Sink) -> Result<(), FetchError> {
        let Settings { overwrite, sync, .. } = *self.settings;
        let replace = match overwrite {
            Overwrite::Never => Replace::Never,
            Overwrite::Different | Overwrite::Always => Replace::Always,
        };
        // A commit is not worth interrupting; whoever reads a stream may never come.
        let is_stream = matches!(sink, Sink::Spooled(..));
        let publishing = blocking(move || sink.publish(replace, sync));
        if is_stream {
            let published = self.stopping.run_until_cancelled(publishing).await;
            return published.unwrap_or(Err(FetchError::Interrupted));
        }
        publishing.await
    }

    /// Connects, sends the request, and reads the answer up to the data.
    async fn ask(&self) -> Result<Answered, FetchError> {
        let (mut stream, peer) = connect(self.server, self.settings.timeout, self.observer).await?;
        let mut buffer = BytesMut::new();
        let broken = |source| FetchError::Protocol { peer, source };
        RequestCodec::default().encode(self.name.as_bytes(), &mut buffer).map_err(broken)?;
        let deadline = || Instant::now() + self.settings.timeout;
        self.within(deadline(), peer, "while the request was sent", stream.write_all(&buffer)).await?;
        buffer.clear();
        let mut codec = ResponseCodec::default();
        // Each part of the answer has one deadline from its first byte on: a server that sends a
        // byte now and then gains nothing.
        let mut until = deadline();
        loop {
            while let Some(response) = codec.decode(&mut buffer).map_err(broken)? {
                match response {
                    Response::Ok => until = deadline(),
                    Response::Header(header) => return Ok(Answered { stream, peer, header, early: buffer }),
                    Response::Refused(text) => return Err(self.refused(&text)),
                }
            }
            let is_first = buffer.is_empty();
            let read = stream.read_buf(&mut buffer);
            match self.within(until, peer, "before the file came", read).await {
                Ok(0) => return Err(self.ended(&mut codec, &mut buffer, peer, None)),
                Ok(_) if is_first => until = deadline(),
                Ok(_) => {}
                Err(error) => return Err(self.ended(&mut codec, &mut buffer, peer, Some(error))),
            }
        }
    }

    /// What it means that nothing more comes: the end of a refusal, or a loss.
    fn ended(
        &self,
        codec: &mut ResponseCodec,
        buffer: &mut BytesMut,
        peer: SocketAddr,
        error: Option<FetchError>,
    ) -> FetchError {
        match codec.decode_eof(buffer) {
            Ok(Some(Response::Refused(text))) => self.refused(&text),
            Err(WireError::Truncated) | Ok(_) => error.unwrap_or_else(|| FetchError::Lost {
                peer,
                when: "before the file came".to_owned(),
                source: io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"),
            }),
            Err(source) => FetchError::Protocol { peer, source },
        }
    }

    fn refused(&self, text: &Bytes) -> FetchError {
        let name = text::shown(self.name.as_bytes()).to_string();
        if v1::says_not_found(text) {
            FetchError::NotFound(name)
        } else {
            FetchError::Refused { name, text: text::shown(text).to_string() }
        }
    }

    async fn within<T>(
        &self,
        deadline: Instant,
        peer: SocketAddr,
        when: &str,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, FetchError> {
        let after = self.settings.timeout;
        match timeout_at(deadline, work).await {
            Ok(result) => result.map_err(|source| FetchError::Lost { peer, when: when.to_owned(), source }),
            Err(_elapsed) => Err(FetchError::Silent { peer, when: when.to_owned(), after }),
        }
    }
}

/// Runs work that may wait for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let aborted =
        |error| FetchError::Output { path: "the target".to_owned(), source: io::Error::other(error) };
    tokio::task::spawn_blocking(work).await.map_err(aborted)?
}
