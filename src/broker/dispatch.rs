//! What a frame means, given what came before it: handshake, channels, methods and their content.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::codec::content::{ContentHeader, PROPERTIES_AT, decode_properties};
use crate::codec::frame::{Frame, FrameKind};
use crate::codec::generated::{basic, channel as wire};
use crate::codec::{Arguments, DecodeError, FieldTable, Method, MethodId};

use super::broker_channel::{Channel, Content, Header};
use super::broker_connection::{End, Phase};
use super::broker_message::Held;
use super::refusal::{Closes, Refusal};
use super::state::{At, State};

impl State {
    /// Takes a frame of a connection. What it leads to at once is done when it returns.
    pub(super) fn frame(&mut self, id: u64, frame: Frame<'_>) {
        let at = At { connection: id, channel: frame.channel };
        let mut blamed = MethodId::NONE;
        // nobody has seen what came after a cut
        if self.connections.get(&id).is_none_or(|connection| connection.end.is_some()) {
            return;
        }
        if let Err(refusal) = self.understand(at, frame, &mut blamed) {
            self.refuse(at, &refusal, blamed);
        }
        self.run();
    }

    /// What was read is no frame.
    pub(super) fn bad_frame(&mut self, id: u64, fault: &crate::codec::frame::FrameError) {
        let refusal = Refusal::frame_error(fault);
        self.refuse(At { connection: id, channel: 0 }, &refusal, MethodId::NONE);
        // what follows cannot be read
        self.end(id, End::Flush);
        self.run();
    }

    /// Closes what a refusal closes.
    fn refuse(&mut self, at: At, refusal: &Refusal, blamed: MethodId) {
        let text = refusal.reply_text();
        self.flush_confirms_of(at);
        let Ok(connection) = self.connection(at.connection) else { return };
        match (refusal.closes, connection.phase) {
            (Closes::Channel, Phase::Open) => {
                connection.put(
                    at.channel,
                    &wire::Close {
                        reply_code: refusal.code,
                        reply_text: text,
                        class_id: blamed.class,
                        method_id: blamed.method,
                    },
                );
                if let Some(channel) = connection.channels.get_mut(&at.channel) {
                    channel.closing = true;
                }
                self.close_channel(at);
            }
            // nobody to talk to yet
            (_, Phase::Greeting) => connection.end(End::Flush),
            _ => self.close_connection(at.connection, refusal.code, text, blamed),
        }
    }

    fn understand(&mut self, at: At, frame: Frame<'_>, blamed: &mut MethodId) -> Result<(), Refusal> {
        let phase = self.connection(at.connection)?.phase;
        let is_known = self.connection(at.connection)?.channels.contains_key(&at.channel);
        match frame.kind {
            FrameKind::Heartbeat => Ok(()),
            FrameKind::Method => {
                // a copy of its own, so that names which are kept do not keep what was read with them
                let payload = Bytes::copy_from_slice(frame.payload);
                let method = Method::from_payload(&payload, &payload).map_err(unreadable)?;
                *blamed = method.id();
                if self.faults.cuts_at(*blamed) {
                    self.end(at.connection, End::Cut);
                    return Ok(());
                }
                if phase == Phase::Closing {
                    return self.closing(at, &method);
                }
                if at.channel == 0 {
                    return self.connection_method(at, method);
                }
                if phase != Phase::Open {
                    return Err(Refusal::channel_error("a channel before connection.open"));
                }
                if let Method::ChannelOpen(_) = method {
                    return self.open_channel(at, is_known);
                }
                if !is_known {
                    // the last words of a channel that both sides close
                    let late = matches!(method, Method::ChannelClose(_) | Method::ChannelCloseOk(_));
                    return if late { self.answer_late(at, &method) } else { Err(no_channel()) };
                }
                let channel = self.channel(at)?;
                if channel.closing {
                    return self.closing_channel(at, &method);
                }
                if let Some(content) = &channel.content {
                    return Err(Refusal::unexpected_frame(match content.header {
                        None => "expected content header for class 60, got non content header frame instead",
                        Some(_) => "expected content body, got non content body frame instead",
                    }));
                }
                self.method(at, method)
            }
            _ if phase == Phase::Closing => Ok(()),
            FrameKind::Header | FrameKind::Body if at.channel == 0 || phase != Phase::Open => {
                Err(Refusal::unexpected_frame("content on channel 0"))
            }
            FrameKind::Header | FrameKind::Body if !is_known => Err(no_channel()),
            FrameKind::Header | FrameKind::Body if self.channel(at)?.closing => Ok(()),
            FrameKind::Header => {
                *blamed = basic::Publish::ID;
                self.header(at, frame.payload)
            }
            FrameKind::Body => {
                *blamed = basic::Publish::ID;
                self.body(at, frame.payload)
            }
        }
    }

    /// The broker has sent `connection.close`.
    fn closing(&mut self, at: At, method: &Method) -> Result<(), Refusal> {
        let connection = self.connection(at.connection)?;
        match method {
            Method::ConnectionCloseOk(_) => connection.end(End::Flush),
            Method::ConnectionClose(_) => {
                connection.put(0, &crate::codec::generated::connection::CloseOk);
                connection.end(End::Flush);
            }
            _ => {}
        }
        Ok(())
    }

    /// The broker has sent `channel.close`.
    fn closing_channel(&mut self, at: At, method: &Method) -> Result<(), Refusal> {
        let connection = self.connection(at.connection)?;
        match method {
            Method::ChannelCloseOk(_) => {
                connection.channels.remove(&at.channel);
            }
            Method::ChannelClose(_) => connection.put(at.channel, &wire::CloseOk),
            _ => {}
        }
        Ok(())
    }

    fn answer_late(&mut self, at: At, method: &Method) -> Result<(), Refusal> {
        if let Method::ChannelClose(_) = method {
            self.connection(at.connection)?.put(at.channel, &wire::CloseOk);
        }
        Ok(())
    }

    fn open_channel(&mut self, at: At, is_known: bool) -> Result<(), Refusal> {
        if is_known {
            return Err(Refusal::channel_error("second 'channel.open' seen"));
        }
        let connection = self.connection(at.connection)?;
        let most = connection.channel_max;
        if most != 0 && (at.channel > most || connection.channels.len() >= most.into()) {
            return Err(Refusal::not_allowed(format_args!(
                "number of channels opened ({}) has reached the negotiated channel_max ({most})",
                connection.channels.len()
            )));
        }
        connection.channels.insert(at.channel, Channel::default());
        self.reply(at, &wire::OpenOk)
    }

    fn header(&mut self, at: At, payload: &[u8]) -> Result<(), Refusal> {
        let most = self.options.message_max;
        let memory = Arc::clone(&self.memory);
        if self.alarm().is_some() {
            // what has come of it so far stays: the rest of it is not read
            self.connection(at.connection)?.publishes = true;
        }
        let Some(content) = &mut self.channel(at)?.content else {
            return Err(Refusal::unexpected_frame("expected method frame, got non method frame instead"));
        };
        if content.header.is_some() {
            return Err(Refusal::unexpected_frame(
                "expected content body, got non content body frame instead",
            ));
        }
        let head = ContentHeader::from_payload(payload).map_err(unreadable)?;
        if head.class != basic::CLASS_ID {
            return Err(Refusal::unexpected_frame(format_args!(
                "expected content header for class 60, got one for class {} instead",
                head.class
            )));
        }
        let rest = Bytes::copy_from_slice(payload.get(PROPERTIES_AT..).unwrap_or_default());
        let properties = decode_properties(&rest).map_err(unreadable)?;
        if head.body_size > most {
            let size = head.body_size;
            self.channel(at)?.content = None;
            return Err(Refusal::precondition_failed(format_args!(
                "message size {size} is larger than configured max size {most}"
            )));
        }
        let weight = properties.headers.as_ref().map_or(0, FieldTable::weight);
        let counted = Held::new(&memory, weight as u64);
        content.header =
            Some(Header { size: head.body_size, properties, body: BytesMut::new(), held: counted });
        self.finish_content(at)
    }

    fn body(&mut self, at: At, payload: &[u8]) -> Result<(), Refusal> {
        let Some(content) = &mut self.channel(at)?.content else {
            return Err(Refusal::unexpected_frame("expected method frame, got non method frame instead"));
        };
        let Some(header) = &mut content.header else {
            return Err(Refusal::unexpected_frame(
                "expected content header for class 60, got non content header frame instead",
            ));
        };
        if header.body.len() as u64 + payload.len() as u64 > header.size {
            return Err(Refusal::unexpected_frame(format_args!(
                "a body of more than the announced {} bytes",
                header.size
            )));
        }
        header.body.extend_from_slice(payload);
        header.held.add(payload.len() as u64);
        self.finish_content(at)
    }

    /// Publishes once the body is whole.
    fn finish_content(&mut self, at: At) -> Result<(), Refusal> {
        match self.channel(at)?.content.take() {
            Some(Content { publish, header: Some(header) }) if header.is_whole() => {
                let Header { properties, body, held, .. } = header;
                self.publish(at, publish, properties, body.freeze(), held)
            }
            unfinished => {
                self.channel(at)?.content = unfinished;
                Ok(())
            }
        }
    }

    fn method(&mut self, at: At, method: Method) -> Result<(), Refusal> {
        match method {
            Method::ChannelClose(_) => {
                self.flush_confirms_of(at);
                self.close_channel(at);
                self.connection(at.connection)?.channels.remove(&at.channel);
                self.reply(at, &wire::CloseOk)
            }
            Method::ChannelFlow(flow) => self.flow(at, &flow),
            Method::ChannelCloseOk(_) | Method::ChannelFlowOk(_) => Ok(()),
            Method::AccessRequest(_) => {
                self.reply(at, &crate::codec::generated::access::RequestOk { ticket: 1 })
            }
            Method::ExchangeDeclare(declare) => self.declare_exchange(at, declare),
            Method::ExchangeDelete(delete) => self.delete_exchange(at, delete),
            Method::ExchangeBind(bind) => self.bind_exchange(at, bind),
            Method::ExchangeUnbind(unbind) => self.unbind_exchange(at, unbind),
            Method::QueueDeclare(declare) => self.declare_queue(at, declare),
            Method::QueueBind(bind) => self.bind_queue(at, bind),
            Method::QueueUnbind(unbind) => self.unbind_queue(at, unbind),
            Method::QueuePurge(purge) => self.purge_queue(at, &purge),
            Method::QueueDelete(delete) => self.delete_queue_by(at, delete),
            Method::BasicQos(qos) => self.qos(at, &qos),
            Method::BasicConsume(consume) => self.consume(at, consume),
            Method::BasicCancel(cancel) => self.cancel(at, &cancel),
            Method::BasicPublish(publish) => self.begin_publish(at, publish),
            Method::BasicGet(get) => self.get(at, &get),
            Method::BasicAck(ack) => self.ack(at, &ack),
            Method::BasicReject(reject) => self.reject(at, &reject),
            Method::BasicNack(nack) => self.nack(at, &nack),
            Method::BasicRecover(recover) => self.recover(at, recover.requeue),
            Method::BasicRecoverAsync(recover) => self.recover_async(at, recover.requeue),
            Method::ConfirmSelect(select) => self.select_confirms(at, &select),
            Method::TxSelect(_) => self.select_tx(at),
            Method::TxCommit(_) => self.commit(at),
            Method::TxRollback(_) => self.rollback(at),
            other => {
                let MethodId { class, method } = other.id();
                Err(Refusal::command_invalid(format_args!(
                    "the method {class}.{method} is none that a client sends on a channel"
                )))
            }
        }
    }

    fn flow(&mut self, at: At, flow: &wire::Flow) -> Result<(), Refusal> {
        if !flow.active {
            return Err(Refusal::not_implemented("active=false"));
        }
        self.reply(at, &wire::FlowOk { active: true })
    }
}

fn no_channel() -> Refusal {
    Refusal::channel_error("expected 'channel.open'")
}

fn unreadable(error: DecodeError) -> Refusal {
    match error {
        DecodeError::UnknownMethod(_) => Refusal::not_implemented(error),
        _ => Refusal::syntax_error(error),
    }
}
