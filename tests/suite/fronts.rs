//! What the proxy answers for itself: the set-up page and its files, to its own names only. Routes are in `routes`.

mod page;
mod routes;
