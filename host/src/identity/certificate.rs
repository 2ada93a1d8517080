//! The agent's certificate: made once, read for its public key only.

use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

use super::private_key::PrivateKey;
use crate::clock::Clock;

/// A certificate over the agent's own key, as PEM.
///
/// It never expires (RFC 5280 section 4.1.2.5 has 99991231235959Z for that): what it names is the key, and nobody checks
/// it for trust.
pub(super) fn self_signed(key: &PrivateKey, clock: &dyn Clock) -> Result<String, rcgen::Error> {
    let today = clock.now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ClawCoil agent");
    params.not_before =
        rcgen::date_time_ymd(today.year().into(), today.month().unsigned_abs(), today.day().unsigned_abs());
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let serial: [u8; 16] = crate::clock::random(clock);
    params.serial_number = Some(rcgen::SerialNumber::from(serial.to_vec()));
    Ok(params.self_signed(key.pair())?.pem())
}

/// The DER of the `SubjectPublicKeyInfo` of a certificate in PEM form.
pub(super) fn spki_of(pem: &str) -> Option<Vec<u8>> {
    let certificate = Certificate::from_pem(pem).ok()?;
    certificate.tbs_certificate().subject_public_key_info().to_der().ok()
}
