//! TLS, between this crate and the embedded broker.

#![cfg(feature = "_tls")]

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod options;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod tools;
