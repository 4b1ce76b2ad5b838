//! Hardware addresses of 48 bits.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address. Printed in lower case with colons, as iproute2 does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// Why a string is not a usable hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six pairs of hex digits.
    #[error("{0:?} is not a MAC address: six pairs of hex digits such as 02:00:ac:14:38:10")]
    Syntax(String),
    /// The group bit is set, so no interface can have it.
    #[error("{0} is a multicast address: the first byte must be even")]
    Multicast(MacAddr),
    /// All zero, which the kernel refuses.
    #[error("{0} is the zero address, which no interface can have")]
    Zero(MacAddr),
}

impl MacAddr {
    /// Parses an address that an interface can have.
    ///
    /// # Errors
    /// Bad syntax, a multicast address, or the zero address.
    pub fn parse_unicast(text: &str) -> Result<MacAddr, MacError> {
        let mac: MacAddr = text.parse()?;
        if mac.0 == [0; 6] {
            return Err(MacError::Zero(mac));
        }
        if mac.0[0] & 1 == 1 {
            return Err(MacError::Multicast(mac));
        }
        Ok(mac)
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    /// Accepts `02:00:AC:14:38:10` and `02-00-ac-14-38-10`, but no mixture.
    fn from_str(text: &str) -> Result<MacAddr, MacError> {
        let wrong = || MacError::Syntax(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0u8; 6];
        let mut pairs = text.split(separator);
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(wrong)?;
            // from_str_radix alone would accept "+f".
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        if pairs.next().is_some() { Err(wrong()) } else { Ok(MacAddr(bytes)) }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_spellings_and_prints_one() {
        for text in ["02:00:AC:14:38:1f", "02-00-ac-14-38-1F"] {
            assert_eq!(MacAddr::parse_unicast(text).unwrap().to_string(), "02:00:ac:14:38:1f");
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in
            ["", "02", "02:00:ac:14:38", "02:00:ac:14:38:10:11", "+2:00:ac:14:38:10", "02:00-ac:14:38:10"]
        {
            assert_eq!(MacAddr::from_str(text), Err(MacError::Syntax(text.into())));
        }
    }

    #[test]
    fn refuses_what_no_interface_can_have() {
        assert!(matches!(MacAddr::parse_unicast("00:00:00:00:00:00"), Err(MacError::Zero(_))));
        assert!(matches!(MacAddr::parse_unicast("01:00:5e:00:00:01"), Err(MacError::Multicast(_))));
        assert!(matches!(MacAddr::parse_unicast("ff:ff:ff:ff:ff:ff"), Err(MacError::Multicast(_))));
    }
}
