//! Transfers: pull, push, import, export and unpack as one leased operation.
