//! Trying again, on a link that lives, what the broker has refused to declare again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::restore_topology;
use super::robust_state::Shared;
use crate::error::ErrorKind;
use crate::robust::backoff::{Backoff, Pauses};
use crate::robust::event::Event;
use crate::robust::ledger::entity::{Entity, Unrestored};
use crate::single::SingleConnection;

/// How often it is tried.
const PACE: Backoff = Backoff::bounded(Duration::from_secs(1), Duration::from_secs(30));

/// What the broker has refused on this link, and when to try it again.
#[derive(Debug)]
pub(super) struct RetryTopology {
    refused: HashSet<Entity>,
    pauses: Pauses,
    due: Instant,
}

impl RetryTopology {
    pub(super) fn new(shared: &Shared, unrestored: &[Unrestored]) -> Self {
        let mut this = Self { refused: HashSet::new(), pauses: shared.pauses(PACE), due: Instant::now() };
        this.add(shared, unrestored);
        this
    }

    /// The broker has refused these, too. What has closed the connection, or was not answered, waits for the next loss.
    pub(super) fn add(&mut self, shared: &Shared, unrestored: &[Unrestored]) {
        let may_heal = unrestored.iter().filter(|refused| {
            let is_declared = !matches!(refused.entity, Entity::Channel { .. } | Entity::Consumer { .. });
            is_declared && refused.error.kind() == ErrorKind::ChannelClosed
        });
        let before = self.refused.len();
        self.refused.extend(may_heal.map(|refused| refused.entity.clone()));
        if self.refused.len() > before {
            self.pauses = shared.pauses(PACE);
            self.due = Instant::now() + self.pauses.next();
        }
    }

    /// Waits until something is due; without end if nothing is refused. Cancel safe.
    pub(super) async fn due(&self) {
        if self.refused.is_empty() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep_until(self.due).await;
    }

    /// Tries again what was refused.
    pub(super) async fn try_again(&mut self, shared: &Arc<Shared>, link: &SingleConnection) {
        let refused = std::mem::take(&mut self.refused);
        match restore_topology::these(shared, link, refused).await {
            Ok((restored, unrestored)) => {
                for entity in restored {
                    tracing::info!(%entity, "restored, after the broker had refused it");
                    shared.tell(Event::EntityRestored { entity });
                }
                self.refused.extend(unrestored.into_iter().map(|refused| refused.entity));
                self.due = Instant::now() + self.pauses.next();
            }
            // the next restore tries it
            Err(error) => tracing::debug!(%error, "what was refused is not tried again on this link"),
        }
    }
}
