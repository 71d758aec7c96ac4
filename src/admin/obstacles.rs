//! What keeps the proxy from paying, which its own port tells to probes.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::payments::Obstacle;

/// Knows what keeps the proxy from paying.
pub trait ObstacleSource: fmt::Debug + Send + Sync {
    /// What is in the way now.
    fn find(&self) -> BoxFuture<'static, Vec<Obstacle>>;
}
