//! The one test program: each module is a part of what a user relies on.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod configured;
mod seller;
mod support;
//! The suite: tollpass from outside, over real sockets.
mod stops;
mod transparent;
mod support {
    pub mod origins;
    pub mod proxy;
    pub mod raw;
}
