//! The one test program: each module is a part of what a user relies on.
//! The one test program.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod configured;
//! The one test program.
mod seller;
mod support;
