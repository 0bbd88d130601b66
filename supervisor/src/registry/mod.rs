//! Registries: resolve, authorise, fetch and push.
