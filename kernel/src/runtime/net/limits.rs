//! Limits of TCP: numbers of sockets, sizes of buffers, times.

use smoltcp::time::Duration;

/// Maximum number of accepted connections, orphans included.
pub const MAX_CONNECTIONS: usize = 64;
/// Maximum number of listeners.
pub const MAX_LISTENERS: usize = 4;
/// Maximum number of connections in a backlog.
pub const MAX_BACKLOG: usize = 64;

/// Size of a socket's buffer for received data, in bytes.
pub const RECEIVE_BYTES: usize = 16 << 10;
/// Size of a socket's buffer for data to send, in bytes.
pub const TRANSMIT_BYTES: usize = 32 << 10;

/// Time after which a peer that sends nothing is asked whether it is there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Time after which a peer that sends nothing, though asked, is gone.
pub const TIMEOUT: Duration = Duration::from_secs(90);
/// The same for half-open connections.
pub const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a half-open connection is not forgotten: the round trip of a near peer.
///
/// Without this time, a burst of honest clients would forget each other's connections.
pub const YOUNG: Duration = Duration::from_millis(50);
/// Time after which an orphan without progress is reset; Linux's `tcp_fin_timeout`.
pub const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that an orphan has for its last data when another connection waits for its socket.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(10);
