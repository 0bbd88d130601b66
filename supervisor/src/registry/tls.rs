//! TLS to registries: whom to trust, and how to show who we are.
//!
//! By default the host's certificate authorities are trusted and nothing is shown. Files that a configuration names add to
//! that: authorities, pairs of certificate and key, or trust in whoever answers, which only the configuration can ask for.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};

use crate::error::{Error, Result};

/// What a configuration says of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Files with further authorities.
    pub(super) authorities: Vec<PathBuf>,
    /// Certificates and keys to show; without a key's file the first one holds both.
    pub(super) certificates: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether to talk to whoever answers.
    pub(super) skip_verify: bool,
}

impl Tls {
    /// The configuration of connections. Blocks on the files.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming a file that cannot be used.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>> {
        static DEFAULT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if *self != Self::default() {
            return self.build();
        }
        match DEFAULT.get() {
            Some(default) => Ok(Arc::clone(default)),
            None => {
                let built = self.build()?;
                Ok(Arc::clone(DEFAULT.get_or_init(|| built)))
            }
        }
    }

    fn build(&self) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::unknown("set up TLS", error))?;
        let builder = if self.skip_verify {
            let anybody = Anybody(Arc::clone(&provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(anybody))
        } else {
            let mut roots = RootCertStore::empty();
            // A host without authorities trusts nobody over HTTPS; registries on loopback still work.
            for authority in rustls_native_certs::load_native_certs().certs {
                if let Err(error) = roots.add(authority) {
                    tracing::debug!(%error, "a certificate authority of the host is left out");
                }
            }
            for path in &self.authorities {
                for authority in certificates(path)? {
                    roots
                        .add(authority)
                        .map_err(|error| unusable(path, "certificate authority", &error))?;
                }
            }
            builder.with_root_certificates(roots)
        };
        if self.certificates.is_empty() {
            return Ok(Arc::new(builder.with_no_client_auth()));
        }
        let shown = self
            .certificates
            .iter()
            .map(|(certificate, key)| pair(&provider, certificate, key.as_deref().unwrap_or(certificate)))
            .collect::<Result<_>>()?;
        Ok(Arc::new(
            builder.with_client_cert_resolver(Arc::new(Certificates(shown))),
        ))
    }
}

fn unusable(path: &Path, what: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{what} {}: {reason}", path.display()))
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| unusable(path, what, &error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path, "certificate")?;
    let found = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(path, "certificate", &error))?;
    match found.is_empty() {
        true => Err(unusable(path, "certificate", &"none in the file")),
        false => Ok(found),
    }
}

fn pair(provider: &CryptoProvider, certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>> {
    let chain = certificates(certificate)?;
    let bytes = read(key, "key")?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| unusable(key, "key", &error))?;
    CertifiedKey::from_der(chain, private, provider)
        .map(Arc::new)
        .map_err(|error| unusable(key, "key", &error))
}

/// The certificates that may be shown: the first one that the server can check.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Certificates {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0
            .iter()
            .find(|pair| pair.key.choose_scheme(schemes).is_some())
            .cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Takes whoever answers for the one who was asked. What is signed must be signed all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
