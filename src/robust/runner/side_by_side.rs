//! Many futures in one task.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::error::Result;

/// Runs futures concurrently, at most `most` at a time, and starts them in their order. Each output goes to `take` with the
/// future's index as soon as it is there. An error of `take` ends all of it; the rest is dropped.
///
/// Only the futures that were woken are polled, and always in the same task: so runs on a paused clock can be repeated.
pub(super) async fn side_by_side<F: Future + Unpin>(
    most: usize,
    futures: impl IntoIterator<Item = F>,
    mut take: impl FnMut(usize, F::Output) -> Result<()>,
) -> Result<()> {
    let mut waiting = futures.into_iter();
    let mut started = Vec::new();
    let mut running = 0;
    let woken = Arc::new(Woken::default());
    let run = std::future::poll_fn(|context| {
        loop {
            while running < most.max(1)
                && let Some(future) = waiting.next()
            {
                let waker = Arc::new(One { index: started.len(), woken: Arc::clone(&woken) });
                waker.wake_by_ref();
                started.push(Some((future, Waker::from(waker))));
                running += 1;
            }
            if running == 0 {
                return Poll::Ready(Ok(()));
            }
            let indexes = woken.take(context.waker());
            if indexes.is_empty() {
                return Poll::Pending;
            }
            for index in indexes {
                let Some(slot) = started.get_mut(index) else { continue };
                // woken twice, or after its end
                let Some((future, waker)) = slot else { continue };
                if let Poll::Ready(output) = Pin::new(future).poll(&mut Context::from_waker(waker)) {
                    *slot = None;
                    running -= 1;
                    if let Err(error) = take(index, output) {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    });
    run.await
}

/// Who is to be polled.
#[derive(Default)]
struct Woken(Mutex<(Vec<usize>, Option<Waker>)>);

impl Woken {
    /// Takes the list. If it is empty, `waker` is woken by the next entry.
    fn take(&self, waker: &Waker) -> Vec<usize> {
        let (indexes, task) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if indexes.is_empty() {
            *task = Some(waker.clone());
        }
        std::mem::take(indexes)
    }
}

/// Wakes one future.
struct One {
    index: usize,
    woken: Arc<Woken>,
}

impl Wake for One {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = {
            let (indexes, task) = &mut *self.woken.0.lock().unwrap_or_else(PoisonError::into_inner);
            indexes.push(self.index);
            task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::error::{Error, ErrorKind};

    #[tokio::test(start_paused = true)]
    async fn futures_run_at_the_same_time_up_to_the_bound() {
        let (began, running, peak) = (Instant::now(), Cell::new(0), Cell::new(0));
        let futures = (0..10_usize).map(|number| {
            let (running, peak) = (&running, &peak);
            Box::pin(async move {
                running.set(running.get() + 1);
                peak.set(peak.get().max(running.get()));
                sleep(Duration::from_secs(1)).await;
                running.set(running.get() - 1);
                number
            })
        });
        let mut seen = Vec::new();
        side_by_side(4, futures, |index, number| {
            assert_eq!(index, number);
            seen.push(index);
            Ok(())
        })
        .await
        .unwrap();
        seen.sort_unstable();
        assert_eq!((seen, peak.get()), ((0..10).collect(), 4));
        assert_eq!(began.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_ends_the_others() {
        let futures = (0..3_u64).map(|number| Box::pin(sleep(Duration::from_secs(number))));
        let began = Instant::now();
        let ended = side_by_side(3, futures, |index, ()| {
            if index == 1 { Err(Error::new(ErrorKind::Closed, "over")) } else { Ok(()) }
        });
        assert_eq!(ended.await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(began.elapsed().as_secs(), 1);
    }

    #[tokio::test]
    async fn nothing_is_done_at_once() {
        let none = std::iter::empty::<std::future::Ready<()>>();
        side_by_side(3, none, |_, ()| Ok(())).await.unwrap();
    }
}
