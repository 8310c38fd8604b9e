//! The handshake over a socket, bounded in time.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::dial::Halves;
use super::faults::{self, Login};
use super::server::Server;
use crate::codec::frame::{Cutter, Frame, FrameKind, HEARTBEAT, put_method};
use crate::codec::{Method, MethodId};
use crate::error::Error;
use crate::mux::greeting::{mismatch, undecided};
use crate::mux::handshake::{Established, Handshake, HandshakeError, Hello, Stage, Step};
use crate::mux::heartbeat::Heartbeat;
use crate::mux::violation::Violation;

/// How long the last words to a refusing server may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// An open connection, and what was read beyond the handshake.
pub(crate) struct Opened {
    pub established: Established,
    pub rest: BytesMut,
}

/// Performs the handshake within `limit`.
pub(crate) async fn perform(
    stream: &mut Halves,
    server: &Server,
    hello: Hello,
    limit: Duration,
) -> Result<Opened, Error> {
    let mut dialogue = Dialogue::begin(stream, server, hello);
    match timeout(limit, dialogue.run()).await {
        Ok(result) => result,
        Err(_) => Err(dialogue.login.late(dialogue.stage(), limit)),
    }
}

struct Dialogue<'a> {
    stream: &'a mut Halves,
    login: Login<'a>,
    state: Option<Handshake>,
    input: BytesMut,
    out: Vec<u8>,
    greeted: bool,
}

impl<'a> Dialogue<'a> {
    fn begin(stream: &'a mut Halves, server: &'a Server, hello: Hello) -> Self {
        let mut out = Vec::new();
        let login = Login::new(server, &hello);
        let state = Some(Handshake::begin(hello, &mut out));
        Self { stream, login, state, input: BytesMut::new(), out, greeted: false }
    }

    async fn run(&mut self) -> Result<Opened, Error> {
        loop {
            self.flush().await?;
            self.read().await?;
            if !self.greeted {
                if let Some(found) = mismatch(&self.input) {
                    return Err(faults::mismatch(self.login.server, found));
                }
                if undecided(&self.input) {
                    continue;
                }
                self.greeted = true;
            }
            match self.advance() {
                Ok(Some(established)) => {
                    return Ok(Opened { established, rest: std::mem::take(&mut self.input) });
                }
                Ok(None) => {}
                Err((error, stage)) => {
                    // a close-ok, or a close that says what is wrong; nobody waits long for it
                    if let HandshakeError::Violation(violation) = &error {
                        put_method(&mut self.out, 0, &faults::close_for(violation));
                    }
                    drop(timeout(FAREWELL, self.flush()).await);
                    drop(timeout(FAREWELL, self.stream.write.shutdown()).await);
                    return Err(self.login.failed(error, stage));
                }
            }
        }
    }

    /// Handles the whole frames that have come, one at a time: limits change on the way.
    fn advance(&mut self) -> Result<Option<Established>, (HandshakeError, Stage)> {
        loop {
            let Some(state) = self.state.take() else { return Ok(None) };
            let reached = state.stage();
            let cutter =
                state.agreed().map_or(Cutter::provisional(), |agreed| Cutter::agreed(agreed.frame_max));
            let cut = cutter.cut_one(&mut self.input);
            let Some(frame) = cut.frames.frames().next() else {
                self.state = Some(state);
                return match cut.fault {
                    Some(fault) => Err((Violation::from(fault).into(), reached)),
                    None => Ok(None),
                };
            };
            match method(&frame).map_err(|violation| (violation.into(), reached))? {
                None => self.state = Some(state),
                Some(method) => {
                    match state.receive(method, &mut self.out).map_err(|error| (error, reached))? {
                        Step::More(next) => self.state = Some(next),
                        Step::Done(established) => return Ok(Some(established)),
                    }
                }
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let written = async {
            self.stream.write.write_all(&self.out).await?;
            // TLS keeps back what the socket has no room for
            self.stream.write.flush().await
        };
        let written = written.await;
        self.out.clear();
        match written {
            Ok(()) => Ok(()),
            Err(error) => Err(self.unwritten(error).await),
        }
    }

    /// Writing failed, perhaps because the server has said why and gone.
    async fn unwritten(&mut self, error: std::io::Error) -> Error {
        match timeout(FAREWELL, self.stream.read.read_buf(&mut self.input)).await {
            // its last word, as an alert of TLS
            Ok(Err(last)) if last.kind() == std::io::ErrorKind::InvalidData => self.lost(Some(last)),
            _ => self.lost(Some(error)),
        }
    }

    /// Reads more; once heartbeats are agreed, they are sent while the server takes its time.
    async fn read(&mut self) -> Result<(), Error> {
        let agreed = self.state.as_ref().and_then(Handshake::agreed);
        let heartbeat = Heartbeat::new(agreed.map_or(0, |agreed| agreed.heartbeat));
        loop {
            let due = heartbeat.send_at(Instant::now().into_std()).map(Instant::from_std);
            tokio::select! {
                biased;
                read = self.stream.read.read_buf(&mut self.input) => return match read {
                    Ok(0) => Err(self.lost(None)),
                    Ok(_) => Ok(()),
                    Err(error) => Err(self.lost(Some(error))),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.out.extend_from_slice(&HEARTBEAT);
                    self.flush().await?;
                }
            }
        }
    }

    fn lost(&self, source: Option<std::io::Error>) -> Error {
        // in TLS 1.3 the server looks at the client's certificate when the client has finished
        #[cfg(feature = "_tls")]
        if let Some(refused) =
            source.as_ref().and_then(|source| super::tls_faults::alert(self.login.server, source))
        {
            return refused;
        }
        self.login.lost(self.stage().unwrap_or(Stage::Start), source)
    }

    /// How far it has come; `None` if nothing has come yet.
    fn stage(&self) -> Option<Stage> {
        if self.input.is_empty() && !self.greeted {
            return None;
        }
        Some(self.state.as_ref().map_or(Stage::Start, Handshake::stage))
    }
}

/// The method in a frame of channel 0; `None` for a heartbeat.
fn method(frame: &Frame<'_>) -> Result<Option<Method>, Violation> {
    match frame.kind {
        FrameKind::Heartbeat => Ok(None),
        FrameKind::Method if frame.channel == 0 => Method::from_payload(frame.source, frame.payload)
            .map(Some)
            .map_err(|error| Violation::Decode { method: MethodId::NONE, error }),
        FrameKind::Method | FrameKind::Header | FrameKind::Body => {
            Err(Violation::ChannelNotOpen(frame.channel))
        }
    }
}
