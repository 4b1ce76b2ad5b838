//! Whatever a host sends on a segment.

use kernel::listen::{Frame, Message};

/// A frame. What it says is its sender's, and bounded.
pub fn frames(input: &[u8]) {
    let Some(frame) = Frame::read(input, false, None) else { return };
    assert_eq!(frame.from.0, input[6..12]);
    assert!(frame.vlan.is_none_or(|vlan| vlan < 4096));
    if let Message::RouterAdvertisement { prefixes, .. } = frame.message {
        assert!(prefixes.len() <= 8, "{prefixes:?}");
    }
}
