//! Unpacking an image: its layers become snapshots.
