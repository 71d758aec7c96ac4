//! The one test program: each module is a part of what a user relies on.

mod configured;
//! The one test program.
mod seller;
mod support;
