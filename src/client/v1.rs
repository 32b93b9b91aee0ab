//! One attempt to fetch a file over wire format v1 (`docs/protocol.md`): all of it, or nothing.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use tokio_util::codec::{Decoder, Encoder};

use super::attempt::{Attempt, Got, blocking, within};
use super::secure::{self, Connection};
use super::stream::Stream;
use super::target::Sink;
use super::{Event, FetchError, Overwrite};
use crate::codec::WireError;
use crate::codec::v1::{self, Header, RequestCodec, Response, ResponseCodec};
use crate::digest::Digest;
use crate::text;

mod receive;

use receive::Arrival;

/// A connection whose server is about to send.
struct Answered {
    stream: Stream,
    peer: SocketAddr,
    header: Header,
    early: BytesMut,
}

/// Fetches the whole file.
pub(super) async fn run(attempt: &Attempt<'_>) -> Result<Got, FetchError> {
    let asked = attempt.unless_stopped(attempt.ask()).await?;
    let Answered { stream, peer, header: Header { name, size, md5 }, early } = asked;
    let digest = Digest::Md5(md5);
    attempt.observer.observe(&Event::Started { name: &name, size, digest: Some(digest), have: 0 });
    let settings = attempt.settings;
    if let Some(checksum) = &settings.checksum {
        checksum.compare(digest)?;
    }
    if settings.overwrite == Overwrite::Different {
        let target = attempt.target.clone();
        // It may take long and changes nothing, so it can be left behind.
        let comparing = blocking(move || Ok(target.holds(size, digest)));
        if attempt.unless_stopped(comparing).await? {
            return Ok(Got { size, digest, unchanged: true, resumed: 0, attributes: None });
        }
    }
    let target = attempt.target.clone();
    let sink = blocking(move || target.stage(size)).await?;
    let (patience, stopping, pace) = (settings.timeout, attempt.stopping, attempt.pace);
    let arrival = Arrival { stream, peer, early, size, patience, pace, stopping };
    let progress = |done| attempt.observer.observe(&Event::Progress { done, size });
    let (sink, received) = arrival.receive(sink, progress).await?;
    if received != md5 {
        return Err(FetchError::Checksum { peer, received, announced: md5 });
    }
    attempt.publish(sink).await?;
    Ok(Got { size, digest, unchanged: false, resumed: 0, attributes: None })
}

impl Attempt<'_> {
    async fn publish(&self, sink: Sink) -> Result<(), FetchError> {
        let (replace, sync) = (self.replace(), self.settings.sync);
        let checksum = self.settings.checksum.clone();
        // A commit is not worth interrupting; whoever reads a stream may never come.
        let is_stream = matches!(sink, Sink::Spooled(..));
        let publishing = blocking(move || {
            if let Some(checksum) = checksum {
                checksum.check_file(sink.file())?;
            }
            sink.publish(replace, sync)
        });
        if is_stream {
            return self.unless_stopped(publishing).await;
        }
        publishing.await
    }

    /// Connects, sends the request, and reads the answer up to the data.
    async fn ask(&self) -> Result<Answered, FetchError> {
        let connection = secure::open(self.server, self.settings, self.observer).await?;
        let Connection { mut stream, peer, key } = connection;
        if key.is_some() {
            return Err(FetchError::KeyNeedsV2 { server: self.server.to_string() });
        }
        let mut buffer = BytesMut::new();
        let broken = |source| FetchError::Protocol { peer, source };
        RequestCodec::default().encode(self.name, &mut buffer).map_err(broken)?;
        let deadline = || Instant::now() + self.settings.timeout;
        let after = self.settings.timeout;
        within(deadline(), after, peer, "while the request was sent", stream.write_all(&buffer)).await?;
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
            let read = stream.read_buf(&mut buffer, usize::MAX);
            match within(until, after, peer, "before the file came", read).await {
                Ok(0) => return Err(self.ended(&mut codec, &mut buffer, peer, None)),
                Ok(_) if is_first => until = deadline(),
                Ok(_) => {}
                // Over TLS it is only whole if the server says so.
                Err(error) if stream.is_tls() => return Err(error),
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
        let name = text::shown(self.name).to_string();
        if v1::says_not_found(text) {
            FetchError::NotFound(name)
        } else {
            FetchError::Refused { name, text: text::shown(text).to_string() }
        }
    }
}
