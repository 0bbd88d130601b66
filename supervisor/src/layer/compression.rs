//! Compressed streams, told apart by their magic: gzip, zstd, or none.
//!
//! The media type only says that the blob is a layer ([`is_layer`]); which compression it uses is read from the bytes, as
//! registries are full of mislabelled layers. No decompressor outside this process is ever run. Memory is bounded by
//! the formats' windows: 32 KiB for gzip; for zstd see [`zstd`](super::zstd).

use std::io::{self, Read};

use super::{lookahead::Lookahead, zstd::Zstd};

/// A reader of the uncompressed bytes.
pub(crate) enum Decompressor<R: Read> {
    /// Not compressed.
    Plain(Lookahead<R>),
    /// Any number of gzip members.
    Gzip(Box<flate2::bufread::MultiGzDecoder<Lookahead<R>>>),
    /// Any number of zstd frames.
    Zstd(Box<Zstd<R>>),
}

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes of `input`, a stored blob, and starts the decompressor they call for. Blocks.
    ///
    /// # Errors
    ///
    /// Those of reading `input`.
    pub(crate) fn new(input: R) -> io::Result<Self> {
        Self::with(input, Zstd::stored)
    }

    /// As [`Decompressor::new`] for what a client sends, who may take its time.
    ///
    /// # Errors
    ///
    /// Those of reading `input`.
    pub(crate) fn of_client(input: R) -> io::Result<Self> {
        Self::with(input, Zstd::of_client)
    }

    fn with(input: R, zstd: impl Fn(Lookahead<R>) -> io::Result<Zstd<R>>) -> io::Result<Self> {
        let mut input = Lookahead::new(input);
        let magic = input.peek(4)?;
        if magic.starts_with(&[0x1f, 0x8b]) {
            Ok(Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(magic) {
            Ok(Self::Zstd(Box::new(zstd(input)?)))
        } else {
            Ok(Self::Plain(input))
        }
    }
}

/// A zstd stream may open with a skippable frame, `0x184D2A50`–`0x184D2A5F` in little endian.
pub(super) fn is_skippable_frame(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(reader) => reader.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}

/// Whether `media_type` names a tar layer, of OCI or Docker, of any compression.
pub(crate) fn is_layer(media_type: &str) -> bool {
    let base = media_type.split('+').next().unwrap_or_default();
    !media_type.contains("+encrypted")
        && matches!(
            base,
            "application/vnd.oci.image.layer.v1.tar"
                | "application/vnd.oci.image.layer.nondistributable.v1.tar"
                | "application/vnd.docker.image.rootfs.diff.tar"
                | "application/vnd.docker.image.rootfs.diff.tar.gzip"
                | "application/vnd.docker.image.rootfs.diff.tar.zstd"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        Decompressor::new(input)?.read_to_end(&mut output)?;
        Ok(output)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_and_frames_are_read_to_the_end() {
        assert_eq!(all(b"plain").unwrap(), b"plain");
        assert_eq!(all(b"").unwrap(), b"");
        assert_eq!(all(&[gzip(b"one"), gzip(b"two")].concat()).unwrap(), b"onetwo");
        let frame = |data: &[u8]| ::zstd::stream::encode_all(data, 1).unwrap();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        assert_eq!(all(&[frame(b"one"), frame(b"two")].concat()).unwrap(), b"onetwo");
        assert_eq!(all(&[&skippable[..], &frame(b"one")].concat()).unwrap(), b"one");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let data = gzip(&[7; 4096]);
        assert!(all(&data[..data.len() - 4]).is_err());
        let data = ::zstd::stream::encode_all(&[7; 4096][..], 1).unwrap();
        assert!(all(&data[..data.len() - 4]).is_err());
    }

    #[test]
    fn only_layers_are_layers() {
        assert!(is_layer("application/vnd.oci.image.layer.v1.tar+zstd"));
        assert!(is_layer("application/vnd.docker.image.rootfs.diff.tar.gzip"));
        assert!(!is_layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"));
        assert!(!is_layer("application/vnd.oci.image.config.v1+json"));
    }
}
