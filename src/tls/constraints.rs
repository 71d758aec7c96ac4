//! Name constraints (RFC 5280, section 4.2.1.10): the names that a CA may sign for. Writes them for a new CA, and
//! evaluates those of any CA to predict whether clients would reject a certificate.

use std::fmt;
use std::net::IpAddr;

use rcgen::{CidrSubnet, GeneralSubtree};
use x509_parser::extensions::{GeneralName, NameConstraints};

use super::name::Name;

/// The names that a CA may sign for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Constraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

/// A set of names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subtree {
    /// This name and its subdomains, in lower case; with a leading dot, only the subdomains. Empty means every name.
    Dns(String),
    /// Address and mask.
    Ip(IpAddr, IpAddr),
}

impl Constraints {
    /// Parses the extension of a certificate.
    pub(super) fn read(constraints: &NameConstraints<'_>) -> Self {
        let read = |subtrees: &Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| {
            subtrees.iter().flatten().filter_map(|subtree| Subtree::read(&subtree.base)).collect()
        };
        Self {
            permitted: read(&constraints.permitted_subtrees),
            excluded: read(&constraints.excluded_subtrees),
        }
    }

    /// True if any name is permitted.
    pub(super) fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }

    /// Whether a certificate for `name` is permitted. A kind of name without permitted subtrees is unconstrained.
    pub(super) fn permit(&self, name: &Name) -> bool {
        let mut same_kind = self.permitted.iter().filter(|subtree| subtree.is_kind_of(name)).peekable();
        let is_permitted = same_kind.peek().is_none() || same_kind.any(|subtree| subtree.holds(name));
        is_permitted && !self.excluded.iter().any(|subtree| subtree.holds(name))
    }
}

impl fmt::Display for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |subtrees: &[Subtree]| subtrees.iter().map(Subtree::to_string).collect::<Vec<_>>().join(", ");
        match (self.permitted.as_slice(), self.excluded.as_slice()) {
            ([], []) => f.write_str("any name"),
            ([], excluded) => write!(f, "any name except {}", list(excluded)),
            (permitted, []) => f.write_str(&list(permitted)),
            (permitted, excluded) => write!(f, "{}, except {}", list(permitted), list(excluded)),
        }
    }
}

impl fmt::Display for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) if name.is_empty() => f.write_str("every DNS name"),
            Self::Dns(name) => write!(f, "{name} and subdomains"),
            Self::Ip(address, mask) => {
                let mask = octets(*mask);
                let length: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                if length as usize == mask.len() * 8 {
                    address.fmt(f)
                } else {
                    write!(f, "{address}/{length}")
                }
            }
        }
    }
}

/// Constraints that permit only `names` (DNS names including subdomains); `None` if `names` is empty.
pub(super) fn permitting(names: &[Name]) -> Option<rcgen::NameConstraints> {
    if names.is_empty() {
        return None;
    }
    let permitted_subtrees = names.iter().map(|name| match name {
        Name::Dns(name) => GeneralSubtree::DnsName(name.clone()),
        Name::Ip(address) => GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, 128)),
    });
    let mut excluded_subtrees = Vec::new();
    // A kind of name without permitted subtrees would be unconstrained.
    if !names.iter().any(|name| matches!(name, Name::Dns(_))) {
        excluded_subtrees.push(GeneralSubtree::DnsName(String::new()));
    }
    let every = |is_free: &dyn Fn(&IpAddr) -> bool, subnet| {
        let is_named = names.iter().any(|name| matches!(name, Name::Ip(address) if is_free(address)));
        (!is_named).then_some(GeneralSubtree::IpAddress(subnet))
    };
    excluded_subtrees.extend(every(&IpAddr::is_ipv4, CidrSubnet::V4([0; 4], [0; 4])));
    excluded_subtrees.extend(every(&IpAddr::is_ipv6, CidrSubnet::V6([0; 16], [0; 16])));
    Some(rcgen::NameConstraints { permitted_subtrees: permitted_subtrees.collect(), excluded_subtrees })
}

impl Subtree {
    fn read(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase())),
            GeneralName::IPAddress(bytes) => {
                let (address, mask) = bytes.split_at(bytes.len() / 2);
                Some(Self::Ip(address_of(address)?, address_of(mask)?))
            }
            _ => None,
        }
    }

    /// IPv4 and IPv6 addresses are the same kind of name.
    fn is_kind_of(&self, name: &Name) -> bool {
        matches!((self, name), (Self::Dns(_), Name::Dns(_)) | (Self::Ip(..), Name::Ip(_)))
    }

    fn holds(&self, name: &Name) -> bool {
        match (self, name) {
            (Self::Dns(tree), Name::Dns(name)) => match name.strip_suffix(tree.as_str()) {
                Some(rest) => {
                    tree.is_empty() || tree.starts_with('.') || rest.is_empty() || rest.ends_with('.')
                }
                None => false,
            },
            (Self::Ip(tree, mask), Name::Ip(address)) => {
                let (address, tree, mask) = (octets(*address), octets(*tree), octets(*mask));
                let same = |((one, other), mask): ((&u8, &u8), &u8)| one & mask == other & mask;
                address.len() == tree.len() && address.iter().zip(&tree).zip(&mask).all(same)
            }
            _ => false,
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}
