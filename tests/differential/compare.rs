//! Runs lines on both brokers, and compares what they say after each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::heard::Heard;
use crate::known;
use crate::line::Line;
use crate::side::Side;
use crate::step::perform;

/// `RabbitMQ` does much of its work after it has answered: so long it may take to say what the embedded broker says.
const PATIENCE: Duration = Duration::from_secs(1);

/// The brokers.
#[derive(Debug)]
pub(crate) struct Brokers {
    pub(crate) embedded: String,
    pub(crate) rabbitmq: String,
    /// Steps that were compared.
    pub(crate) steps: AtomicU64,
}

impl Brokers {
    /// Runs lines; the first difference, with the lines up to it.
    pub(crate) fn compare(&self, lines: &[String]) -> Result<(), String> {
        let prefix = prefix();
        let mut embedded = Side::new(&self.embedded, &prefix);
        let mut rabbitmq = Side::new(&self.rabbitmq, &prefix);
        let mut result = Ok(());
        for (index, text) in lines.iter().enumerate() {
            if known::is_skipped(text, &rabbitmq.version) {
                continue;
            }
            let line = Line::parse(text, &prefix);
            if let Err(difference) = step(&line, &mut embedded, &mut rabbitmq) {
                let until = lines.get(..=index).unwrap_or_default().join("\n");
                result = Err(format!("RabbitMQ {} differs after\n{until}\n\n{difference}", rabbitmq.version));
                break;
            }
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        embedded.clean();
        rabbitmq.clean();
        result
    }
}

/// Names that no other run has.
fn prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("lepus.{now}.{}.", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn step(line: &Line, embedded: &mut Side, rabbitmq: &mut Side) -> Result<(), String> {
    let Some((one, two)) = tags(line, embedded, rabbitmq)? else { return Ok(()) };
    perform(embedded, line, one);
    perform(rabbitmq, line, two);
    // confirms may follow the answer that was waited for
    embedded.look();
    let expected = known::common(embedded.look(), &rabbitmq.version);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = known::common(rabbitmq.look(), &rabbitmq.version);
        if found == expected {
            break;
        }
        if Instant::now() > deadline {
            return Err(Heard::difference(&expected, &found));
        }
        sleep(Duration::from_millis(3));
    }
    embedded.take();
    rabbitmq.take();
    Ok(())
}

/// The tags with which a line names the same delivery on both brokers: `ack 0` names the oldest that waits,
/// `ack #7` just that tag.
fn tags(line: &Line, embedded: &mut Side, rabbitmq: &mut Side) -> Result<Option<(u64, u64)>, String> {
    if !["ack", "nack", "reject"].contains(&line.verb.as_str()) {
        return Ok(Some((0, 0)));
    }
    if let Some(tag) = line.exact_tag() {
        let all = tag == 0 && line.has("multiple");
        for side in [embedded, rabbitmq] {
            let open = side.unacked.entry((line.peer, line.channel)).or_default();
            open.retain(|delivered| !all && delivered.tag != tag);
        }
        return Ok(Some((tag, tag)));
    }
    let at = (line.peer, line.channel);
    let (ones, twos) = (embedded.unacked.entry(at).or_default(), rabbitmq.unacked.entry(at).or_default());
    if ones.is_empty() {
        return Ok(Some((999, 999)));
    }
    let index = usize::try_from(line.number(0)).unwrap() % ones.len();
    if line.has("multiple") {
        let what = |list: &[crate::side::Delivered]| {
            let mut what: Vec<_> = list.iter().map(|delivered| delivered.what.clone()).collect();
            what.sort();
            what
        };
        // deliveries of several queues come in any order: then there is no tag that means the same
        if twos.len() <= index || what(&ones[..=index]) != what(&twos[..=index]) {
            return Ok(None);
        }
        let tags = (ones[index].tag, twos[index].tag);
        ones.drain(..=index);
        twos.drain(..=index);
        return Ok(Some(tags));
    }
    let one = ones.remove(index);
    let Some(other) = twos.iter().position(|delivered| delivered.what == one.what) else {
        return Err(format!("  RabbitMQ has not delivered {}", one.what));
    };
    Ok(Some((one.tag, twos.remove(other).tag)))
}
