//! Large blobs, in pieces at once, from registries that understand ranges, or not, or say so.

use super::*;

const SIZE: usize = 1000;
const PIECE: u64 = 100;

fn data() -> Vec<u8> {
    (0..SIZE).map(|index| (index * 7 % 251) as u8).collect()
}

fn pieces(operation: usize, ahead: usize) -> Pieces {
    let slots = |count| Arc::new(Semaphore::new(count));
    Pieces {
        size: PIECE,
        operation: slots(operation),
        host: slots(8),
        ahead: slots(ahead),
    }
}

/// The range that is asked for.
fn asked(head: &str) -> Option<(usize, usize)> {
    let (_, range) = head
        .to_ascii_lowercase()
        .split_once("range: bytes=")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
    let (first, last) = range.lines().next()?.split_once('-')?;
    let last = match last.trim() {
        "" => SIZE - 1,
        last => last.parse().ok()?,
    };
    Some((first.parse().ok()?, last))
}

fn partial(first: usize, last: usize, etag: &str, bytes: &[u8]) -> Vec<u8> {
    let range = format!("bytes {first}-{last}/{SIZE}");
    let length = (last + 1 - first).to_string();
    let headers = [
        ("Content-Range", &*range),
        ("Content-Length", &*length),
        ("ETag", etag),
    ];
    response("206 Partial Content", &headers, bytes)
}

fn whole() -> Vec<u8> {
    response(
        "200 OK",
        &[("Content-Length", &SIZE.to_string()), ("ETag", "\"a\"")],
        &data(),
    )
}

async fn fetch_pieces(registry: &Registry, offset: u64, pieces: &Pieces) -> Result<Vec<u8>> {
    let client = registry.client("", Arc::new(NoCredentials));
    let free = |pieces: &Pieces| {
        (
            pieces.operation.available_permits(),
            pieces.ahead.available_permits(),
        )
    };
    let before = free(pieces);
    let fetched = fetch_by(&client, &blob(&data()), &[], offset, pieces).await;
    // An abandoned piece gives its slots back as soon as its task has ended.
    for _ in 0..500 {
        if free(pieces) == before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(free(pieces), before, "slots are left behind");
    fetched
}

#[tokio::test]
async fn pieces_come_at_once_and_are_handed_on_in_order() {
    let registry = Registry::start(|_, head| {
        let (first, last) = asked(head).expect("every piece is asked for by range");
        partial(first, last, "\"a\"", &data()[first..=last])
    })
    .await;
    assert_eq!(fetch_pieces(&registry, 0, &pieces(4, 3)).await.unwrap(), data());
    let mut starts: Vec<_> = registry
        .requests()
        .iter()
        .filter_map(|head| asked(head))
        .collect();
    starts.sort_unstable();
    let expected: Vec<_> = (0..10).map(|piece| (piece * 100, piece * 100 + 99)).collect();
    assert_eq!(starts, expected);
}

/// The answer to the first piece is held back until those behind it were asked for.
#[tokio::test]
async fn the_slots_bound_what_is_asked_for_at_once() {
    for (operation, ahead, expected) in [(3, 8, 3), (8, 1, 2), (1, 8, 1)] {
        let under_way = Arc::new(Mutex::new((0, 0)));
        let seen = Arc::clone(&under_way);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    {
                        let mut seen = seen.lock().unwrap();
                        seen.0 += 1;
                        seen.1 = seen.1.max(seen.0);
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    let (first, last) = asked(&String::from_utf8(head).unwrap()).unwrap_or((0, SIZE - 1));
                    seen.lock().unwrap().0 -= 1;
                    let bytes = partial(first, last, "\"a\"", &data()[first..=last]);
                    drop(stream.write_all(&bytes).await);
                });
            }
        });
        let registry = Registry {
            address,
            requests: Arc::default(),
            bodies: Arc::default(),
        };
        assert_eq!(
            fetch_pieces(&registry, 0, &pieces(operation, ahead))
                .await
                .unwrap(),
            data()
        );
        assert_eq!(under_way.lock().unwrap().1, expected, "{operation} {ahead}");
    }
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_read_once() {
    let registry = Registry::start(|_, _| whole()).await;
    assert_eq!(fetch_pieces(&registry, 0, &pieces(4, 3)).await.unwrap(), data());
    assert_eq!(registry.requests().len(), 1);
    assert_eq!(
        fetch_pieces(&registry, 450, &pieces(4, 3)).await.unwrap(),
        data()[450..]
    );
}

#[tokio::test]
async fn a_registry_that_answers_other_ranges_is_read_without() {
    // First any other range, then always the range to the end, at last always the first hundred bytes.
    for lie in 0..3 {
        let registry = Registry::start(move |_, head| match (asked(head), lie) {
            (None, _) => whole(),
            (Some((first, _)), 0) if first + 150 < SIZE => {
                partial(first + 50, first + 149, "\"a\"", &data()[first + 50..first + 150])
            }
            (Some((first, _)), 1) => partial(first, SIZE - 1, "\"a\"", &data()[first..]),
            (Some(_), _) => partial(0, 99, "\"a\"", &data()[..100]),
        })
        .await;
        for offset in [0, 300] {
            let fetched = fetch_pieces(&registry, offset, &pieces(4, 3)).await.unwrap();
            assert_eq!(fetched, data()[offset as usize..], "{lie} {offset}");
        }
    }
}

/// Pieces of two blobs are never put together: the digest would be wrong, and every later try with it.
#[tokio::test]
async fn a_blob_that_changes_between_pieces_is_read_in_one() {
    let registry = Registry::start(|number, head| match asked(head) {
        Some((first, last)) if last < SIZE - 1 => {
            let etag = format!("\"{}\"", number.min(2));
            let bytes: Vec<u8> = match number {
                0 => data()[first..=last].to_vec(),
                _ => vec![0; last + 1 - first],
            };
            partial(first, last, &etag, &bytes)
        }
        Some((first, last)) => partial(first, last, "\"b\"", &data()[first..=last]),
        None => whole(),
    })
    .await;
    assert_eq!(fetch_pieces(&registry, 0, &pieces(4, 3)).await.unwrap(), data());
}

#[tokio::test]
async fn a_piece_that_breaks_off_goes_on_at_its_place() {
    let broken: Arc<Mutex<std::collections::BTreeSet<usize>>> = Arc::default();
    let registry = Registry::start(move |_, head| {
        let (first, last) = asked(head).expect("a range");
        let bytes = &data()[first..=last];
        // Each piece breaks off once in its middle.
        match first % 100 == 0 && broken.lock().unwrap().insert(first) && (first / 100) % 3 == 1 {
            true => partial(first, last, "\"a\"", &bytes[..40]),
            false => partial(first, last, "\"a\"", bytes),
        }
    })
    .await;
    assert_eq!(fetch_pieces(&registry, 0, &pieces(4, 3)).await.unwrap(), data());
    let resumed = registry
        .requests()
        .iter()
        .filter_map(|head| asked(head))
        .filter(|(first, _)| first % 100 == 40)
        .count();
    assert_eq!(resumed, 3);
}

#[tokio::test]
async fn a_wrong_size_is_refused_in_pieces_too() {
    let registry = Registry::start(|_, head| {
        let (first, last) = asked(head).unwrap_or((0, SIZE - 1));
        let range = format!("bytes {first}-{last}/{}", SIZE + 1);
        response(
            "206 Partial Content",
            &[("Content-Range", &range)],
            &data()[first..=last],
        )
    })
    .await;
    let error = fetch_pieces(&registry, 0, &pieces(4, 3)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
}
