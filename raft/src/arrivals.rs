//! Answers on their way back to the threads that wait for them: outcomes of commands, and read points.
//!
//! A waker called from another thread costs a system call. Those of a batch were asked for by few threads; so they go back
//! as one parcel for each thread, and are dealt out there, where waking a task costs next to nothing.

use tokio::sync::{mpsc, oneshot};

/// Deals out what is in one parcel.
type Deal = Box<dyn FnOnce() + Send>;

/// Where the answers for one thread arrive. Clones are the same place.
#[derive(Clone, Debug)]
pub struct Arrivals(mpsc::UnboundedSender<Deal>);

/// Deals out what arrives, on the thread that waits for it.
pub struct Dealer(mpsc::UnboundedReceiver<Deal>);

impl Arrivals {
    /// A place for one thread, which runs the dealer as a task as long as it waits for answers there.
    pub fn new() -> (Self, Dealer) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Dealer(receiver))
    }

    fn bring<T: Send + 'static>(&self, parcel: Vec<(oneshot::Sender<T>, T)>) {
        // Where nobody deals any more each is told from here.
        if let Err(mpsc::error::SendError(deal)) = self.0.send(Box::new(|| tell_each(parcel))) {
            deal();
        }
    }
}

impl Dealer {
    /// Runs until the last [`Arrivals`] of this place is gone.
    pub async fn run(mut self) {
        while let Some(deal) = self.0.recv().await {
            deal();
        }
    }
}

impl std::fmt::Debug for Dealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dealer").finish_non_exhaustive()
    }
}

fn tell_each<T>(parcel: Vec<(oneshot::Sender<T>, T)>) {
    for (sender, answer) in parcel {
        sender.send(answer).ok(); // it need not wait any more
    }
}

/// Where one answer is awaited. Dropped, it tells its other end that none comes.
pub(crate) struct Waiter<T> {
    sender: oneshot::Sender<T>,
    arrivals: Option<Arrivals>,
}

impl<T> Waiter<T> {
    /// One that is told through `arrivals`, if there are any, and its other end.
    pub(crate) fn new(arrivals: Option<&Arrivals>) -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, arrivals: arrivals.cloned() }, receiver)
    }
}

/// Answers many, each thread with one wake-up.
pub(crate) fn tell_all<T: Send + 'static>(told: impl IntoIterator<Item = (Waiter<T>, T)>) {
    let mut parcels: Vec<(Arrivals, Vec<_>)> = Vec::new();
    for (Waiter { sender, arrivals }, answer) in told {
        let Some(arrivals) = arrivals else {
            sender.send(answer).ok();
            continue;
        };
        match parcels.iter_mut().find(|(place, _)| place.0.same_channel(&arrivals.0)) {
            Some((_, parcel)) => parcel.push((sender, answer)),
            None => parcels.push((arrivals, vec![(sender, answer)])),
        }
    }
    for (arrivals, parcel) in parcels {
        arrivals.bring(parcel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_arrive_with_a_dealer_and_without() {
        let (arrivals, dealer) = Arrivals::new();
        let (elsewhere, gone) = Arrivals::new();
        drop(gone);
        let places = [Some(&arrivals), Some(&elsewhere), None];
        let (waiters, waiting): (Vec<_>, Vec<_>) = (0..9).map(|n| Waiter::new(places[n % 3])).unzip();
        tell_all(waiters.into_iter().zip(0..));
        drop(arrivals);
        let mut dealer = Some(dealer);
        for (n, mut waiting) in waiting.into_iter().enumerate().rev() {
            if n % 3 == 0
                && let Some(dealer) = dealer.take()
            {
                assert!(waiting.try_recv().is_err(), "it arrives with the dealer");
                dealer.run().await;
            }
            assert_eq!(waiting.try_recv(), Ok(n));
        }
    }
}
