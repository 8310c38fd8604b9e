//! Sequences that run each time: one for each fault that was found, and what matters most.

/// Runs, parted by empty lines.
const RUNS: &str = "
a1 declare amq.own x-dead-letter-routing-key=q2

a1 publish - q1 expiration=soon
a1 publish - q1 expiration=1x
a1 publish - q1 expiration=-1
a1 publish - q1 expiration=99999999999
a1 publish - q1 expiration=
a1 publish - q1 expiration=+5

a1 bind q1 x3 k.*

a1 declare q1 x-expires=v: x-dead-letter-routing-key=1
a1 declare q1 x-max-length=-1 x-overflow=nonsense
a1 declare q1 x-dead-letter-exchange=1
a1 declare q1 x-delivery-limit=1
a1 declare q1 x-max-age=1h
a1 declare - x-max-length=s:2
a1 declare q1 durable x-queue-type=quorum x-max-priority=3
a1 declare q1 x-queue-type=nonsense

a1 exchange x1 headers alternate-exchange=1
a1 exchange - nonsense
a1 exchange - direct passive
a1 exchange x1 headers
a1 publish x1 k mandatory BCC=q3,q2 h.b=t body=m
a1 declare q1
a1 bind q1 x1 - x-match=1
a1 bind q1 x1 - x-match=nonsense
a1 unexchange amq.direct
a1 unexchange amq.none

a1 declare q1
a1 declare - passive

a1 declare - durable x-queue-type=quorum
a1 declare q1 durable exclusive auto-delete x-queue-type=quorum
a1 declare q1 durable exclusive x-queue-type=quorum
a1 declare q1 durable x-queue-type=quorum x-single-active-consumer=true
a1 get q1
a1 delete q1 if-unused
a1 delete q1 if-empty
a1 declare q1 durable
a1 declare q1 durable x-queue-type=classic

a1 declare q1 exclusive
a1 close-connection
a1 declare q1 exclusive
a1 open
b1 declare q1 exclusive
a1 get q1
b1 cut

a1 declare q1 durable exclusive auto-delete
a1 declare q1 exclusive no-wait x-max-length=1
a1 declare q1 exclusive auto-delete x-max-length=1

a1 publish - nowhere CC-as-text=q2 body=m
a1 publish - nowhere user-id=other body=m
a1 publish - nowhere reply-to=amq.rabbitmq.reply-to body=m
a1 publish x1 k immediate
a1 publish x1 k

a1 declare q1
a1 consume q1 t1 x-priority=s:1
a1 consume q1 t1 exclusive
a1 consume q1 t2
a1 consume q1 t1

a1 declare q1
a1 exchange x1 direct alternate-exchange=-
a1 publish x1 q1 mandatory body=m

a1 declare q1
a1 consume q1 t1
a1 publish - q1 expiration=0 body=m
a1 nack 0 requeue
a1 publish - q1 expiration=0 body=n

a1 declare q1
a1 publish - q1 body=one
a1 publish - q1 expiration=0 body=two
a1 get q1

a1 declare q1
a1 publish - q1 body=one
a1 publish - q1 expiration=0 body=two
a1 consume q1 t1

a1 declare q1 durable x-queue-type=quorum
a1 publish - q1 priority=2 body=two
a1 publish - q1 expiration=0 body=none
a1 publish - q1 priority=40 body=forty
a1 publish - q1 body=none
a1 publish - q1 priority=9 body=nine
a1 publish - q1 priority=0 body=zero
a1 get q1
a1 get q1
a1 nack 0 requeue
a1 get q1
a1 reject 0 requeue
a1 reject 0 requeue
a1 consume q1 t1

a1 consume amq.rabbitmq.reply-to t1 no-ack
a1 declare q1
a1 consume q1 t1
a1 consume amq.rabbitmq.reply-to t1 no-ack

a1 declare q1 durable x-queue-type=quorum
a1 qos 1 global
a1 consume q1 t1

a1 declare q1 x-dead-letter-exchange=- x-dead-letter-routing-key=q1
a1 publish - q1 body=one
a1 get q1
a1 nack 0
a1 get q1
a1 reject 0
a1 get q1
a1 reject 0
a1 consume q1 t1
a1 reject 0
a1 nack 0

a1 declare q1 durable x-queue-type=quorum
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 consume q1 t1
a1 cancel t1
a1 ack 0
a1 ack 0

a1 declare - x-queue-type=nonsense

a1 declare q1
a1 consume q1 -
a1 delete q1

a1 declare q1
a2 consume q1 t1
a2 consume - t1

a1 declare q1
a1 publish - q1 body=one
a1 get q1
a1 reject 0 requeue
a1 consume q1 t1
a1 ack 0

a1 declare q1 x-dead-letter-exchange=- x-dead-letter-routing-key=q2
a1 declare q2 x-dead-letter-exchange=- x-dead-letter-routing-key=q1 x-message-ttl=0
a1 publish - q1 CC=q3 expiration=60000 body=one
a1 get q1
a1 reject 0
a1 get q1
a1 reject 0
a1 get q1 no-ack

a1 declare q1 x-max-length=2 x-dead-letter-exchange=x1
a1 exchange x1 topic
a1 declare q2
a1 bind q2 x1 q1
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 publish - q1 body=three
a1 get q2 no-ack

a1 declare q1 x-max-length=1 x-overflow=reject-publish
a1 declare q2 x-max-length=0 x-overflow=reject-publish-dlx x-dead-letter-exchange=- x-dead-letter-routing-key=q3
a1 declare q3
a1 confirm.select
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 publish - q2 body=three
a1 publish - nowhere mandatory body=four
a1 get q3 no-ack

a1 declare q1 x-max-priority=3
a1 publish - q1 body=one
a1 publish - q1 priority=9 body=nine
a1 publish - q1 priority=3 body=three
a1 publish - q1 priority=1 body=small
a1 consume q1 t1
a1 nack 0 requeue

a1 declare q1 x-single-active-consumer=true
a1 consume q1 t1
b1 consume q1 t2
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 cancel t1
a1 nack 0 requeue multiple
a1 recover requeue

a1 declare q1
a1 qos 1
a1 consume q1 t1
a2 consume q1 t2 x-priority=5
a2 qos 2 global
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 publish - q1 body=three
a1 publish - q1 body=four
a2 ack 0 multiple
a1 ack 0

a1 declare q1
a1 qos 1 global
a1 qos 10
a1 consume q1 t1
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 ack 0 multiple

a1 declare q1
a1 bind - amq.topic -
a1 publish amq.topic q1 mandatory body=one
a1 unbind - amq.topic -
a1 publish amq.topic q1 mandatory body=two

a1 declare q1 durable x-queue-type=quorum x-max-length-bytes=5 x-overflow=reject-publish
a1 confirm.select
a1 publish - q1 body=sixsix
a1 publish - q1 body=one

a1 declare q1 x-max-length=0 x-overflow=reject-publish
a1 tx.select
a1 publish - q1 body=one
a1 tx.commit

a1 declare q1
a1 tx.select
a1 publish - q1 body=one
a1 publish - nowhere mandatory body=none
a1 tx.commit
a1 get q1
a1 ack 0
a1 tx.rollback
a1 recover requeue
a1 get q1
a1 ack 0
a1 tx.commit
a1 confirm.select
a1 confirm.select
a1 tx.select
a1 tx.commit

a1 consume amq.rabbitmq.reply-to t1
a1 consume amq.rabbitmq.reply-to t1 no-ack
a1 declare q1
b1 consume q1 t1 no-ack
a1 publish - q1 reply-to=amq.rabbitmq.reply-to body=ask
b1 reply body=answer
a1 cancel t1
b1 reply mandatory body=again

a1 declare q1 durable x-queue-type=quorum x-delivery-limit=1 x-dead-letter-exchange=- x-dead-letter-routing-key=q2
a1 declare q2
a1 consume q1 t1
a1 publish - q1 body=one
a1 nack 0 requeue
a1 reject 0 requeue
a1 get q2 no-ack

a1 declare q1
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 publish - q1 body=three
a1 get q1
a1 get q1
a1 ack #1000 multiple

a1 declare q1
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 get q1
a1 get q1
a1 ack #2
a1 nack #2 multiple requeue

a1 declare q1 x-single-active-consumer=true
a1 consume q1 t1
b1 consume q1 t2 x-priority=5
b1 consume q1 t3 x-priority=9
a1 publish - q1 body=one
a1 ack 0
a1 cancel t1
a1 publish - q1 body=two

a1 declare q1 durable x-queue-type=quorum x-single-active-consumer=true
a1 consume q1 t1
a1 publish - q1 body=one
a1 ack 0
a1 cancel t1

a1 declare q1 x-single-active-consumer=true
a1 consume q1 t1 exclusive

a1 declare q1 durable x-queue-type=quorum
a1 consume q1 t1 exclusive
b1 consume q1 t2 exclusive
b2 consume q1 t3

a1 declare q1
a1 qos 1
a1 consume q1 t1
a1 tx.select
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 tx.commit
a1 ack 0
a1 tx.rollback
a1 ack 0
a1 tx.commit

a1 declare q1
a1 exchange x1 fanout
a1 tx.select
a1 publish x1 - body=before
a1 bind q1 x1 -
a1 publish x1 - body=after
b1 unexchange x1
a1 tx.commit
a1 get q1

a1 declare q1 durable x-queue-type=quorum x-max-length=2 x-overflow=reject-publish
a1 confirm.select
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 publish - q1 body=three
a1 publish - q1 body=four

a1 declare q1 durable x-queue-type=quorum x-delivery-limit=-1
a1 consume q1 t1
a1 publish - q1 body=one
a1 reject 0 requeue
a1 reject 0 requeue
a1 reject 0 requeue

a1 consume amq.rabbitmq.reply-to t1 no-ack
a1 declare q1
a1 declare q2
b1 consume q1 t1 no-ack
a1 publish - q1 reply-to=amq.rabbitmq.reply-to body=ask
b1 reply CC=q2 body=answer
a1 get q2
b1 reply BCC=q2 body=answer
a1 get q2

a1 declare q1 auto-delete
a1 exchange x1 fanout auto-delete
a1 exchange x2 topic auto-delete
a1 bind-x x2 x1 -
a1 bind q1 x2 #
a1 publish x1 k.l mandatory body=one
a1 consume q1 t1
a1 cancel t1
a1 publish x1 k.l mandatory body=two

a1 declare q1 x-single-active-consumer=true
a1 consume q1 t1 exclusive

a1 declare q1 durable x-queue-type=quorum x-single-active-consumer=true
a1 consume q1 t1 exclusive

a1 declare q1 durable x-queue-type=quorum
a1 consume q1 t1
a1 consume q1 t2 exclusive
a1 consume q1 t3

a1 declare q1
a1 declare q2
a1 qos 1 global
a1 consume q1 t1
a1 consume q2 t2 no-ack
a1 publish - q1 body=one
a1 publish - q2 body=two
a1 ack 0

a1 declare q1 x-dead-letter-exchange=-
a1 consume q1 t1
a1 publish - q1 body=one
a1 nack 0

a1 declare q1
a1 qos 1
a1 consume q1 t1
a1 tx.select
a1 publish - q1 body=one
a1 publish - q1 body=two
a1 tx.commit
a1 ack 0
a1 tx.rollback
a1 ack 0
a1 tx.commit
";

/// Their lines.
pub(crate) fn runs() -> impl Iterator<Item = Vec<String>> {
    RUNS.split("\n\n").map(|run| run.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
