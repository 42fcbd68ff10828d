//! server

/// What is mounted.
pub mod engine {
    pub mod kv;
}

/// What the HTTP surface is made of.
pub mod http {
    /// Durations as clients write them and Go prints them.
    pub mod duration;

    /// The parameters of a request and their types.
    pub mod fields;

    /// Text as Go prints it.
    pub mod gotext;

    /// JSON bodies, checked and used in place.
    pub mod json;
}
