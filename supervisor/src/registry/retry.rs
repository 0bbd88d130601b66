//! When to try again, and after how long.
//!
//! Five tries in a row, half a second apart at first and doubling, each pause shortened at random by up to a half so
//! that clients do not come back together. `Retry-After` is honoured up to a minute.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// Tries in a row that may fail before the failure is reported.
pub(super) const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Whether a later try may go better.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// How long to wait after the failed try number `failed` (from 1), with the headers of the answer if there was one.
pub(super) fn pause(failed: u32, headers: Option<&HeaderMap>) -> Duration {
    let asked = headers
        .and_then(|headers| headers.get(RETRY_AFTER))
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse().ok())
        .map(Duration::from_secs);
    let backoff = FIRST_PAUSE * 2u32.saturating_pow(failed.saturating_sub(1));
    // Not a secret: without randomness the pause is merely not spread.
    let jitter = getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX));
    let backoff = backoff.mul_f64(1.0 - jitter / 2.0);
    asked
        .map_or(backoff, |asked| asked.max(backoff))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for failed in 1..40 {
            let pause = pause(failed, None);
            assert!(
                pause >= Duration::from_millis(250) && pause <= LONGEST_PAUSE,
                "{failed}: {pause:?}"
            );
        }
        assert!(pause(4, None) >= Duration::from_secs(2));
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(pause(1, Some(&headers)), Duration::from_secs(7));
        headers.insert(RETRY_AFTER, "86400".parse().unwrap());
        assert_eq!(pause(1, Some(&headers)), LONGEST_PAUSE);
    }
}
