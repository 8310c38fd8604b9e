//! TLS, between this crate and the embedded broker.

#![cfg(feature = "_tls")]

#[cfg(test)]
mod options;
