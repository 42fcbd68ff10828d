//! What openraft calls when a write is done with: a closure, so that nobody has to be woken to pass the word on.

use openraft::raft::responder::Responder;

use crate::types::Types;

/// A closure that gets the result. Dropped uncalled, it drops what it holds, and that must be answer enough.
pub struct Answer<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Answer<T> {
    /// Calls `then` with the result.
    pub fn new(then: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(then))
    }
}

impl<T: Send + 'static> Responder<Types, T> for Answer<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
