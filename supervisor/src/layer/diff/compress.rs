//! The compressions a layer is written with, by its media type.

use std::io::{self, Write};

use crate::error::{Error, Result};

/// What is written when nothing is asked for.
const DEFAULT: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    Plain,
    /// gzip, without a name or time in its header.
    Gzip,
    /// zstd at its default level.
    Zstd,
}

impl Compression {
    /// The media type (empty: OCI's gzip) and its compression.
    ///
    /// # Errors
    ///
    /// `Unimplemented` for a media type that no layer is written as.
    pub(crate) fn of(media_type: &str) -> Result<(&str, Self)> {
        match media_type {
            "" => Ok((DEFAULT, Self::Gzip)),
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Ok((media_type, Self::Plain))
            }
            DEFAULT | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok((media_type, Self::Gzip)),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok((media_type, Self::Zstd)),
            other => Err(Error::unimplemented(format!(
                "unsupported diff media type: {other}"
            ))),
        }
    }
}

/// A compressing writer.
pub(crate) enum Encoder<W: Write> {
    /// Not compressing.
    Plain(W),
    /// See [`Compression::Gzip`].
    Gzip(Box<flate2::write::GzEncoder<W>>),
    /// See [`Compression::Zstd`].
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Encoder<W> {
    /// Starts compressing into `output`.
    ///
    /// # Errors
    ///
    /// zstd's, when it gets no memory.
    pub(crate) fn new(compression: Compression, output: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::Plain => Self::Plain(output),
            Compression::Gzip => Self::Gzip(Box::new(flate2::write::GzEncoder::new(
                output,
                flate2::Compression::default(),
            ))),
            Compression::Zstd => Self::Zstd(Box::new(zstd::stream::write::Encoder::new(output, 0)?)),
        })
    }

    /// Writes what is left, and gives the output back.
    ///
    /// # Errors
    ///
    /// The output's.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(output) => Ok(output),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
