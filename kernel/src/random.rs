//! Random bytes from the kernel (getrandom(2)).

use std::io;

/// As many random bytes as the array holds.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::getrandom(&mut bytes)?;
    Ok(bytes)
}
