//! Where spans go: what `OTEL_…` and containerd's plugins of the same purpose say.

use std::collections::HashMap;

use hyper::Uri;

use crate::error::{Error, Result};

/// Where spans go, and what of.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where they are sent by POST.
    pub endpoint: Uri,
    /// Headers that are sent along.
    pub headers: Vec<(String, String)>,
    /// `service.name`.
    pub service: String,
    /// The share of traces that are begun here: 0 to 1.
    pub ratio: f64,
}

impl Settings {
    /// Reads `OTEL_…`, over which the `configured` variables win; `None` when no endpoint is set, or tracing is switched off.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, `Unimplemented`: naming the variable.
    pub fn of_environment(configured: &[(&'static str, String)]) -> Result<Option<Self>> {
        let configured = configured
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        // Not `vars`, which panics over what is not UTF-8.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::read(&variables.chain(configured).collect())
    }

    fn read(variables: &HashMap<String, String>) -> Result<Option<Self>> {
        let get = |name: &str| {
            variables
                .get(name)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        let of_traces = |name: &str| {
            get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        if get("OTEL_SDK_DISABLED") == Some("true") || get("OTEL_TRACES_EXPORTER") == Some("none") {
            return Ok(None);
        }
        // The one for traces is used as it is, the one for everything has the signal's path behind it.
        let endpoint = match get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            Some(endpoint) => endpoint.to_owned(),
            None => match get("OTEL_EXPORTER_OTLP_ENDPOINT") {
                Some(base) => format!("{}/v1/traces", base.trim_end_matches('/')),
                None => return Ok(None),
            },
        };
        match of_traces("PROTOCOL") {
            None | Some("http/protobuf") => {}
            Some(other) => {
                return Err(Error::unimplemented(format!(
                    "OTEL_EXPORTER_OTLP_PROTOCOL {other:?}: only http/protobuf is supported"
                )));
            }
        }
        let invalid = |name: &str, value: &str| Error::invalid(format!("{name} {value:?}"));
        let uri: Uri = endpoint
            .parse()
            .map_err(|_| invalid("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(invalid("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint));
        }
        let mut headers = Vec::new();
        for pair in of_traces("HEADERS").unwrap_or_default().split(',') {
            if let Some((name, value)) = pair.split_once('=') {
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            } else if !pair.trim().is_empty() {
                return Err(Error::invalid("OTEL_EXPORTER_OTLP_HEADERS: not NAME=VALUE,…"));
            }
        }
        let argument = get("OTEL_TRACES_SAMPLER_ARG").unwrap_or("1");
        let ratio = match get("OTEL_TRACES_SAMPLER") {
            None | Some("always_on" | "parentbased_always_on") => 1.0,
            Some("always_off" | "parentbased_always_off") => 0.0,
            Some("traceidratio" | "parentbased_traceidratio") => argument
                .parse()
                .ok()
                .filter(|ratio| (0.0..=1.0).contains(ratio))
                .ok_or_else(|| invalid("OTEL_TRACES_SAMPLER_ARG", argument))?,
            Some(other) => return Err(Error::unimplemented(format!("OTEL_TRACES_SAMPLER {other:?}"))),
        };
        Ok(Some(Self {
            endpoint: uri,
            headers,
            service: get("OTEL_SERVICE_NAME").unwrap_or("wharfd").to_owned(),
            ratio,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Settings>> {
        let variables = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::read(&variables.collect())
    }

    #[test]
    fn the_environment_is_read_as_by_other_exporters() {
        assert_eq!(read(&[]).unwrap(), None);
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/");
        let settings = read(&[base]).unwrap().unwrap();
        assert_eq!(settings.endpoint.to_string(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!((settings.service.as_str(), settings.ratio), ("wharfd", 1.0));
        assert_eq!(read(&[base, ("OTEL_SDK_DISABLED", "true")]).unwrap(), None);
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c/x");
        let settings = read(&[base, own, ("OTEL_EXPORTER_OTLP_HEADERS", "a=b, c=d")])
            .unwrap()
            .unwrap();
        assert_eq!(settings.endpoint.to_string(), "https://c/x");
        assert_eq!(settings.headers.len(), 2);
        for bad in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "nonsense"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ] {
            assert!(read(&[base, bad]).is_err(), "{bad:?}");
        }
        let ratio = ("OTEL_TRACES_SAMPLER", "traceidratio");
        assert!(read(&[base, ratio, ("OTEL_TRACES_SAMPLER_ARG", "2")]).is_err());
    }
}
