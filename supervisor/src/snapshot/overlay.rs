//! The overlay snapshotter: a directory a snapshot, stacked by overlayfs.
