//! The multiplexer against a scripted server, in memory: frames in, events and frames out. Each test of a
//! hostile or broken input is named after its row in the project's list of pitfalls.

mod channels;
mod closing;
mod confirms;
mod connection;
mod consuming;
mod content;
mod model;
mod publishing;
mod script;
mod sequences;
