//! What is kept for long keeps no read buffer alive.

use lepus::protocol::{basic, queue};

use crate::counted::{Count, KIB, MIB, alone};
use crate::peer::*;

const MANY: usize = 500;

/// Consumers and queues with names that the server made up, each of which came in a read of its own, full of deliveries
/// for another consumer.
#[test]
fn names_that_the_server_made_up_do_not_keep_what_they_were_read_with() {
    alone(async {
        let (mut server, connection) = connected().await;
        let channel = open(&mut server, &connection, 1).await;
        let mut busy = consumer_without_acks(&mut server, &channel, "busy").await;
        let other = open(&mut server, &connection, 2).await;
        let noise = delivery(1, "busy", 1, &[7; 1000]).repeat(60);
        let mut kept = Vec::new();
        let count = Count::begin();
        for n in 0..MANY {
            let named = other.queue("q").unwrap();
            let client = async {
                let consumer = named.consume().await.unwrap();
                let queue = other.declare_queue("").await.unwrap();
                (consumer, queue)
            };
            let (these, ()) = both(client, async {
                server.receive_consume(2).await;
                let ok = method(2, &basic::ConsumeOk { consumer_tag: short(&format!("amq.ctag-{n}")) });
                server.write(&[noise.as_slice(), &ok, &noise].concat()).await;
                server.receive::<queue::Declare>(2).await;
                let ok = queue::DeclareOk { queue: short(&format!("amq.gen-{n}")), ..Default::default() };
                server.write(&[noise.as_slice(), &method(2, &ok), &noise].concat()).await;
            })
            .await;
            kept.push(these);
            for _ in 0..240 {
                drop(within("the busy consumer's messages", busy.next()).await.unwrap().unwrap());
            }
        }
        let now = count.now();
        println!("{} KiB for {MANY} consumers and queues", now / KIB);
        assert!(now < 2 * MIB + MANY * 2 * KIB, "{} KiB", now / KIB);
        drop(kept);
    });
}
