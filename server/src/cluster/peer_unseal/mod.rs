//! A node that people unseal is unsealed by another member when its process starts, where both were told that they may.
//!
//! Reading order: [`envelope`] (how the root key travels), [`message`] (what is said), [`giver`] and [`asker`] (the two sides),
//! [`hold`] (whoever was sealed by hand does not ask).

pub mod envelope;

pub mod message;

pub mod giver;

pub mod asker;

pub mod hold;

#[cfg(test)]
mod tests;
