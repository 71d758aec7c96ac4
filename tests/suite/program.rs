//! The real program, as a user runs it.
