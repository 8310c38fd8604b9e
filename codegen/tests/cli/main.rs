//! The generator from its command line.

mod errors;
mod generate;
mod support;
