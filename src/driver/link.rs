//! A connection, as the client holds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tracing::Instrument;

use super::dial::{Stream, dial, resolve};
use super::handshake::perform;
use super::reader::Reader;
use super::shared::{Limits, Shared, Urgency};
use super::waiters::{Answer, ReplyWaiter};
use super::writer::Writer;
use crate::codec::generated::{connection, constants};
use crate::codec::{FieldTable, ShortStr};
use crate::error::{Error, ErrorKind, Origin};
use crate::mux::handshake::Hello;
use crate::mux::heartbeat::Heartbeat;
use crate::mux::session::Session;
use crate::mux::tune::Agreed;

/// Where to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub host: String,
    pub port: u16,
    /// For each address of the host.
    pub connect_timeout: Duration,
    /// Likewise.
    pub handshake_timeout: Duration,
}

/// A connection. Dropped without a close, it closes in the background.
#[derive(Debug)]
pub(crate) struct Link {
    pub shared: Arc<Shared>,
    pub agreed: Agreed,
    pub server_properties: FieldTable,
    /// One call on channel 0 at a time.
    turn: Arc<Semaphore>,
}

impl Link {
    /// Connects to the first of the host's addresses with which that succeeds.
    ///
    /// Cancel safe: dropped before it is done, it leaves nothing behind but a closed socket.
    pub(crate) async fn connect(address: &Address, hello: Hello, limits: Limits) -> Result<Self, Error> {
        let addresses = resolve(&address.host, address.port, address.connect_timeout).await?;
        let mut last = None;
        for at in addresses {
            match Self::connect_to(address, at, hello.clone(), limits).await {
                // behind another address there may be one that answers
                Err(error)
                    if error.origin() == Origin::Network || error.kind() == ErrorKind::HandshakeTimeout =>
                {
                    last = Some(error);
                }
                connected => return connected,
            }
        }
        Err(last.unwrap_or_else(|| super::faults::lost(None)))
    }

    async fn connect_to(
        address: &Address,
        at: SocketAddr,
        hello: Hello,
        limits: Limits,
    ) -> Result<Self, Error> {
        let stream = dial(&address.host, at, address.connect_timeout).await?;
        Self::over(stream, address, hello, limits).await
    }

    /// Performs the handshake over a stream and starts the two tasks. The address tells the time-out, and is shown in logs.
    pub(crate) async fn over(
        mut stream: Stream,
        address: &Address,
        hello: Hello,
        limits: Limits,
    ) -> Result<Self, Error> {
        let opened = perform(&mut stream, hello, address.handshake_timeout).await?;
        let agreed = opened.established.agreed;
        let heartbeat = Heartbeat::new(agreed.heartbeat);
        let shared = Arc::new(Shared::new(Session::new(agreed), stream.write, heartbeat, limits));
        let span = tracing::info_span!("connection", host = %address.host, port = address.port);
        tracing::debug!(parent: &span, ?agreed, "connected");
        let writer = tokio::spawn(Writer::new(Arc::clone(&shared)).run().instrument(span.clone()));
        let reader = Reader::new(Arc::clone(&shared), stream.read, opened.rest, agreed, writer);
        tokio::spawn(reader.run().instrument(span));
        Ok(Self {
            shared,
            agreed,
            server_properties: opened.established.server_properties,
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// Closes the connection in order, within the close time-out. The second time does nothing.
    pub(crate) async fn close(&self, reply_code: u16, reply_text: ShortStr) -> Result<(), Error> {
        let close = connection::Close { reply_code, reply_text, ..connection::Close::default() };
        // refused: it is closing already, or has ended
        let begun = self.shared.close(&close).is_ok();
        self.shared.ended().await;
        match self.shared.failure() {
            Some(error) if begun && error.kind() != ErrorKind::Closed => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Ends the connection at once, for this reason, unless it has ended. The server is told; its answer is not waited for.
    pub(crate) fn give_up(&self, error: Error) {
        if self.shared.failure().is_none() {
            let close =
                connection::Close { reply_code: constants::REPLY_SUCCESS, ..connection::Close::default() };
            self.shared.fail(error, Some(&close));
        }
    }

    /// Sends `connection.update-secret` and waits for its answer.
    pub(crate) async fn update_secret(&self, method: &connection::UpdateSecret) -> Result<(), Error> {
        let turn = self.turn(&self.turn).await?;
        let (waiter, answer) = ReplyWaiter::new(Some(turn));
        self.shared
            .run(|session| (session.update_secret(method, waiter), Urgency::Now))
            .map_err(|refusal| self.shared.refused(refusal))?;
        self.await_answer(answer).await.map(drop)
    }

    /// Waits until no earlier call is under way, as long as the user allows for an answer: one that was
    /// lost must not hang those behind it. Nothing has been sent if this fails.
    pub(crate) async fn turn(&self, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
        let limit = self.shared.limits.rpc_timeout;
        let turn = Arc::clone(turns).acquire_owned();
        let taken = if limit.is_zero() {
            turn.await
        } else {
            timeout(limit, turn).await.map_err(|_| {
                let text = "the server has not answered an earlier call, so this one was not sent";
                Error::new(ErrorKind::Timeout, text)
            })?
        };
        // nobody closes the semaphore
        taken.map_err(|error| super::shared::closed_by_user().with_source(error))
    }

    /// Waits for the answer to a call, for as long as the user allows.
    pub(crate) async fn await_answer(
        &self,
        answer: oneshot::Receiver<Result<Answer, Error>>,
    ) -> Result<Answer, Error> {
        let limit = self.shared.limits.rpc_timeout;
        let answered = if limit.is_zero() {
            answer.await
        } else {
            timeout(limit, answer).await.map_err(|_| {
                Error::new(
                    ErrorKind::Timeout,
                    format!("the server did not answer within {} s", limit.as_secs_f32()),
                )
            })?
        };
        // dropped unanswered: the reader is gone
        answered.unwrap_or_else(|_| {
            Err(self.shared.failure().cloned().unwrap_or_else(|| super::faults::lost(None)))
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let close =
            connection::Close { reply_code: constants::REPLY_SUCCESS, ..connection::Close::default() };
        // refused: it is closed already
        let _refused = self.shared.close(&close);
    }
}
