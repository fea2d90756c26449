//! Notifications to systemd (`sd_notify`): the node is ready, or stops.

/// Tells the service manager that the node is ready.
pub(super) fn ready() {
    send("READY=1\nSTATUS=serving\n");
}

/// Tells the service manager that the node stops.
pub(super) fn stopping() {
    send("STOPPING=1\nSTATUS=finishing writes\n");
}

/// Sends a message to the socket that `NOTIFY_SOCKET` names, if there is one.
#[cfg(unix)]
fn send(message: &str) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixDatagram;

    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    let sent = UnixDatagram::unbound().and_then(|datagram| match socket.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            datagram.send_to_addr(message.as_bytes(), &address)
        }
        _ => datagram.send_to(message.as_bytes(), &socket),
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot tell the service manager; is NOTIFY_SOCKET right?");
    }
}

#[cfg(not(unix))]
fn send(_message: &str) {}
