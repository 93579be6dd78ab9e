//! What tests of TLS need: certificates that vouch for themselves, in files, and a client that is not ours.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType, date_time_ymd,
};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, version};

use crate::transport::certificates::{Certificates, provider};
use crate::transport::{Layers, MQTT, Server, server};

/// A certificate that vouches for itself, in files.
pub(crate) struct Credentials {
    directory: tempfile::TempDir,
    /// One after the other, as they were asked for.
    pub(in crate::transport) certificates: Vec<CertificateDer<'static>>,
}

impl Credentials {
    /// One for each set of names.
    pub(crate) fn for_each(names: &[&[&str]]) -> Credentials {
        let directory = tempfile::tempdir().unwrap();
        let mut certificates = Vec::new();
        for (index, names) in names.iter().enumerate() {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let mut params = CertificateParams::default();
            params.subject_alt_names =
                names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
            let certificate = params.self_signed(&key).unwrap();
            std::fs::write(directory.path().join(format!("{index}.pem")), certificate.pem()).unwrap();
            std::fs::write(directory.path().join(format!("{index}.key")), key.serialize_pem()).unwrap();
            certificates.push(certificate.der().clone());
        }
        Credentials { directory, certificates }
    }

    pub(in crate::transport) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub(in crate::transport) fn read(&self) -> Certificates {
        let pairs: Vec<_> = (0..self.certificates.len())
            .map(|index| (self.path(&format!("{index}.pem")), self.path(&format!("{index}.key"))))
            .collect();
        Certificates::read(pairs.iter().map(|(chain, key)| (chain.as_path(), key.as_path()))).unwrap()
    }

    pub(in crate::transport) fn client(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Arc<ClientConfig> {
        let mut config = self.client_builder(versions).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A client that shows this.
    pub(in crate::transport) fn client_with(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        identity: &Identity,
    ) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let chain = vec![identity.certificate.clone()];
        let mut config = self.client_builder(versions).with_client_auth_cert(chain, key).unwrap();
        // Messages of the handshake in many records, and ends and beginnings of them in one.
        config.max_fragment_size = Some(100);
        Arc::new(config)
    }

    fn client_builder(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.certificates {
            roots.add(certificate.clone()).unwrap();
        }
        let builder =
            ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        builder.with_root_certificates(roots)
    }

    /// One for these names.
    pub(crate) fn new(names: &[&str]) -> Credentials {
        Credentials::for_each(&[names])
    }

    /// Who presents them.
    pub(in crate::transport) fn server(&self) -> Arc<Server> {
        Arc::new(server(self.read(), None, MQTT, None).unwrap())
    }

    /// TLS with them, and nothing else.
    pub(crate) fn layers(&self) -> Layers {
        Layers { tls: Some(self.server()), web: None }
    }
}

/// Who vouches for clients.
pub(in crate::transport) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a client shows.
pub(in crate::transport) struct Identity {
    certificate: CertificateDer<'static>,
    key: String,
}

impl Authority {
    pub(in crate::transport) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(in crate::transport) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(in crate::transport) fn vouch(&self, serial: u64) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial.into());
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.der().clone(), key: key.serialize_pem() }
    }

    /// A list with these.
    pub(in crate::transport) fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2999, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

/// A client of them that looks for that name.
pub(crate) fn client(credentials: &Credentials, name: &str) -> ClientConnection {
    let config = credentials.client(&[&version::TLS13], &[b"mqtt"]);
    ClientConnection::new(config, ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}
