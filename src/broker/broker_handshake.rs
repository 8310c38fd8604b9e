//! The methods of channel 0: login, limits, open and close.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::frame::PROTOCOL_HEADER;
use crate::codec::generated::connection as wire;
use crate::codec::generated::constants::FRAME_MIN_SIZE;
use crate::codec::{FieldTable, FieldValue, Method, MethodId, ShortStr};

use super::broker_connection::{End, Phase};
use super::refusal::Refusal;
use super::state::{At, State};

/// What the broker says that it can do, as `RabbitMQ` does.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

impl State {
    /// The first eight bytes of a connection. Another protocol is answered with ours, and the end.
    pub(super) fn greet(&mut self, id: u64, header: [u8; 8]) {
        let Ok(connection) = self.connection(id) else { return };
        if header != PROTOCOL_HEADER {
            connection.out.extend_from_slice(&PROTOCOL_HEADER);
            connection.end(End::Flush);
            return;
        }
        connection.phase = Phase::Starting;
        // as RabbitMQ does: to those alone who have shown a certificate
        let mechanisms =
            if connection.identity.is_some() { "PLAIN AMQPLAIN EXTERNAL" } else { "PLAIN AMQPLAIN" };
        let start = wire::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties(),
            mechanisms: Bytes::from_static(mechanisms.as_bytes()),
            locales: Bytes::from_static(b"en_US"),
        };
        connection.put(0, &start);
    }

    pub(super) fn connection_method(&mut self, at: At, method: Method) -> Result<(), Refusal> {
        let connection = self.connection(at.connection)?;
        match (connection.phase, method) {
            (Phase::Starting, Method::ConnectionStartOk(start)) => self.log_in(at, start),
            (Phase::Tuning, Method::ConnectionTuneOk(tune)) => self.tune(at, &tune),
            (Phase::Opening, Method::ConnectionOpen(open)) => self.open(at, &open),
            (_, Method::ConnectionClose(_)) => {
                self.flush_confirms(at.connection);
                let connection = self.connection(at.connection)?;
                connection.phase = Phase::Closing;
                // when the client reads the answer, its queues are gone
                self.clean_up(at.connection);
                self.reply(at, &wire::CloseOk)?;
                self.end(at.connection, End::Flush);
                Ok(())
            }
            (_, Method::ConnectionCloseOk(_)) => Ok(()),
            (Phase::Open, Method::ConnectionUpdateSecret(_)) => self.reply(at, &wire::UpdateSecretOk),
            (_, other) => {
                let MethodId { class, method } = other.id();
                Err(Refusal::command_invalid(format_args!("unexpected method {class}.{method} on channel 0")))
            }
        }
    }

    fn log_in(&mut self, at: At, start: wire::StartOk) -> Result<(), Refusal> {
        let identity = self.connection(at.connection)?.identity.take();
        let (credentials, has_proof) = match (start.mechanism.as_bytes(), &identity) {
            (b"PLAIN", _) => (plain(&start.response), false),
            (b"AMQPLAIN", _) => (amqplain(&start.response), false),
            (b"EXTERNAL", Some(name)) => (Some((name.as_bytes(), &b""[..])), true),
            _ => {
                return Err(Refusal::command_invalid(format_args!(
                    "unknown authentication mechanism '{}'",
                    start.mechanism
                )));
            }
        };
        let user = credentials.filter(|(user, password)| {
            let mut known = self.options.users.iter();
            known.any(|(name, secret)| {
                name.as_bytes() == *user && (has_proof || secret.as_bytes() == *password)
            })
        });
        let refused = self.faults.refuse_logins;
        let (frame_max, channel_max, heartbeat) =
            (self.options.frame_max, self.options.channel_max, self.options.heartbeat);
        let connection = self.connection(at.connection)?;
        connection.client_properties = start.client_properties;
        let Some((user, _)) = user.filter(|_| !refused) else {
            let refusal = Refusal::login_refused(format_args!(
                "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                start.mechanism
            ));
            if connection.is_capable("authentication_failure_close") {
                return Err(refusal);
            }
            connection.end(End::Flush);
            return Ok(());
        };
        connection.user = ShortStr::try_from(user).unwrap_or_default();
        connection.frame_max = frame_max;
        connection.channel_max = channel_max;
        connection.phase = Phase::Tuning;
        self.reply(at, &wire::Tune { channel_max, frame_max, heartbeat })
    }

    fn tune(&mut self, at: At, tune: &wire::TuneOk) -> Result<(), Refusal> {
        let connection = self.connection(at.connection)?;
        // 0 is no limit, and the broker has one
        if tune.frame_max == 0 || tune.frame_max > connection.frame_max {
            return Err(Refusal::not_allowed(format_args!(
                "negotiated frame_max = {} is higher than the maximum allowed value ({})",
                tune.frame_max, connection.frame_max
            )));
        }
        if tune.frame_max < FRAME_MIN_SIZE {
            return Err(Refusal::not_allowed(format_args!(
                "negotiated frame_max = {} is lower than the minimum allowed value ({FRAME_MIN_SIZE})",
                tune.frame_max
            )));
        }
        let most = connection.channel_max;
        if most != 0 && (tune.channel_max == 0 || tune.channel_max > most) {
            return Err(Refusal::not_allowed(format_args!(
                "negotiated channel_max = {} is higher than the maximum allowed value ({})",
                tune.channel_max, most
            )));
        }
        connection.frame_max = tune.frame_max;
        connection.channel_max = tune.channel_max;
        connection.heartbeat = tune.heartbeat;
        connection.phase = Phase::Opening;
        Ok(())
    }

    fn open(&mut self, at: At, open: &wire::Open) -> Result<(), Refusal> {
        let wanted = open.virtual_host.as_str().unwrap_or_default();
        let found = self.vhosts.get_key_value(wanted).map(|(name, _)| Arc::clone(name));
        let connection = self.connection(at.connection)?;
        let Some(name) = found else {
            return Err(Refusal::not_allowed(format_args!("vhost {} not found", open.virtual_host)));
        };
        connection.vhost = name;
        connection.phase = Phase::Open;
        self.reply(at, &wire::OpenOk)
    }
}

fn properties() -> FieldTable {
    let mut capabilities = FieldTable::new();
    let mut properties = FieldTable::new();
    let said = [
        ("product", "lepus test broker"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("information", "in memory, for tests and demos"),
    ];
    // names this short always fit
    for name in CAPABILITIES {
        drop(capabilities.insert(name, true));
    }
    for (name, text) in said {
        drop(properties.insert(name, text));
    }
    drop(properties.insert("capabilities", FieldValue::Table(capabilities)));
    properties
}

/// `authorization identity NUL user NUL password`.
fn plain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = response.splitn(3, |byte| *byte == 0).skip(1);
    Some((parts.next()?, parts.next()?))
}

/// Pairs as in a table, without the table's length.
fn amqplain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut login = None;
    let mut password = None;
    let mut rest = response;
    while let Some((length, tail)) = rest.split_first() {
        let (name, tail) = tail.split_at_checked((*length).into())?;
        let (kind, tail) = tail.split_first()?;
        let (size, tail) = tail.split_first_chunk::<4>()?;
        let (value, tail) = tail.split_at_checked(u32::from_be_bytes(*size) as usize)?;
        match (name, kind) {
            (b"LOGIN", b'S') => login = Some(value),
            (b"PASSWORD", b'S') => password = Some(value),
            _ => {}
        }
        rest = tail;
    }
    Some((login?, password?))
}
