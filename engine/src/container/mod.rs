//! Containers: their configuration, records, life cycle, output and further processes.

pub mod config;
