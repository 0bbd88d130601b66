//! The rows of images: names that point to manifests.

use super::{CallError, CallResult, Client, ImageRow, call::failed};
use wharf_proto::containerd::services::images::v1::{self as images, images_client::ImagesClient};

impl Client {
    /// The row of an image.
    ///
    /// # Errors
    ///
    /// [`CallError::is_not_found`] when there is none.
    pub async fn image(&self, name: &str) -> CallResult<ImageRow> {
        let response = ImagesClient::new(self.channel.clone())
            .get(images::GetImageRequest {
                name: name.to_owned(),
            })
            .await
            .map_err(failed("get image", name))?;
        response
            .into_inner()
            .image
            .ok_or_else(|| CallError::other("get image", name, "empty answer"))
    }

    /// The rows of all images.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn images(&self) -> CallResult<Vec<ImageRow>> {
        let response = ImagesClient::new(self.channel.clone())
            .list(images::ListImagesRequest { filters: Vec::new() })
            .await
            .map_err(failed("list images", ""))?;
        Ok(response.into_inner().images)
    }

    /// Makes a row for an image, or points the row it has to `image.target`.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn put_image(&self, image: ImageRow) -> CallResult<()> {
        let mut client = ImagesClient::new(self.channel.clone());
        let name = image.name.clone();
        let created = client
            .create(images::CreateImageRequest {
                image: Some(image.clone()),
                ..Default::default()
            })
            .await
            .map_err(failed("create image", &name));
        match created {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => client
                .update(images::UpdateImageRequest {
                    image: Some(image),
                    ..Default::default()
                })
                .await
                .map(drop)
                .map_err(failed("update image", &name)),
            Err(error) => Err(error),
        }
    }

    /// Removes the row of an image; what only it used is collected.
    ///
    /// # Errors
    ///
    /// [`CallError::is_not_found`] when there is none.
    pub async fn delete_image(&self, name: &str) -> CallResult<()> {
        ImagesClient::new(self.channel.clone())
            .delete(images::DeleteImageRequest {
                name: name.to_owned(),
                sync: true,
                ..Default::default()
            })
            .await
            .map(drop)
            .map_err(failed("delete image", name))
    }
}
