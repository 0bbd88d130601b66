//! What a repository of Debian's registry has: its tags, and what refers to an image.

use integration_tests::Scratch;
use integration_tests::registry::Registry;
use wharf_supervisor::{Kind, RegistryConfig, list_referrers, list_tags};

use crate::image::{GZIP, image};

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_and_nothing_refers_to_an_image_without_signatures() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    for tag in ["v1", "v2", "latest"] {
        registry.push(layout.path(), "latest", &format!("team/app:{tag}"));
    }
    let config = RegistryConfig {
        hosts: Vec::new(),
        ..RegistryConfig::default()
    };
    let mut tags = list_tags(&config, &registry.reference("team/app")).await.unwrap();
    tags.sort();
    assert_eq!(tags, ["latest", "v1", "v2"]);
    let image = registry.reference("team/app:v1");
    assert!(list_referrers(&config, &image, &[]).await.unwrap().is_empty());
    let unknown = list_tags(&config, &registry.reference("team/none"))
        .await
        .unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound, "{unknown}");
}
