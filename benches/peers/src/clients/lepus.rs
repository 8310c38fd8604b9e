//! lepus, on default settings.

use std::collections::VecDeque;

use bytes::Bytes;
use lepus::{Channel, Confirm, Connection, Exchange, Message};
use tokio::task::JoinSet;

use crate::Result;
use crate::job::Job;
use crate::measure::{Meter, Sample};
use crate::work::{NOWHERE, PREFETCH, QUEUE, TASKS, WINDOW, Work};

pub(super) async fn run(job: &Job, robust: bool) -> Result<Sample> {
    let connect = async || {
        if robust { lepus::connect_robust(&job.uri).await } else { lepus::connect(&job.uri).await }
    };
    if job.work == Work::Idle {
        return super::idle(|| async {
            let connection = connect().await?;
            let channel = connection.channel().await?;
            Ok((connection, channel))
        })
        .await;
    }
    let connection = connect().await?;
    let sample = match job.work {
        Work::Publish(_) | Work::Tasks | Work::Channels => publish(job, &connection).await,
        Work::Confirm(_) | Work::ConfirmReal => confirm(job, &connection).await,
        Work::ConfirmEach => confirm_each(job, &connection).await,
        Work::Consume(_) | Work::ConsumeAck => consume(job, connection.channel().await?).await,
        Work::Declare => declare(job, &connection).await,
        Work::Both => both(job, &connection).await,
        Work::Idle => return Err("done above".into()),
    }?;
    connection.close().await?;
    Ok(sample)
}

fn body(job: &Job) -> Bytes {
    Bytes::from(vec![b'x'; job.work.size()])
}

async fn publish_on(job: &Job, exchange: &Exchange, meter: Meter, key: &str) -> Result<u64> {
    let (body, stride) = (body(job), job.work.stride());
    let mut published = 0;
    while meter.goes_on() {
        for _ in 0..stride {
            exchange.publish(key, body.clone()).await?;
        }
        published += stride;
    }
    Ok(published)
}

/// A round trip behind everything: how many messages the broker got.
async fn counted(channel: &Channel) -> Result<u32> {
    Ok(channel.declare_queue(QUEUE).exclusive().await?.message_count())
}

async fn publish(job: &Job, connection: &Connection) -> Result<Sample> {
    let channel = connection.channel().without_confirms().await?;
    let exchange = channel.default_exchange();
    let meter = Meter::start(job.time);
    let published = match job.work {
        Work::Tasks | Work::Channels => {
            let mut tasks = JoinSet::new();
            for _ in 0..TASKS {
                let exchange = match job.work {
                    Work::Tasks => exchange.clone(),
                    _ => connection.channel().without_confirms().await?.default_exchange(),
                };
                let job = job.clone();
                tasks.spawn(async move { publish_on(&job, &exchange, meter, NOWHERE).await });
            }
            let mut published = 0;
            while let Some(done) = tasks.join_next().await {
                published += done??;
            }
            published
        }
        _ => publish_on(job, &exchange, meter, NOWHERE).await?,
    };
    let counted = counted(&channel).await?;
    job.checked(meter.stop(published), published, counted)
}

async fn confirm(job: &Job, connection: &Connection) -> Result<Sample> {
    let channel = connection.channel().await?;
    let exchange = channel.default_exchange();
    let (body, stride) = (body(job), job.work.stride());
    let mut under_way: VecDeque<Confirm> = VecDeque::new();
    let mut published = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        for _ in 0..stride {
            if under_way.len() as u64 == WINDOW
                && let Some(oldest) = under_way.pop_front()
            {
                oldest.await?;
            }
            let message = match job.work {
                Work::ConfirmReal => real(published, &body),
                _ => Message::new(body.clone()),
            };
            under_way.push_back(exchange.enqueue(NOWHERE, message).await?);
        }
        published += stride;
    }
    for confirm in under_way {
        confirm.await?;
    }
    let sample = meter.stop(published);
    job.checked(sample, published, counted(&channel).await?)
}

/// A message as a service sends it.
fn real(number: u64, body: &Bytes) -> Message {
    Message::new(body.clone())
        .content_type("application/json")
        .message_id(format!("order-{number}"))
        .timestamp(std::time::SystemTime::UNIX_EPOCH)
        .header("tenant", "acme")
        .header("attempt", 1)
        .header("trace", "4bf92f3577b34da6a3ce929d0e0e4736")
}

async fn confirm_each(job: &Job, connection: &Connection) -> Result<Sample> {
    let channel = connection.channel().await?;
    let exchange = channel.default_exchange();
    let body = body(job);
    let mut published = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        exchange.publish(NOWHERE, body.clone()).await?;
        published += 1;
    }
    let sample = meter.stop(published);
    job.checked(sample, published, counted(&channel).await?)
}

async fn consume(job: &Job, channel: Channel) -> Result<Sample> {
    let queue = channel.queue(job.queue())?;
    let consume = queue.consume();
    let acks = job.work == Work::ConsumeAck;
    let mut deliveries = if acks { consume.prefetch(PREFETCH).await? } else { consume.no_ack().await? };
    let (stride, most) = (job.work.stride(), job.most());
    let mut meter = None;
    let mut count = 0_u64;
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        if acks {
            delivery.ack()?;
        }
        // the clock starts with the first delivery, which does not count
        let Some(meter) = meter else {
            meter = Some(Meter::start(job.time));
            continue;
        };
        count += 1;
        if count + 1 >= most || (count.is_multiple_of(stride) && !meter.goes_on()) {
            return Ok(meter.stop(count));
        }
    }
    Err("the deliveries ended".into())
}

async fn declare(job: &Job, connection: &Connection) -> Result<Sample> {
    let channel = connection.channel().await?;
    let mut count = 0_u64;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        channel.declare_queue(QUEUE).exclusive().await?;
        count += 1;
    }
    Ok(meter.stop(count))
}

async fn both(job: &Job, connection: &Connection) -> Result<Sample> {
    let channel = connection.channel().without_confirms().await?;
    let exchange = channel.default_exchange();
    let queue = job.queue();
    let mut deliveries = connection.channel().await?.queue(queue.as_str())?.consume().no_ack().await?;
    let stride = job.work.stride();
    let meter = Meter::start(job.time);
    let consuming = tokio::spawn(async move {
        let mut count = 0_u64;
        // a real broker may deliver less than was published: then the time ends it
        let rest = tokio::time::timeout(meter.left(), async {
            while let Some(delivery) = deliveries.next().await {
                drop(delivery);
                count += 1;
                if count.is_multiple_of(stride) && !meter.goes_on() {
                    break;
                }
            }
        });
        drop(rest.await);
        count
    });
    let published = publish_on(job, &exchange, meter, &queue).await?;
    let delivered: u64 = consuming.await?;
    let counted = counted(&channel).await?;
    job.checked(meter.stop(published + delivered), published, counted)
}
