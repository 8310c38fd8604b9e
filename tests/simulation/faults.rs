//! What goes wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lepus::ConnectOptions;
use lepus::broker::{Keep, ReplyFault};
use lepus::protocol::{Arguments, basic, channel, confirm, connection, exchange, queue};
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::network::{Cut, Direction, Host, Plan};
use crate::trace::log;
use crate::world::{HOST, JOBS, OTHER_HOST, World};

const HOSTS: [Host; 4] = [Host::Up, Host::Refuses, Host::Silent, Host::Mute];

/// Whoever does harm, at random.
pub(crate) struct Faults {
    pub(crate) world: Arc<World>,
    pub(crate) dice: Dice,
}

impl Faults {
    /// Does harm so many times, and then heals everything.
    pub(crate) async fn run(mut self, times: u64) {
        for _ in 0..times {
            let most = self.dice.pick(&[50, 2000, 15_000]);
            let pause = self.dice.millis(1, most);
            sleep(pause).await;
            match self.dice.below(23) {
                0..3 => self.cut(),
                3 | 4 => self.plan(),
                5 | 6 => self.plan_next(),
                7 => self.hole().await,
                8 | 9 => self.restart().await,
                10 => self.block().await,
                11..14 => self.reply(),
                14 => self.at_method(),
                15 => self.confirms().await,
                16 => self.forced(),
                17 => self.lock(),
                18 => self.deaf().await,
                19 | 20 => self.host(),
                21 => self.refuse().await,
                _ => self.operate().await,
            }
        }
        self.heal();
    }

    fn log(&self, what: &str) {
        log!(self.world.trace, "fault", "{what}");
    }

    fn cut(&mut self) {
        let all = self.dice.percent(50);
        for id in self.world.network.links() {
            if all || self.dice.percent(40) {
                let cut = Cut::random(&mut self.dice);
                self.log(&format!("link {id}: {cut:?}"));
                self.world.network.cut(id, cut);
            }
        }
    }

    fn some_plan(&mut self, most: u64) -> Plan {
        let direction = self.dice.pick(&[Direction::ToBroker, Direction::ToClient]);
        Plan { direction, after: self.dice.below(most), cut: Cut::random(&mut self.dice) }
    }

    fn plan(&mut self) {
        let links = self.world.network.links();
        if !links.is_empty() {
            let (id, most) = (self.dice.pick(&links), self.dice.pick(&[50, 2000, 20_000]));
            let plan = self.some_plan(most);
            self.log(&format!("link {id}: {plan:?}"));
            self.world.network.plan(id, plan);
        }
    }

    fn plan_next(&mut self) {
        let plan = self.some_plan(3000);
        self.log(&format!("next link: {plan:?}"));
        self.world.network.plan_next(Some(plan));
        if let Some(id) = self.world.network.links().first() {
            self.world.network.cut(*id, Cut::Both);
        }
    }

    /// A host goes down for new links, or is up again.
    fn host(&mut self) {
        let (name, host) = (self.dice.pick(&[HOST, HOST, OTHER_HOST]), self.dice.pick(&HOSTS));
        self.log(&format!("{name}: {host:?}"));
        self.world.network.set_host(name, host);
        if self.dice.percent(80) {
            self.cut();
        }
    }

    /// The broker refuses logins, as when its backend for them is down.
    async fn refuse(&mut self) {
        self.log("logins are refused");
        self.world.broker.refuse_logins(true);
        self.cut();
        let time = self.dice.millis(10, 60_000);
        sleep(time).await;
        self.world.broker.refuse_logins(false);
        self.log("logins are accepted");
    }

    async fn hole(&mut self) {
        self.log("nothing passes");
        self.world.network.swallow(true);
        let time = self.dice.millis(10, 30_000);
        sleep(time).await;
        self.world.network.swallow(false);
        self.log("all passes");
    }

    async fn restart(&mut self) {
        self.log("the broker stops");
        if self.dice.percent(70) {
            self.world.broker.stop().await;
            let time = self.dice.millis(1, 20_000);
            sleep(time).await;
        }
        let keep = if self.dice.percent(15) { Keep::Nothing } else { Keep::Durable };
        self.world.broker.stop().await;
        if keep == Keep::Nothing {
            self.world.model().forget();
        }
        self.world.broker.restart(keep).await.unwrap();
        self.log(&format!("the broker starts with {keep:?}"));
    }

    async fn block(&mut self) {
        self.log("publishers are blocked");
        self.world.broker.block("low on memory");
        let time = self.dice.millis(10, 20_000);
        sleep(time).await;
        self.world.broker.unblock();
        self.log("publishers go on");
    }

    fn reply(&mut self) {
        let delay = self.dice.millis(1, 8000);
        let fault = self.dice.pick(&[
            ReplyFault::Drop,
            ReplyFault::Duplicate,
            ReplyFault::Delay(delay),
            ReplyFault::Cut,
        ]);
        match self.dice.below(10) {
            0 => self.fault_reply::<queue::DeclareOk>(fault),
            1 => self.fault_reply::<exchange::DeclareOk>(fault),
            2 => self.fault_reply::<queue::BindOk>(fault),
            3 => self.fault_reply::<queue::DeleteOk>(fault),
            4 => self.fault_reply::<basic::ConsumeOk>(fault),
            5 => self.fault_reply::<basic::QosOk>(fault),
            6 => self.fault_reply::<channel::OpenOk>(fault),
            7 => self.fault_reply::<confirm::SelectOk>(fault),
            8 => self.fault_reply::<connection::Tune>(fault),
            _ => self.fault_reply::<basic::Ack>(fault),
        }
    }

    fn fault_reply<M: Arguments>(&self, fault: ReplyFault) {
        self.log(&format!("the next {}: {fault:?}", std::any::type_name::<M>()));
        self.world.broker.fault_reply::<M>(fault);
    }

    fn at_method(&mut self) {
        match self.dice.below(5) {
            0 => self.cut_at::<basic::Publish>(),
            1 => self.cut_at::<basic::Ack>(),
            2 => self.cut_at::<queue::Declare>(),
            3 => self.cut_at::<basic::Consume>(),
            _ => self.cut_at::<queue::Bind>(),
        }
    }

    fn cut_at<M: Arguments>(&self) {
        self.log(&format!("cut at the next {}", std::any::type_name::<M>()));
        self.world.broker.cut_at::<M>();
    }

    async fn confirms(&mut self) {
        if self.dice.percent(50) {
            self.log("nacks");
            self.world.model().nacks = true;
            let count = u32::try_from(self.dice.below(3)).unwrap() + 1;
            self.world.broker.nack_publishes(count);
        } else {
            self.log("confirms in reverse");
            let count = usize::try_from(self.dice.below(6)).unwrap() + 2;
            self.world.broker.reverse_confirms(count);
            let time = self.dice.millis(10, 3000);
            sleep(time).await;
            self.world.broker.reverse_confirms(0);
        }
    }

    fn forced(&mut self) {
        self.log("an operator closes all connections");
        self.world.broker.close_connections(320, "CONNECTION_FORCED");
    }

    fn lock(&mut self) {
        let time = self.dice.millis(1, 6000);
        self.log("exclusive queues linger");
        self.world.broker.exclusive_queues_linger(self.dice.percent(70).then_some(time));
    }

    async fn deaf(&mut self) {
        self.log("the broker reads nothing");
        self.world.deaf.store(true, Ordering::Relaxed);
        self.world.broker.stop_reading(true);
        let time = self.dice.millis(10, 15_000);
        sleep(time).await;
        self.world.broker.stop_reading(false);
        self.world.deaf.store(false, Ordering::Relaxed);
        self.log("the broker reads");
    }

    /// An operator cancels a consumer, or deletes something, past the network.
    async fn operate(&mut self) {
        if self.dice.percent(40) {
            self.log("the jobs' consumer is cancelled");
            self.world.model().restarts += 1;
            self.world.broker.cancel_consumers(JOBS);
            return;
        }
        let queue = self.dice.pick(&["notes", "queue.0", "queue.1"]);
        self.log(&format!("an operator deletes {queue}"));
        let broker = &self.world.broker;
        let options = ConnectOptions::new(&broker.url()).unwrap().connector(broker.connector());
        let delete = async {
            let connection = options.connect().await?;
            connection.channel().await?.queue(queue)?.delete().await?;
            connection.close().await
        };
        // other faults may hit it, too
        let done = timeout(Duration::from_secs(3), delete).await;
        self.log(&format!("done: {}", done.is_ok_and(|done| done.is_ok())));
    }

    fn heal(&mut self) {
        self.log("all heals");
        self.world.broker.heal();
        self.world.network.heal();
    }
}
