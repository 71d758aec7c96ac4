//! Properties that every input must satisfy, one module for each interface that receives untrusted bytes. Each has a
//! function `run`, which panics if a property is violated.
//!
//! `targets/` passes these to libFuzzer; the suite runs them over `corpus/`, so that past findings stay fixed.

pub mod challenge;
pub mod config;
pub mod head;
pub mod offer;
mod strict;
