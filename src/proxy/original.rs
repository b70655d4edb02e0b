//! Where a connection was going before the packet filter redirected it here.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::base::error::{ProxyError, Reason};
use crate::io::socket::Socket;

/// The destination, unless it is this listener itself, or another of the proxy's (`listening`): who connects here directly was
/// going nowhere else, and passing it on would come back here for ever.
pub(super) fn destination(socket: &Socket, listening: &[SocketAddr]) -> Option<SocketAddr> {
    let (to, here) = (canonical(socket.original_destination()?), canonical(socket.local()?));
    let ours = is_here(to, here, is_ours)
        || listening.iter().any(|at| is_accepted_at(to, canonical(*at), is_ours));
    (!ours).then_some(to)
}

/// True where `to` is the listener that accepted at `here`, under whichever of this machine's addresses: the packet filter brings
/// them all to it.
fn is_here(to: SocketAddr, here: SocketAddr, is_ours: impl FnOnce(IpAddr) -> bool) -> bool {
    to.port() == here.port()
        && (to.ip() == here.ip() || to.ip().is_unspecified() || is_ours(to.ip()))
}

/// True where a connection to `to` ends at a listener that is bound to `at`.
fn is_accepted_at(to: SocketAddr, at: SocketAddr, is_ours: impl FnOnce(IpAddr) -> bool) -> bool {
    to.port() == at.port()
        && (to.ip() == at.ip()
            || to.ip().is_unspecified()
            || (at.ip().is_unspecified() && is_ours(to.ip())))
}

/// IPv4 as IPv4 on an IPv6 socket as well.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True for an address of this machine: one can be bound to it. Asked only where the port is a listener's.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// There is no destination.
pub(super) fn nowhere() -> ProxyError {
    let text = "the connection was not redirected, or was going to a listener of this proxy";
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
        // Another listener is another service's neighbour, unless it has all addresses.
        let (one, all) = (address("10.0.0.5:15006"), address("0.0.0.0:15006"));
        for (to, at_one, at_all) in [
            ("10.0.0.5:15006", true, true),
            ("127.0.0.1:15006", false, true),
            ("0.0.0.0:15006", true, true),
            ("10.0.0.6:15006", false, false),
            ("10.0.0.5:15007", false, false),
        ] {
            assert_eq!(is_accepted_at(address(to), one, ours), at_one, "{to}");
            assert_eq!(is_accepted_at(address(to), all, ours), at_all, "{to}");
        }
        assert!(is_ours(address("127.0.0.9:1").ip()));
        assert!(!is_ours(address("192.0.2.1:1").ip()));
    }
}
