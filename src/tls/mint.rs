//! Creates certificates: the CA's own, and those it signs for servers.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::constraints;
use super::error::date;
use super::name::Name;
use super::provider::provider;
use super::signer::CaKey;

/// How long a CA is valid.
const VALID_FOR: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The longest validity of a server certificate; both its first and last second count.
const LEAF_VALID_FOR: Duration = Duration::from_secs(197 * 24 * 3600 - 1);
/// How far certificates are backdated, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(2 * 24 * 3600);
/// The longest common name (RFC 5280, appendix A.1).
const LONGEST_COMMON_NAME: usize = 64;
const ORGANIZATION: &str = "tollpass";

/// Creates a CA: a PEM key and a self-signed certificate. It may sign only for `permitted`, unless that is empty.
pub(super) fn authority(
    permitted: &[Name],
) -> Result<(Zeroizing<String>, CertificateDer<'static>), rcgen::Error> {
    let now = SystemTime::now();
    let key = Zeroizing::new(KeyPair::generate()?.serialize_pem());
    let pair = KeyPair::from_pem(&key)?;
    let serial = serial()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = authority_subject(&serial, now);
    params.serial_number = Some(serial);
    validity(&mut params, now - BACKDATED, now + VALID_FOR);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = constraints::permitting(permitted);
    Ok((key, params.self_signed(&pair)?.into()))
}

/// Creates a server certificate and returns its validity, which lies within that of the CA, `within`.
pub(super) fn leaf(
    name: &Name,
    key: &impl PublicKeyData,
    issuer: &Issuer<'_, CaKey>,
    within: &Range<SystemTime>,
    now: SystemTime,
) -> Result<(CertificateDer<'static>, Range<SystemTime>), rcgen::Error> {
    let begin = (now - BACKDATED).max(within.start);
    let end = (begin + LEAF_VALID_FOR).min(within.end);
    let mut params = CertificateParams::default();
    params.distinguished_name = leaf_subject(name);
    params.subject_alt_names = vec![match name {
        Name::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        Name::Ip(address) => SanType::IpAddress(*address),
    }];
    params.serial_number = Some(serial()?);
    validity(&mut params, begin, end);
    // Unlike `NoCa`, this includes the key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(key, issuer)?.into(), begin..end))
}

/// A subject that distinguishes CAs: machine, date and part of the serial number.
fn authority_subject(serial: &SerialNumber, now: SystemTime) -> DistinguishedName {
    let mark: String = serial.to_bytes().iter().rev().take(3).map(|byte| format!("{byte:02x}")).collect();
    let system = rustix::system::uname();
    let machine = system.nodename().to_string_lossy();
    let end = format!(" {} {mark}", date(now));
    let start = "tollpass local CA ";
    let room = LONGEST_COMMON_NAME - start.len() - end.len();
    let machine: String = machine.chars().filter(|letter| letter.is_ascii_graphic()).take(room).collect();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, ORGANIZATION);
    subject.push(DnType::CommonName, format!("{start}{machine}{end}"));
    subject
}

/// The name as common name if it is short enough. IP addresses are left out: some clients take them for DNS names,
/// which name constraints may exclude.
fn leaf_subject(name: &Name) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, ORGANIZATION);
    if let Name::Dns(name) = name
        && name.len() <= LONGEST_COMMON_NAME
    {
        subject.push(DnType::CommonName, name.as_str());
    }
    subject
}

/// A random serial number: positive, always 16 bytes.
fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    provider().secure_random.fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn validity(params: &mut CertificateParams, begin: SystemTime, end: SystemTime) {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + since(begin), epoch + since(end));
}
