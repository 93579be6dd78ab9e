//! The name that a client's certificate proves: of its subject, or one of its alternative names.
//!
//! Whether the certificate stands up TLS has found out before; here it is only read. A certificate with several names of the kind that
//! is asked for is ambiguous, and proves none.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::guard::is_account;

/// Which name counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameFrom {
    /// The subject's common name [RFC 5280 4.1.2.6].
    CommonName,
    /// The alternative name of type dNSName [RFC 5280 4.2.1.6].
    Dns,
    /// Of type rfc822Name.
    Email,
    /// Of type uniformResourceIdentifier, like a SPIFFE ID.
    Uri,
}

/// The name, or why there is none; for the log.
pub fn name(der: &[u8], from: NameFrom) -> Result<Box<str>, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "a certificate that cannot be read")?;
    let names: Vec<&str> = match from {
        NameFrom::CommonName => {
            let names = certificate.subject().iter_common_name().map(|name| name.as_str());
            names.collect::<Result<_, _>>().map_err(|_| "a common name that is no text")?
        }
        NameFrom::Dns | NameFrom::Email | NameFrom::Uri => {
            let alternative = certificate.subject_alternative_name();
            let alternative = alternative.map_err(|_| "alternative names that cannot be read")?;
            let all =
                alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
            all.iter().filter_map(|name| of_kind(name, from)).collect()
        }
    };
    match names.as_slice() {
        [name] if is_account(name) => Ok((*name).into()),
        [_] => Err("a name that cannot be an account's".to_owned()),
        [] => Err("a certificate without a name of the kind that certificate_name asks for".to_owned()),
        _ => Err("a certificate with several names of the kind that certificate_name asks for".to_owned()),
    }
}

fn of_kind<'a>(name: &'a GeneralName<'a>, from: NameFrom) -> Option<&'a str> {
    match (name, from) {
        (GeneralName::DNSName(name), NameFrom::Dns)
        | (GeneralName::RFC822Name(name), NameFrom::Email)
        | (GeneralName::URI(name), NameFrom::Uri) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ACCOUNT_BYTES_MAX;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn each_kind_of_name_is_found_where_it_stands() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "probe-7");
            params.subject_alt_names = vec![
                SanType::DnsName("probe-7.example.com".try_into().unwrap()),
                SanType::Rfc822Name("probe@example.com".try_into().unwrap()),
                SanType::URI("spiffe://example.com/probe-7".try_into().unwrap()),
            ];
        });
        for (from, expected) in [
            (NameFrom::CommonName, "probe-7"),
            (NameFrom::Dns, "probe-7.example.com"),
            (NameFrom::Email, "probe@example.com"),
            (NameFrom::Uri, "spiffe://example.com/probe-7"),
        ] {
            assert_eq!(name(&der, from).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn no_name_several_and_such_as_no_account_has_prove_nothing() {
        let none = certificate(|_| {});
        let two = certificate(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("a.example.com".try_into().unwrap()),
                SanType::DnsName("b.example.com".try_into().unwrap()),
            ];
        });
        let odd = certificate(|params| params.distinguished_name.push(DnType::CommonName, "a\u{1}b"));
        let long = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "x".repeat(ACCOUNT_BYTES_MAX + 1))
        });
        for (der, from, expected) in [
            (&none, NameFrom::CommonName, "without a name"),
            (&none, NameFrom::Uri, "without a name"),
            (&two, NameFrom::Dns, "several names"),
            (&odd, NameFrom::CommonName, "cannot be an account's"),
            (&long, NameFrom::CommonName, "cannot be an account's"),
            (&b"\x30\x03nonsense".to_vec(), NameFrom::CommonName, "cannot be read"),
        ] {
            let error = name(der, from).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
