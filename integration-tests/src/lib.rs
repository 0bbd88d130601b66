//! The harness of the tests that cross a seam.
