//! What a mount can do.

pub mod tree;

pub mod kv;
