//! The client of the REST API over the daemon's unix socket, used by the command line.
