//! The development network behind `tollpass demo`: a seller to try the proxy on. Nothing of it is needed to pay.

pub mod origin;
