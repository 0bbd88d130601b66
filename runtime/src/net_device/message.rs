//! The rtnetlink messages ([rtnetlink(7)]) that moving a device takes: laid out, and read.
//!
//! Pure: nothing here talks to the kernel.
//!
//! [rtnetlink(7)]: https://man7.org/linux/man-pages/man7/rtnetlink.7.html

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// Messages and attributes begin at multiples of this.
const ALIGNMENT: usize = 4;

/// A request that the kernel acknowledges, built from its parts.
pub(super) struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: libc::c_int) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// The bytes to send, numbered `sequence`.
    pub(super) fn bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes[..4].copy_from_slice(&(self.0.len() as u32).to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }
}

/// `struct ifinfomsg` of device `index`, whose flags in `change` become those in `flags`.
fn link(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// Brings a device up, or down.
pub(super) fn set_up(index: u32, up: bool) -> Request {
    let bit = libc::IFF_UP as u32;
    Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK).put(&link(index, if up { bit } else { 0 }, bit))
}

/// Moves a device to the network namespace of `target`, where its name is `name` (under 16 bytes).
pub(super) fn move_to(index: u32, name: &str, target: BorrowedFd<'_>) -> Request {
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK)
        .put(&link(index, 0, 0))
        .attribute(libc::IFLA_IFNAME, &text)
        .attribute(libc::IFLA_NET_NS_FD, &target.as_raw_fd().to_ne_bytes())
}

/// Asks for every address of the namespace.
pub(super) fn list_addresses() -> Request {
    Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP).put(&[0; ADDRESS_HEADER])
}

/// An address of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Address {
    /// Of the device.
    pub(super) index: u32,
    family: u8,
    prefix: u8,
    flags: u32,
    scope: u8,
    /// `IFA_ADDRESS`, `IFA_LOCAL` and `IFA_BROADCAST`, as far as there are, as they came.
    places: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Those flags of an address that say how it is to be used, and not in what state it is.
    const USE: u32 = libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE;

    /// Reads the body of an `RTM_NEWADDR` message; nothing when it is none.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let header = body.get(..ADDRESS_HEADER)?;
        let mut address = Self {
            family: header[0],
            prefix: header[1],
            flags: u32::from(header[2]),
            scope: header[3],
            index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            places: Vec::new(),
        };
        for (kind, value) in Attributes(&body[ADDRESS_HEADER..]) {
            match kind {
                libc::IFA_ADDRESS | libc::IFA_LOCAL | libc::IFA_BROADCAST => {
                    address.places.push((kind, value.to_vec()));
                }
                // Has more bits than the header's.
                libc::IFA_FLAGS => address.flags = u32::from_ne_bytes(value.try_into().ok()?),
                _ => {}
            }
        }
        Some(address)
    }

    /// Whether it goes with the device: not what came from a network that is left, nor what only this host can reach.
    pub(super) fn is_kept(&self) -> bool {
        self.flags & libc::IFA_F_PERMANENT != 0 && self.scope == libc::RT_SCOPE_UNIVERSE
    }

    /// Gives it to device `index`.
    pub(super) fn add_to(&self, index: u32) -> Request {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let [a, b, c, d] = index.to_ne_bytes();
        let header = [self.family, self.prefix, 0, self.scope, a, b, c, d];
        let request = Request::new(libc::RTM_NEWADDR, flags)
            .put(&header)
            .attribute(libc::IFA_FLAGS, &(self.flags & Self::USE).to_ne_bytes());
        let places = self.places.iter();
        places.fold(request, |request, (kind, value)| request.attribute(*kind, value))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = |kind| self.places.iter().find(|(place, _)| *place == kind);
        let bytes = own(libc::IFA_LOCAL).or_else(|| own(libc::IFA_ADDRESS));
        let bytes = bytes.map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
        if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
            write!(formatter, "{}", Ipv4Addr::from(bytes))?;
        } else if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
            write!(formatter, "{}", Ipv6Addr::from(bytes))?;
        } else {
            formatter.write_str("an address")?;
        }
        write!(formatter, "/{}", self.prefix)
    }
}

/// The attributes of a message: type and value. Ends where they make no sense any more.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEADER: usize = 4;
        let head = self.0.get(..HEADER)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let value = self.0.get(HEADER..length)?;
        self.0 = self
            .0
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some((kind, value))
    }
}

/// One message of what the kernel sent: type, flags, sequence, body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answer<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of one datagram. Ends where they make no sense any more.
pub(super) struct Answers<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Answers<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..HEADER)?;
        let short = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let long = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = long(0) as usize;
        let body = self.0.get(HEADER..length)?;
        let answer = Answer {
            kind: short(4),
            flags: short(6),
            sequence: long(8),
            body,
        };
        self.0 = self
            .0
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 192.0.2.7/24 on device 5, with broadcast address and label.
    fn body(flags: u32, scope: u8) -> Vec<u8> {
        let request = Request(vec![libc::AF_INET as u8, 24, 0x80, scope, 5, 0, 0, 0])
            .attribute(libc::IFA_ADDRESS, &[192, 0, 2, 7])
            .attribute(libc::IFA_LOCAL, &[192, 0, 2, 7])
            .attribute(libc::IFA_BROADCAST, &[192, 0, 2, 255])
            .attribute(libc::IFA_LABEL, b"eth0\0")
            .attribute(libc::IFA_FLAGS, &flags.to_ne_bytes());
        request.0
    }

    #[test]
    fn an_address_goes_to_another_device_without_the_old_ones_name() {
        let address = Address::parse(&body(0x80 | 0x200, 0)).unwrap();
        assert_eq!((address.index, address.to_string().as_str()), (5, "192.0.2.7/24"));
        assert!(address.is_kept());
        let bytes = address.add_to(9).bytes(3);
        let answer = Answers(&bytes).next().unwrap();
        assert_eq!((answer.kind, answer.sequence), (libc::RTM_NEWADDR, 3));
        let added = Address::parse(answer.body).unwrap();
        assert_eq!(added.index, 9);
        assert_eq!(added.places, address.places);
        // Permanent is a state; without a prefix route is how it is used.
        assert_eq!(added.flags, 0x200);
        assert!(!Attributes(&answer.body[8..]).any(|(kind, _)| kind == libc::IFA_LABEL));
    }

    #[test]
    fn passing_and_local_addresses_stay() {
        assert!(!Address::parse(&body(0, 0)).unwrap().is_kept());
        for scope in [253, 254] {
            assert!(!Address::parse(&body(0x80, scope)).unwrap().is_kept(), "{scope}");
        }
    }

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let bytes = set_up(7, true).bytes(2);
        assert_eq!(bytes.len(), 32);
        assert_eq!(&bytes[..4], &32u32.to_ne_bytes());
        assert_eq!(&bytes[20..24], &7u32.to_ne_bytes());
        assert_eq!(&bytes[24..28], &1u32.to_ne_bytes());
        assert_eq!(&bytes[28..], &1u32.to_ne_bytes());
        assert_eq!(&set_up(7, false).bytes(2)[24..28], &0u32.to_ne_bytes());
    }

    #[test]
    fn nonsense_ends_the_reading() {
        for bytes in [&[][..], &[0; 3], &[0; 16], &[255; 64]] {
            assert_eq!(Answers(bytes).count(), 0);
            assert_eq!(Attributes(bytes).count(), 0);
        }
        assert_eq!(Address::parse(&[0; 7]), None);
    }
}
