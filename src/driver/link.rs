//! A connection, as the client holds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::Instrument;

use super::dial::Stream;
use super::faults;
use super::link_call::Call;
use super::link_handshake::perform;
use super::link_state::{Limits, Shared};
use super::reader::Reader;
use super::server::Server;
use super::writer::Writer;
use crate::codec::generated::{connection, constants};
use crate::codec::{Arguments, FieldTable, ShortStr};
use crate::error::{Error, ErrorKind};
use crate::mux::handshake::Hello;
use crate::mux::heartbeat::Heartbeat;
use crate::mux::session::Session;
use crate::mux::tune::Agreed;

/// Acks, nacks, rejects and answers to the server that wait to be written may be so many times the limit on what
/// publishers let wait: nobody can be made to wait with them. With the usual limit that is some 800,000 acks.
const UNREAD_FACTOR: usize = 64;

/// In any case so many bytes of them may wait.
const UNREAD_LEAST: usize = 1 << 20;

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
    /// Performs the handshake over a stream and starts the two tasks.
    ///
    /// Cancel safe: dropped before it is done, it leaves nothing behind but a closed socket.
    pub(crate) async fn over(
        stream: Stream,
        server: &Server,
        hello: Hello,
        handshake_timeout: Duration,
        limits: Limits,
    ) -> Result<Self, Error> {
        let mut stream = stream.split();
        let opened = perform(&mut stream, server, hello, handshake_timeout).await?;
        let agreed = opened.established.agreed;
        let heartbeat = Heartbeat::new(agreed.heartbeat);
        let mut session = Session::new(agreed);
        session.unconfirmed_max = limits.unconfirmed;
        session.unread_max = limits.outgoing.saturating_mul(UNREAD_FACTOR).max(UNREAD_LEAST);
        let shared = Arc::new(Shared::new(server.clone(), session, stream.write, heartbeat, limits));
        let span = tracing::info_span!("connection", host = %server.host, port = server.port);
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
        let call = Call { method: connection::UpdateSecret::ID, channel: 0 };
        let turn = self.turn(&self.turn, call).await?;
        let asked = self.shared.call(Some(turn), |session, waiter| session.update_secret(method, waiter));
        let ((), mut unanswered) = asked.map_err(|refusal| self.shared.refused(refusal))?;
        self.shared.await_answer(&mut unanswered, call).await.map(drop)
    }

    /// Waits until no earlier call is under way, as long as the user allows for an answer: one that was
    /// lost must not hang those behind it. Nothing has been sent if this fails.
    pub(crate) async fn turn(
        &self,
        turns: &Arc<Semaphore>,
        call: Call,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let limit = self.shared.limits.rpc_timeout;
        let turn = Arc::clone(turns).acquire_owned();
        let taken = if limit.is_zero() {
            turn.await
        } else {
            timeout(limit, turn).await.map_err(|_| faults::no_turn(call, limit))?
        };
        // nobody closes the semaphore
        taken.map_err(|error| faults::closed_connection(&self.shared.server).with_source(error))
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
