//! The one test binary: each module covers a part of what users rely on. Tests tollpass from outside, over real
//! sockets.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod advises;
mod approves;
mod authorizes;
mod browsers;
mod bytes;
mod certificates;
mod chains;
mod clients;
mod closes;
mod closing;
mod configured;
mod corpus;
mod devchain;
mod falters;
mod fronts;
mod house;
mod intercepts;
mod ledger;
mod nodes;
mod origins;
mod outbound;
mod pays;
mod program;
mod proofs;
mod recovers;
mod refuses;
mod seller;
mod spenders;
mod stops;
mod streams;
mod support;
mod tells;
mod transparent;
mod watches;
