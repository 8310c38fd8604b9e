//! lapin, as its README and examples show it.

use std::collections::VecDeque;

use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use tokio::task::JoinSet;

use crate::Result;
use crate::job::Job;
use crate::measure::{Meter, Sample};
use crate::work::{NOWHERE, PREFETCH, QUEUE, TASKS, WINDOW, Work};

pub(super) async fn run(job: &Job) -> Result<Sample> {
    if job.work == Work::Idle {
        return super::idle(|| async {
            let connection = connect(job).await?;
            let channel = connection.create_channel().await?;
            Ok((connection, channel))
        })
        .await;
    }
    let connection = connect(job).await?;
    let channel = connection.create_channel().await?;
    let sample = match job.work {
        Work::Publish(_) | Work::Tasks | Work::Channels => publish(job, &connection, &channel).await,
        Work::Confirm(_) => confirm(job, &channel).await,
        Work::ConfirmEach => confirm_each(job, &channel).await,
        Work::Consume(_) | Work::ConsumeAck => consume(job, &channel).await,
        Work::Declare => declare(job, &channel).await,
        Work::Both => both(job, &connection, &channel).await,
        Work::ConfirmReal => return Err("only lepus does this".into()),
        Work::Idle => return Err("done above".into()),
    }?;
    Ok(sample)
}

async fn connect(job: &Job) -> Result<Connection> {
    // it takes the vhost of `amqp://host/` for the one without a name
    let uri = job.uri.strip_suffix('/').map_or_else(|| job.uri.clone(), |uri| format!("{uri}/%2f"));
    Ok(Connection::connect(&uri, ConnectionProperties::default()).await?)
}

async fn publish_on(job: &Job, channel: &Channel, meter: Meter, key: &str) -> Result<u64> {
    let (body, stride) = (vec![b'x'; job.work.size()], job.work.stride());
    let mut published = 0;
    while meter.goes_on() {
        for _ in 0..stride {
            let properties = BasicProperties::default();
            // without confirms, what it returns would be ready at once
            let _confirm = channel
                .basic_publish("".into(), key.into(), BasicPublishOptions::default(), &body, properties)
                .await?;
        }
        published += stride;
    }
    Ok(published)
}

async fn counted(channel: &Channel) -> Result<u32> {
    let options = QueueDeclareOptions::exclusive();
    Ok(channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await?.message_count())
}

async fn publish(job: &Job, connection: &Connection, channel: &Channel) -> Result<Sample> {
    let meter = Meter::start(job.time);
    let published = match job.work {
        Work::Tasks | Work::Channels => {
            let mut tasks = JoinSet::new();
            for _ in 0..TASKS {
                let channel = match job.work {
                    Work::Tasks => channel.clone(),
                    _ => connection.create_channel().await?,
                };
                let job = job.clone();
                tasks.spawn(async move { publish_on(&job, &channel, meter, NOWHERE).await });
            }
            let mut published = 0;
            while let Some(done) = tasks.join_next().await {
                published += done??;
            }
            published
        }
        _ => publish_on(job, channel, meter, NOWHERE).await?,
    };
    let counted = counted(channel).await?;
    job.checked(meter.stop(published), published, counted)
}

async fn confirm(job: &Job, channel: &Channel) -> Result<Sample> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (body, stride) = (vec![b'x'; job.work.size()], job.work.stride());
    let mut under_way = VecDeque::new();
    let mut published = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        for _ in 0..stride {
            if under_way.len() as u64 == WINDOW
                && let Some(oldest) = under_way.pop_front()
            {
                settle(oldest).await?;
            }
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            under_way.push_back(
                channel.basic_publish("".into(), NOWHERE.into(), options, &body, properties).await?,
            );
        }
        published += stride;
    }
    for confirm in under_way {
        settle(confirm).await?;
    }
    let sample = meter.stop(published);
    job.checked(sample, published, counted(channel).await?)
}

async fn settle(confirm: lapin::PublisherConfirm) -> Result<()> {
    if confirm.await?.is_ack() { Ok(()) } else { Err("a publish was not confirmed".into()) }
}

async fn confirm_each(job: &Job, channel: &Channel) -> Result<Sample> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let body = vec![b'x'; job.work.size()];
    let mut published = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        settle(channel.basic_publish("".into(), NOWHERE.into(), options, &body, properties).await?).await?;
        published += 1;
    }
    let sample = meter.stop(published);
    job.checked(sample, published, counted(channel).await?)
}

async fn consumer(job: &Job, channel: &Channel, no_ack: bool) -> Result<Consumer> {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    Ok(channel.basic_consume(job.queue().into(), "peers".into(), options, FieldTable::default()).await?)
}

async fn consume(job: &Job, channel: &Channel) -> Result<Sample> {
    let acks = job.work == Work::ConsumeAck;
    if acks {
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    }
    let mut consumer = consumer(job, channel, !acks).await?;
    let (stride, most) = (job.work.stride(), job.most());
    let mut meter = None;
    let mut count = 0_u64;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        if acks {
            delivery.ack(BasicAckOptions::default()).await?;
        }
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

async fn declare(job: &Job, channel: &Channel) -> Result<Sample> {
    let mut count = 0_u64;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        counted(channel).await?;
        count += 1;
    }
    Ok(meter.stop(count))
}

async fn both(job: &Job, connection: &Connection, channel: &Channel) -> Result<Sample> {
    let other = connection.create_channel().await?;
    let mut consumer = consumer(job, &other, true).await?;
    let stride = job.work.stride();
    let meter = Meter::start(job.time);
    let consuming = tokio::spawn(async move {
        let mut count = 0_u64;
        let rest = tokio::time::timeout(meter.left(), async {
            while let Some(delivery) = consumer.next().await {
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
    let published = publish_on(job, channel, meter, &job.queue()).await?;
    let delivered: u64 = consuming.await?;
    let sample = meter.stop(published + delivered);
    job.checked(sample, published, counted(channel).await?)
}
