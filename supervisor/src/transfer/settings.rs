//! How much transfers do at the same time: the `[plugins."io.containerd.transfer.v1.local"]` of `config.toml`, whose keys are
//! containerd's but for `max_requests_per_host`.
//!
//! ```toml
//! [plugins."io.containerd.transfer.v1.local"]
//! max_concurrent_downloads = 4              # requests for data of one pull at once: whole blobs, and pieces of large ones
//! max_concurrent_uploaded_layers = 4        # blobs of one push
//! max_concurrent_unpacks = 0                # layers of all pulls; 0: as many as processors, from 2 to 8
//! concurrent_layer_fetch_buffer = 4194304   # bytes of a piece; 0: blobs in one request
//! max_requests_per_host = 8                 # requests for data to one registry, of all pulls and pushes
//! check_platform_supported = false          # unpack only what runs here, not all that is for Linux
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most of anything at once; each costs a thread or a connection.
const MOST: usize = 64;
/// The sizes of a piece that are accepted, in bytes, if not 0.
const PIECES: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;

/// How much transfers do at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Requests for data of one pull: whole blobs, and pieces of large ones when fewer blobs than these are under way.
    /// Default 4.
    pub max_concurrent_downloads: usize,
    /// Blobs of one push. Default 4.
    pub max_concurrent_uploaded_layers: usize,
    /// Layers of all pulls that are unpacked at once. Default 0: as many as processors, from 2 to 8, as memory is bounded by
    /// their number.
    pub max_concurrent_unpacks: usize,
    /// Bytes of a piece, when a blob of at least three of them is fetched in pieces at once. 0 fetches blobs in one request.
    /// Default 4 MiB, which is also the most.
    pub concurrent_layer_fetch_buffer: u64,
    /// Requests for data to one registry, of all pulls and pushes together. Default 8.
    pub max_requests_per_host: usize,
    /// Whether only images that run here are unpacked, not all that are for this operating system. Default false.
    pub check_platform_supported: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_concurrent_downloads: 4,
            max_concurrent_uploaded_layers: 4,
            max_concurrent_unpacks: 0,
            concurrent_layer_fetch_buffer: 4 << 20,
            max_requests_per_host: 8,
            check_platform_supported: false,
        }
    }
}

impl Settings {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the setting.
    pub fn validate(&self) -> Result<()> {
        for (name, number, least) in [
            ("max_concurrent_downloads", self.max_concurrent_downloads, 1),
            (
                "max_concurrent_uploaded_layers",
                self.max_concurrent_uploaded_layers,
                1,
            ),
            ("max_concurrent_unpacks", self.max_concurrent_unpacks, 0),
            ("max_requests_per_host", self.max_requests_per_host, 1),
        ] {
            if !(least..=MOST).contains(&number) {
                return Err(Error::invalid(format!(
                    "{name} = {number}: it must be from {least} to {MOST}"
                )));
            }
        }
        let piece = self.concurrent_layer_fetch_buffer;
        if piece != 0 && !PIECES.contains(&piece) {
            return Err(Error::invalid(format!(
                "concurrent_layer_fetch_buffer = {piece}: it must be 0, or from {} to {}",
                PIECES.start(),
                PIECES.end()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_sense_are_refused_by_name() {
        Settings::default().validate().unwrap();
        let parse = |text: &str| toml::from_str::<Settings>(text).unwrap().validate();
        parse("concurrent_layer_fetch_buffer = 0").unwrap();
        for bad in [
            "max_concurrent_downloads = 0",
            "max_concurrent_uploaded_layers = 65",
            "max_concurrent_unpacks = 100",
            "max_requests_per_host = 0",
            "concurrent_layer_fetch_buffer = 512",
            "concurrent_layer_fetch_buffer = 1000000000",
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(bad.split(' ').next().unwrap()), "{bad}: {error}");
        }
        assert!(toml::from_str::<Settings>("max_downloads = 1").is_err());
    }
}
