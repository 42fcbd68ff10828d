//! The outer shell: connections, limits, TLS, and the translation between HTTP and requests.

pub mod request;

pub mod answer;

pub mod serve;

pub mod limits;

pub mod tls;

pub mod json;

pub mod fields;

pub mod duration;

pub mod go_json;

pub mod gotext;

mod media_type;

pub mod path;
