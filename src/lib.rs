//! lepus
mod codec;
mod mux;
