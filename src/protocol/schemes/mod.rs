//! The payment schemes, one directory each.

pub mod microraiden;
