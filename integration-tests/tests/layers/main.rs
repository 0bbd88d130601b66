//! Images through the supervisor's own API: pulled from a real registry or imported from archives, unpacked, and compared
//! with what umoci makes of them; exported again; hostile layers through the Diff service.

mod archive;
mod compare;
mod damage;
mod export;
mod hostile;
mod image;
mod processors;
mod pull;
mod push;
mod supervisor;
mod unpack;
mod whiteouts;
