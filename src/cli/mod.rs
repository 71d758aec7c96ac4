//! The subcommands, one file each. They talk to people; what they do is done in other rooms.

pub mod init;
