//! The command line, before its commands.

fn main() {}
