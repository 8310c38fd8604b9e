//! The robust connection: what it survives, and what it gives back.

#[cfg(test)]
#[path = "../support/broker.rs"]
mod broker;
#[cfg(test)]
#[path = "../support/case.rs"]
mod case;
#[cfg(test)]
#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../support/peer.rs"]
mod peer;
#[cfg(test)]
#[expect(dead_code, reason = "what is planned here happens")]
#[path = "../support/relay.rs"]
mod relay;
#[cfg(test)]
#[path = "../support/wire.rs"]
mod wire;

#[cfg(test)]
mod at_once;
#[cfg(test)]
mod blame;
#[cfg(test)]
mod channels;
#[cfg(test)]
mod consuming;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod known_faults;
#[cfg(test)]
mod known_faults_of_consumers;
#[cfg(test)]
mod known_faults_of_topology;
#[cfg(test)]
mod latency;
#[cfg(test)]
mod losing;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod publishing;
#[cfg(test)]
mod relays;
#[cfg(test)]
mod restoring;
#[cfg(test)]
mod reviving;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod stale;
#[cfg(test)]
mod status;
#[cfg(test)]
mod through;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod unanswered;
