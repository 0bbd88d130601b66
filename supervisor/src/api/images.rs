//! The Images service.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::images::v1::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse,
    ListImagesRequest, ListImagesResponse, UpdateImageRequest, UpdateImageResponse, images_server,
};

use super::{mask_label, paths, required};
use crate::{
    daemon::Daemon,
    error::{Error, Result as StoreResult},
    filter::Filters,
    gc,
    image::{self, Image},
    namespace::Scope,
};

/// The service.
pub struct Images(pub Arc<Daemon>);

#[tonic::async_trait]
impl images_server::Images for Images {
    async fn get(&self, request: Request<GetImageRequest>) -> Result<Response<GetImageResponse>, Status> {
        let scope = Scope::of(&request)?;
        let name = request.into_inner().name;
        let image = self
            .0
            .blocking(move |daemon| image::get(daemon, &scope, &name))
            .await?;
        Ok(Response::new(GetImageResponse { image: Some(image) }))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut images = self.0.blocking(move |daemon| image::list(daemon, &scope)).await?;
        images.retain(|image| filters.matches(image));
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn create(
        &self,
        request: Request<CreateImageRequest>,
    ) -> Result<Response<CreateImageResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let image = required(request.image, "image")?;
        let epoch = request.source_date_epoch;
        let image = self
            .0
            .blocking(move |daemon| image::create(daemon, &scope, image, epoch))
            .await?;
        Ok(Response::new(CreateImageResponse { image: Some(image) }))
    }

    async fn update(
        &self,
        request: Request<UpdateImageRequest>,
    ) -> Result<Response<UpdateImageResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let new = required(request.image, "image")?;
        if new.name.is_empty() {
            return Err(Error::invalid("image name is required for update").into());
        }
        let (paths, epoch) = (paths(request.update_mask), request.source_date_epoch);
        let image = self
            .0
            .blocking(move |daemon| {
                image::update(daemon, &scope, &new.name, epoch, |image| {
                    mask(image, &new, &paths)
                })
            })
            .await?;
        Ok(Response::new(UpdateImageResponse { image: Some(image) }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        self.0
            .blocking(move |daemon| {
                image::delete(daemon, &scope, &request.name, request.target.as_ref())?;
                if request.sync {
                    gc::collect(daemon).map(drop)
                } else {
                    Ok(())
                }
            })
            .await?;
        self.0.garbage.notify_one();
        Ok(Response::new(()))
    }
}

/// Applies an update mask; an empty one replaces everything but name and times.
fn mask(image: &mut Image, new: &Image, paths: &[String]) -> StoreResult<()> {
    if paths.is_empty() {
        *image = new.clone();
    }
    let annotations = |image: &Image| image.target.clone().unwrap_or_default().annotations;
    for path in paths {
        if mask_label(&mut image.labels, &new.labels, path) {
            continue;
        }
        match (path.as_str(), path.strip_prefix("annotations.")) {
            ("target", _) => image.target.clone_from(&new.target),
            ("annotations", _) => image.target.get_or_insert_default().annotations = annotations(new),
            (_, Some(key)) => {
                let value = annotations(new).remove(key).unwrap_or_default();
                image
                    .target
                    .get_or_insert_default()
                    .annotations
                    .insert(key.to_owned(), value);
            }
            _ => {
                return Err(Error::invalid(format!(
                    "cannot update {path:?} field on image {:?}",
                    new.name
                )));
            }
        }
    }
    Ok(())
}
