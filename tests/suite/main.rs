//! The one test program: each module is a part of what a user relies on.

mod configured;
