//! Handlers whose delivery goes stale with its link.

use std::sync::Arc;

use lepus::{Incoming, Worker};
use tokio::sync::{Semaphore, mpsc};

use crate::case::test;
use crate::tools::{Patient, next, within};

/// What a handler says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Begun { redelivered: bool },
    Finished,
    Dropped,
}

/// Says that a handler was dropped, unless it has finished.
struct Guard(mpsc::UnboundedSender<Said>, bool);

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.1 {
            let _gone = self.0.send(Said::Dropped);
        }
    }
}

/// A worker with one message, whose handlers wait until the gate opens.
async fn gated(
    patient: &Patient,
    queue: String,
    finish_stale: bool,
) -> (Worker, Arc<Semaphore>, mpsc::UnboundedReceiver<Said>) {
    let channel = patient.channel().await;
    let queue = channel.declare_queue(queue).await.unwrap();
    channel.default_exchange().publish(queue.name(), "work").await.unwrap();
    let (gate, (say, said)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
    let handler = {
        let gate = Arc::clone(&gate);
        move |message: Incoming| {
            let (gate, say) = (Arc::clone(&gate), say.clone());
            async move {
                let mut guard = Guard(say.clone(), false);
                let begun = Said::Begun { redelivered: message.redelivered() };
                say.send(begun).map_err(|error| error.to_string())?;
                gate.acquire().await.map_err(|error| error.to_string())?.forget();
                guard.1 = true;
                say.send(Said::Finished).map_err(|error| error.to_string())
            }
        }
    };
    let worker = queue.consume().handle(handler).finish_stale(finish_stale).await.unwrap();
    (worker, gate, said)
}

async fn hear(said: &mut mpsc::UnboundedReceiver<Said>) -> Said {
    within("a handler's word", said.recv()).await.unwrap()
}

#[test]
fn a_loss_stops_handlers_and_their_messages_come_again() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let (worker, gate, mut said) = gated(&patient, t.name(), false).await;
        assert_eq!(hear(&mut said).await, Said::Begun { redelivered: false });
        patient.cut().await;
        assert_eq!(hear(&mut said).await, Said::Dropped);
        assert_eq!(hear(&mut said).await, Said::Begun { redelivered: true });
        gate.add_permits(1);
        assert_eq!(hear(&mut said).await, Said::Finished);
        worker.drain().await.unwrap();
        assert_eq!(patient.connection.counters().stale_acks, 0);
        patient.connection.close().await.unwrap();
        patient.nothing_was_closed();
    });
}

#[test]
fn a_handler_that_is_to_be_finished_does_the_work_and_the_message_comes_again() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let (worker, gate, mut said) = gated(&patient, t.name(), true).await;
        assert_eq!(hear(&mut said).await, Said::Begun { redelivered: false });
        patient.cut().await;
        gate.add_permits(1);
        assert_eq!(hear(&mut said).await, Said::Finished);
        assert_eq!(hear(&mut said).await, Said::Begun { redelivered: true });
        gate.add_permits(1);
        assert_eq!(hear(&mut said).await, Said::Finished);
        worker.drain().await.unwrap();
        assert_eq!(patient.connection.counters().stale_acks, 1);
        patient.connection.close().await.unwrap();
    });
}

#[test]
fn after_a_cancel_by_the_server_nothing_old_is_handed_out() {
    test(async |t| {
        let (patient, name) = (Patient::new(t).await, t.name());
        let channel = patient.channel().await;
        let queue = channel.declare_queue(&name).await.unwrap();
        let exchange = channel.default_exchange();
        for body in ["1", "2", "3"] {
            exchange.publish(queue.name(), body).await.unwrap();
        }
        let mut consumer = queue.consume().await.unwrap();
        let held = next(&mut consumer).await;
        let other = patient.other.channel().await.unwrap().queue(queue.name()).unwrap();
        other.delete().await.unwrap();
        within("the delivery to go stale", held.stale()).await;
        let channel = patient.other.channel().await.unwrap();
        channel.declare_queue(&name).await.unwrap();
        channel.default_exchange().publish(queue.name(), "new").await.unwrap();
        // "2" and "3" were in the queue that was deleted
        assert_eq!(next(&mut consumer).await.body_str(), Some("new"));
    });
}
