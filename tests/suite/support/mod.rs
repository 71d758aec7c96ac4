//! Support code for several tests.

pub mod chains;
pub mod cheats;
pub mod contracts;
pub mod curl;
pub mod fair;
pub mod frames;
pub mod handshake;
pub mod lane;
pub mod mallory;
pub mod market;
pub mod next;
pub mod office;
pub mod openssl;
pub mod origins;
pub mod own;
pub mod payer;
pub mod ports;
pub mod proxy;
pub mod raw;
pub mod relay;
pub mod rig;
pub mod secure;
pub mod sides;
pub mod town;
pub mod ways;
pub mod wire;
