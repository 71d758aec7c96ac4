//! µRaiden: a seller asks with `RDN-*` headers, a payer answers with an ever higher signed total.

pub mod headers;
pub mod proof;
