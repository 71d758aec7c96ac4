//! The proxy's own responses: the set-up page and its files, under its own names only. Routes to origins, and HTTPS for
//! programs that do not trust our CA.

mod page;
mod routes;
mod secure;
