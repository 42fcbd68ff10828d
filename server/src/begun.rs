//! What a request began is done, whoever hangs up.
//!
//! A connection's future is dropped with its client. What may change something runs in a task of its own instead, on the
//! same thread, and a worker that is told to stop waits for these tasks.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The requests of one thread that go on to their end, whether or not somebody waits for their answer.
#[derive(Debug, Default)]
pub struct Begun {
    under_way: Cell<usize>,
    ended: Notify,
}

/// One of them. Dropped with its task.
struct UnderWay(Rc<Begun>);

impl Begun {
    /// Runs `work` to its end. Dropping the handle leaves it running.
    pub fn run<T: 'static>(self: &Rc<Self>, work: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        self.under_way.set(self.under_way.get() + 1);
        let under_way = UnderWay(Rc::clone(self));
        tokio::task::spawn_local(async move {
            let _under_way = under_way;
            work.await
        })
    }

    /// Waits until none is under way.
    pub async fn all_ended(&self) {
        while self.under_way.get() > 0 {
            self.ended.notified().await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;

    #[test]
    fn work_ends_though_nobody_waits_for_it() {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let (begun, done) = (Rc::new(Begun::default()), Rc::new(Cell::new(0)));
            for _ in 0..3 {
                let done = Rc::clone(&done);
                drop(begun.run(async move {
                    tokio::task::yield_now().await;
                    done.set(done.get() + 1);
                }));
            }
            begun.all_ended().await;
            assert_eq!(done.get(), 3);
        });
    }
}
