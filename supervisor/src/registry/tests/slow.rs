//! Registries that stop in the middle, or drip: they are left, and asked again.

use std::time::Duration;

use super::*;

/// Serves [`DATA`] whole at once, but to the first who comes as `first` does.
async fn serve<F: Future<Output = ()> + Send>(
    first: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, first) = (Arc::clone(&heads), Arc::new(first));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, first) = (Arc::clone(&seen), Arc::clone(&first));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(head);
                    seen.len()
                };
                if number == 1 {
                    return first(stream).await;
                }
                drop(stream.write_all(&response("200 OK", &[], DATA)).await);
            });
        }
    });
    (address, heads)
}

async fn fetch_from(address: SocketAddr) -> Result<Vec<u8>> {
    let reference = format!("{address}/repo/name").parse().unwrap();
    let client = Client::new(reference, Options::default(), Arc::new(NoCredentials)).unwrap();
    fetch(&client, &blob(DATA), 0).await
}

#[tokio::test]
async fn a_registry_that_stops_in_the_middle_is_asked_for_the_rest() {
    let (address, heads) = serve(|mut stream| async move {
        let start = response("200 OK", &[("Content-Length", "16")], &DATA[..6]);
        stream.write_all(&start).await.unwrap();
        // The connection stays open, and nothing comes.
        drop(stream.read_u8().await);
    })
    .await;
    assert_eq!(fetch_from(address).await.unwrap(), DATA);
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 2);
    assert!(heads[1].contains("range: bytes=6-"), "{}", heads[1]);
}

#[tokio::test]
async fn a_registry_that_drips_is_left() {
    let (address, heads) = serve(|mut stream| async move {
        let start = response("200 OK", &[("Content-Length", "16")], &[]);
        stream.write_all(&start).await.unwrap();
        for byte in DATA {
            tokio::time::sleep(Duration::from_millis(400)).await;
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    })
    .await;
    assert_eq!(fetch_from(address).await.unwrap(), DATA);
    assert_eq!(heads.lock().unwrap().len(), 2, "it was waited for to the end");
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_asked_again() {
    let (address, heads) = serve(|mut stream| async move {
        drop(stream.read_u8().await);
    })
    .await;
    assert_eq!(fetch_from(address).await.unwrap(), DATA);
    assert_eq!(heads.lock().unwrap().len(), 2);
}
