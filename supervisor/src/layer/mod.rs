//! Layers: tar streams applied to and computed from mounts.
