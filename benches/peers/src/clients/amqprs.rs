//! amqprs, as its README and documentation show it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use amqprs::callbacks::{ChannelCallback, DefaultChannelCallback, DefaultConnectionCallback};
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConfirmSelectArguments, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::consumer::AsyncConsumer;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, Deliver, Nack, Return};
use async_trait::async_trait;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::Result;
use crate::job::{Address, Job};
use crate::measure::{Meter, Sample};
use crate::work::{NOWHERE, PREFETCH, QUEUE, TASKS, WINDOW, Work};

pub(super) async fn run(job: &Job) -> Result<Sample> {
    if job.work == Work::Idle {
        return super::idle(|| async {
            let connection = connect(job).await?;
            let channel = open(&connection).await?;
            Ok((connection, channel))
        })
        .await;
    }
    let connection = connect(job).await?;
    let channel = connection.open_channel(None).await?;
    let sample = work(job, &connection, &channel).await;
    // its tasks panic where both are dropped at the wrong moment; the process ends here anyway
    std::mem::forget((connection, channel));
    sample
}

async fn work(job: &Job, connection: &Connection, channel: &Channel) -> Result<Sample> {
    match job.work {
        Work::Confirm(_) | Work::ConfirmEach => confirm(job, channel).await,
        _ => {
            channel.register_callback(DefaultChannelCallback).await?;
            match job.work {
                Work::Consume(_) | Work::ConsumeAck => consume(job, channel).await,
                Work::Declare => declare(job, channel).await,
                Work::Both => both(job, connection, channel).await,
                _ => publish(job, connection, channel).await,
            }
        }
    }
}

async fn connect(job: &Job) -> Result<Connection> {
    let Address { host, port, user, password, vhost } = Address::parse(&job.uri)?;
    let arguments = OpenConnectionArguments::new(&host, port, &user, &password).virtual_host(&vhost).finish();
    let connection = Connection::open(&arguments).await?;
    connection.register_callback(DefaultConnectionCallback).await?;
    Ok(connection)
}

async fn open(connection: &Connection) -> Result<Channel> {
    let channel = connection.open_channel(None).await?;
    channel.register_callback(DefaultChannelCallback).await?;
    Ok(channel)
}

async fn publish_on(job: &Job, channel: &Channel, meter: Meter, key: &str) -> Result<u64> {
    let (body, stride) = (vec![b'x'; job.work.size()], job.work.stride());
    let arguments = BasicPublishArguments::new("", key);
    let mut published = 0;
    while meter.goes_on() {
        for _ in 0..stride {
            channel.basic_publish(BasicProperties::default(), body.clone(), arguments.clone()).await?;
        }
        published += stride;
    }
    Ok(published)
}

async fn counted(channel: &Channel) -> Result<u32> {
    let mut arguments = QueueDeclareArguments::new(QUEUE);
    let declared = channel.queue_declare(arguments.exclusive(true).finish()).await?;
    Ok(declared.map_or(0, |(_, messages, _)| messages))
}

async fn publish(job: &Job, connection: &Connection, channel: &Channel) -> Result<Sample> {
    let meter = Meter::start(job.time);
    // its channels close when they are dropped, and that is not part of the work
    let mut channels = Vec::new();
    let published = match job.work {
        Work::Tasks | Work::Channels => {
            let mut tasks = JoinSet::new();
            for _ in 0..TASKS {
                let channel = match job.work {
                    Work::Tasks => channel.clone(),
                    _ => open(connection).await?,
                };
                channels.push(channel.clone());
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
    let sample = meter.stop(published);
    std::mem::forget(channels);
    job.checked(sample, published, counted)
}

/// Confirms come to a callback, which counts them.
#[derive(Clone, Default)]
struct Acks {
    settled: Arc<AtomicU64>,
    nacked: Arc<AtomicBool>,
    wake: Arc<Notify>,
}

#[async_trait]
impl ChannelCallback for Acks {
    async fn close(&mut self, _: &Channel, _: CloseChannel) -> std::result::Result<(), amqprs::error::Error> {
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> std::result::Result<(), amqprs::error::Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, _: bool) -> std::result::Result<bool, amqprs::error::Error> {
        Ok(true)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.settled.fetch_max(ack.delivery_tag(), Ordering::SeqCst);
        self.wake.notify_one();
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {
        self.nacked.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}

impl Acks {
    /// Waits until everything up to `number` is confirmed.
    async fn settled(&self, number: u64) -> Result<()> {
        while self.settled.load(Ordering::SeqCst) < number {
            if self.nacked.load(Ordering::SeqCst) {
                return Err("a publish was not confirmed".into());
            }
            self.wake.notified().await;
        }
        Ok(())
    }
}

async fn confirm(job: &Job, channel: &Channel) -> Result<Sample> {
    let acks = Acks::default();
    channel.register_callback(acks.clone()).await?;
    channel.confirm_select(ConfirmSelectArguments::default()).await?;
    let (window, stride) = if job.work == Work::ConfirmEach { (1, 1) } else { (WINDOW, job.work.stride()) };
    let body = vec![b'x'; job.work.size()];
    let arguments = BasicPublishArguments::new("", NOWHERE);
    let mut published = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        for _ in 0..stride {
            acks.settled((published + 1_u64).saturating_sub(window)).await?;
            channel.basic_publish(BasicProperties::default(), body.clone(), arguments.clone()).await?;
            published += 1;
        }
    }
    acks.settled(published).await?;
    let sample = meter.stop(published);
    job.checked(sample, published, counted(channel).await?)
}

/// Consumers are callbacks.
struct Counting {
    job: Job,
    acks: bool,
    meter: Option<Meter>,
    count: u64,
    done: Option<oneshot::Sender<Sample>>,
}

impl Counting {
    fn new(job: &Job, meter: Option<Meter>) -> (Self, oneshot::Receiver<Sample>) {
        let (done, sample) = oneshot::channel();
        let acks = job.work == Work::ConsumeAck;
        (Self { job: job.clone(), acks, meter, count: 0, done: Some(done) }, sample)
    }
}

#[async_trait]
impl AsyncConsumer for Counting {
    async fn consume(&mut self, channel: &Channel, deliver: Deliver, _: BasicProperties, content: Vec<u8>) {
        drop(content);
        if self.acks {
            let ack = channel.basic_ack(BasicAckArguments::new(deliver.delivery_tag(), false));
            drop(ack.await);
        }
        let Some(meter) = self.meter else {
            self.meter = Some(Meter::start(self.job.time));
            return;
        };
        self.count += 1;
        let enough = self.count + 1 >= self.job.most();
        let over = self.count.is_multiple_of(self.job.work.stride()) && !meter.goes_on();
        if (enough || over)
            && let Some(done) = self.done.take()
        {
            // nobody waits any more only if everything is over
            let _ = done.send(meter.stop(self.count));
        }
    }
}

async fn consume(job: &Job, channel: &Channel) -> Result<Sample> {
    let (consumer, sample) = Counting::new(job, None);
    if consumer.acks {
        channel.basic_qos(BasicQosArguments::new(0, PREFETCH, false)).await?;
    }
    let mut arguments = BasicConsumeArguments::new(&job.queue(), "peers");
    let arguments = arguments.manual_ack(consumer.acks).finish();
    channel.basic_consume(consumer, arguments).await?;
    Ok(sample.await?)
}

async fn declare(job: &Job, channel: &Channel) -> Result<Sample> {
    let mut count = 0;
    let meter = Meter::start(job.time);
    while meter.goes_on() {
        counted(channel).await?;
        count += 1;
    }
    Ok(meter.stop(count))
}

async fn both(job: &Job, connection: &Connection, channel: &Channel) -> Result<Sample> {
    let other = open(connection).await?;
    let meter = Meter::start(job.time);
    let (consumer, delivered) = Counting::new(job, Some(meter));
    let mut arguments = BasicConsumeArguments::new(&job.queue(), "peers");
    other.basic_consume(consumer, arguments.manual_ack(false).finish()).await?;
    let published = publish_on(job, channel, meter, &job.queue()).await?;
    let delivered = delivered.await?.messages;
    let sample = meter.stop(published + delivered);
    let counted = counted(channel).await?;
    std::mem::forget(other);
    job.checked(sample, published, counted)
}
