//! Users who do not wait until the end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;

use crate::dice::Dice;

/// When a user drops a future.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    Endless,
    /// After it was polled so often: at one of its awaits.
    Polls(u32),
    For(Duration),
}

impl Patience {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        match dice.below(3) {
            0 => Self::For(dice.millis(0, 3000)),
            _ => Self::Polls(u32::try_from(dice.below(6)).unwrap()),
        }
    }

    /// What the future brings, if it does so soon enough.
    pub(crate) async fn with<F: Future>(self, future: F) -> Option<F::Output> {
        match self {
            Self::Endless => Some(future.await),
            Self::Polls(polls) => Polled { future: pin!(future), polls }.await,
            Self::For(time) => timeout(time, future).await.ok(),
        }
    }
}

struct Polled<'a, F> {
    future: Pin<&'a mut F>,
    polls: u32,
}

impl<F: Future> Future for Polled<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
