//! The methods of class `exchange`.

use crate::codec::generated::exchange as wire;
use crate::codec::{FieldTable, ShortStr};

use super::broker_exchange::{BindingKey, Destination, Exchange, Kind};
use super::equivalence::{EXCHANGE_ARGUMENTS, same_arguments, same_flag, same_text};
use super::queue_policy::names_an_exchange;
use super::refusal::{self, Refusal};
use super::state::{At, State};

impl State {
    pub(super) fn declare_exchange(&mut self, at: At, mut declare: wire::Declare) -> Result<(), Refusal> {
        declare.exchange = one_line(declare.exchange);
        let vhost = self.vhost(at)?;
        let name = &declare.exchange;
        if declare.passive {
            not_default(name)?;
            vhost.exchange(name)?;
            return self.reply_unless(declare.no_wait, at, &wire::DeclareOk);
        }
        let kind = Kind::parse(&declare.kind).ok_or_else(|| {
            Refusal::precondition_failed(format_args!("unknown exchange type '{}'", declare.kind))
        })?;
        not_default(name)?;
        if let Some(exchange) = vhost.exchanges.get(name) {
            let thing = refusal::exchange(&vhost.name, name);
            same_text("type", &thing, kind.name(), exchange.kind.name())?;
            same_flag("durable", &thing, declare.durable, exchange.durable)?;
            same_flag("auto_delete", &thing, declare.auto_delete, exchange.auto_delete)?;
            same_flag("internal", &thing, declare.internal, exchange.internal)?;
            same_arguments(&EXCHANGE_ARGUMENTS, &thing, &declare.arguments, &exchange.arguments)?;
        } else {
            not_reserved("exchange", name)?;
            let thing = refusal::exchange(&vhost.name, name);
            names_an_exchange("alternate-exchange", &thing, &declare.arguments)?;
            let exchange = Exchange {
                kind,
                durable: declare.durable,
                auto_delete: declare.auto_delete,
                internal: declare.internal,
                arguments: declare.arguments,
                bindings: std::collections::BTreeMap::new(),
            };
            vhost.exchanges.insert(declare.exchange, exchange);
        }
        self.reply_unless(declare.no_wait, at, &wire::DeclareOk)
    }

    pub(super) fn delete_exchange(&mut self, at: At, delete: wire::Delete) -> Result<(), Refusal> {
        let vhost = self.vhost(at)?;
        let name = &one_line(delete.exchange);
        not_default(name)?;
        if is_reserved(name) {
            let thing = refusal::exchange(&vhost.name, name);
            return Err(Refusal::access_refused(format_args!("deletion of system {thing} not allowed")));
        }
        if let Some(exchange) = vhost.exchanges.get(name) {
            if delete.if_unused && !exchange.bindings.is_empty() {
                return Err(Refusal::precondition_failed(format_args!(
                    "{} in use",
                    refusal::exchange(&vhost.name, name)
                )));
            }
            vhost.delete_exchange(name);
        }
        self.reply_unless(delete.no_wait, at, &wire::DeleteOk)
    }

    pub(super) fn bind_exchange(&mut self, at: At, mut bind: wire::Bind) -> Result<(), Refusal> {
        bind.source = one_line(bind.source);
        bind.destination = one_line(bind.destination);
        self.check_ends(at, &bind.source, &bind.destination)?;
        let key = BindingKey::new(bind.routing_key, Destination::Exchange(bind.destination), &bind.arguments);
        self.vhost(at)?.bind(&bind.source, key, bind.arguments)?;
        self.reply_unless(bind.no_wait, at, &wire::BindOk)
    }

    pub(super) fn unbind_exchange(&mut self, at: At, mut unbind: wire::Unbind) -> Result<(), Refusal> {
        unbind.source = one_line(unbind.source);
        unbind.destination = one_line(unbind.destination);
        not_default(&unbind.source)?;
        not_default(&unbind.destination)?;
        self.unbind(
            at,
            &unbind.source,
            unbind.routing_key,
            Destination::Exchange(unbind.destination),
            &unbind.arguments,
        )?;
        self.reply_unless(unbind.no_wait, at, &wire::UnbindOk)
    }

    /// Both ends of a binding between exchanges must be there.
    fn check_ends(&mut self, at: At, source: &ShortStr, destination: &ShortStr) -> Result<(), Refusal> {
        not_default(destination)?;
        not_default(source)?;
        let vhost = self.vhost(at)?;
        vhost.exchange(source)?;
        vhost.exchange(destination)?;
        Ok(())
    }

    /// Removes a binding to a queue or an exchange.
    pub(super) fn unbind(
        &mut self,
        at: At,
        source: &ShortStr,
        routing_key: ShortStr,
        destination: Destination,
        arguments: &FieldTable,
    ) -> Result<(), Refusal> {
        let key = BindingKey::new(routing_key, destination, arguments);
        self.vhost(at)?.unbind(source, &key);
        Ok(())
    }
}

/// The name that is meant: as in `RabbitMQ`, declaring, binding and deleting take no notice of line breaks, which
/// names read from files end with; all other methods take a name as it is.
pub(super) fn one_line(name: ShortStr) -> ShortStr {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    if !name.as_bytes().iter().any(is_break) {
        return name;
    }
    let kept: Vec<u8> = name.as_bytes().iter().copied().filter(|byte| !is_break(byte)).collect();
    // it got shorter
    ShortStr::try_from(kept).unwrap_or_default()
}

/// The default exchange can be neither declared, deleted nor bound.
pub(super) fn not_default(name: &ShortStr) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

/// Names that begin with `amq.` belong to the broker.
fn is_reserved(name: &ShortStr) -> bool {
    name.as_bytes().starts_with(b"amq.")
}

/// Refuses to make what has a name of the broker.
pub(super) fn not_reserved(what: &str, name: &ShortStr) -> Result<(), Refusal> {
    if is_reserved(name) {
        return Err(Refusal::access_refused(format_args!(
            "{what} name '{name}' contains reserved prefix 'amq.*'"
        )));
    }
    Ok(())
}
