//! The server on loopback ports, asked over real sockets.

#[cfg(test)]
mod client;
#[cfg(test)]
mod following;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod upstream;
