//! Outcomes on their way back to the threads that wait for them.
//!
//! A waker called from another thread costs a system call. The commands of a batch were enqueued by few threads; so their
//! outcomes go back as one parcel for each thread, and are dealt out there, where waking a task costs next to nothing.

use keyward_model::Outcome;
use tokio::sync::{mpsc, oneshot};

use crate::submit::SubmitError;

/// What became of a command.
pub(crate) type Landed = Result<Outcome, SubmitError>;

type Parcel = Vec<(oneshot::Sender<Landed>, Landed)>;

/// Where the outcomes of one thread's commands arrive. Clones are the same place.
#[derive(Clone, Debug)]
pub struct Arrivals(mpsc::UnboundedSender<Parcel>);

/// Deals out what arrives, on the thread that waits for it.
#[derive(Debug)]
pub struct Dealer(mpsc::UnboundedReceiver<Parcel>);

impl Arrivals {
    /// A place for one thread, which runs the dealer as a task as long as it waits for outcomes there.
    pub fn new() -> (Self, Dealer) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Dealer(receiver))
    }

    fn bring(&self, parcel: Parcel) {
        // Where nobody deals any more each is told from here.
        if let Err(mpsc::error::SendError(parcel)) = self.0.send(parcel) {
            deal(parcel);
        }
    }
}

impl Dealer {
    /// Runs until the last [`Arrivals`] of this place is gone.
    pub async fn run(mut self) {
        while let Some(parcel) = self.0.recv().await {
            deal(parcel);
        }
    }
}

fn deal(parcel: Parcel) {
    for (waiter, landed) in parcel {
        waiter.send(landed).ok(); // it need not wait any more
    }
}

/// Where one command's outcome is awaited. Dropped unanswered, it tells that the outcome is not known.
pub(crate) struct Waiter {
    sender: oneshot::Sender<Landed>,
    arrivals: Option<Arrivals>,
}

impl Waiter {
    /// One that is told through `arrivals`, if there are any, and its other end.
    pub(crate) fn new(arrivals: Option<&Arrivals>) -> (Self, oneshot::Receiver<Landed>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, arrivals: arrivals.cloned() }, receiver)
    }
}

/// Tells many what became of their commands.
pub(crate) fn tell_all(told: impl IntoIterator<Item = (Waiter, Landed)>) {
    let mut parcels: Vec<(Arrivals, Parcel)> = Vec::new();
    for (Waiter { sender, arrivals }, landed) in told {
        let Some(arrivals) = arrivals else {
            sender.send(landed).ok();
            continue;
        };
        match parcels.iter_mut().find(|(place, _)| place.0.same_channel(&arrivals.0)) {
            Some((_, parcel)) => parcel.push((sender, landed)),
            None => parcels.push((arrivals, vec![(sender, landed)])),
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
    async fn outcomes_arrive_with_a_dealer_and_without() {
        let (arrivals, dealer) = Arrivals::new();
        let (elsewhere, gone) = Arrivals::new();
        drop(gone);
        let places = [Some(&arrivals), Some(&elsewhere), None];
        let (waiters, waiting): (Vec<_>, Vec<_>) = (0..9).map(|n| Waiter::new(places[n % 3])).unzip();
        let outcome = |n: usize| if n < 5 { Ok(Outcome::Done) } else { Err(SubmitError::Unknown) };
        tell_all(waiters.into_iter().enumerate().map(|(n, waiter)| (waiter, outcome(n))));
        drop(arrivals);
        dealer.run().await;
        for (n, waiting) in waiting.into_iter().enumerate() {
            assert_eq!(waiting.await, Ok(outcome(n)), "{n}");
        }
    }
}
