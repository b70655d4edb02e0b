//! Where a connection was going before the packet filter redirected it here.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::base::error::{ProxyError, Reason};
use crate::io::socket::Socket;

/// The destination, unless it is this listener itself: who connects here directly was going nowhere else, and passing it
/// on would come back here for ever.
pub(super) fn destination(socket: &Socket) -> Option<SocketAddr> {
    let (to, here) = (canonical(socket.original_destination()?), canonical(socket.local()?));
    (!is_here(to, here, is_ours)).then_some(to)
}

/// True where `to` is the listener that accepted at `here`, under whichever of this machine's addresses.
fn is_here(to: SocketAddr, here: SocketAddr, is_ours: impl FnOnce(IpAddr) -> bool) -> bool {
    to.port() == here.port()
        && (to.ip() == here.ip() || to.ip().is_unspecified() || is_ours(to.ip()))
}

/// IPv4 as IPv4 on an IPv6 socket as well.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True for an address of this machine: one can be bound to it. Asked only where the port is the listener's.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// There is no destination.
pub(super) fn nowhere() -> ProxyError {
    let text = "the connection was not redirected, or was going to this listener itself";
    ProxyError::new(Reason::NoUpstream, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_itself_is_no_destination_under_any_address_of_this_machine() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let here = address("127.0.0.1:15001");
        let ours = |ip: IpAddr| ip.is_loopback() || ip == address("10.0.0.5:1").ip();
        for to in ["127.0.0.1:15001", "127.0.0.7:15001", "10.0.0.5:15001", "0.0.0.0:15001"] {
            assert!(is_here(address(to), here, ours), "{to}");
        }
        for to in ["127.0.0.1:15002", "10.0.0.6:15001", "[2001:db8::1]:15001"] {
            assert!(!is_here(address(to), here, ours), "{to}");
        }
        assert!(is_ours(address("127.0.0.9:1").ip()));
        assert!(!is_ours(address("192.0.2.1:1").ip()));
    }
}
