//! What counts towards the delivery limit of a quorum queue.

use std::time::Duration;

use lepus::{Connection, FieldValue};
use tokio::time::timeout;

use crate::broker::url;
use crate::case::test;

const LIMIT: u32 = 3;

/// A queue drops a message as soon as it is over the limit, so it does not take long until it comes again, or never.
const NEVER: Duration = Duration::from_millis(500);

/// How a message is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    Nack,
    Reject,
    /// With its channel.
    Closed,
}

/// How often a message is delivered that always goes back; up to `most`.
pub(crate) async fn delivered(connection: &Connection, queue: &str, back: Back, most: u32) -> u32 {
    let (mut count, mut channel) = (0, connection.channel().await.unwrap());
    let mut consumer = channel.queue(queue).unwrap().consume().prefetch(1).await.unwrap();
    while count < most {
        let Ok(delivery) = timeout(NEVER, consumer.next()).await else { break };
        count += 1;
        let delivery = delivery.unwrap().unwrap();
        match back {
            Back::Nack => drop(delivery.nack(true).unwrap()),
            Back::Reject => drop(delivery.reject(true).unwrap()),
            Back::Closed => {
                channel.close().await.unwrap();
                channel = connection.channel().await.unwrap();
                consumer = channel.queue(queue).unwrap().consume().prefetch(1).await.unwrap();
            }
        }
    }
    count
}

#[test]
#[ignore = "needs RabbitMQ"]
fn rejects_and_closed_channels_count_and_nacks_only_before_4_3() {
    test(async |t| {
        let connection = lepus::connect(url()).await.unwrap();
        let properties = connection.server_properties();
        let version = properties.get("version").and_then(FieldValue::as_str).unwrap();
        let (major, minor) = version.split_once('.').unwrap();
        let minor = minor.split('.').next().unwrap();
        let nacks_count = (major.parse::<u32>().unwrap(), minor.parse::<u32>().unwrap()) < (4, 3);
        for back in [Back::Nack, Back::Reject, Back::Closed] {
            let channel = connection.channel().await.unwrap();
            let queue = channel.declare_queue(t.name()).quorum().delivery_limit(LIMIT).await.unwrap();
            channel.default_exchange().publish(queue.name(), "x").await.unwrap();
            let most = 3 * LIMIT;
            let counts = back != Back::Nack || nacks_count;
            let expected = if counts { LIMIT + 1 } else { most };
            let name = queue.name().to_string();
            assert_eq!(delivered(&connection, &name, back, most).await, expected, "{back:?}");
        }
    });
}
