//! packet(7) sockets.

use super::Frame;
use std::ffi::CString;
use std::io::{Error, Result};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Longer than any frame of the rig.
const FRAME: usize = 65_536;

/// A raw socket bound to one interface of the namespace in which it was opened.
#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open(interface: &str) -> Result<PacketSocket> {
        let name = CString::new(interface)?;
        // SAFETY: the pointer is a C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(Error::last_os_error());
        }
        // Protocol 0: nothing is queued before the socket is bound to its interface.
        // SAFETY: a plain system call; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else owns it.
        let socket = PacketSocket { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
        let patience = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)?;
        // A burst must not be lost. The kernel doubles the value, and allows root any size.
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(16_i32 << 20))?;
        socket.bind(index)?;
        Ok(socket)
    }

    /// Sends a whole frame.
    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: pointer and length are those of one slice.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame. None if none came within the time-out.
    pub(super) fn receive(&self) -> Option<Frame> {
        let mut bytes = vec![0_u8; FRAME];
        let mut control = [0_u64; 16];
        // SAFETY: all-zero is a valid value of these plain C structures.
        let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { mem::zeroed() };
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer in the message is to a buffer above, with that buffer's length.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).ok()?;
        let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
        Frame::parse(bytes.get(..length)?, stripped_tag(&message), outgoing)
    }

    fn bind(&self, index: u32) -> Result<()> {
        // SAFETY: all-zero is a valid value of this plain C structure.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: pointer and length are those of one local value.
        let bound = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) };
        if bound < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    fn set<T>(&self, level: i32, option: i32, value: &T) -> Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: pointer and length are those of one value that outlives the call.
        let set = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
        };
        if set < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }
}

/// The VLAN tag that the kernel took out of the frame and put beside it.
fn stripped_tag(message: &libc::msghdr) -> Option<u16> {
    // SAFETY: the kernel filled in the control messages of this header, which is still the one it filled.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !control.is_null() {
        // SAFETY: not null, and within the control buffer, as the CMSG macros see to.
        let header = unsafe { control.read_unaligned() };
        if header.cmsg_level == libc::SOL_PACKET && header.cmsg_type == libc::PACKET_AUXDATA {
            // SAFETY: a message of this type carries this structure.
            let data = unsafe { libc::CMSG_DATA(control).cast::<libc::tpacket_auxdata>().read_unaligned() };
            return (data.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some(data.tp_vlan_tci);
        }
        // SAFETY: both pointers belong to the same message.
        control = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
    None
}
