//! What the proxy answers for itself: the set-up page and its files, to its own names only. Routes to origins, and HTTPS
//! for programs that trust no certificate of ours.

mod page;
mod routes;
mod secure;
