//! Images through the supervisor's own API: pulled from a real registry or imported from archives, unpacked, and compared
//! with what umoci makes of them; exported again; hostile layers through the Diff service.

mod archive;
mod catalog;
mod compare;
mod damage;
mod export;
mod foreign;
mod hostile;
mod image;
mod memory;
mod processors;
mod pull;
mod push;
mod supervisor;
mod tls;
mod unpack;
mod whiteouts;
