//! What every input must hold to, whatever it is: one module for each thing that strangers can put bytes into. Each has
//! one function `run`, which panics where something does not hold.
//!
//! `targets/` hands these to libFuzzer; the suite runs them over `corpus/`, so that what was found once stays found.

pub mod challenge;
pub mod config;
pub mod head;
mod strict;
