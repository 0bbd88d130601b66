//! The content store: documents, which are small blobs, and whether a blob is there.

use super::{CallError, CallResult, Client, call::failed};
use wharf_proto::containerd::services::content::v1::{self as content, content_client::ContentClient};

/// The largest blob that is read into memory: manifests and image configurations are far smaller.
pub const MAX_DOCUMENT: i64 = 8 << 20;

impl Client {
    /// The bytes of a blob, at most [`MAX_DOCUMENT`] of them.
    ///
    /// # Errors
    ///
    /// The blob does not exist or is larger than that.
    pub async fn document(&self, digest: &str) -> CallResult<Vec<u8>> {
        let mut client = ContentClient::new(self.channel.clone());
        let mut stream = client
            .read(content::ReadContentRequest {
                digest: digest.to_owned(),
                offset: 0,
                size: 0,
            })
            .await
            .map_err(failed("read content", digest))?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(failed("read content", digest))? {
            if bytes.len() + part.data.len() > usize::try_from(MAX_DOCUMENT).unwrap_or(usize::MAX) {
                let limit = format!("larger than the limit of {MAX_DOCUMENT} bytes");
                return Err(CallError::other("read content", digest, limit));
            }
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    ///
    /// The call failed for another reason than that.
    pub async fn has_content(&self, digest: &str) -> CallResult<bool> {
        let info = ContentClient::new(self.channel.clone())
            .info(content::InfoRequest {
                digest: digest.to_owned(),
            })
            .await
            .map_err(failed("look up content", digest));
        match info {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
