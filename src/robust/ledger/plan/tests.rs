//! Plans against a broker that is a closure: it accepts or refuses each request.

use std::collections::HashSet;

use super::*;
use crate::error::ErrorKind;

/// What a plan did, line by line.
#[derive(Default)]
struct Run {
    lines: Vec<String>,
    topology: Topology,
    lessons: Lessons,
    now: Option<Instant>,
}

fn name(name: &str) -> ShortStr {
    name.try_into().unwrap()
}

fn refusal(code: u16, text: &str) -> Error {
    Error::new(ErrorKind::ChannelClosed, "").with_reply(code, text.to_owned(), queue::Declare::ID)
}

impl Run {
    fn new() -> Self {
        Self { now: Some(Instant::now()), ..Self::default() }
    }

    fn exchange(&mut self, exchange: &str, auto_delete: bool) {
        self.topology.declare_exchange(exchange::Declare {
            exchange: name(exchange),
            auto_delete,
            ..exchange::Declare::default()
        });
    }

    fn queue(&mut self, queue: &str) {
        let declare = queue::Declare { queue: name(queue), ..queue::Declare::default() };
        self.topology.declare_queue(declare, name(queue));
    }

    /// A queue that the server has named.
    fn server_named(&mut self, told: &str, exclusive: bool) {
        let declare = queue::Declare { exclusive, ..queue::Declare::default() };
        self.topology.declare_queue(declare, name(told));
    }

    fn bind(&mut self, queue: &str, exchange: &str) {
        let bind = queue::Bind { queue: name(queue), exchange: name(exchange), ..queue::Bind::default() };
        self.topology.bind_queue(bind);
    }

    /// Carries out a plan of a new link. `broker` says whether it refuses a request.
    fn carry_out(&mut self, broker: impl FnMut(&Request) -> Option<Error>) -> Vec<Unrestored> {
        let locked_until = self.now.map(|now| now + Duration::from_secs(10));
        let plan = Plan::new(Extent::Loss(super::super::extent::RestoreTopology::All), locked_until);
        self.carry_out_plan(plan, broker).into_unrestored()
    }

    fn carry_out_plan(&mut self, mut plan: Plan, mut broker: impl FnMut(&Request) -> Option<Error>) -> Plan {
        let mut now = self.now.unwrap();
        for names in 1_u32.. {
            let (line, outcome) = match plan.next_step(&self.topology, &self.lessons, now) {
                Step::Together(tasks) => {
                    let refused = tasks.iter().find_map(|task| broker(&task.request));
                    let line: Vec<_> = tasks.iter().map(|task| task.entity.to_string()).collect();
                    (line.join(" + "), refused.map_or(Outcome::Accepted(None), Outcome::Refused))
                }
                Step::One(Task { entity, request }) => {
                    let line = match request {
                        Request::IsThere(_) => format!("{entity}?"),
                        Request::Anew(_) => format!("{entity} anew"),
                        _ => entity.to_string(),
                    };
                    let accepted = Outcome::Accepted(Some(name(&format!("new-{names}"))));
                    (line, broker(request).map_or(accepted, Outcome::Refused))
                }
                Step::Pause(cause) => {
                    self.lines.push(format!("{cause:?}"));
                    now += Duration::from_millis(100);
                    continue;
                }
                Step::Done => break,
            };
            self.lines.push(line);
            drop(plan.outcome(outcome, &mut self.topology, &mut self.lessons, now));
            assert!(names < 1000, "no end: {:?}", self.lines);
        }
        plan
    }
}

#[test]
fn entities_come_in_the_order_of_dependency() {
    let mut run = Run::new();
    run.exchange("a", false);
    run.exchange("b", false);
    run.queue("q");
    run.server_named("amq.gen-1", true);
    run.bind("q", "a");
    run.bind("amq.gen-1", "b");
    let between = exchange::Bind { source: name("a"), destination: name("b"), ..exchange::Bind::default() };
    run.topology.bind_exchange(between);
    assert!(run.carry_out(|_| None).is_empty());
    let expected = [
        "exchange 'a' + exchange 'b'",
        "queue 'q'",
        // deleted, to see that it is gone
        "queue 'amq.gen-1'",
        "queue 'amq.gen-1' anew",
        "binding of exchange 'b' to exchange 'a' with key ''",
        "binding of queue 'q' to exchange 'a' with key '' + binding of queue 'new-4' to exchange 'b' with key ''",
    ];
    assert_eq!(run.lines, expected);
}

#[test]
fn one_that_is_refused_is_found_and_the_rest_goes_on() {
    let mut run = Run::new();
    for queue in ["a", "b", "c"] {
        run.queue(queue);
    }
    let is_b = |request: &Request| matches!(request, Request::Queue(declare) if declare.queue == "b");
    let unrestored = run.carry_out(|request| is_b(request).then(|| refusal(406, "inequivalent arg")));
    assert_eq!(run.lines, ["queue 'a' + queue 'b' + queue 'c'", "queue 'a'", "queue 'b'", "queue 'c'"]);
    assert_eq!(unrestored.len(), 1);
    assert_eq!(unrestored[0].entity, Entity::Queue { name: name("b") });
}

#[test]
fn a_locked_queue_is_tried_until_the_limit() {
    let mut run = Run::new();
    run.queue("mine");
    let mut times = 0;
    let unrestored = run.carry_out(|_| {
        times += 1;
        (times < 4).then(|| refusal(405, "locked"))
    });
    assert!(unrestored.is_empty());
    assert_eq!(run.lines.iter().filter(|line| *line == "Locked").count(), 3);
    let unrestored = run.carry_out(|_| Some(refusal(405, "locked")));
    assert_eq!(unrestored.len(), 1, "after 10 s");
}

#[test]
fn what_vanishes_meanwhile_is_declared_once_more() {
    let mut run = Run::new();
    run.exchange("events", true);
    run.queue("q");
    run.bind("q", "events");
    let mut times = 0;
    let unrestored = run.carry_out(|request| {
        times += u32::from(matches!(request, Request::QueueBinding(_)));
        (times == 1 && matches!(request, Request::QueueBinding(_)))
            .then(|| refusal(404, "NOT_FOUND - no exchange 'events' in vhost '/'"))
    });
    assert!(unrestored.is_empty());
    let exchanges = run.lines.iter().filter(|line| *line == "exchange 'events'").count();
    assert_eq!(exchanges, 2, "{:?}", run.lines);
    // not for ever
    let missing = |request: &Request| matches!(request, Request::QueueBinding(_));
    let unrestored = run.carry_out(|request| missing(request).then(|| refusal(404, "no exchange 'events'")));
    assert_eq!(unrestored.len(), 1);
}

#[test]
fn a_server_named_queue_that_is_still_there_keeps_its_name() {
    let mut run = Run::new();
    run.server_named("amq.gen-1", false);
    assert!(run.carry_out(|_| None).is_empty());
    assert_eq!(run.lines, ["queue 'amq.gen-1'?"]);
    let mut run = Run::new();
    run.server_named("amq.gen-1", false);
    let gone = |request: &Request| matches!(request, Request::IsThere(_));
    assert!(run.carry_out(|request| gone(request).then(|| refusal(404, "no queue"))).is_empty());
    assert_eq!(run.lines, ["queue 'amq.gen-1'?", "queue 'amq.gen-1' anew"]);
    assert_eq!(*run.topology.current(&name("amq.gen-1")), "new-2");
}

#[test]
fn old_exclusive_queues_are_waited_for_only_a_moment() {
    let mut run = Run::new();
    run.server_named("amq.gen-1", true);
    let is_clear = |request: &Request| matches!(request, Request::Clear(_));
    assert!(run.carry_out(|request| is_clear(request).then(|| refusal(405, "locked"))).is_empty());
    assert_eq!(run.lines.iter().filter(|line| *line == "Clearing").count(), 5, "500 ms: {:?}", run.lines);
    assert_eq!(run.lines.last().unwrap(), "queue 'amq.gen-1' anew");
}

#[test]
fn a_request_that_closed_the_connection_is_left_out() {
    let mut run = Run::new();
    run.queue("good");
    run.queue("bad");
    let closed =
        Error::new(ErrorKind::ConnectionClosed, "").with_reply(541, String::new(), queue::Declare::ID);
    run.lessons.learn(Entity::Queue { name: name("bad") }, queue::Declare::ID, &closed);
    let unrestored = run.carry_out(|_| None);
    assert_eq!(run.lines, ["queue 'good'"]);
    assert_eq!(unrestored[0].error.reply_code(), Some(541));
}

#[test]
fn the_next_attempt_finds_out_which_request_closed_the_connection() {
    let mut run = Run::new();
    run.queue("a");
    run.queue("b");
    let closed =
        || Error::new(ErrorKind::ConnectionClosed, "").with_reply(541, String::new(), queue::Declare::ID);
    let now = Instant::now();
    let extent = || Extent::Loss(super::super::extent::RestoreTopology::All);
    for expected in ["together", "one", "one"] {
        let mut plan = Plan::new(extent(), None);
        let Run { topology, lessons, .. } = &mut run;
        loop {
            let (kind, outcome) = match plan.next_step(topology, lessons, now) {
                Step::Together(_) => ("together", Outcome::Lost(closed())),
                Step::One(task) if task.entity == (Entity::Queue { name: name("a") }) => {
                    ("one", Outcome::Accepted(None))
                }
                Step::One(_) => ("one", Outcome::Lost(closed())),
                Step::Pause(_) => continue,
                Step::Done => break,
            };
            assert_eq!(kind, expected);
            let is_over = matches!(outcome, Outcome::Lost(_));
            drop(plan.outcome(outcome, topology, lessons, now));
            if is_over {
                break;
            }
        }
    }
    assert!(run.lessons.against(&Entity::Queue { name: name("b") }).is_some());
    assert!(run.lessons.against(&Entity::Queue { name: name("a") }).is_none());
}

#[test]
fn what_was_refused_is_tried_again_and_told_when_it_is_back() {
    let mut run = Run::new();
    run.queue("a");
    run.queue("b");
    run.bind("a", "events");
    let binding =
        Entity::QueueBinding { queue: name("a"), exchange: name("events"), routing_key: ShortStr::empty() };
    let these = HashSet::from([binding.clone(), Entity::Queue { name: name("deleted meanwhile") }]);
    let plan = Plan::new(Extent::These(these), run.now);
    let mut plan = run.carry_out_plan(plan, |_| None);
    assert_eq!(run.lines, [binding.to_string()]);
    assert_eq!(plan.take_restored(), [binding]);
}
